"""What of a model's outputs is explained, as one number."""

from dataclasses import dataclass

from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import backend
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.model.task import Task


@dataclass(frozen=True)
class Target:
    """One number that a head says of a clip.

    Attributes
    ----------
    name : str
        In words.
    unit : str
    chosen : int
        Which output; of an ensemble, of each member.
    members : int
        Of the ensemble, whose outputs are averaged.
    scale : float
        The output is multiplied by it.
    against_others : bool
        Whether the mean of all outputs is taken off: of several classes only differences count.
    raised : str or None
        The class that what raises the output speaks for; `None` for values.
    """

    name: str
    unit: str
    chosen: int = 0
    members: int = 1
    scale: float = 1.0
    against_others: bool = False
    raised: str | None = None

    def __call__(self, outputs: Tensor) -> Tensor:
        """(B, outputs) -> (B,)."""
        each = outputs.reshape(len(outputs), self.members, -1).mean(dim=1)
        value = each[:, self.chosen]
        return self.scale * (value - each.mean(dim=1) if self.against_others else value)

    def of(self, network: NeuroSTORM, clips: Tensor) -> Tensor:
        """Return the number for clips (B, 1, X, Y, Z, T), (B,); differentiable, and quicker in inference mode."""
        assert network.output_head is not None
        return self(network.output_head(backend.embed(network, clips)))


def target_of(model: Model, predicted: float | str, asked: str | None = None) -> Target:
    """Return what of a model is explained: its value, the logit of the second of two classes, or that of the predicted one.

    Parameters
    ----------
    predicted : float or str
        For this run.
    asked : str, optional
        The class to explain.

    Raises
    ------
    NeurostormError
        If the model has no head, or no such class.
    """
    task = model.task
    if task is None:
        raise NeurostormError(
            f"model '{model.name}' has no head, and an embedding is no single number to explain: give a fine-tuned model, or a probe that "
            "was kept (group --group-task probe --target NAME --save-as NAME)"
        )
    if asked is not None and asked not in task.classes:
        there = ", ".join(task.classes) or "none"
        raise NeurostormError(
            f"--attribution-class {asked}: model '{model.name}' has no such class; there are: {there}"
        )
    return _target(task, asked or predicted, asked)


def _target(task: Task, predicted: float | str, asked: str | None) -> Target:
    n = task.members
    if task.kind == "regression":
        scale = task.label_std if task.is_scaled_back and task.label_std is not None else 1.0
        unit = (task.unit or "unit of the labels") if task.is_scaled_back else "standard deviations of the labels"
        return Target(task.target, unit, 0, n, float(scale))
    if task.kind == "multiclass" and (chosen := _number_of(task, str(predicted))) is not None:
        words = f"{task.target}: {predicted}"
        return Target(words, "logit, against the mean of all classes", chosen, n, 1.0, True, str(predicted))
    if task.kind == "binary" and len(task.classes) == 2:
        is_first = asked is not None and asked == task.classes[0]
        other, raised = task.classes[::-1] if is_first else task.classes
        return Target(
            f"{task.target}: {raised} rather than {other}", "logit", 0, n, -1.0 if is_first else 1.0, raised=raised
        )
    return Target(f"{task.target}, first output", "raw output of the head", 0, n)


def _number_of(task: Task, name: str) -> int | None:
    """Return which output stands for a class; those of a head without names are called class0, class1, ..."""
    if task.classes:
        return task.classes.index(name) if name in task.classes else None
    number = name.removeprefix("class")
    return int(number) if number.isdecimal() else None
