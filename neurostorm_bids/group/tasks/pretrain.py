"""Pretrain a model without labels, and keep it for the participant level."""

import hashlib
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.names import TRAINING_FOLDER
from neurostorm_bids.derivatives.seen import people_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.pretrain_report import Pretrained, page_so_far, result_of
from neurostorm_bids.group.pretrain_windows import Windows, windows_of
from neurostorm_bids.group.study import LOG, Study, counted
from neurostorm_bids.group.task import GroupResult
from neurostorm_bids.group.training import begin, begin_model, begin_processes, loader_workers, training_run
from neurostorm_bids.model.load import device_of
from neurostorm_bids.model.mae import MaskedAutoencoder, kept_gb, recompute_blocks
from neurostorm_bids.model.masks import Masking, regions_of_patches
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.pretrained import (
    BASE,
    autoencoder_of,
    check_size,
    config_of_size,
    new_autoencoder,
    projection_of,
)
from neurostorm_bids.model.strd import add_redundancy_dropout
from neurostorm_bids.participant.locks import lock_model
from neurostorm_bids.resample.grid import Grid, get_grid
from neurostorm_bids.resample.parcels import labels_in
from neurostorm_bids.runtime.json_files import digest
from neurostorm_bids.runtime.local_cache import LocalCache
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings
from neurostorm_bids.train import distributed
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views
from neurostorm_bids.train.pretraining import Goal, PretrainedNetwork, Pretraining
from neurostorm_bids.train.trainer import train

INDEX = "neurostorm-index"  # folder of the indices of stores, in the work folder
RATE, BATCH = 2e-4, 4  # largest learning rate, for so many windows in a step
MOST_KEPT = 2.0  # GB for gradients on a CPU, above which blocks are computed again unless --activation-checkpointing says otherwise
MOST_STEPS = 1000  # between two looks at held-out people, unless others are asked for


def run(study: Study) -> list[GroupResult]:
    """Pretrain a model; nothing in a process that trains with another, which writes the result."""
    settings, training, options = study.settings, study.settings.training, study.settings.pretraining
    is_first = begin_processes(study)
    masking = Masking(options.hidden, options.mask_ratio)
    goal = Goal(options.objective, options.contrast, options.contrastive_weight)
    autoencoder, start, grid, notes = _beginning(study, masking)
    name = training.save_as or f"pretrained-{start.label if start else (options.size or (BASE,))[0]}"
    begin_model(name, settings)
    if start is not None:
        study = replace(study, settings=adopt([start], settings))
    if options.redundancy_dropout:
        add_redundancy_dropout(autoencoder.model)
    length = autoencoder.config.n_frames
    index = settings.work / INDEX / f"{grid.name}.npz"
    seen = frozenset() if start is None else people_of(start)
    windows = windows_of(study, grid, length * min(2, goal.n_clips), index, seen)
    notes += _notes_on_seen(windows, start, seen)
    cache = _cache(settings, name) if options.cache_gb else None
    if cache is not None:
        windows = replace(windows, index=windows.index.through(cache))
    network = _network(autoencoder, goal, settings)
    views = Views(masking, int(autoencoder.units.max()) + 1, training.augmentation, goal.n_clips)
    still = replace(views, augmentation="none", n_clips=min(2, goal.n_clips))
    seed = settings.conduct.random_seed
    train_on = windows.part(False, length, views, seed, options.mixing)
    test_on = windows.some_held_out(length, still, seed, options.validation_windows)
    plan = _plan(study.settings, train_on, goal, autoencoder.config)
    if not len(test_on):
        raise NeurostormError("no run of the people who are held out has windows enough; leave out contrastive")
    if plan.less_memory:
        recompute_blocks(autoencoder)
    target = _target(study, windows)
    module = Pretraining(network.to(plan.device), goal, train_on, test_on, plan, target)
    folder = settings.work / TRAINING_FOLDER / name
    begin(folder, _requested(windows, goal, plan, autoencoder, start, study.settings), settings)
    for note in notes:
        LOG.warning(note)
    counts = len(train_on), windows.n_people(False), len(test_on), windows.n_people(True)
    LOG.info("pretraining %s on %d windows of %d people, tested on %d windows of %d others", name, *counts)
    progress = Progress(f"model {name}", "pretraining")
    if is_first:
        write_description(settings.out_dir, study.dataset, [], {})
    made = Pretrained(name, module, start, grid, windows, notes)
    module.rank_of_random = lambda: made.random["effective_rank"]
    kept = training_run(
        folder, settings, progress, progress.step("training", "step", (plan.windows_in_step, "windows"))
    )
    results = []
    try:
        history = train(module, replace(kept, look=lambda epochs: page_so_far(made, epochs, study)))
        progress.close()
        if is_first:
            module.network.to(plan.device)  # Lightning leaves it on the processor
            with lock_model(settings.out_dir, name):
                results.append(result_of(made, history, study))
    finally:  # a job that is stopped may go on elsewhere
        if cache is not None and distributed.is_first_of_node():
            cache.end()
    return results


