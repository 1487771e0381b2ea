"""Networks that have learnt nothing: the demonstration model, and random weights to compare a model with."""

import hashlib
import math
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.model.initial import initialise
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.task import Task

UNTRAINED = "untrained, for demonstration"
RANDOM_WEIGHTS = "random weights, for comparison"
DEMO_CONFIG = NeuroSTORMConfig(embed_dim=12, head="v1", n_outputs=1)
DEMO_TASK = Task("binary", target="demonstration", classes=("heads", "tails"))


def demo_weights() -> dict[str, Tensor]:
    """Return the demonstration model's weights: seeded noise, the same on every machine (numpy's RandomState is frozen)."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in NeuroSTORM(DEMO_CONFIG).state_dict().items()}
    return {name: torch.from_numpy(_fill(name, shape)) for name, shape in shapes.items()}


def demo_network() -> tuple[NeuroSTORM, str]:
    """Return the demonstration model's network and the SHA-256 of its weights."""
    weights = demo_weights()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    with torch.device("meta"):
        network = NeuroSTORM(DEMO_CONFIG)
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval(), digest.hexdigest()


def random_network(config: NeuroSTORMConfig, seed: int = 0) -> NeuroSTORM:
    """Return a network of this configuration with the weights that a training starts from, without a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NeuroSTORM(replace(config, head=None, n_outputs=0))
    initialise(network, torch.Generator().manual_seed(seed))
    return network.requires_grad_(False).eval()


def _fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
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
    return np.asarray(values, dtype=np.float32)
