"""Pretrain a model without labels, from the beginning or --from another, and keep it for the participant level."""

import math
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import torch

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.gridded_files import StoredRun, read_int8
from neurostorm_bids.derivatives.models import MODELS, check_name_is_free, write_model
from neurostorm_bids.derivatives.names import GriddedOutputs
from neurostorm_bids.derivatives.seen import PEOPLE, hash_of, people_of
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.group.figures import pretraining_figure, slices_figure
from neurostorm_bids.group.labelled_runs import resample_all
from neurostorm_bids.group.study import LOG, Study, counted
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.group.training import FOLDER, begin
from neurostorm_bids.model.load import device_of
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import Masking, of_tokens
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import label_of_name
from neurostorm_bids.model.pretrained import autoencoder_of, config_of_size, describe, new_autoencoder
from neurostorm_bids.model.strd import add_redundancy_dropout
from neurostorm_bids.participant.checks import prepare_folders
from neurostorm_bids.participant.locks import lock_model
from neurostorm_bids.resample.grid import Grid, get_grid
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings
from neurostorm_bids.train import distributed
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views
from neurostorm_bids.train.pretraining import Goal, PretrainedNetwork, Pretraining
from neurostorm_bids.train.skill import effective_rank, rank_one
from neurostorm_bids.train.trainer import EpochRecord, TrainingRun, train

RATE, BATCH = 2e-4, 4  # largest learning rate, for so many windows in a step
HELD_OUT = 0.1  # share of the people whose windows are never trained on
FEWEST_PEOPLE = 4


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


