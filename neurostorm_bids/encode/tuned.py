"""Fine-tuned models: a folder with what was tuned, and the name of the model it was tuned from.

Where the whole network was tuned, the folder holds it all. Elsewhere it holds the head and the tuned parts: they are
put into the backbone's weights when the model is loaded.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from neurostorm_bids.encode.checkpoint import Checkpoint
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.files import MODEL_FILE

HEAD = "output_head."
LOW_RANK = (".lora_A", ".lora_B")  # after a weight's name: B @ A is added to it
LONGEST_CHAIN = 8  # of models tuned from tuned models


def weights_file(path: Path) -> Path:
    """The file of weights that a path means: itself, or the one in a tuned model's folder."""
    if not path.is_dir():
        return path
    if not (path / MODEL_FILE).is_file():
        raise NeurostormError(f"{path} is not a model's folder: there is no {MODEL_FILE} in it")
    return path / MODEL_FILE


def backbone_of(checkpoint: Checkpoint, load: Callable) -> object:
    """Load the model that a checkpoint was tuned from.

    Parameters
    ----------
    load : callable
        Gives the model of a name or a path.

    Raises
    ------
    NeurostormError
        If it is not there, or is another one by now.
    """
    said, here = checkpoint.hyper_parameters["backbone"], checkpoint.path
    if not isinstance(said, dict) or not all(isinstance(said.get(key), str) for key in ("name", "sha256")):
        raise NeurostormError(f"{here}: its hyper-parameter backbone does not say which model it was tuned from")
    name, beside = said["name"], here.parent / Path(said["name"]).name
    if ("/" in name or beside.exists()) and not Path(name).exists():
        if not beside.exists():
            raise NeurostormError(
                f"{here} was tuned from {name}, which is not there; put a copy into {here.parent} "
                f"(its SHA-256 is {said['sha256']})"
            )
        name = str(beside)
    model = load(name)
    if model.sha256 != said["sha256"]:
        raise NeurostormError(
            f"{here} was tuned from {said['name']} with SHA-256 {said['sha256']}; the one here has {model.sha256}"
        )
    return model


def put_into(backbone: nn.Module, parts: Checkpoint) -> Checkpoint:
    """All weights of a tuned model: the backbone's encoder with the tuned parts in it, and the new head.

    Raises
    ------
    NeurostormError
        If a part has no place in the backbone.
    """
    weights = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith(HEAD)}
    plain = {name: tensor for name, tensor in parts.tensors.items() if not name.endswith(LOW_RANK)}
    weights |= plain
    scale = parts.hyper_parameters.get("lora_scale", 1.0)
    if type(scale) not in (int, float) or abs(scale) > 1e6:
        raise NeurostormError(f"{parts.path}: its hyper-parameter lora_scale is {scale!r}")
    for name, a in parts.tensors.items():
        if not name.endswith(LOW_RANK[0]):
            continue
        weight = name.removesuffix(LOW_RANK[0])
        try:
            weights[weight] = weights[weight] + scale * (parts.tensors[weight + LOW_RANK[1]].float() @ a.float())
        except (KeyError, RuntimeError) as error:
            raise NeurostormError(f"{parts.path}: its low-rank part of {weight} does not fit ({error})") from None
    return replace(parts, tensors=weights)


def is_head_alone(parts: "dict[str, Tensor]") -> bool:
    """Whether nothing but the head was tuned, so that embeddings are the backbone's."""
    return all(name.startswith(HEAD) for name in parts)
