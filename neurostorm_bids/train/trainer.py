"""Train with Lightning: epochs, validation, early stopping, checkpoints, several processes and nodes.

An epoch depends on the seed and its number alone. So a training that was killed and is resumed from the checkpoint of
its last whole epoch ends with the same weights as one that was not.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pytorch_lightning as lightning
import torch
import torchmetrics
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.signals import stop_on_signals
from neurostorm_bids.train.data import Order
from neurostorm_bids.train.distributed import starter
from neurostorm_bids.train.objective import Objective
from neurostorm_bids.train.tuning import LEARNING_RATES

LOG = logging.getLogger("neurostorm")
HEAD_RATE = 1e-2  # learning rate of the head, which sees standardised embeddings
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0  # largest norm of a gradient
WARM_UP = 0.05  # share of the steps in which the learning rate rises
LAST, BEST = "last.ckpt", "best.ckpt"
MIXED = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    tuning : str
    epochs : int
        At most.
    patience : int
        Epochs without a smaller loss on the validation subjects, after which training stops.
    learning_rate : float
        Of what is tuned beside the head, at its largest.
    batch_size : int
        Windows in a step of one process.
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
    devices, nodes : int
        Processes on a node, and nodes.
    workers : int
        Processes that make clips ahead, for each process that trains.
    seed : int
    """

    tuning: str
    epochs: int
    patience: int
    learning_rate: float
    batch_size: int
    device: torch.device
    precision: str = "fp32"
    devices: int = 1
    nodes: int = 1
    workers: int = 0
    seed: int = 0


class Tuner(lightning.LightningModule):
    """A network in training.

    Parameters
    ----------
    network : NeuroSTORM
        Its head gets standardised embeddings until `finish`.
    objective : Objective
    mean, std : (channels,) tensors
        Of the backbone's embeddings of the training windows.
    """

    strict_loading = False  # checkpoints hold what is tuned

    def __init__(
        self, network: NeuroSTORM, objective: Objective, mean: Tensor, std: Tensor, train: Dataset, check: Dataset, plan: Plan
    ):  # fmt: skip
        super().__init__()
        self.network, self.objective, self.plan = network, objective, plan
        self.data = {"train": train, "check": check}
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.train_loss, self.check_loss = torchmetrics.MeanMetric(), torchmetrics.MeanMetric()
        self.metric = objective.metric()

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B, 1, X, Y, Z, T), or embeddings (B, C), to raw outputs (B, outputs)."""
        embedding = x if x.ndim == 2 else self.network.embed(x, self.plan.precision)
        return self.network.output_head((embedding - self.mean) / self.std)

    def on_train_start(self) -> None:
        """Lightning has put its own handlers in place of ours, and taken the processes that it found."""
        stop_on_signals()
        if self.trainer.world_size != (torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1):
            raise NeurostormError(
                f"{self.trainer.world_size} processes are to train together, and not all were started; with Slurm, start "
                "the command with srun and as many tasks"
            )

    def training_step(self, batch: tuple, _number: int) -> Tensor:
        """Loss of one batch."""
        x, y = batch
        loss = self.objective.loss(self(x), y)
        self.train_loss.update(loss.detach(), len(y))
        return loss

    def validation_step(self, batch: tuple, _number: int) -> None:
        """Loss and metric of one batch of the validation subjects."""
        x, y = batch
        outputs = self(x).float()
        self.check_loss.update(self.objective.loss(outputs, y), len(y))
        self.objective.update(self.metric, outputs, y)

    def on_validation_epoch_end(self) -> None:
        """Tell what came out, over all processes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # r of outputs that do not vary yet
            found = self.metric.compute().nan_to_num()
        self.log("validation_loss", self.check_loss.compute())
        self.log("validation_metric", found)
        self.check_loss.reset()
        self.metric.reset()

    def configure_optimizers(self) -> dict:
        """AdamW; the rate rises, then falls as a cosine."""
        head = list(self.network.output_head.parameters())
        others = [p for p in self.network.model.parameters() if p.requires_grad]
        groups = [{"params": head, "lr": HEAD_RATE}]
        groups += [{"params": others, "lr": self.plan.learning_rate}] if others else []
        if self.plan.tuning == "linear":
            groups[0]["lr"] = self.plan.learning_rate
        optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
        n_steps = max(1, self.plan.epochs * len(self.train_dataloader()))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step / n_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader:
        """Batches of the training subjects, in an order of the epoch's own."""
        return self._loader("train", self.plan.seed)

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation subjects."""
        return self._loader("check", None)

    def _loader(self, which: str, seed: Optional[int]) -> DataLoader:
        data, workers = self.data[which], self.plan.workers
        order = Order(len(data), seed, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(
            data, self.plan.batch_size, sampler=order, num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
            pin_memory=self.plan.device.type == "cuda", persistent_workers=workers > 0,
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what is tuned; the rest is the backbone's."""
        tuned = {f"network.{name}" for name, p in self.network.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in tuned}

    def finish(self) -> NeuroSTORM:
        """The network with the standardisation put into its head."""
        linear = self.network.output_head.head.head
        with torch.no_grad():
            weight = linear.weight / self.std
            linear.bias -= weight @ self.mean
            linear.weight.copy_(weight)
        return self.network


