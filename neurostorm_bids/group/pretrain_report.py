"""What a pretraining leaves: the model's folder, and a page that says whether it learnt."""

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.models import MODELS, write_model
from neurostorm_bids.derivatives.seen import PEOPLE, people_of
from neurostorm_bids.group.figures import pretraining_figure, slices_figure
from neurostorm_bids.group.output import write_results
from neurostorm_bids.group.pretrain_windows import Windows
from neurostorm_bids.group.reference_figures import reference_of_stores
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.model.masks import Masking, of_tokens
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import label_of_name
from neurostorm_bids.model.pretrained import describe, new_autoencoder
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.boilerplate import filled_in
from neurostorm_bids.train.clips import clips_of
from neurostorm_bids.train.pretraining import Pretraining
from neurostorm_bids.train.trainer import EpochRecord


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining gives, and has given so far."""

    name: str
    module: Pretraining
    start: Model | None
    grid: Grid
    windows: Windows
    notes: list[str]

    @cached_property
    def random(self) -> dict[str, float]:
        """What embeddings of a network tell that has learnt nothing."""
        return _of_random_weights(self)


def result_of(made: Pretrained, history: list[EpochRecord], study: Study) -> GroupResult:
    """Write the model's folder, and return its page."""
    folder = study.settings.out_dir / MODELS / made.name
    result = page_of(made, history, study)
    _write(folder, made, study, result.answer, pd.DataFrame(history))
    return replace(result, answer=f"{result.answer}\nThe model is in {folder}; use it with --model {folder}")


def page_so_far(made: Pretrained, history: list[EpochRecord], study: Study) -> None:
    """Write the page of a training that goes on, so that it can be followed, and is there if the training is stopped.

    That there is no room for it on the disk, say, does not end the training.
    """
    try:
        write_results([page_of(made, history, study, goes_on=True)], study.settings)
    except Exception as error:
        LOG.debug("page of %s", made.name, exc_info=True)
        LOG.warning("the page of the training could not be written (%s); the training goes on", error)


def page_of(made: Pretrained, history: list[EpochRecord], study: Study, goes_on: bool = False) -> GroupResult:
    """Return the page of a training: after its end, or with all weights of its last epoch so far."""
    best = history[int(np.argmin([epoch["validation_loss"] for epoch in history]))]
    answer, random = _answer(made, best, made.random), made.random
    table, plan = pd.DataFrame(history), made.module.plan
    name = f"group_desc-{label_of_name(study.settings.out_dir / MODELS / made.name)}_pretrain"
    title = f"Pretraining: {made.name}"
    if goes_on:
        of = f"{history[-1]['step']:.0f} of {plan.epochs * plan.steps}"
        answer = f"Not at its end: this is after step {of}. {answer}"
    words = [
        answer,
        "Errors are of hidden patches, in windows of people who are held out; those of brain alone count: most others are background and "
        "trivially right, and of these the ones whose place is seen in another frame. The two who know nothing are the mean image of what is seen of the window, and a line in time between the frames "
        "in which a place is seen.",
    ]
    return GroupResult(
        name=name,
        title=title,
        answer=answer,
        sections=[
            Section(
                title,
                words=words,
                figures=[("", "After every stretch of steps; dotted: random weights.")],
                notes=made.notes,
            ),
            Section(
                "Reconstructions",
                figures=[
                    (
                        "_slices",
                        "Windows of people who are held out: what was there, what was shown, what was made of it, and the error.",
                    )
                ],
            )
            if made.module.goal.has_mae
            else Section("Last epoch", table=table.tail(1)),
        ],
        about={
            "Description": "How a model learnt without labels",
            "Model": f"bids::{MODELS}/{made.name}",
            "Objective": str(made.module.goal),
            "RandomWeights": {key: None if math.isnan(value) else value for key, value in random.items()},
            "Verdict": answer,
            "Notes": made.notes,
        },
        page=name,
        tables={"_history": table},
        columns={"_history": {str(column): {"Description": str(column).replace("_", " ")} for column in table}},
        figures={"": pretraining_figure(table, random)}
        | ({"_slices": slices_figure(*_slices(made))} if made.module.goal.has_mae else {}),
        problems=made.windows.problems,
    )


def _answer(made: Pretrained, best: EpochRecord, random: dict[str, float]) -> str:
    """Return whether it learnt, in words."""
    found = ""
    if made.module.goal.has_mae:
        image, line = best["validation_skill_over_mean_image"], best["validation_skill_over_time"]
        better = (
            "better than both who know nothing" if min(image, line) > 0 else "not better than both who know nothing"
        )
        found = f"Hidden patches of brain are reconstructed {better}: skill {image:.2f} over the mean image, {line:.2f} over a line in time. "
        found += _beside_everybody(best["validation_skill_over_everybody"])
    found += (
        f"Embeddings spread over {best['effective_rank']:.1f} directions (random weights: {random['effective_rank']:.1f}); the window nearest "
        f"to a window is of the same person in {_in_words(best, 'rank1', '.0%')} (random weights: {_in_words(random, 'rank1', '.0%')})."
    )
    if "probe" in best:
        found += f" {_in_words(best, 'probe', '.2f')} is how well they predict the target (random weights: {_in_words(random, 'probe', '.2f')})."
    return found


