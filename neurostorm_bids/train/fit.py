"""From a model and labelled runs to a tuned model, and what it predicts for runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neurostorm_bids.encode.windows import encode, window_starts
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.runtime.atomic import replacing, write_text
from neurostorm_bids.train.clips import StoredFrames
from neurostorm_bids.train.data import Clips, Draw, Embedded, Item, LabelledWindows
from neurostorm_bids.train.distributed import all_gather, is_rank_zero, shard
from neurostorm_bids.train.module import FineTuning
from neurostorm_bids.train.objective import Objective
from neurostorm_bids.train.plan import MAX_WINDOWS, Plan
from neurostorm_bids.train.trainer import EpochRecord, TrainingRun, load_best, train
from neurostorm_bids.train.tuning import merged, prepare_for_tuning, tuned_parts

MAX_SAMPLED = 256  # runs whose first windows tell how embeddings spread
MIN_SPREAD = 1e-6  # of the largest value; a channel that varies less tells nothing
FINISHED = "finished.json"


@dataclass(frozen=True)
class TrainingData:
    """Labelled runs.

    Attributes
    ----------
    runs : sequence of StoredFrames or None
        `None` for runs that take no part.
    y : (runs,) array
        Values, or classes as 0, 1, ...
    classes : list of str
        Empty for a regression.
    samples : (runs,) int array
        Number of the sample that each run belongs to, whose label is one and which counts as one.
    embeddings : list of (windows, channels) arrays, or None
        Of the backbone, where it is not tuned.
    allowed : dict
        Number of a run -> whether a window may start at a frame, (possible starts,) bool; where there is none, it may.
    """

    runs: Sequence[StoredFrames | None]
    y: np.ndarray
    classes: Sequence[str]
    samples: np.ndarray
    embeddings: Sequence[np.ndarray] | None = None
    allowed: Mapping[int, np.ndarray] = field(default_factory=dict)

    def run(self, i: int) -> StoredFrames:
        """Return a run that takes part."""
        run = self.runs[i]
        assert run is not None
        return run

    def starts(self, i: int, length: int) -> np.ndarray:
        """Return the first frames of the windows of a run, end to end, that may be used."""
        starts = window_starts(self.run(i).shape[3], length, length)
        return starts[self.allowed[i][starts]] if i in self.allowed else starts


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Attributes
    ----------
    network : NeuroSTORM
        Ready to predict.
    parts : dict
        What was tuned, with the names that it has in the file of a tuned model.
    objective : Objective
    epochs : list of dict
        Their records.
    precision : str
        That it was trained in.
    """

    network: NeuroSTORM
    parts: dict[str, Tensor]
    objective: Objective
    epochs: list[EpochRecord]
    precision: str

    @property
    def best_epoch(self) -> int:
        """The epoch that the weights are of, from 1."""
        return int(np.argmin([epoch["validation_loss"] for epoch in self.epochs])) + 1

    @property
    def n_tuned(self) -> int:
        """Number of weights that were tuned."""
        return sum(part.numel() for part in self.parts.values())


def fit(
    model: Model, data: TrainingData, training: np.ndarray, validation: np.ndarray, plan: Plan, run: TrainingRun
) -> TrainedModel:
    """Tune a model on some runs, and stop by the loss on others.

    Parameters
    ----------
    training, validation : int arrays
        Numbers of runs.
    """
    _, first = np.unique(data.samples[training], return_index=True)
    objective = Objective.of(data.y[training[first]], data.classes)
    network = prepare_for_tuning(model.network, objective.n_outputs, plan)
    windows = _windows(model, data, training, objective), _windows(model, data, validation, objective)
    known, datasets = _datasets(model, data, (training, validation), windows, plan)
    std = known.std(axis=0)
    std[~(std > MIN_SPREAD * (1e-30 + np.abs(known).max()))] = 1.0
    standardisation = torch.from_numpy(known.mean(axis=0)), torch.from_numpy(std)
    module = FineTuning(network, objective, standardisation, datasets, len(windows[1].counts), plan)
    finished = run.folder / FINISHED
    if run.resume and finished.is_file():
        epochs = json.loads(finished.read_text(encoding="utf-8"))
        load_best(module, run.folder)
    else:
        if is_rank_zero():
            finished.unlink(missing_ok=True)
        epochs = train(module, run)
        if is_rank_zero():
            write_text(finished, json.dumps(epochs))
    network = module.finish()
    parts = tuned_parts(network)
    return TrainedModel(merged(network).to(model.device), parts, objective, epochs, plan.precision)


