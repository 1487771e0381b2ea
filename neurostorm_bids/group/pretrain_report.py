"""What a pretraining leaves: the model's folder, and a page that says whether it learnt."""

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import torch

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.gridded_files import StoredRun
from neurostorm_bids.derivatives.models import MODELS, write_model
from neurostorm_bids.derivatives.seen import PEOPLE, hash_of, people_of
from neurostorm_bids.errors import Problem
from neurostorm_bids.find.run import Run
from neurostorm_bids.group.figures import pretraining_figure, slices_figure
from neurostorm_bids.group.study import Study
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.model.masks import Masking, of_tokens
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import label_of_name
from neurostorm_bids.model.network import resized
from neurostorm_bids.model.pretrained import describe, new_autoencoder
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views
from neurostorm_bids.train.pretraining import Pretraining
from neurostorm_bids.train.skill import effective_rank, rank_one
from neurostorm_bids.train.trainer import EpochRecord


@dataclass(frozen=True)
class Windows:
    """The runs that take part, and the people who are held out.

    Attributes
    ----------
    runs : list of Run
    stores : list of StoredRun
    people : (runs,) int array
    held_out : (runs,) bool array
    problems : list of Problem
    """

    runs: list[Run]
    stores: list[StoredRun]
    people: np.ndarray
    held_out: np.ndarray
    problems: list[Problem]

    def part(self, held_out: bool, length: int, views: Views, seed: int) -> PretrainingWindows:
        """Return the windows of one part of the people."""
        which = np.flatnonzero(self.held_out == held_out)
        stores = [self.stores[i] for i in which]
        return PretrainingWindows(stores, self.people[which], length, views, seed, shifted=not held_out)


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining gave."""

    name: str
    module: Pretraining
    start: Model | None
    grid: Grid
    windows: Windows
    notes: list[str]


def result_of(made: Pretrained, history: list[EpochRecord], study: Study) -> GroupResult:
    """Write the model's folder, and return its page."""
    folder = study.settings.out_dir / MODELS / made.name
    best = history[int(np.argmin([epoch["validation_loss"] for epoch in history]))]
    random = _of_random_weights(made)
    answer = _answer(made, best, random)
    table = pd.DataFrame(history)
    _write(folder, made, study, answer, table)
    name = f"group_desc-{label_of_name(folder)}_pretrain"
    title = f"Pretraining: {made.name}"
    words = [
        answer,
        "Errors are of hidden patches, in windows of people who are held out; those of brain alone count: most others are background and "
        "trivially right. The two who know nothing are the mean image of what is seen of the window, and a line in time between the frames "
        "in which a place is seen.",
    ]
    return GroupResult(
        name=name,
        title=title,
        answer=f"{answer}\nThe model is in {folder}; use it with --model {folder}",
        sections=[
            Section(title, words=words, figures=[("", "Every epoch.")], notes=made.notes),
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
            "RandomWeights": random,
            "Verdict": answer,
            "Notes": made.notes,
        },
        page=name,
        tables={"_history": table},
        columns={"_history": {str(column): {"Description": str(column).replace("_", " ")} for column in table}},
        figures={"": pretraining_figure(table)}
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
    return (
        f"{found}Embeddings spread over {best['effective_rank']:.1f} directions (random weights: {random['effective_rank']:.1f}); the window nearest "
        f"to a window is of the same person in {best['rank1']:.0%} (random weights: {random['rank1']:.0%})."
    )


@torch.no_grad()
def _of_random_weights(made: Pretrained) -> dict[str, float]:
    """Return the same of a network that has learnt nothing."""
    autoencoder = made.module.network.autoencoder
    device = next(autoencoder.parameters()).device
    nothing = new_autoencoder(autoencoder.config, Masking(), made.module.plan.seed).to(device).eval()
    data: Any = made.module.data["validation"]
    items = [data[0, i] for i in range(len(data))]
    embeddings = torch.cat(
        [
            nothing.model(resized(item[0][:1].to(device), nothing.config.img_size[:3])).flatten(2).mean(dim=2).cpu()
            for item in items
        ]
    )
    people = torch.tensor([item[3] for item in items])
    return {"effective_rank": effective_rank(embeddings), "rank1": rank_one(embeddings, people)}


@torch.no_grad()
def _slices(made: Pretrained) -> tuple[np.ndarray, np.ndarray]:
    """Return axial slices of some windows (windows, 4, X, Y), what is hidden being NaN in the second, and their z-scores' limits."""
    autoencoder = made.module.network.autoencoder.eval()
    device = next(autoencoder.parameters()).device
    data: Any = made.module.data["validation"]
    rows = []
    for i in np.linspace(0, len(data) - 1, min(3, len(data))).astype(int):
        clips, hidden, _, _ = data[0, int(i)]
        clip = resized(clips[:1].to(device), autoencoder.config.img_size[:3])
        shown = of_tokens(hidden[None].to(device), autoencoder.units)
        found = autoencoder.model.voxels(autoencoder(clip, shown).patches)
        covered = autoencoder.model.voxels(
            shown[..., None].float().expand(*shown.shape, math.prod(autoencoder.config.patch_size))
        )
        z = clip.shape[4] // 2
        t = int(covered[0, 0, :, :, z].mean(dim=(0, 1)).argmax())  # where most is hidden
        real, made_of, cover = (x[0, 0, :, :, z, t].cpu().numpy() for x in (clip, found, covered))
        rows.append([real, np.where(cover > 0, np.nan, real), made_of, made_of - real])
    images = np.array(rows)
    return images, np.nanpercentile(images[:, 0], [1, 99])


def _write(folder: Path, made: Pretrained, study: Study, answer: str, history: pd.DataFrame) -> None:
    """Write the model's folder."""
    network, settings = made.module.network, study.settings
    trained = {run.subject for run, held in zip(made.windows.runs, made.windows.held_out, strict=True) if not held}
    seen = {hash_of(study.dataset, subject) for subject in trained} | (people_of(made.start) if made.start else set())
    about = {
        **describe(network.autoencoder.config, network.autoencoder.masking),
        "use_mae": made.module.goal.has_mae,
        "use_contrastive": made.module.goal.has_contrast,
        "use_strd": settings.pretraining.redundancy_dropout,
        "dataset_name": study.dataset.name,
        "grid": made.grid.name,
        "gridding": settings.changing("gridded"),
        "tuning": "pretrained",
        "backbone": None,
        "pretrained_from": None if made.start is None else {"name": made.start.name, "sha256": made.start.sha256},
        PEOPLE: sorted(seen),
    }
    split = pd.DataFrame(
        {
            "run_name": [run.name for run in made.windows.runs],
            "part": np.where(made.windows.held_out, "validation", "train"),
        }
    )
    write_model(folder, network.weights(), about, _card(made, study, answer), split, history)


def _card(made: Pretrained, study: Study, answer: str) -> str:
    """Return the model card, Markdown."""
    text = files("neurostorm_bids.boilerplate").joinpath("pretrain_card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    network, options = made.module.network.autoencoder, study.settings.pretraining
    return environment.from_string(text).render(
        name=made.name,
        version=__version__,
        folder=f"OUT_DIR/{MODELS}/{made.name}",
        dataset=study.dataset.name,
        n_people=len(set(made.windows.people[~made.windows.held_out])),
        n_runs=int((~made.windows.held_out).sum()),
        n_held_out=len(set(made.windows.people[made.windows.held_out])),
        start=f"{made.start.name} (SHA-256 {made.start.sha256})" if made.start else "random weights",
        n_weights=f"{sum(p.numel() for p in network.parameters()):,}",
        config=network.config,
        objective=options.objective,
        mask=f"{options.hidden}, {options.mask_ratio:g} hidden",
        plan=made.module.plan,
        grid=f"{made.grid.name} ({made.grid.template})",
        answer=answer,
    )
