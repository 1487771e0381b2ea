"""From a model and labelled runs to a tuned model, and what it says of runs."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.encode.windows import encode, window_starts
from neurostorm_bids.model.load import Model
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.runtime.atomic import replacing, write_text
from neurostorm_bids.train.data import Clips, Embedded, Stored
from neurostorm_bids.train.distributed import gathered, is_main, share
from neurostorm_bids.train.objective import Objective
from neurostorm_bids.train.trainer import Plan, Tuner, load_best, train
from neurostorm_bids.train.tuning import merged, to_be_tuned, tuned_parts

SAMPLED = 256  # runs whose first windows tell how embeddings spread
FINISHED = "finished.json"


@dataclass(frozen=True)
class Material:
    """Runs to learn from.

    Attributes
    ----------
    runs : list of Stored
    y : (runs,) array
        Values, or classes as 0, 1, ...
    embeddings : list of (windows, channels) arrays, or None
        Of the backbone, where it is not tuned.
    """

    runs: "list[Stored]"
    y: np.ndarray
    embeddings: "Optional[list]" = None


@dataclass(frozen=True)
class Fitted:
    """What a training came to.

    Attributes
    ----------
    network : NeuroSTORM
        Ready to predict.
    parts : dict
        What was tuned, named as in a tuned model's file.
    objective : Objective
    epochs : list of dict
    """

    network: NeuroSTORM
    parts: "dict[str, Tensor]"
    objective: Objective
    epochs: "list[dict]"

    @property
    def best_epoch(self) -> int:
        """The epoch that the weights are of, from 1."""
        return int(np.argmin([epoch["validation_loss"] for epoch in self.epochs])) + 1


def fit(
    model: Model,
    material: Material,
    classes: "list[str]",
    learn: np.ndarray,
    watch: np.ndarray,
    plan: Plan,
    folder: Path,
    resume: bool,
    prompt_length: int,
    rank: int,
    augmented: bool,
    tell: Callable,
    advance: Callable,
) -> Fitted:
    """Tune a model on some runs, watching others.

    Parameters
    ----------
    learn, watch : int arrays
        Numbers of runs.
    folder : Path
        For checkpoints.
    resume : bool
        Go on where a training in this folder was stopped.
    tell, advance : callable
        As of `engine.train`.
    """
    n_windows = [len(window_starts(material.runs[i].shape[3], model.n_frames, model.n_frames)) for i in learn]
    objective = Objective.of(np.repeat(material.y[learn], n_windows), classes)
    network = to_be_tuned(model.network, plan.tuning, objective.n_outputs, prompt_length, rank, plan.seed)
    y, n = objective.scaled(material.y), model.n_frames
    if material.embeddings is not None:
        known = np.concatenate([material.embeddings[i] for i in learn])
        data = [_embedded(material, some, y) for some in (learn, watch)]
    else:
        known = first_embeddings(model, material.runs, learn, plan)
        data = [
            Clips([material.runs[i] for i in some], y[some], n, trains, trains and augmented, plan.seed)
            for some, trains in ((learn, True), (watch, False))
        ]
    std = known.std(axis=0)
    std[~(std > 1e-6 * (1e-30 + np.abs(known).max()))] = 1.0  # a channel that never varies tells nothing
    tuner = Tuner(network, objective, torch.from_numpy(known.mean(axis=0)), torch.from_numpy(std), *data, plan)
    if resume and (folder / FINISHED).is_file():
        epochs = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        load_best(tuner, folder)
    else:
        if is_main():
            (folder / FINISHED).unlink(missing_ok=True)
        epochs = train(tuner, folder, resume, tell, advance)
        if is_main():
            write_text(folder / FINISHED, json.dumps(epochs))
    network = tuner.finish()
    parts = tuned_parts(network)
    return Fitted(merged(network).to(model.device), parts, objective, epochs)


def first_embeddings(model: Model, runs: "list[Stored]", among: np.ndarray, plan: Plan) -> np.ndarray:
    """Embeddings of the first windows of some runs, (runs, channels)."""
    chosen = np.random.default_rng(plan.seed).permutation(among)[:SAMPLED]
    clips = [encode(model, runs[i], np.array([0]), 1, precision=plan.precision)[0] for i in sorted(chosen)]
    return np.concatenate(clips)


def embed_all(
    model: Model, runs: "list[Stored]", plan: Plan, batch: int, cache: Path, resume: bool, advance: Callable
) -> "list[np.ndarray]":
    """Embeddings of all windows of all runs; kept in a file for the other processes, and for a resumption."""
    others_may_wait = resume or not is_main()
    if not (others_may_wait and cache.is_file()):
        embeddings = []
        for i, run in enumerate(runs):
            starts = window_starts(run.shape[3], model.n_frames, model.n_frames)
            embeddings.append(encode(model, run, starts, batch, precision=plan.precision)[0])
            advance(i + 1, len(runs))
        if is_main():
            with replacing(cache) as temporary, open(temporary, "wb") as file:
                np.savez(file, ends=np.cumsum([len(some) for some in embeddings]), rows=np.concatenate(embeddings))
        return embeddings
    with np.load(cache) as kept:
        return np.split(kept["rows"], kept["ends"][:-1])


def outputs_of(
    model: Model, fitted: Fitted, material: Material, which: np.ndarray, batch: int, precision: str, advance: Callable
) -> "dict[int, np.ndarray]":
    """Raw outputs of a tuned model for all windows of some runs, by their numbers; processes share the work."""
    tuned = replace(model, network=fitted.network, task=fitted.objective.task("target", None))
    mine = share(list(map(int, which)))
    found = {}
    for done, i in enumerate(mine, start=1):
        if material.embeddings is not None:
            embeddings = material.embeddings[i]
        else:
            starts = window_starts(material.runs[i].shape[3], model.n_frames, model.n_frames)
            embeddings, _ = encode(tuned, material.runs[i], starts, batch, precision=precision)
        found[i] = tuned.predict_from(torch.from_numpy(embeddings)).cpu().numpy()
        advance(done, len(mine))
    return gathered(found)


def _embedded(material: Material, which: np.ndarray, y: np.ndarray) -> Embedded:
    some = [material.embeddings[i] for i in which]
    return Embedded(np.concatenate(some), np.repeat(y[which], [len(rows) for rows in some]))
