"""The engine: epochs, validation, early stopping, checkpoints, several processes and nodes, with Lightning.

A step depends on the seed and its number alone. So a training that was stopped or killed and is resumed from its last
checkpoint, in the middle of an epoch too, ends with the same weights as one that was not.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.atomic import replacing, write_text
from neurostorm_bids.train.distributed import launcher
from neurostorm_bids.train.interruption import Interruption
from neurostorm_bids.train.module import TrainingModule
from neurostorm_bids.train.plan import Plan

LOG = logging.getLogger("neurostorm")
MAX_GRADIENT_NORM = 1.0
LAST, BEST = "last.ckpt", "best.ckpt"
MIXED = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
MONITORED = {"monitor": "validation_loss", "mode": "min"}

EpochRecord = dict[str, float]


@dataclass(frozen=True)
class TrainingRun:
    """Where a training keeps its checkpoints, and what it reports to.

    Attributes
    ----------
    folder : Path
        For checkpoints.
    resume : bool
        Go on from the last checkpoint, if there is one.
    log_epoch : callable
        Called with the record of each epoch, a dict.
    advance : callable
        Called with (steps done, steps in all).
    minutes : float
        Between checkpoints, beside those at the end of epochs.
    deadline : float or None
        On the monotonic clock, s, after which it stops, to be resumed.
    logger : {"csv", "tensorboard"} or None
        What else Lightning writes into the folder.
    look : callable, optional
        Called with the records of all epochs so far, after each but the last, in the process that writes.
    """

    folder: Path
    resume: bool
    log_epoch: Callable[[EpochRecord], None]
    advance: Callable[[int, int], None]
    minutes: float = 30.0
    deadline: float | None = None
    logger: str | None = None
    look: Callable[[list[EpochRecord]], None] | None = None


class EpochLog(Callback):
    """The record of every epoch; it is kept in the checkpoints, so that it continues after a resumption."""

    def __init__(self, run: TrainingRun):
        self.run = run
        self.epochs: list[EpochRecord] = []
        self.started, self.rate = 0.0, 0.0
        self.first, self.validating = 0, 0.0

    def on_train_start(self, trainer: lightning.Trainer, _module: Any) -> None:
        """Start the clock: an epoch that is gone on with in its middle is not started."""
        self.started, self.first, self.validating = time.monotonic(), trainer.global_step, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Note when the epoch starts, and with which learning rate."""
        self.on_train_start(trainer, module)
        self.rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_validation_start(self, _trainer: lightning.Trainer, _module: Any) -> None:
        """Note when the looking at held-out people starts, which is no training."""
        self.validating -= time.monotonic()

    def on_validation_end(self, _trainer: lightning.Trainer, _module: Any) -> None:
        """Note how long it took."""
        self.validating += time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, _module: Any, *_: Any) -> None:
        """Report a step."""
        of_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self.run.advance(trainer.global_step, (trainer.max_epochs or 0) * of_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Keep and report the record of the epoch."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.monotonic() - self.started
        n_clips = (trainer.global_step - self.first) * module.plan.windows_in_step
        record = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **module.epoch_record(logged),
            "learning_rate": self.rate,  # at its start
            "seconds": round(seconds, 1),
            "clips_per_second": round(n_clips / max(seconds - self.validating, 1e-9), 3),
        }
        self.epochs.append(record)
        self.run.log_epoch(record)
        if trainer.is_global_zero:
            table = pd.DataFrame(self.epochs).to_csv(sep="\t", index=False, na_rep="n/a")
            write_text(self.run.folder / "history.tsv", table)
            if self.run.look is not None and record["epoch"] < module.plan.epochs:
                self.run.look(self.epochs)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"epochs": self.epochs, "rate": self.rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.epochs, self.rate = list(state["epochs"]), state["rate"]


