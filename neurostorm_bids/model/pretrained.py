"""What pretraining begins with: a model that is there, with its decoder where it has one, or a new network of some size."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import read_checkpoint
from neurostorm_bids.model.hyper_parameters import NEEDED, SEVERAL, SINGLE, HyperParameters
from neurostorm_bids.model.initial import new_network
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import is_file_name
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.registry import DEMO, DEMO_FILE, find_weights, published
from neurostorm_bids.model.tuned import weights_file
from neurostorm_bids.resample.grid import Grid

BASE, HEAD = "base", "output_head."
OF_BASE = {"embed_dim": 36, "depths": (2, 2, 6, 2), "img_size": (96, 96, 96, 20)}
SIZES: dict[str, dict[str, Any]] = {
    BASE: OF_BASE,
    "large": OF_BASE | {"embed_dim": 72},
    "narrow": OF_BASE | {"embed_dim": 12},
}
MASKS_IN_FILES = {  # as published checkpoints say it: in space, in time
    "random": ("random", "random"),
    "window": ("window", "random"),
    "window-tube": ("window", "tube"),
    "token-tube": ("random", "tube"),
    "atlas": ("atlas", "random"),
}


def config_of_size(words: tuple[str, ...], start: NeuroSTORMConfig | None = None) -> NeuroSTORMConfig:
    """Return the configuration that --size asks for.

    Parameters
    ----------
    words : tuple of str
        A name of `SIZES`, and NAME=VALUE of embed_dim, depths, sequence_length and img_size.
    start : NeuroSTORMConfig, optional
        What the words change; the published base model if it is not given.

    Raises
    ------
    NeurostormError
        If a word means nothing, or no network can be built so.

    Examples
    --------
    >>> config_of_size(("base", "embed_dim=48", "sequence_length=40")).img_size
    (96, 96, 96, 40)
    """
    config = start or NeuroSTORMConfig()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name in SIZES:
            config = replace(config, **SIZES[name])
            continue
        try:
            numbers = tuple(int(part) for part in value.split(","))
            if min(numbers) < 1:
                raise ValueError
            if name == "embed_dim":
                config = replace(config, embed_dim=_one(numbers))
            elif name == "depths":
                config = replace(config, depths=numbers)
            elif name == "sequence_length":
                config = replace(config, img_size=(*config.img_size[:3], _one(numbers)))
            elif name == "img_size":
                edges = numbers * 3 if len(numbers) == 1 else numbers
                if len(edges) != 3 or any(n % p for n, p in zip(edges, config.patch_size, strict=False)):
                    raise ValueError
                config = replace(config, img_size=(*edges, config.img_size[3]))
            else:
                raise ValueError
        except ValueError:
            raise NeurostormError(
                f"--size {word}: give {', '.join(SIZES)}, or embed_dim=N, depths=2,2,6,2, sequence_length=N, img_size=N (a multiple of "
                f"{config.patch_size[0]})"
            ) from None
    return config


def check_size(words: tuple[str, ...], model: Model) -> None:
    """See that a model has the size that --size asks for.

    Raises
    ------
    NeurostormError
        If it has another one.
    """
    own = model.network.config
    if config_of_size(words, own) != own:
        its = {
            "embed_dim": own.embed_dim,
            "depths": own.depths,
            "img_size": own.img_size[:3],
            "sequence_length": own.n_frames,
        }
        said = ", ".join(f"{name}={str(value).strip('()').replace(' ', '')}" for name, value in its.items())
        raise NeurostormError(
            f"--size {' '.join(words)}: model {model.name}, which --from goes on with, has another ({said}); leave out --size"
        )


def new_autoencoder(
    config: NeuroSTORMConfig, masking: Masking, seed: int, regions: Tensor | None = None
) -> MaskedAutoencoder:
    """Return a network that has learnt nothing.

    Raises
    ------
    NeurostormError
        If there can be none of this configuration and mask.
    """
    try:
        # windows that are hidden are those of the network
        return new_network(
            lambda: MaskedAutoencoder(config, replace(masking, window=config.window_size), regions), seed
        )
    except ValueError as error:
        raise NeurostormError(f"no such network can be pretrained: {error}") from None


def autoencoder_of(
    name: str, masking: Masking, seed: int, regions: Callable[[Grid, NeuroSTORMConfig], Tensor | None] | None = None
) -> tuple[MaskedAutoencoder, Model, bool]:
    """Return the autoencoder of a model that is there.

    Parameters
    ----------
    name : str
        Of the registry, or a file or folder.
    seed : int
        Of the decoder, where the model has none.
    regions : callable, optional
        Returns the label of every patch of a grid, for a mask of regions.

    Returns
    -------
    network : MaskedAutoencoder
    model : Model
    has_decoder : bool
        Whether the decoder is the model's own.

    Raises
    ------
    NeurostormError
        If the model cannot be loaded, or its decoder does not fit its encoder.
    """
    model = load_model(name, "cpu")
    config = replace(model.network.config, head=None, n_outputs=0)
    if config.prompt_len:
        raise NeurostormError(
            f"model {model.name} has prompts, which pretraining does not know; go on from the model it was tuned from"
        )
    network = new_autoencoder(config, masking, seed, regions(model.grid, config) if regions else None)
    state = network.state_dict()
    state |= {key: w for key, w in model.network.state_dict().items() if key in state}
    held = _own_weights(name)
    own = {key: held[key] for key in state if key not in model.network.state_dict() and key in held}
    lacking = [key for key in state if key not in model.network.state_dict() and key not in own]
    if own and lacking and not all("mask_token" in key for key in lacking):
        raise NeurostormError(f"model {model.name}: its decoder lacks {lacking[0]}")
    try:
        network.load_state_dict(state | own)
    except RuntimeError as error:
        raise NeurostormError(
            f"model {model.name}: its decoder does not fit its encoder ({str(error).splitlines()[-1].strip()})"
        ) from None
    return network, model, bool(own)


def projection_of(name: str) -> dict[str, Tensor]:
    """Return the weights of the head of a model that compares clips, without its prefix; empty if it has none."""
    found = {key.removeprefix(HEAD): tensor for key, tensor in _own_weights(name).items() if key.startswith(HEAD)}
    return {key: tensor for key, tensor in found.items() if key.startswith(("fc1.", "bn1."))}


def _own_weights(name: str) -> dict[str, Tensor]:
    """Return all weights of a model's file; of the older release the one mask token under the name it has today."""
    if name.lower() == DEMO:
        path = DEMO_FILE
    else:
        path = weights_file(Path(name).expanduser()) if is_file_name(name) else find_weights(published(name))
    tensors = {key: tensor.float() for key, tensor in read_checkpoint(path).tensors.items()}
    token = tensors.get("model.mask_token")
    if token is not None and token.ndim == 2:
        tensors["model.window_mask_token"] = tensors.pop("model.mask_token")
    return tensors


def describe(config: NeuroSTORMConfig, masking: Masking) -> HyperParameters:
    """Return what the file of a pretrained model says about its network, as published checkpoints do."""
    names = asdict(config)
    space, time = MASKS_IN_FILES[masking.kind]
    return {
        **{name: names[name] for name in (*SEVERAL, *SINGLE, *NEEDED)},
        "pretraining": True,
        "mask_ratio": masking.ratio,
        "spatial_mask": space,
        "time_mask": time,
    }


def _one(numbers: tuple[int, ...]) -> int:
    (number,) = numbers
    return number
