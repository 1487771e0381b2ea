"""What a model's head predicts, and how its raw outputs become values that mean something."""

import math
from dataclasses import dataclass, replace

import numpy as np

from neurostorm_bids.errors import NeurostormError


@dataclass(frozen=True)
class Task:
    """The meaning of a head's outputs.

    Attributes
    ----------
    kind : {"binary", "multiclass", "regression", "unknown"}
        One logit; one logit per class; one value; or the checkpoint does not say.
    target : str
        What is predicted, such as age.
    classes : tuple of str
        Names in the order of the outputs; for a binary head the classes of a logit below and above 0.
    unit : str or None
        Unit of a regression's value once the label scaling is undone.
    label_mean, label_std : float or None
        Mean and standard deviation, in ``unit``, that the labels were standardised with.
    label_range : tuple of 2 float, or None
        Smallest and largest label in training, in ``unit``.
    trained_on : str or None
        Data set that the head was trained on.
    class_shares : tuple of float
        Share of each class in training, which probabilities are calibrated to; empty if it is not known.
    members : int
        How many models the head holds side by side, whose outputs are averaged.
    """

    kind: str
    target: str = "target"
    classes: tuple[str, ...] = ()
    unit: str | None = None
    label_mean: float | None = None
    label_std: float | None = None
    label_range: tuple[float, float] | None = None
    trained_on: str | None = None
    class_shares: tuple[float, ...] = ()
    members: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "class_shares", tuple(self.class_shares))
        object.__setattr__(self, "label_range", tuple(self.label_range) if self.label_range else None)

    def with_scaling(self, mean: float | None, std: float | None) -> "Task":
        """Return this task with the user's label scaling in place of any other.

        Raises
        ------
        NeurostormError
            If the task is no regression, or the scaling is incomplete.
        """
        if mean is None and std is None:
            return self
        if self.kind not in ("regression", "unknown"):
            raise NeurostormError("--label-mean and --label-std are for regression models; this one classifies")
        if mean is None or std is None or not std > 0:
            raise NeurostormError(
                "--label-mean and --label-std go together, and the standard deviation has to be above 0"
            )
        return replace(self, label_mean=mean, label_std=std)

    @property
    def n_outputs(self) -> int | None:
        """Outputs that a head for this task has; `None` if any number will do."""
        of_one = {"binary": 1, "regression": 1, "multiclass": len(self.classes) or None}.get(self.kind)
        return of_one and of_one * self.members

    @property
    def is_scaled_back(self) -> bool:
        """Whether a regression's value can be given in the unit of the labels."""
        return self.label_mean is not None and self.label_std is not None


@dataclass(frozen=True)
class Prediction:
    """The prediction of one run.

    Attributes
    ----------
    target : str
        What is predicted.
    value : float or str
        A number in `unit`, or the name of a class.
    unit : str
    probabilities : dict
        Class name -> probability; empty for a regression.
    outputs : tuple of float
        Raw outputs of a head of unknown meaning; else empty.
    spread : float
        Standard deviation over windows, of the value or of the predicted class's probability.
    spread_of_models : float
        The same over the models of an ensemble; NaN of one model.
    """

    target: str
    value: float | str
    unit: str
    probabilities: dict[str, float]
    outputs: tuple[float, ...]
    spread: float
    spread_of_models: float = math.nan


def interpret(task: Task, outputs: np.ndarray) -> Prediction:
    """Turn the raw outputs of a run's windows into a prediction.

    Outputs are averaged over windows before the sigmoid or softmax, as in the published evaluation. Where the shares of
    classes in training are known, the class is predicted whose probability is largest relative to its share: the most
    probable one would always be the one that is most frequent.

    Parameters
    ----------
    task : Task
    outputs : (windows, outputs) array
        Logits, or a standardised value; of an ensemble those of its first model, then of its second, ...
    """
    outputs = np.asarray(outputs, np.float64)
    each = outputs.reshape(len(outputs), task.members, outputs.shape[1] // task.members)
    found = _interpret(task, each.mean(axis=1))
    if task.members == 1 or not len(outputs):
        return found
    of_models = [_interpret(task, each[:, k]) for k in range(task.members)]
    if found.probabilities:
        values = [one.probabilities[str(found.value)] for one in of_models]
    else:
        values = [float(one.value) for one in of_models]
    return replace(found, spread_of_models=float(np.std(values, ddof=1)))


def _interpret(task: Task, outputs: np.ndarray) -> Prediction:
    """Turn the raw outputs of one model into a prediction."""
    from scipy.special import softmax  # a quarter of a second that reading the registry does not need

    if not len(outputs):  # every window was censored
        names = task.classes if task.kind != "regression" else ()
        return Prediction(task.target, math.nan, "no window left", {name: math.nan for name in names}, (), math.nan)
    if task.kind == "unknown":
        means = tuple(outputs.mean(axis=0).tolist())
        unit = "raw output of the head; the checkpoint does not say what it predicts"
        return Prediction(task.target, means[0], unit, {}, means, float(outputs[:, 0].std()))
    if task.kind == "regression":
        mean, std = 0.0, 1.0
        if task.label_mean is not None and task.label_std is not None:
            mean, std = task.label_mean, task.label_std
        unit = (task.unit or "unit of the labels") if task.is_scaled_back else "standardised (label scaling unknown)"
        values = outputs[:, 0] * std + mean
        return Prediction(task.target, float(values.mean()), unit, {}, (), float(values.std()))
    # A binary head's one logit is the second class's against 0 for the first.
    logits = np.concatenate([np.zeros_like(outputs), outputs], axis=1) if task.kind == "binary" else outputs
    names = task.classes or tuple(f"class{i}" for i in range(logits.shape[1]))
    of_run = softmax(logits.mean(axis=0))
    winner = int((of_run / task.class_shares if task.class_shares else of_run).argmax())
    return Prediction(
        task.target,
        names[winner],
        "class",
        {name: float(p) for name, p in zip(names, of_run, strict=True)},
        (),
        float(softmax(logits, axis=1)[:, winner].std()),
    )