def _network(autoencoder: MaskedAutoencoder, goal: Goal, settings: Settings) -> PretrainedNetwork:
    """Return the network that is trained: with the head that compares clips, of the model that is gone on with if it has one."""
    network = PretrainedNetwork(autoencoder, goal.has_contrast, settings.conduct.random_seed)
    start = settings.pretraining.start_from
    if network.output_head is not None and start and (known := projection_of(start)):
        network.output_head.load_state_dict(known)
    network.train_only_what_is_used(goal)
    return network


def _notes_on_seen(windows: Windows, start: Model | None, seen: frozenset[str]) -> list[str]:
    """Return whether people who are held out are known to the model that is gone on with."""
    if start is None:
        return []
    held = set(windows.runs.loc[windows.held_out, "hash"])
    if known := held & seen:
        return [
            f"model {start.name} was trained on {len(known)} of the {counted(len(held), 'person')} who are held out before: what is said of "
            "them is no test"
        ]
    return (
        []
        if seen
        else [f"model {start.name} does not say whom it was trained on; people who are held out may be among them"]
    )


def _target(study: Study, windows: Windows) -> tuple[np.ndarray, bool] | None:
    """Return what --target says of each person, and whether it is classes; `None` where it is not asked for.

    Raises
    ------
    NeurostormError
        If there is no such column.
    """
    column = study.target()
    if column is None:
        return None
    known = study.phenotype.table.drop_duplicates(SUBJECT).set_index(SUBJECT)
    if column not in known:
        raise NeurostormError(f"--target {column}: there is no such column; there are: {', '.join(map(str, known))}")
    people = windows.runs.drop_duplicates("person").sort_values("person")
    ours = people["subject"].radd("sub-").where(people["dataset"] == 0)  # the table is that of BIDS_DIR
    values = known[column].reindex(ours)
    numbers = pd.to_numeric(values, errors="coerce")
    kind = study.settings.group.target_type
    if kind == "regression" or (
        kind == "auto" and numbers.notna().sum() == values.notna().sum() and numbers.nunique() > 2
    ):
        return numbers.to_numpy(float), False
    codes = pd.factorize(values, sort=True)[0].astype(float)
    return np.where(codes < 0, np.nan, codes), True


def _cache(settings: Settings, name: str) -> LocalCache:
    """Return where runs are copied to as they are read."""
    options = settings.pretraining
    folder = (
        options.cache_dir or Path(tempfile.gettempdir())
    ) / f"neurostorm-runs-{digest({'out': settings.out_dir, 'name': name})}"
    cache = LocalCache(folder, int((options.cache_gb or 0) * 1e9))
    if distributed.is_first_of_node():
        cache.begin()
    return cache