class EarlyStoppingFromHalfway(EarlyStopping):
    """Stops when the loss no longer falls; no epoch counts as waiting before half of them, where the rate is still high.

    Parameters
    ----------
    patience : int
        Epochs to wait from then on.
    epochs : int
        At most.
    """

    def __init__(self, patience: int, epochs: int):
        super().__init__(patience=patience, check_on_train_epoch_end=True, **MONITORED)  # type: ignore[arg-type]
        self.epochs_to_wait, self.first = patience, epochs // 2

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Compare the loss of the epoch with the smallest one."""
        waiting = trainer.current_epoch >= self.first
        self.patience = self.epochs_to_wait if waiting else (trainer.max_epochs or 0) + 1
        super().on_train_epoch_end(trainer, pl_module)
        if not waiting:
            self.wait_count = 0


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are complete, whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary file, then rename it."""
        with replacing(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # which PyTorch makes of an OSError
                raise NeurostormError(
                    f"cannot write {path}: {str(error).splitlines()[0]}; make room on the disk, then go on with --resume from the "
                    "checkpoint before it"
                ) from None


def train(module: TrainingModule, run: TrainingRun) -> list[EpochRecord]:
    """Train until the validation loss no longer falls; the module then has the weights of the best epoch.

    Returns
    -------
    list of dict
        The records of all epochs.

    Raises
    ------
    NeurostormError
        If the loss is no longer a number.
    """
    plan, folder = module.plan, run.folder
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    fewest = min(len(data) for data in module.data.values())  # type: ignore[arg-type]
    if fewest < plan.n_processes:
        raise NeurostormError(f"{plan.n_processes} processes cannot share {fewest} windows; give fewer --devices")
    start = folder / LAST if run.resume and (folder / LAST).is_file() else None
    if start and (epochs := _ended(start, plan)):
        load_best(module, folder)
        return epochs
    log = EpochLog(run)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torchmetrics")
        _trainer(plan, run, log).fit(module, ckpt_path=start, weights_only=True)
    if not log.epochs or not math.isfinite(log.epochs[-1]["validation_loss"]) or not (folder / BEST).is_file():
        raise NeurostormError("the loss is no longer a number; give a smaller --learning-rate")
    load_best(module, folder)
    return log.epochs


def _trainer(plan: Plan, run: TrainingRun, log: EpochLog) -> lightning.Trainer:
    alone, folder = plan.n_processes == 1, run.folder
    kept: dict[str, Any] = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    # the average comes before what saves it
    averaging = [EMAWeightAveraging(decay=plan.averaging, use_buffers=False)] if plan.averaging else []
    callbacks = [
        *averaging,
        log,
        Interruption(folder / LAST, run.minutes, run.deadline),
        EarlyStoppingFromHalfway(plan.patience, plan.epochs),
        ModelCheckpoint(filename=Path(BEST).stem, **MONITORED, **kept),  # type: ignore[arg-type]
        ModelCheckpoint(filename=Path(LAST).stem, every_n_epochs=1, **kept),
    ]
    return lightning.Trainer(
        accelerator="gpu" if plan.device.type == "cuda" else "cpu",
        devices=plan.devices if not alone or plan.device.index is None else [plan.device.index],
        num_nodes=plan.nodes,
        strategy="auto" if alone else "ddp_find_unused_parameters_false",
        precision=MIXED[plan.precision],  # type: ignore[arg-type]
        max_epochs=plan.epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints(), _environment(alone)],
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=MAX_GRADIENT_NORM,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours is
        logger=_logger(run),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _logger(run: TrainingRun) -> Logger | bool:
    """Return what writes every step's loss and every validation's numbers, if that is wanted.

    Raises
    ------
    NeurostormError
        If TensorBoard is not there.
    """
    if run.logger is None:
        return False
    if run.logger == "csv":
        # a table of its own for every call: Lightning would remove that of an earlier one
        n_before = len(list(run.folder.glob("csv*")))
        return CSVLogger(run.folder, name="", version=f"csv-{n_before + 1}", flush_logs_every_n_steps=10)
    try:
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(run.folder, name="", version="tensorboard")
    except ImportError:
        raise NeurostormError(
            "--logger tensorboard needs the package tensorboard: pip install neurostorm_bids[tensorboard]"
        ) from None


def _ended(checkpoint: Path, plan: Plan) -> list[EpochRecord]:
    """Return the records of all epochs, if a training had come to its end when it was killed; else none."""
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    epochs: list[EpochRecord] = next(state for name, state in states.items() if name.startswith("EpochLog"))["epochs"]
    waited = next(state for name, state in states.items() if name.startswith("EarlyStopping"))["wait_count"]
    return epochs if waited >= plan.patience or len(epochs) >= plan.epochs else []


def _environment(alone: bool) -> ClusterEnvironment:
    """Return who starts the other processes; Slurm's numbers mean nothing where srun did not start us."""
    if alone:
        return LightningEnvironment()
    if launcher() == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if launcher() == "torchrun" else LightningEnvironment()


def load_best(module: TrainingModule, folder: Path) -> None:
    """Give a module the weights of its best epoch."""
    best = torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(best, strict=False)
