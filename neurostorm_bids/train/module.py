"""A network in training: optimiser, schedule, batches and checkpoints, for any objective; and supervised fine-tuning."""

import math
import warnings
from typing import Any

import pytorch_lightning as lightning
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import backend
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.runtime.signals import leave_signals_to_parent
from neurostorm_bids.train.clips import RawClips, clips_of
from neurostorm_bids.train.data import Order
from neurostorm_bids.train.distributed import all_gather, rank
from neurostorm_bids.train.objective import Objective
from neurostorm_bids.train.plan import Plan

WEIGHT_DECAY = 0.01
NOT_DECAYED = ("A_log", "D", "prompt", "pos_embed", "time_embed")  # beside biases and norms
WARM_UP = 0.05  # share of the steps in which the learning rate rises
LOOK_AHEAD = 2  # batches that each process that prepares them is ahead

Batch = tuple[Tensor, Tensor, Tensor]  # clips or embeddings, labels, numbers of samples


class TrainingModule(lightning.LightningModule):
    """A network in training, whatever the objective.

    A subclass computes `training_step` and `validation_step`, and logs ``validation_loss`` at the end of each epoch.

    Parameters
    ----------
    network : nn.Module
    train, validation : Dataset
        Items are asked for by (epoch, number).
    plan : Plan
    """

    strict_loading = False  # checkpoints hold what is trained

    def __init__(self, network: nn.Module, train: Dataset[Any], validation: Dataset[Any], plan: Plan):
        super().__init__()
        self.network, self.plan = network, plan
        self.data = {"train": train, "validation": validation}
        self.train_loss = torchmetrics.MeanMetric()
        self.seen: tuple[int, int] | None = None  # epoch in which an earlier call was stopped, and its batches

    @property
    def clip_size(self) -> tuple[int, ...]:
        """(X, Y, Z) of the clips that the network takes."""
        raise NotImplementedError

    def transfer_batch_to_device(self, batch: Any, device: torch.device, number: int) -> Any:
        """Bring a batch to the device; of clips the frames alone, since whatever else is read here would be waited for there."""
        return tuple(
            part._replace(frames=part.frames.to(device, non_blocking=True))
            if isinstance(part, RawClips)
            else super(TrainingModule, self).transfer_batch_to_device(part, device, number)
            for part in batch
        )

    def on_after_batch_transfer(self, batch: Any, _number: int) -> Any:
        """Make clips of what has come to the device as bytes, and disturb them there."""
        return tuple(clips_of(part, self.clip_size) if isinstance(part, RawClips) else part for part in batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained, with learning rates."""
        return decayed_and_not(self.network, self.plan.learning_rate)

    def epoch_record(self, logged: dict[str, float]) -> dict[str, float]:
        """Return what is kept of an epoch, from what was logged."""
        return logged

    def on_train_start(self) -> None:
        """Lightning has taken the processes that it found."""
        if self.trainer.world_size != (torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1):
            raise NeurostormError(
                f"{self.trainer.world_size} processes are to train together, and not all were started; with Slurm, start "
                "the command with srun and as many tasks"
            )

    def configure_optimizers(self) -> Any:
        """AdamW (Loshchilov & Hutter 2019); the rate rises, then falls as a cosine."""
        optimizer = torch.optim.AdamW(self.parameter_groups())
        n_steps = self.plan.epochs * max(1, math.ceil(len(self.train_dataloader()) / self.plan.accumulate))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step / n_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training subjects, in an order of the epoch's own."""
        return self._loader("train", self.plan.seed)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation subjects."""
        return self._loader("validation", None)

    def order(self, which: str, seed: int | None) -> Order:
        """Return the order of items, shared among processes."""
        data: Any = self.data[which]
        return Order(len(data), seed, self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, which: str, seed: int | None) -> DataLoader[Any]:
        workers, order = self.plan.workers, self.order(which, seed)
        if which == "train" and self.seen is not None:
            order.skip(self.seen[0], self.seen[1] * self.plan.batch_size)
        return DataLoader(
            self.data[which],
            self.plan.batch_size,
            sampler=order,
            num_workers=workers,
            prefetch_factor=LOOK_AHEAD if workers else None,
            multiprocessing_context="forkserver" if workers else None,
            pin_memory=self.plan.device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_parent,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained, the rest being the backbone's; and the loss so far."""
        trained = {f"network.{name}" for name, p in self.network.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in trained}
        self.save_progress(checkpoint)

    def save_progress(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loss of the epoch so far."""
        world = max(1, self.trainer.world_size)
        checkpoint["train_loss"] = [float(self.train_loss.mean_value), float(self.train_loss.weight)]
        if world > 1:  # whoever goes on adds up as many equal parts
            everyone = all_gather({rank(): checkpoint["train_loss"]})
            checkpoint["train_loss"] = [sum(part[k] for part in everyone.values()) / world for k in (0, 1)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the loss so far, and after the batches that an earlier call has had of the epoch."""
        value, weight = checkpoint["train_loss"]
        self.train_loss.mean_value, self.train_loss.weight = torch.tensor(value), torch.tensor(weight)
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if not batches["is_last_batch"]:
            self.seen = (int(checkpoint["epoch"]), int(batches["current"]["ready"]))


class OutputsOfSamples(torchmetrics.Metric):
    """The mean output over the windows of each sample, whatever processes they were in; as a prediction is made.

    Parameters
    ----------
    n_samples, n_outputs : int
    """

    outputs: Tensor
    y: Tensor
    counts: Tensor

    def __init__(self, n_samples: int, n_outputs: int):
        super().__init__()
        for name, shape in (("outputs", (n_samples, n_outputs)), ("y", (n_samples,)), ("counts", (n_samples,))):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor, sample: Tensor) -> None:
        """Add (B, outputs) with labels and numbers of samples (B,)."""
        self.outputs.index_add_(0, sample, outputs.double())
        self.y.index_add_(0, sample, y.double())
        self.counts.index_add_(0, sample, torch.ones_like(y, dtype=torch.float64))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the outputs (samples, outputs) and labels (samples,), float32."""
        return (self.outputs / self.counts[:, None]).float(), (self.y / self.counts).float()


class FineTuning(TrainingModule):
    """A network that is tuned to predict labels.

    Parameters
    ----------
    network : NeuroSTORM
        Its head gets standardised embeddings until `finish`.
    objective : Objective
    standardisation : tuple of 2 (channels,) tensors
        Mean and standard deviation of the backbone's embeddings of the training windows.
    data : tuple of 2 Dataset
        To train on, for validation.
    n_samples : int
        In validation.
    plan : Plan
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: NeuroSTORM,
        objective: Objective,
        standardisation: tuple[Tensor, Tensor],
        data: tuple[Dataset[Any], Dataset[Any]],
        n_samples: int,
        plan: Plan,
    ):
        super().__init__(network, *data, plan)
        self.network: NeuroSTORM = network
        self.objective = objective
        self.register_buffer("mean", standardisation[0])
        self.register_buffer("std", standardisation[1])
        self.of_samples = OutputsOfSamples(n_samples, objective.n_outputs)

    @property
    def clip_size(self) -> tuple[int, ...]:
        """(X, Y, Z) of the clips that the network takes."""
        return self.network.config.img_size[:3]

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B, 1, X, Y, Z, T), or embeddings (B, C), to raw outputs (B, outputs)."""
        embedding = x if x.ndim == 2 else backend.embed(self.network, x, self.plan.precision)
        assert self.network.output_head is not None
        outputs: Tensor = self.network.output_head((embedding - self.mean) / self.std)
        return outputs

    def training_step(self, batch: Batch, _number: int) -> Tensor:
        """Return the loss of one batch."""
        x, y, _ = batch
        loss = self.objective.loss(self(x), y)
        self.train_loss.update(loss.detach(), len(y))
        return loss

    def validation_step(self, batch: Batch, _number: int) -> None:
        """Add the outputs of one batch to those of their samples."""
        x, y, sample = batch
        self.of_samples.update(self(x), y, sample)

    def on_validation_epoch_end(self) -> None:
        """Log loss and metric of the samples' mean outputs, over all processes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # r of outputs that do not vary yet
            outputs, y = self.of_samples.compute()
            self.log("validation_metric", self.objective.metric(outputs, y).nan_to_num())
        self.log("validation_loss", self.objective.loss(outputs, y))
        self.of_samples.reset()

    def epoch_record(self, logged: dict[str, float]) -> dict[str, float]:
        """Return losses and the metric of an epoch."""
        record = {
            "train_loss": float(self.train_loss.compute()),
            "validation_loss": logged["validation_loss"],
            f"validation_{self.objective.metric_name}": logged["validation_metric"],
        }
        self.train_loss.reset()
        return record

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the head, and what else is tuned, with learning rates."""
        assert self.network.output_head is not None
        head = decayed_and_not(self.network.output_head, self.plan.head_rate)
        return head + decayed_and_not(self.network.model, self.plan.learning_rate)

    def finish(self) -> NeuroSTORM:
        """Return the network with the standardisation, and what the shares of classes add to outputs, put into its head."""
        assert self.network.output_head is not None
        linear = self.network.output_head.head.head
        with torch.no_grad():
            weight = linear.weight / self.std
            linear.bias.sub_(weight @ self.mean)
            linear.bias.add_(self.objective.prior.to(linear.bias.device))
            linear.weight.copy_(weight)
        return self.network


def decayed_and_not(network: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """Return what is trained in a network, as groups for AdamW: weights decay; norms, biases, embeddings, ... do not."""
    groups: dict[float, list[nn.Parameter]] = {WEIGHT_DECAY: [], 0.0: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name.split(".")[-1] not in NOT_DECAYED
            groups[WEIGHT_DECAY if decays else 0.0].append(parameter)
    return [{"params": some, "lr": learning_rate, "weight_decay": decay} for decay, some in groups.items() if some]


def rate_at(done: float) -> float:
    """Return the share of the largest learning rate after this share of the steps.

    >>> [round(rate_at(done), 3) for done in (0, 0.05, 0.525, 1)]
    [0.05, 1.0, 0.5, 0.0]
    """
    if done < WARM_UP:
        return max(WARM_UP, done / WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(1, (done - WARM_UP) / (1 - WARM_UP))))
