"""The weights that a training from the beginning starts from.

Mamba's own (Gu & Dao 2023, arXiv 2312.00752): steps of 0.001 to 0.1. PyTorch's default would start them near 1, so that a
scan forgets within a token. Position and time embeddings and prompts: normal, standard deviation 0.02, cut at two of them;
what stands for hidden tokens is 0; the rest as PyTorch does.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from neurostorm_bids.model.network import Block, Mamba, NeuroSTORM, NeuroSTORMConfig, PositionalEmbedding

SMALLEST_STEP, LARGEST_STEP, FLOOR = 1e-3, 0.1, 1e-4
SPREAD = 0.02  # of embeddings and prompts

Network = TypeVar("Network", bound=nn.Module)


def new_network(make: Callable[[], Network], seed: int) -> Network:
    """Make a network and give it its initial weights; the random numbers of others stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def random_network(config: NeuroSTORMConfig, seed: int = 0) -> NeuroSTORM:
    """Return a network of this configuration with the weights that a training starts from, without a head."""
    network = new_network(lambda: NeuroSTORM(replace(config, head=None, n_outputs=0)), seed)
    return network.requires_grad_(False).eval()


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Give a network that was just made its initial weights, in place; what PyTorch has set stays where no rule is given.

    Parameters
    ----------
    network : Module
        Any that holds blocks of NeuroSTORM.
    generator : Generator
    """
    for module in network.modules():
        if isinstance(module, Mamba):
            _initialise_steps(module, generator)
        elif isinstance(module, PositionalEmbedding):
            for embedding in (module.pos_embed, module.time_embed):
                nn.init.trunc_normal_(embedding, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD, generator=generator)
        elif isinstance(module, Block) and module.prompt is not None:
            nn.init.trunc_normal_(module.prompt, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD, generator=generator)


@torch.no_grad()
def _initialise_steps(mamba: Mamba, generator: torch.Generator) -> None:
    """Let softplus of the bias be a step between the smallest and the largest, evenly in its logarithm."""
    width = mamba.dt_rank**-0.5
    mamba.dt_proj.weight.uniform_(-width, width, generator=generator)
    low, high = math.log(SMALLEST_STEP), math.log(LARGEST_STEP)
    steps = torch.empty(mamba.d_inner).uniform_(low, high, generator=generator).exp().clamp(min=FLOOR)
    mamba.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
