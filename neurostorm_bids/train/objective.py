"""What training minimises: the loss of a classification or a regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from neurostorm_bids.model.task import Task


@dataclass(frozen=True)
class Objective:
    """A loss, and how labels are given to it.

    Attributes
    ----------
    classes : tuple of str
        Empty for a regression.
    mean, std : float
        Labels of a regression are standardised with these.
    class_shares : tuple of float
        Share of each class among the samples; the loss is weighted such that every class counts the same.
    label_range : tuple of 2 float, or None
        Smallest and largest label in training.
    """

    classes: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0
    class_shares: tuple[float, ...] = ()
    label_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, y: np.ndarray, classes: Sequence[str]) -> "Objective":
        """Return the objective for the labels of the training samples: values, or classes as 0, 1, ..."""
        if not classes:
            return cls((), float(y.mean()), float(y.std()) or 1.0, label_range=(float(y.min()), float(y.max())))
        counts = np.bincount(y, minlength=len(classes))
        return cls(tuple(classes), class_shares=tuple((counts / len(y)).tolist()))

    @property
    def n_outputs(self) -> int:
        """Outputs of the head: one logit for two classes, as published."""
        return len(self.classes) if len(self.classes) > 2 else 1

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Return labels as the loss takes them, float32."""
        return ((np.asarray(y, float) - self.mean) / self.std).astype(np.float32)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of (B, outputs) for (B,) labels from `scaled`.

        The weights of classes are not divided by their sum in the batch: a batch that processes share gives the same
        gradient as in one process.
        """
        if not self.classes:
            return F.mse_loss(outputs[:, 0], y)
        weights = 1 / (len(self.classes) * torch.tensor(self.class_shares, device=y.device)[y.long()])
        if self.n_outputs == 1:
            each = F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")
        else:
            each = F.cross_entropy(outputs, y.long(), reduction="none")
        return (each * weights).mean()

    @property
    def prior(self) -> Tensor:
        """What to add to outputs, (outputs,), for probabilities that go with the shares of classes.

        The weighted loss makes outputs as if all classes had the same share; a logit is the logarithm of a probability up
        to what all have in common, and that of the one output of two classes is the second one's against the first's.
        """
        if not self.classes:
            return torch.zeros(1)
        logs = torch.tensor(self.class_shares).log()
        return logs[1:] - logs[:1] if self.n_outputs == 1 else logs

    @property
    def metric_name(self) -> str:
        """Name of the metric that is reported while training."""
        return "balanced_accuracy" if self.classes else "r"

    def metric(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the metric of (samples, outputs) for (samples,) labels."""
        if not self.classes:
            return torchmetrics.functional.pearson_corrcoef(outputs[:, 0], y)
        predicted = outputs[:, 0] > 0 if self.n_outputs == 1 else outputs.argmax(dim=1)
        n = len(self.classes)
        recall: Tensor = torchmetrics.functional.classification.multiclass_recall(
            predicted.long(), y.long(), n, average="macro"
        )
        return recall

    def task(self, target: str, trained_on: str | None) -> Task:
        """Return what the outputs of the head mean."""
        if self.classes:
            kind = "binary" if self.n_outputs == 1 else "multiclass"
            return Task(kind, target, classes=self.classes, trained_on=trained_on, class_shares=self.class_shares)
        return Task(
            "regression",
            target,
            label_mean=self.mean,
            label_std=self.std,
            label_range=self.label_range,
            trained_on=trained_on,
        )
