"""Fine-tuned models: a folder with what was tuned, and the name of the model it was tuned from.

Where the whole network was tuned, the folder holds all of it. Otherwise it holds the head and the tuned parts, which
are put into the weights of the backbone when the model is loaded.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import Checkpoint
from neurostorm_bids.model.names import AT_RANDOM, MODEL_FILE
from neurostorm_bids.runtime.json_files import read_json

HEAD = "output_head."
PERMUTED_HEADS = "output_head.permuted.weight"  # (heads, outputs, C): fitted to permuted labels, for --attribution
LOW_RANK = (".lora_A", ".lora_B")  # after a weight's name: B @ A is added to it


class HasWeights(Protocol):
    """A loaded model."""

    @property
    def sha256(self) -> str:
        """Of its weights."""


Loaded = TypeVar("Loaded", bound=HasWeights)


def weights_file(path: Path) -> Path:
    """Return the file of weights that a path stands for: itself, or the one in a tuned model's folder.

    Raises
    ------
    NeurostormError
        If it is a folder without one.
    """
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file():
        raise NeurostormError(f"{path} is not a model's folder: there is no {MODEL_FILE} in it")
    return path / MODEL_FILE


def reference_file(weights: Path) -> Path:
    """Return the file of reference figures beside a file of weights, which itself stays as it is."""
    return weights.with_name(f"{weights.name}.reference.json")


def reference_beside(weights: Path) -> dict[str, Any] | None:
    """Return the reference figures beside a file of weights; `None` if there are none."""
    path = reference_file(weights)
    return read_json(path) if path.is_file() else None


def load_backbone(checkpoint: Checkpoint, load: Callable[[str], Loaded]) -> Loaded:
    """Load the model that a checkpoint was tuned from.

    Parameters
    ----------
    load : callable
        Returns the model of a name or a path.

    Raises
    ------
    NeurostormError
        If it is not there, or has other weights by now.
    """
    wanted, here = checkpoint.hyper_parameters["backbone"], checkpoint.path
    if not isinstance(wanted, dict) or not all(isinstance(wanted.get(key), str) for key in ("name", "sha256")):
        raise NeurostormError(f"{here}: its hyper-parameter backbone does not say which model it was tuned from")
    name, at, _ = wanted["name"].partition(AT_RANDOM)
    beside = here.parent / Path(name).name
    try:
        is_here, is_beside = Path(name).exists(), beside.exists()
    except (OSError, ValueError) as error:
        raise NeurostormError(f"{here}: the name of the model it was tuned from is not a path ({error})") from None
    if ("/" in name or is_beside) and not is_here:
        if not is_beside:
            sha = "" if at else f" (its SHA-256 is {wanted['sha256']})"
            raise NeurostormError(
                f"{here} was tuned from {name}, which is not there; put a copy into {here.parent}{sha}"
            )
        name = str(beside)
    model = load(name + at)
    if model.sha256 != wanted["sha256"]:
        raise NeurostormError(
            f"{here} was tuned from {wanted['name']} with SHA-256 {wanted['sha256']}; the one here has {model.sha256}"
        )
    return model


def put_into(backbone: nn.Module, parts: Checkpoint) -> Checkpoint:
    """Return all weights of a tuned model: the backbone's encoder with the tuned parts in it, and the new head.

    Raises
    ------
    NeurostormError
        If a part has no place in the backbone.
    """
    weights = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith(HEAD)}
    weights |= {name: tensor for name, tensor in parts.tensors.items() if not name.endswith(LOW_RANK)}
    scale = parts.hyper_parameters.get("lora_scale", 1.0)
    if type(scale) not in (int, float) or abs(scale) > 1e6:
        raise NeurostormError(f"{parts.path}: its hyper-parameter lora_scale is {scale!r}")
    for weight in {name[: -len(end)] for name in parts.tensors for end in LOW_RANK if name.endswith(end)}:
        try:
            a, b = (parts.tensors[weight + end] for end in LOW_RANK)
            if (*b.shape[:1], *a.shape[1:]) != tuple(weights[weight].shape) or a.shape[0] != b.shape[1]:
                raise RuntimeError(f"{tuple(b.shape)} times {tuple(a.shape)}")
            weights[weight] = weights[weight] + scale * (b.float() @ a.float())
        except (KeyError, IndexError, RuntimeError) as error:
            raise NeurostormError(f"{parts.path}: its low-rank part of {weight} does not fit ({error})") from None
    return replace(parts, tensors=weights)


def is_head_alone(parts: dict[str, Tensor]) -> bool:
    """Whether nothing but the head was tuned, so that embeddings are the backbone's."""
    return all(name.startswith(HEAD) for name in parts)
