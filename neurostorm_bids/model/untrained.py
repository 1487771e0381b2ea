"""The embedded demonstration model: a narrow NeuroSTORM whose weights are seeded noise, never trained."""

import math
import zlib

import numpy as np
import torch

from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.task import Task

UNTRAINED = "untrained, for demonstration"
DEMO_CONFIG = NeuroSTORMConfig(embed_dim=12, head="v1", n_outputs=1)
DEMO_TASK = Task("binary", target="demonstration", classes=("heads", "tails"))


def demo_weights() -> dict:
    """The state dict, the same on every machine: numpy's RandomState is frozen for good."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in NeuroSTORM(DEMO_CONFIG).state_dict().items()}
    return {name: torch.from_numpy(_fill(name, shape)) for name, shape in shapes.items()}


def _fill(name: str, shape: tuple) -> np.ndarray:
    noise = np.random.RandomState(zlib.crc32(f"neurostorm demo {name}".encode())).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "A_log":  # decay rates 1 ... d_state, as Mamba starts
        values = np.log(np.arange(1.0, shape[1] + 1)) + 0 * noise
    elif leaf == "D" or (leaf == "weight" and "norm" in name):
        values = np.ones(shape)
    elif name.endswith("dt_proj.bias"):
        values = noise - 4  # softplus(-4) is a step of about 0.02
    elif leaf == "bias":
        values = np.zeros(shape)
    elif leaf == "weight":
        values = noise / math.sqrt(math.prod(shape[1:]))
    else:  # position and time embeddings
        values = 0.02 * noise
    return values.astype(np.float32)