def _windows(model: Model, data: TrainingData, which: np.ndarray, objective: Objective) -> LabelledWindows:
    """Return the windows of some runs."""
    if data.embeddings is not None:
        starts = [np.arange(len(data.embeddings[i])) * model.n_frames for i in which]
    else:
        starts = [data.starts(i, model.n_frames) for i in which]
    return LabelledWindows.of(starts, objective.scaled(data.y[which]), data.samples[which])


def _datasets(
    model: Model,
    data: TrainingData,
    parts: tuple[np.ndarray, np.ndarray],
    windows: tuple[LabelledWindows, LabelledWindows],
    plan: Plan,
) -> tuple[np.ndarray, tuple[Dataset[Item], Dataset[Item]]]:
    """Return embeddings that tell how those of training spread, and both parts: as embeddings where nothing else is tuned."""
    per_sample = plan.windows_per_sample or min(MAX_WINDOWS, int(np.median(windows[0].counts)))
    draws = Draw(windows[0], plan.seed, per_sample), Draw(windows[1], plan.seed)
    if data.embeddings is not None:
        embeddings = [np.concatenate([data.embeddings[i] for i in part]) for part in parts]
        return embeddings[0], (
            Embedded(embeddings[0], windows[0], draws[0]),
            Embedded(embeddings[1], windows[1], draws[1]),
        )
    training, validation = ([data.run(i) for i in part] for part in parts)
    shifts = [data.allowed.get(i) for i in parts[0]]
    clips = (
        Clips(training, windows[0], model.n_frames, draws[0], shifts=shifts, augmentation=plan.augmentation),
        Clips(validation, windows[1], model.n_frames, draws[1]),
    )
    return _first_embeddings(model, data, parts[0], plan), clips


def _first_embeddings(model: Model, data: TrainingData, among: np.ndarray, plan: Plan) -> np.ndarray:
    """Return the embeddings of the first windows of some runs, (runs, channels)."""
    chosen = np.random.default_rng(plan.seed).permutation(among)[:MAX_SAMPLED]
    firsts = ((data.run(i), data.starts(i, model.n_frames)[:1]) for i in sorted(chosen))
    return np.concatenate([encode(model, run, start, 1, plan.precision)[0] for run, start in firsts if len(start)])


def embed_all(
    model: Model,
    data: TrainingData,
    which: Sequence[int],
    precision: str,
    batch: int,
    advance: Callable[[int, int], None],
) -> list[np.ndarray]:
    """Return the embeddings of all windows of some runs that may be used."""
    embeddings = []
    for done, i in enumerate(which, start=1):
        embeddings.append(encode(model, data.run(i), data.starts(i, model.n_frames), batch, precision)[0])
        advance(done, len(which))
    return embeddings


def kept_in_file(path: Path, resume: bool, make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Return arrays that are made once and kept in a file, for the other processes and for a resumption."""
    if (resume or not is_rank_zero()) and path.is_file():
        with np.load(path) as kept:
            return np.split(kept["rows"], kept["ends"][:-1])
    arrays = make()
    if is_rank_zero():
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, ends=np.cumsum([len(some) for some in arrays]), rows=np.concatenate(arrays))
    return arrays


def outputs_of(
    model: Model,
    trained: TrainedModel,
    data: TrainingData,
    which: np.ndarray,
    batch: int,
    advance: Callable[[int, int], None],
) -> dict[int, np.ndarray]:
    """Return the raw outputs of a tuned model for all windows of some runs, by number; processes share the work."""
    tuned = replace(model, network=trained.network, task=trained.objective.task("target", None))
    mine = shard(list(map(int, which)))
    found = {}
    for done, i in enumerate(mine, start=1):
        if data.embeddings is not None:
            embeddings = data.embeddings[i]
        else:
            embeddings, _ = encode(tuned, data.run(i), data.starts(i, model.n_frames), batch, trained.precision)
        found[i] = tuned.predict_from(torch.from_numpy(embeddings)).cpu().numpy()
        advance(done, len(mine))
    return all_gather(found)
