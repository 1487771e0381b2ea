"""Spatiotemporal redundancy dropout: in pretraining, tokens that their neighbours could stand for are zeroed at random.

Source: Wang et al. (2026), doi 10.1038/s41551-026-01666-y, with tokens in place of entries of an attention matrix, which
Mamba has not.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from neurostorm_bids.model.network import Encoder

REACH = 5  # edge of a neighbourhood, tokens, in space and in time


class RedundancyDropout(nn.Module):
    """Zero each token of a window with the probability that is its redundancy."""

    def forward(self, tokens: Tensor, window: tuple[int, ...]) -> Tensor:
        """(S, N, C) -> the same: S windows of N tokens."""
        kept = torch.rand_like(tokens[..., 0]) >= redundancy(tokens, window)
        return tokens * kept[..., None]


def redundancy(tokens: Tensor, window: tuple[int, ...]) -> Tensor:
    """Return how far the neighbours of each token could stand for it, (S, N), from 0 to 1.

    Parameters
    ----------
    tokens : (S, N, C) tensor
    window : tuple of 4 int
        Tokens along x, y, z, t; N is their product.
    """
    in_space, in_time = (mask.to(tokens.device) for mask in _neighbours(window))
    alike = torch.softmax(tokens @ tokens.transpose(1, 2) / math.sqrt(tokens.shape[-1]), dim=-1)  # (S, N, N)
    of_space, of_time = alike * in_space, alike * in_time
    nearest_space, nearest_time = of_space.amax(dim=-1), of_time.amax(dim=-1)
    shares = [
        strength[..., None] * alike / total.clamp(min=1e-8) * (total > 0)
        for strength, total in (
            (nearest_time, of_space.sum(dim=-1, keepdim=True)),
            (nearest_space, of_time.sum(dim=-1, keepdim=True)),
        )
    ]
    weights = (0.5 * (shares[0] + shares[1])).clamp(0, 1)
    n_neighbours = (in_space.sum(dim=-1) + in_time.sum(dim=-1)).clamp(min=1)
    return (weights.sum(dim=-1) / n_neighbours).clamp(0, 1)


def add_redundancy_dropout(encoder: Encoder) -> None:
    """Let the blocks of an encoder drop redundant tokens while it is trained."""
    for _, stage in encoder.parts():
        for block in stage.parts():
            block.dropout = RedundancyDropout()


@lru_cache(maxsize=16)
def _neighbours(window: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return which tokens are neighbours in space (of the same frame), and in time (at the same place): (N, N) bool each."""
    where = torch.stack(torch.meshgrid(*(torch.arange(n) for n in window), indexing="ij"), dim=-1).view(-1, 4)
    apart = (where[:, None] - where[None]).abs()
    near = apart <= REACH // 2
    same = apart == 0
    itself = same.all(dim=-1)
    return near[..., :3].all(dim=-1) & same[..., 3] & ~itself, same[..., :3].all(dim=-1) & near[..., 3] & ~itself