def _beside_everybody(skill: float) -> str:
    """Return whether more was learnt than what everybody has in common, in words."""
    if skill > 0:
        return f"Over the mean of everybody at each place it is {skill:.2f}. "
    return f"Over the mean of everybody at each place it is {skill:.2f}: it draws what all have in common, and nothing of a person or a moment. "


def _in_words(record: dict[str, float], name: str, how: str) -> str:
    """Return a number with its interval, where there is one."""
    low, high = (record.get(f"{name}_{end}", float("nan")) for end in ("low", "high"))
    interval = "" if math.isnan(low) else f", 95 % interval {low:{how}} to {high:{how}}"
    return f"{record[name]:{how}}{interval}"


@torch.no_grad()
def _of_random_weights(made: Pretrained) -> dict[str, float]:
    """Return the same of a network that has learnt nothing."""
    autoencoder = made.module.network.autoencoder
    device = next(autoencoder.parameters()).device
    nothing = new_autoencoder(autoencoder.config, Masking("random"), made.module.plan.seed).to(device).eval()
    data: Any = made.module.data["validation"]
    embeddings, people = [], []
    for i in range(len(data)):
        clip, _, person = _item(made, i)
        embeddings.append(nothing.model(clip).flatten(2).mean(dim=2).cpu())
        people.append(person)
    return made.module.of_embeddings(torch.cat(embeddings), torch.tensor(people))


def _item(made: Pretrained, i: int) -> tuple[Tensor, Tensor, int]:
    """Return a window of somebody who is held out, (1, 1, X, Y, Z, T), its hidden units, and the person's number."""
    autoencoder, data = made.module.network.autoencoder, made.module.data["validation"]
    device = next(autoencoder.parameters()).device
    raw, hidden, _, person = data[0, i]
    frames = raw._replace(frames=raw.frames.to(device))
    return clips_of(frames, autoencoder.config.img_size[:3])[:1], hidden[None].to(device), person


@torch.no_grad()
def _slices(made: Pretrained) -> tuple[np.ndarray, np.ndarray]:
    """Return axial slices of some windows (windows, 4, X, Y), what is hidden being NaN in the second, and their z-scores' limits."""
    autoencoder, was_training = made.module.network.autoencoder, made.module.network.autoencoder.training
    autoencoder.eval()
    data: Any = made.module.data["validation"]
    rows = []
    for i in np.linspace(0, len(data) - 1, min(3, len(data))).astype(int):
        clip, hidden, _ = _item(made, int(i))
        shown = of_tokens(hidden, autoencoder.units)
        found = autoencoder.model.voxels(autoencoder(clip, shown).patches)
        covered = autoencoder.model.voxels(
            shown[..., None].float().expand(*shown.shape, math.prod(autoencoder.config.patch_size))
        )
        z = clip.shape[4] // 2
        t = int(covered[0, 0, :, :, z].mean(dim=(0, 1)).argmax())  # where most is hidden
        real, made_of, cover = (x[0, 0, :, :, z, t].cpu().numpy() for x in (clip, found, covered))
        rows.append([real, np.where(cover > 0, np.nan, real), made_of, made_of - real])
    autoencoder.train(was_training)
    images = np.array(rows)
    return images, np.nanpercentile(images[:, 0], [1, 99])


def _write(folder: Path, made: Pretrained, study: Study, answer: str, history: pd.DataFrame) -> None:
    """Write the model's folder."""
    network, settings = made.module.network, study.settings
    runs = made.windows.runs
    seen = set(runs.loc[~made.windows.held_out, "hash"]) | (people_of(made.start) if made.start else set())
    about = {
        **describe(network.autoencoder.config, network.autoencoder.masking),
        "use_mae": made.module.goal.has_mae,
        "use_contrastive": made.module.goal.has_contrast,
        "use_strd": settings.pretraining.redundancy_dropout,
        "dataset_name": ", ".join(made.windows.datasets),
        "grid": made.grid.name,
        "gridding": settings.changing("gridded"),
        "tuning": "pretrained",
        "backbone": None,
        "pretrained_from": None if made.start is None else {"name": made.start.name, "sha256": made.start.sha256},
        PEOPLE: sorted(seen),
    }
    split = runs[["run_name", "dataset", "part"]].assign(dataset=[made.windows.datasets[i] for i in runs["dataset"]])
    index = made.windows.index
    trained_on = [Path(index.paths[i].decode()) for i in np.flatnonzero(~made.windows.held_out)]
    reference = partial(reference_of_stores, stores=trained_on, settings=settings)
    write_model(folder, network.weights(), about, _card(made, study, answer), split, history, reference=reference)


def _card(made: Pretrained, study: Study, answer: str) -> str:
    """Return the model card, Markdown."""
    network, options = made.module.network.autoencoder, study.settings.pretraining
    return filled_in(
        "pretrain_card.md",
        name=made.name,
        version=__version__,
        folder=f"OUT_DIR/{MODELS}/{made.name}",
        dataset=", ".join(made.windows.datasets),
        n_people=made.windows.n_people(False),
        n_runs=int((~made.windows.held_out).sum()),
        n_held_out=made.windows.n_people(True),
        start=f"{made.start.name} (SHA-256 {made.start.sha256})" if made.start else "random weights",
        n_weights=f"{sum(p.numel() for p in network.parameters()):,}",
        config=network.config,
        objective=options.objective,
        mask=f"{options.hidden}, {options.mask_ratio:g} hidden",
        plan=made.module.plan,
        grid=f"{made.grid.name} ({made.grid.template})",
        answer=answer,
    )
