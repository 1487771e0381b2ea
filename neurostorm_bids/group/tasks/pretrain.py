"""Pretrain a model without labels, and keep it for the participant level."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.models import MODELS, check_name_is_free
from neurostorm_bids.derivatives.names import GriddedOutputs
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.group.baselines import labels_in
from neurostorm_bids.group.labelled_runs import resample_all
from neurostorm_bids.group.pretrain_report import Pretrained, Windows, result_of
from neurostorm_bids.group.study import LOG, Study, counted
from neurostorm_bids.group.task import GroupResult
from neurostorm_bids.group.training import FOLDER, begin
from neurostorm_bids.model.load import device_of
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import Masking, regions_of_patches
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.pretrained import autoencoder_of, config_of_size, new_autoencoder
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
from neurostorm_bids.train.trainer import EpochRecord, TrainingRun, train

RATE, BATCH = 2e-4, 4  # largest learning rate, for so many windows in a step
HELD_OUT = 0.1  # share of the people whose windows are never trained on
FEWEST_PEOPLE = 4


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
    _check_batches(parts, goal, plan)
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
        return [result_of(Pretrained(name, module, start, grid, windows, notes), history, study)]


def _beginning(study: Study, masking: Masking) -> tuple[MaskedAutoencoder, Model | None, Grid, list[str]]:
    """Return the network to train, the model it is of, the grid of its runs, and notes."""
    options, seed = study.settings.pretraining, study.settings.conduct.random_seed
    asked = study.settings.resampling.grid
    if options.start_from is None:
        grid = get_grid(None if asked == "auto" else asked)
        config = config_of_size(options.size)
        return new_autoencoder(config, masking, seed, _regions(study, grid, config)), None, grid, []
    if options.size != ("base",):
        raise NeurostormError("--size is of a network from the beginning; one that --from goes on with has its own")
    network, model, has_decoder = autoencoder_of(
        options.start_from, masking, seed, lambda grid, config: _regions(study, grid, config)
    )
    if not np.isfinite(model.grid.matrix).all() or (asked != "auto" and get_grid(asked) != model.grid):
        raise NeurostormError(f"model {model.name} was trained in the grid {model.grid.name}; leave out --grid")
    notes = (
        []
        if has_decoder or "mae" not in options.objective
        else [f"model {model.name} has no decoder: a new one is trained with it"]
    )
    return network, model, model.grid, notes


def _regions(study: Study, grid: Grid, config: NeuroSTORMConfig) -> Tensor | None:
    """Return the region of every patch, where regions are hidden.

    Raises
    ------
    NeurostormError
        If there is no parcellation, or none that can be used.
    """
    options = study.settings.pretraining
    if options.hidden != "atlas":
        return None
    if options.parcellation is None:
        raise NeurostormError(
            "--hidden atlas needs --parcellation FILE, an image of labels in the space of the model's grid"
        )
    if tuple(grid.shape) != tuple(config.img_size[:3]):
        raise NeurostormError("--hidden atlas is for networks of the grid's own resolution")
    regions = regions_of_patches(labels_in(options.parcellation, grid).reshape(grid.shape), config.patch_size[:3])
    if not regions.any():
        raise NeurostormError(f"{options.parcellation}: none of its regions is in the model's grid ({grid.template})")
    return regions


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


def _check_batches(parts: list[PretrainingWindows], goal: Goal, plan: Plan) -> None:
    """Refuse too few windows.

    Raises
    ------
    NeurostormError
        With what to change.
    """
    if not all(map(len, parts)):
        raise NeurostormError(
            "no run of some part of the people has two windows, which comparing clips needs; leave out contrastive"
        )
    at_once = plan.batch_size * plan.n_processes
    if goal.has_contrast and not 2 <= at_once <= len(parts[0]):
        raise NeurostormError(
            f"clips are compared in batches of {at_once}, and there are {len(parts[0])} windows; give a --batch-size between 2 and that"
        )


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