def _beginning(study: Study, masking: Masking) -> tuple[MaskedAutoencoder, Model | None, Grid, list[str]]:
    """Return the network to train, the model it is of, the grid of its runs, and notes."""
    options, seed = study.settings.pretraining, study.settings.conduct.random_seed
    asked = study.settings.resampling.grid
    if options.start_from is None:
        grid = get_grid(None if asked == "auto" else asked)
        config = config_of_size(options.size)
        return new_autoencoder(config, masking, seed, _regions(study, grid, config)), None, grid, []
    network, model, has_decoder = autoencoder_of(
        options.start_from, masking, seed, lambda grid, config: _regions(study, grid, config)
    )
    check_size(options.size, model)
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


def _plan(settings: Settings, train_on: PretrainingWindows, goal: Goal, config: NeuroSTORMConfig) -> Plan:
    """Return how to train, as the options say.

    Raises
    ------
    NeurostormError
        If there are fewer windows than a step takes, or clips cannot be compared.
    """
    training, options = settings.training, settings.pretraining
    device = device_of(distributed.own_device(settings.resources.device))
    batch, n_processes = settings.encoding.batch_size or BATCH, training.devices * training.nodes
    accumulate = training.accumulate
    if options.effective_batch:
        accumulate, rest = divmod(options.effective_batch, batch * n_processes)
        if rest or not accumulate:
            raise NeurostormError(
                f"--effective-batch {options.effective_batch} is no multiple of {batch * n_processes}: {n_processes} processes with "
                f"--batch-size {batch}"
            )
    step, n = batch * accumulate * n_processes, len(train_on)
    if goal.has_contrast and batch * n_processes < 2:
        raise NeurostormError("clips are compared within a batch; give a --batch-size of 2 or more")
    if n < step:
        enough = "" if goal.n_clips == 1 else ", of runs long enough for two"
        raise NeurostormError(
            f"{counted(n, 'window')} to train on{enough}, and a step takes {step}; give a smaller --batch-size or --accumulate"
        )
    in_pass = n // step
    steps = options.steps or training.epochs * in_pass
    looks = math.ceil(steps / min(steps, options.validate_every or min(in_pass, MOST_STEPS)))
    asked = options.activation_checkpointing
    is_large = device.type == "cpu" and kept_gb(config, batch * goal.n_clips) > MOST_KEPT
    has_less_memory = is_large if asked == "auto" else asked == "on"
    plan = Plan(
        tuning="full",
        epochs=looks,
        patience=looks,  # never earlier than that: the loss falls for long
        batch_size=batch,
        device=device,
        accumulate=accumulate,
        precision=settings.encoding.precision,
        augmentation=training.augmentation,
        steps=math.ceil(steps / looks),
        averaging=options.ema,
        less_memory=has_less_memory,
        devices=training.devices,
        nodes=training.nodes,
        workers=loader_workers(device, settings),
        seed=settings.conduct.random_seed,
    )
    return replace(plan, learning_rate=training.learning_rate or RATE * math.sqrt(plan.windows_in_step / BATCH))


def _requested(
    windows: Windows, goal: Goal, plan: Plan, autoencoder: MaskedAutoencoder, start: Model | None, settings: Settings
) -> dict[str, Any]:
    """Return what the training depends on."""
    return {
        "goal": str(goal),
        "plan": {
            name: str(value) for name, value in vars(plan).items() if name not in ("device", "workers", "less_memory")
        },
        "network": str((autoencoder.config, autoencoder.masking, settings.pretraining.redundancy_dropout)),
        "start": start.sha256 if start else None,
        "mixing": settings.pretraining.mixing,
        "runs": windows.stamp,
        "held out": windows.held_out.tolist(),
        "looked at": settings.pretraining.validation_windows,
        "units": hashlib.sha256(autoencoder.units.cpu().numpy().tobytes()).hexdigest(),
        "version": __version__,
    }