def run(study: Study) -> list[GroupResult]:
    """Pretrain a model; nothing in a process that trains with another, which writes the result."""
    settings, training, options = study.settings, study.settings.training, study.settings.pretraining
    distributed.setup(training.devices * training.nodes, training.nodes)
    is_first = distributed.is_rank_zero()
    prepare_folders(settings if is_first else settings.replacing(clean_workdir=False), study.dataset)
    if training.devices > 1:  # processes share the processors
        torch.set_num_threads(max(1, settings.resources.threads // training.devices))
    masking = Masking(options.hidden, options.mask_ratio)
    goal = Goal(options.objective, options.contrast, options.contrastive_weight)
    autoencoder, start, grid, notes = _beginning(study, masking)
    name = training.save_as or f"pretrained-{start.label if start else options.size[0]}"
    if not is_first:
        distributed.redirect_output(settings.work / FOLDER / f"{name}.process-{distributed.rank()}.txt")
    check_name_is_free(settings.out_dir / MODELS / name, settings.conduct.force or training.resume or not is_first)
    if start is not None:
        study = replace(study, settings=adopt([start], settings))
    windows = _windows(study, grid, autoencoder.config.n_frames, goal.n_clips)
    if options.redundancy_dropout:
        add_redundancy_dropout(autoencoder.model)
    network = PretrainedNetwork(autoencoder, goal.has_contrast)
    network.train_only_what_is_used(goal)
    plan = _plan(study.settings)
    views = Views(masking, int(autoencoder.units.max()) + 1, training.augmentation, goal.n_clips)
    still = replace(views, augmentation="none", n_clips=min(2, goal.n_clips))
    length = autoencoder.config.n_frames
    parts = [windows.part(held, length, each, plan.seed) for held, each in ((False, views), (True, still))]
    module = Pretraining(network.to(plan.device), goal, parts[0], parts[1], plan)
    folder = settings.work / FOLDER / name
    begin(folder, _requested(windows, goal, plan, autoencoder, start, study.settings), settings)
    for note in notes:
        LOG.warning(note)
    LOG.info(
        "pretraining %s on %d windows of %d people, tested on %d windows of %d others",
        name,
        len(parts[0]),
        *_counts(windows, parts),
    )
    progress = Progress(f"model {name}", "pretraining")
    advance = progress.step("training", "step")
    history = train(module, TrainingRun(folder, training.resume, partial(_log, progress), advance))
    progress.close()
    if not is_first:
        return []
    write_description(settings.out_dir, study.dataset, [], {})
    with lock_model(settings.out_dir, name):
        return [_result(_Pretrained(name, module, start, grid, windows, notes), history, study)]


def _beginning(study: Study, masking: Masking) -> tuple[MaskedAutoencoder, Model | None, Grid, list[str]]:
    """Return the network to train, the model it is of, the grid of its runs, and notes."""
    options, seed = study.settings.pretraining, study.settings.conduct.random_seed
    asked = study.settings.resampling.grid
    if options.start_from is None:
        grid = get_grid(None if asked == "auto" else asked)
        return new_autoencoder(config_of_size(options.size), masking, seed), None, grid, []
    if options.size != ("base",):
        raise NeurostormError("--size is of a network from the beginning; one that --from goes on with has its own")
    network, model, has_decoder = autoencoder_of(options.start_from, masking, seed)
    if not np.isfinite(model.grid.matrix).all() or (asked != "auto" and get_grid(asked) != model.grid):
        raise NeurostormError(f"model {model.name} was trained in the grid {model.grid.name}; leave out --grid")
    notes = (
        []
        if has_decoder or "mae" not in options.objective
        else [f"model {model.name} has no decoder: a new one is trained with it"]
    )
    return network, model, model.grid, notes


def _windows(study: Study, grid: Grid, n_frames: int, n_clips: int) -> Windows:
    """Find and resample the runs, and hold people out.

    Raises
    ------
    NeurostormError
        If there are too few people or windows.
    """
    selection, settings = study.settings.selection, study.settings
    runs, problems = find_runs(study.dataset, selection, selection.bids_database_dir)
    problems += resample_all(runs, grid, n_frames * min(2, n_clips), study)
    for problem in problems:
        LOG.error("%s", problem)
    failed = {problem.run for problem in problems}
    runs = [run for run in runs if run.name not in failed]
    names = sorted({run.subject for run in runs})
    if len(names) < FEWEST_PEOPLE:
        raise NeurostormError(
            f"{counted(len(names), 'person')} with runs that can be used: at least {FEWEST_PEOPLE} are needed, some to test on"
        )
    order = np.random.default_rng(settings.conduct.random_seed).permutation(len(names))
    aside = set(order[: max(2, round(HELD_OUT * len(names)))].tolist())
    people = np.array([names.index(run.subject) for run in runs])
    stores = [read_int8(settings.work / GriddedOutputs(run, grid).int8) for run in runs]
    return Windows(runs, stores, people, np.isin(people, list(aside)), problems)


def _counts(windows: Windows, parts: list[PretrainingWindows]) -> tuple[int, int, int]:
    """Return people trained on, windows held out, and people held out."""
    n_held_out = len(set(windows.people[windows.held_out]))
    return len(set(windows.people)) - n_held_out, len(parts[1]), n_held_out


def _plan(settings: Settings) -> Plan:
    """Return how to train, as the options say."""
    training, resources = settings.training, settings.resources
    device = device_of(distributed.own_device(resources.device))
    plan = Plan(
        tuning="full",
        epochs=training.epochs,
        patience=training.epochs,  # never earlier than that: the loss falls for long
        batch_size=settings.encoding.batch_size or BATCH,
        device=device,
        accumulate=training.accumulate,
        precision=settings.encoding.precision,
        augmentation=training.augmentation,
        devices=training.devices,
        nodes=training.nodes,
        workers=min(8, resources.threads - 1) if device.type == "cuda" else 0,
        seed=settings.conduct.random_seed,
    )
    return replace(plan, learning_rate=training.learning_rate or RATE * math.sqrt(plan.windows_in_step / BATCH))


def _requested(
    windows: Windows, goal: Goal, plan: Plan, autoencoder: MaskedAutoencoder, start: Model | None, settings: Settings
) -> dict[str, Any]:
    """Return what the training depends on."""
    return {
        "goal": str(goal),
        "plan": {name: str(value) for name, value in vars(plan).items() if name not in ("device", "workers")},
        "network": str((autoencoder.config, autoencoder.masking, settings.pretraining.redundancy_dropout)),
        "start": start.sha256 if start else None,
        "runs": [str(store.path.name) for store in windows.stores],
        "version": __version__,
    }


def _log(progress: Progress, record: EpochRecord) -> None:
    LOG.info(
        "%s: %s", progress.title, ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in record.items())
    )


@dataclass(frozen=True)
class _Pretrained:
    """What a pretraining gave."""

    name: str
    module: Pretraining
    start: Model | None
    grid: Grid
    windows: Windows
    notes: list[str]


def _result(made: _Pretrained, history: list[EpochRecord], study: Study) -> GroupResult:
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


def _answer(made: _Pretrained, best: EpochRecord, random: dict[str, float]) -> str:
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
def _of_random_weights(made: _Pretrained) -> dict[str, float]:
    """Return the same of a network that has learnt nothing."""
    autoencoder = made.module.network.autoencoder
    device = next(autoencoder.parameters()).device
    nothing = new_autoencoder(autoencoder.config, autoencoder.masking, made.module.plan.seed).to(device).eval()
    data: Any = made.module.data["validation"]
    items = [data[0, i] for i in range(len(data))]
    embeddings = torch.cat([nothing.model(item[0][:1].to(device)).flatten(2).mean(dim=2).cpu() for item in items])
    people = torch.tensor([item[3] for item in items])
    return {"effective_rank": effective_rank(embeddings), "rank1": rank_one(embeddings, people)}


@torch.no_grad()
def _slices(made: _Pretrained) -> tuple[np.ndarray, np.ndarray]:
    """Return axial slices of some windows (windows, 4, X, Y), what is hidden being NaN in the second, and their z-scores' limits."""
    autoencoder = made.module.network.autoencoder.eval()
    device = next(autoencoder.parameters()).device
    data: Any = made.module.data["validation"]
    rows = []
    for i in np.linspace(0, len(data) - 1, min(3, len(data))).astype(int):
        clips, hidden, _, _ = data[0, int(i)]
        clip = clips[:1].to(device)
        shown = of_tokens(hidden[None].to(device), autoencoder.units)
        found = autoencoder.model.voxels(autoencoder(clip, shown).patches)
        covered = autoencoder.model.voxels(
            shown[..., None].float().expand(*shown.shape, math.prod(autoencoder.config.patch_size))
        )
        z, t = clip.shape[4] // 2, clip.shape[5] // 2
        real, made_of, cover = (x[0, 0, :, :, z, t].cpu().numpy() for x in (clip, found, covered))
        rows.append([real, np.where(cover > 0, np.nan, real), made_of, made_of - real])
    images = np.array(rows)
    return images, np.nanpercentile(images[:, 0], [1, 99])


def _write(folder: Path, made: _Pretrained, study: Study, answer: str, history: pd.DataFrame) -> None:
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


def _card(made: _Pretrained, study: Study, answer: str) -> str:
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
