"""Train a model on each of the splits of labelled runs, and predict the samples that it has not seen."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.gridded_files import made_from
from neurostorm_bids.derivatives.models import MODELS, check_name_is_free
from neurostorm_bids.derivatives.names import BEGUN, TRAINING_FOLDER, GriddedOutputs
from neurostorm_bids.encode.sizes import batch_size
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.labelled_runs import LabelledRuns
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.splits import Split
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.task import Prediction, interpret
from neurostorm_bids.participant.checks import prepare_folders
from neurostorm_bids.participant.one_run import grid_of
from neurostorm_bids.runtime.json_files import digest, read_json, write_json
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings
from neurostorm_bids.train import distributed
from neurostorm_bids.train.distributed import is_rank_zero
from neurostorm_bids.train.fit import TrainedModel, TrainingData, embed_all, fit, kept_in_file, outputs_of
from neurostorm_bids.train.plan import BATCH, BATCH_OF_EMBEDDINGS, Plan
from neurostorm_bids.train.trainer import EpochRecord, TrainingRun

MAX_WORKERS = 8  # that prepare clips
STARTED = time.monotonic()  # when the program began, as nearly as --max-hours needs it


@dataclass(frozen=True)
class Trainings:
    """What is trained, on what.

    Attributes
    ----------
    name : str
        Of the model that is kept.
    model : Model
        To start from.
    labels : Labels
        Of the samples that take part.
    splits : list of Split
        One training each; the model of the last one is kept.
    labelled : LabelledRuns
    data : TrainingData
    plan : Plan
    """

    name: str
    model: Model
    labels: Labels
    splits: list[Split]
    labelled: LabelledRuns
    data: TrainingData
    plan: Plan

    def runs_of(self, samples: np.ndarray) -> NDArray[np.int_]:
        """Return the numbers of the runs that make some samples."""
        return np.array(sorted(int(i) for k in samples for i in self.labels.members[k]), int)


def plan_of(model: Model, settings: Settings) -> Plan:
    """Return how to train, as the options say."""
    training, encoding = settings.training, settings.encoding
    of_clips = training.tuning != "linear"
    return Plan(
        tuning=training.tuning,
        epochs=training.epochs,
        patience=training.patience,
        batch_size=encoding.batch_size or (BATCH if of_clips else BATCH_OF_EMBEDDINGS),
        device=model.device,
        windows_per_sample=training.windows_per_sample,
        learning_rate=training.learning_rate or 0.0,
        accumulate=training.accumulate,
        precision=encoding.precision,
        prompt_length=training.prompt_length,
        lora_rank=training.lora_rank,
        lora_alpha=training.lora_alpha or 0.0,
        augmentation=training.augmentation if of_clips else "none",
        devices=training.devices,
        nodes=training.nodes,
        workers=loader_workers(model.device, settings) if of_clips else 0,
        seed=settings.conduct.random_seed,
    )


def loader_workers(device: torch.device, settings: Settings) -> int:
    """Return how many processes prepare clips beside one that trains; on a CPU they would take what it computes with."""
    return min(MAX_WORKERS, settings.resources.threads - 1) if device.type == "cuda" else 0


def train_all(trainings: Trainings, settings: Settings) -> tuple[list[TrainedModel], dict[int, Prediction]]:
    """Make all trainings.

    Returns
    -------
    trained : list of TrainedModel
        One for each split.
    predictions : dict
        Number of a sample that was tested -> what a model that has not seen it predicts.

    Raises
    ------
    NeurostormError
        If a training to resume was begun with other options or data, or the loss is no longer a number.
    """
    folder = settings.work / TRAINING_FOLDER / trainings.name
    stamp = _begin(folder, trainings, settings)
    batch = batch_size(trainings.model, settings.resources)
    if trainings.plan.tuning == "linear":
        embedded = _embedded(trainings, folder / f"embeddings-{stamp}.npz", batch, settings.training.resume)
        trainings = replace(trainings, data=embedded)
    trained: list[TrainedModel] = []
    predictions: dict[int, Prediction] = {}
    for number, split in enumerate(trainings.splits, start=1):
        progress = Progress(f"model {trainings.name}, {split.name}", f"{number}/{len(trainings.splits)}")
        trained.append(_train(trainings, split, folder, settings, progress))
        if len(split.test):
            predictions |= _predict(trainings, trained[-1], split, batch, progress)
        progress.close()
    return trained, predictions


def _train(trainings: Trainings, split: Split, folder: Path, settings: Settings, progress: Progress) -> TrainedModel:
    what = f"training on {len(split.train)} samples, stopped by the loss on {len(split.validation)} others"
    run = training_run(folder / split.folder, settings, progress, progress.step(what, "step"))
    train, validation = trainings.runs_of(split.train), trainings.runs_of(split.validation)
    return fit(trainings.model, trainings.data, train, validation, trainings.plan, run)


def _predict(
    trainings: Trainings, trained: TrainedModel, split: Split, batch: int, progress: Progress
) -> dict[int, Prediction]:
    """Predict the samples that a training has not seen."""
    advance = progress.step(f"predicting {len(split.test)} samples it has not seen", "run")
    runs = trainings.runs_of(split.test)
    outputs = outputs_of(trainings.model, trained, trainings.data, runs, batch, advance)
    task = trained.objective.task(trainings.labels.target, None)
    members = trainings.labels.members
    return {int(k): interpret(task, np.concatenate([outputs[i] for i in members[k]])) for k in split.test}


def _embedded(trainings: Trainings, path: Path, batch: int, resume: bool) -> TrainingData:
    """Return the data with the embeddings of all windows, which do not change where the head alone is tuned."""
    data, used, runs = trainings.data, trainings.labels.rows, trainings.labelled.runs
    read = {
        i: trainings.labelled.read[runs[i].name].embeddings for i in used if runs[i].name in trainings.labelled.read
    }
    others = [i for i in used if i not in read]
    progress = Progress(f"model {trainings.name}", "embed")
    what = f"encoding {len(others)} runs once" if others else f"taking the embeddings of {len(used)} runs"
    advance = progress.step(what, "run")

    def make() -> list[np.ndarray]:
        made = embed_all(trainings.model, data, others, trainings.plan.precision, batch, advance)
        every = read | dict(zip(others, made, strict=True))
        return [every[i] for i in used]

    found = dict(zip(used, kept_in_file(path, resume, make), strict=True))
    progress.close()
    nothing = np.empty((0, 0), np.float32)  # for runs that take no part
    return replace(data, embeddings=[found.get(i, nothing) for i in range(len(data.runs))])


def _begin(folder: Path, trainings: Trainings, settings: Settings) -> str:
    """Make the folder of checkpoints; returns a digest of what the training depends on."""
    labels, plan = trainings.labels, asdict(trainings.plan)
    labelled, grid = trainings.labelled, grid_of(trainings.model, settings)
    used = [labelled.runs[i] for i in labels.rows]
    requested = {
        "version": __version__,
        "model": trainings.model.sha256,
        "labels": [*labels.y.tolist(), *labels.names.to_numpy().tolist(), *labels.classes],
        "splits": [[part.tolist() for part in (s.train, s.validation, s.test)] for s in trainings.splits],
        "plan": {name: str(value) for name, value in plan.items() if name not in ("device", "workers")},
        "grid": settings.resampling.grid,
        "censoring": asdict(settings.censoring),
        "runs": [
            (
                run.name,
                labelled.read[run.name].made_from
                if run.name in labelled.read
                else made_from(settings.work / GriddedOutputs(run, grid).int8),
            )
            for run in used
        ],
    }
    return begin(folder, requested, settings)


def begin_processes(study: Study) -> bool:
    """Prepare this process, alone or one of several that train together; returns whether it is the one that writes."""
    settings, training = study.settings, study.settings.training
    distributed.setup(training.devices * training.nodes, training.nodes)
    is_first = distributed.is_rank_zero()
    prepare_folders(settings if is_first else settings.replacing(clean_workdir=False), study.dataset)
    if training.devices > 1:  # processes share the processors
        torch.set_num_threads(max(1, settings.resources.threads // training.devices))
    return is_first


def begin_model(name: str, settings: Settings) -> None:
    """See that a model may be kept under a name; a process that does not write says what it says in a file of its own."""
    is_first = distributed.is_rank_zero()
    if not is_first:
        distributed.redirect_output(settings.work / TRAINING_FOLDER / f"{name}.process-{distributed.rank()}.txt")
    check_name_is_free(
        settings.out_dir / MODELS / name, settings.conduct.force or settings.training.resume or not is_first
    )


def training_run(
    folder: Path, settings: Settings, progress: Progress, advance: Callable[[int, int], None]
) -> TrainingRun:
    """Return where a training keeps its checkpoints, and what it tells of its epochs."""
    training = settings.training

    def log_epoch(record: EpochRecord) -> None:
        numbers = (f"{name.replace('_', ' ')} {_short(value)}" for name, value in record.items())
        LOG.info("%s: %s", progress.title, ", ".join(numbers))

    logger = None if training.logger == "none" else training.logger
    deadline = None if training.max_hours is None else STARTED + 3600 * training.max_hours
    return TrainingRun(folder, training.resume, log_epoch, advance, training.checkpoint_minutes, deadline, logger)


def begin(folder: Path, requested: dict[str, Any], settings: Settings) -> str:
    """Make a folder of checkpoints; returns a digest of what the training depends on.

    Parameters
    ----------
    requested : dict
        All of that.

    Raises
    ------
    NeurostormError
        If a training to resume is not there, or was begun with something else.
    """
    stamp = digest(json.loads(json.dumps(requested)))
    note = folder / BEGUN
    if settings.training.resume:
        begun = read_json(note).get("Digest")
        if begun is None:
            raise NeurostormError(f"--resume: there is no training to continue in {folder}")
        if begun != stamp:
            raise NeurostormError(
                f"--resume: the training in {folder} was begun with other settings or data; give those, or leave out --resume"
            )
    elif is_rank_zero():
        shutil.rmtree(folder, ignore_errors=True)  # nothing of an earlier training is ever continued
        write_json(note, {"Digest": stamp, "Command": settings.as_command()})
    return stamp


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