class Diary(Callback):
    """What every epoch came to; kept in the checkpoints, so that it goes on after a resumption."""

    def __init__(self, tell: Callable, advance: Callable):
        self.epochs, self.tell, self.advance, self.started, self.rate = [], tell, advance, 0.0, 0.0

    def on_train_epoch_start(self, trainer, _module) -> None:
        self.started, self.rate = time.monotonic(), trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(self, trainer, _module, _outputs, _batch, number: int) -> None:
        self.advance(trainer.current_epoch * trainer.num_training_batches + number + 1,
                     trainer.max_epochs * trainer.num_training_batches)  # fmt: skip

    def on_train_epoch_end(self, trainer, module: Tuner) -> None:
        told = {name: float(trainer.callback_metrics[name]) for name in ("validation_loss", "validation_metric")}
        epoch = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": float(module.train_loss.compute()),
            "validation_loss": told["validation_loss"],
            f"validation_{module.objective.metric_name}": told["validation_metric"],
            "learning_rate": self.rate,  # as it begins
            "seconds": round(time.monotonic() - self.started, 1),
        }
        module.train_loss.reset()
        self.epochs.append(epoch)
        self.tell(epoch)

    def state_dict(self) -> dict:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict) -> None:
        self.epochs = list(state["epochs"])


class AtomicFiles(TorchCheckpointIO):
    """Checkpoints that are whole, whenever the process is killed."""

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        """Write beside, then rename."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def train(tuner: Tuner, folder: Path, resume: bool, tell: Callable, advance: Callable) -> "list[dict]":
    """Train until the validation loss no longer falls; the tuner then has the weights of the best epoch.

    Parameters
    ----------
    folder : Path
        For checkpoints.
    resume : bool
        Go on from the last whole epoch, if there was one.
    tell : callable
        Called with each epoch's account, a dict.
    advance : callable
        Called with (steps done, steps in all).

    Returns
    -------
    epochs : list of dict
        The accounts of all epochs.

    Raises
    ------
    NeurostormError
        If the loss is no longer a number.
    """
    plan = tuner.plan
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    diary = Diary(tell, advance)
    watch = {"monitor": "validation_loss", "mode": "min"}
    each = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename=Path(BEST).stem, **watch, **each)
    last = ModelCheckpoint(filename=Path(LAST).stem, every_n_epochs=1, **each)
    stopping = EarlyStopping(patience=plan.patience, check_on_train_epoch_end=True, **watch)
    alone = plan.devices * plan.nodes == 1
    n_processes, fewest = plan.devices * plan.nodes, min(len(data) for data in tuner.data.values())
    if fewest < n_processes:
        raise NeurostormError(f"{n_processes} processes cannot share {fewest} windows; give fewer --devices")
    start = folder / LAST if resume and (folder / LAST).is_file() else None
    if start and (epochs := _ended(start, plan)):
        load_best(tuner, folder)
        return epochs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torchmetrics")
        trainer = lightning.Trainer(
            accelerator="gpu" if plan.device.type == "cuda" else "cpu",
            devices=plan.devices if not alone or plan.device.index is None else [plan.device.index],
            num_nodes=plan.nodes,
            strategy="auto" if alone else "ddp_find_unused_parameters_false",
            precision=MIXED[plan.precision],
            max_epochs=plan.epochs,
            callbacks=[diary, stopping, best, last],
            plugins=[AtomicFiles(), environment(alone)],
            gradient_clip_val=CLIP_NORM,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # ours is
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(tuner, ckpt_path=start, weights_only=True)
    if not diary.epochs or not math.isfinite(diary.epochs[-1]["validation_loss"]) or not (folder / BEST).is_file():
        raise NeurostormError("the loss is no longer a number; give a smaller --learning-rate")
    load_best(tuner, folder)
    return diary.epochs


def _ended(checkpoint: Path, plan: Plan) -> "list[dict]":
    """The accounts of all epochs, if a training had come to its end when it was killed; else none."""
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    epochs = next(state for name, state in states.items() if name.startswith("Diary"))["epochs"]
    waited = next(state for name, state in states.items() if name.startswith("EarlyStopping"))["wait_count"]
    return epochs if waited >= plan.patience or len(epochs) >= plan.epochs else []


def environment(alone: bool) -> ClusterEnvironment:
    """Who starts the other processes; Slurm's numbers mean nothing where srun did not start us."""
    if alone:
        return LightningEnvironment()
    if starter() == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if starter() == "torchrun" else LightningEnvironment()


def load_best(tuner: Tuner, folder: Path) -> None:
    """Give a tuner the weights of its best epoch."""
    best = torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"]
    tuner.load_state_dict(best, strict=False)


def rate_at(done: float) -> float:
    """Share of the largest learning rate when this share of the steps is done.

    >>> [round(rate_at(done), 3) for done in (0, 0.05, 0.525, 1)]
    [0.05, 1.0, 0.5, 0.0]
    """
    if done < WARM_UP:
        return max(WARM_UP, done / WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(1, (done - WARM_UP) / (1 - WARM_UP))))


def default_plan(tuning: str, learning_rate: Optional[float], **others) -> Plan:
    """A plan with the learning rate that suits what is tuned, unless another is asked for."""
    return Plan(tuning, learning_rate=learning_rate or LEARNING_RATES[tuning], **others)
