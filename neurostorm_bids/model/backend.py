"""Run a network with the fastest code that this machine and the call allow."""

import torch
from torch import Tensor

from neurostorm_bids.model import cpu_encoder
from neurostorm_bids.model.network import NeuroSTORM, mean_over_tokens

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def features(network: NeuroSTORM, clips: Tensor, precision: str = "fp32") -> Tensor:
    """Return the output tokens of clips, (B, 1, X, Y, Z, frames) -> (B, C, d, h, w, T).

    Parameters
    ----------
    precision : {"fp32", "bf16", "fp16"}
        Type of matrix products.
    """
    return features_of(network, clips, (len(network.config.depths),), precision)[0]


def features_of(
    network: NeuroSTORM, clips: Tensor, stages: tuple[int, ...], precision: str = "fp32"
) -> tuple[Tensor, ...]:
    """Return the tokens of some stages, (B, C, d, h, w, T) each, in one pass.

    Parameters
    ----------
    stages : tuple of int
        From 1, in which tokens are patches; each later one has half as many along an axis.
    precision : {"fp32", "bf16", "fp16"}
        Type of matrix products.
    """
    clips = network.resized(clips)
    if precision != "fp16" and cpu_encoder.available(network):
        with torch.autocast(
            "cpu", enabled=False
        ):  # the encoder casts what needs it, also inside a training loop's autocast
            return cpu_encoder.features_of(network, clips, stages, precision)
    with torch.autocast(clips.device.type, HALF.get(precision), enabled=precision in HALF):
        found = {i: tokens for i, tokens in enumerate(network.model.stages(clips), 1) if i in stages}
    return tuple(found[i].float() for i in stages)


def embed(network: NeuroSTORM, clips: Tensor, precision: str = "fp32") -> Tensor:
    """Return the embeddings of clips, (B, 1, X, Y, Z, frames) -> (B, C); parameters as of `features`."""
    return mean_over_tokens(features(network, clips, precision))
