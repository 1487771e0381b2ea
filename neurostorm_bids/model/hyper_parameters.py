"""What the hyper-parameters of a checkpoint say: the network's configuration, and what its head predicts."""

import math
from typing import Any

from torch import Tensor

from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.task import Task

SEVERAL = ("img_size", "patch_size", "depths", "first_window_size", "window_size")
SINGLE = ("in_chans", "embed_dim", "c_multiplier")
TEST = "test"  # metric, value and p-value of what it predicted of people whom it had not seen
REFERENCE = "reference"  # what the data are like that the model was trained on
NEEDED = ("window_size", "first_window_size", "last_layer_full_MSA")  # no shape of a weight tells them
# Larger ones belong to a damaged file, which must not fill the memory
MAX_SIZE, MAX_CHANNELS, MAX_BLOCKS, MAX_VOXELS = 4096, 2**16, 256, 2**31

HyperParameters = dict[str, Any]


def config_of(hyper_parameters: HyperParameters, tensors: dict[str, Tensor]) -> NeuroSTORMConfig:
    """Read the network's configuration from a checkpoint's hyper-parameters and the shapes of its weights.

    Raises
    ------
    ValueError
        If something is missing or out of range.
    """
    fields: dict[str, Any] = {}
    if missing := [name for name in NEEDED if hyper_parameters.get(name) is None]:
        raise ValueError(f"{missing[0]} is missing, and the weights do not tell it")
    for name in SEVERAL:
        if hyper_parameters.get(name) is not None:
            fields[name] = tuple(_size(name, n) for n in hyper_parameters[name])
    for name in SINGLE:
        if hyper_parameters.get(name) is not None:
            fields[name] = _size(name, hyper_parameters[name])
    fields["last_layer_full_MSA"] = _truth(hyper_parameters["last_layer_full_MSA"])
    prompts = {t.shape[1] for name, t in tensors.items() if name.endswith(".prompt") and t.ndim == 3}
    if len(prompts) > 1:
        raise ValueError(f"prompts of several lengths: {sorted(prompts)}")
    fields["prompt_len"] = prompts.pop() if prompts else 0
    head = tensors.get("output_head.head.head.weight")
    if head is not None:
        fields["head"] = "v2" if "output_head.head.hidden.weight" in tensors else "v1"
        fields["n_outputs"] = head.shape[0]
    config = NeuroSTORMConfig(**fields)
    _check(config)
    return config


def _check(config: NeuroSTORMConfig) -> None:
    for name in ("img_size", "patch_size", "first_window_size", "window_size"):
        if len(getattr(config, name)) != 4:
            raise ValueError(f"{name} has {len(getattr(config, name))} numbers, not 4")
    if any(n % p for n, p in zip(config.img_size, config.patch_size, strict=True)):
        raise ValueError(f"img_size {config.img_size} is not a multiple of patch_size {config.patch_size}")
    if not config.depths or config.n_channels > MAX_CHANNELS:
        raise ValueError(f"depths {config.depths} and c_multiplier {config.c_multiplier} are out of range")
    if sum(config.depths) > MAX_BLOCKS or math.prod(config.img_size) > MAX_VOXELS:
        raise ValueError("depths or img_size is out of range")


def task_of(hyper_parameters: HyperParameters, config: NeuroSTORMConfig) -> Task | None:
    """Read what a checkpoint's head predicts, as far as the checkpoint says; `None` without a head."""
    if config.head is None:
        return None
    members = hyper_parameters.get("members", 1)
    if type(members) is not int or members < 1 or config.n_outputs % members:
        raise ValueError(f"its head of {config.n_outputs} outputs holds {members!r} models")
    n_outputs = config.n_outputs // members
    kinds = {"classification": "binary" if n_outputs == 1 else "multiclass", "regression": "regression"}
    kind = kinds.get(str(hyper_parameters.get("downstream_task_type")), "unknown")
    if kind == "regression" and n_outputs != 1:
        kind = "unknown"
    n_classes = 2 if kind == "binary" else n_outputs
    return Task(
        kind,
        members=members,
        target=one_line(hyper_parameters.get("task_name") or "target"),
        classes=_class_names(hyper_parameters.get("classes"), n_classes),
        class_shares=_class_shares(hyper_parameters.get("class_shares"), n_classes),
        unit=one_line(hyper_parameters["unit"]) if isinstance(hyper_parameters.get("unit"), str) else None,
        label_range=_range(hyper_parameters.get("label_range")),
        trained_on=one_line(hyper_parameters.get("dataset_name") or "") or None,
        **_label_scaling(hyper_parameters),
    )


def one_line(text: Any) -> str:
    """Return text that fits into a cell of a table."""
    return " ".join(str(text).split())[:80]


def _label_scaling(hyper_parameters: HyperParameters) -> dict[str, float]:
    """Return the mean and standard deviation of the labels; empty if they are not known or were not used."""
    values: list[Any] = [hyper_parameters.get(key) for key in ("label_mean", "label_std")]
    if "min" in str(hyper_parameters.get("label_scaling_method")):  # scaled to a range, not by mean and std
        return {}
    if not all(type(value) in (int, float) and abs(value) < 1e30 for value in values) or not values[1] > 0:
        return {}
    return {"label_mean": float(values[0]), "label_std": float(values[1])}


def _range(value: Any) -> tuple[float, float] | None:
    good = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    return (float(value[0]), float(value[1])) if good and -1e30 < value[0] <= value[1] < 1e30 else None


def _class_names(names: Any, expected: int) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) != expected:
        return ()
    lines = tuple(map(one_line, names))
    return lines if len(set(lines)) == expected and all(lines) else ()


def _class_shares(shares: Any, expected: int) -> tuple[float, ...]:
    if not isinstance(shares, list) or len(shares) != expected:
        return ()
    good = all(type(share) in (int, float) and 0 < share < 1 for share in shares) and abs(sum(shares) - 1) < 1e-6
    return tuple(map(float, shares)) if good else ()


def _size(name: str, value: Any) -> int:
    if type(value) not in (int, float) or not 1 <= value <= MAX_SIZE or int(value) != value:
        raise ValueError(f"{name} is {value!r}")
    return int(value)


def _truth(value: Any) -> bool:
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)
