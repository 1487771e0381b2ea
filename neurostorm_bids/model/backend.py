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
    clips = network.resized(clips)
    if precision != "fp16" and cpu_encoder.available(network):
        with torch.autocast(
            "cpu", enabled=False
        ):  # the encoder casts what needs it, also inside a training loop's autocast
            return cpu_encoder.features(network, clips, precision)
    with torch.autocast(clips.device.type, HALF.get(precision), enabled=precision in HALF):
        tokens: Tensor = network.model(clips)
    return tokens.float()


def embed(network: NeuroSTORM, clips: Tensor, precision: str = "fp32") -> Tensor:
    """Return the embeddings of clips, (B, 1, X, Y, Z, frames) -> (B, C); parameters as of `features`."""
    return mean_over_tokens(features(network, clips, precision))
