"""Contrastive pretraining: clips of one run are alike, clips of different people are not.

Source: Kim et al. (2023), SwiFT, arXiv 2307.05916; NT-Xent of Chen et al. (2020), arXiv 2002.05709. Names of the head are
those of published weights.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

LENGTH = 128  # of what is compared
TEMPERATURE = 0.1


class ProjectionHead(nn.Module):
    """From output tokens to vectors of length one that are compared."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, LENGTH, bias=False)
        self.bn1 = nn.BatchNorm1d(LENGTH)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, d, h, w, T) -> (B, 128); in training means and variances are those of all processes."""
        vectors = self.fc1(features.flatten(2).mean(dim=2))
        if not self.training:
            return F.normalize(self.bn1(vectors), dim=1)
        n = len(vectors)
        first = n * dist.get_rank() if _are_several() else 0
        return F.normalize(self.bn1(gathered(vectors))[first : first + n], dim=1)


def nt_xent(one: Tensor, other: Tensor, people: Tensor | None = None) -> Tensor:
    """Return the normalised temperature-scaled cross entropy of pairs; every other vector of both is a negative.

    Parameters
    ----------
    one, other : (..., B, K) tensors
        Vectors of length one; the i-th of both are a pair. Further axes are problems of their own.
    people : (B,) int tensor, optional
        Whose they are: other vectors of the same person are no negatives (published: they are).

    Returns
    -------
    (...) tensor
        Sum over the 2 B anchors, divided by 2 B.
    """
    both = torch.cat([one, other], dim=-2)
    n = one.shape[-2]
    alike = both @ both.transpose(-2, -1) / TEMPERATURE
    itself = torch.eye(2 * n, dtype=torch.bool, device=both.device)
    partner = torch.arange(2 * n, device=both.device).roll(n)
    left_out = itself
    if people is not None:
        same = people.repeat(2)[:, None] == people.repeat(2)[None]
        left_out = itself | (same & ~itself[partner])
    logits = alike.masked_fill(left_out, float("-inf"))
    return -torch.log_softmax(logits, dim=-1)[..., torch.arange(2 * n), partner].mean(dim=-1)


def instance_loss(one: Tensor, other: Tensor, people: Tensor | None = None) -> Tensor:
    """Return the loss of telling two clips of a run from those of other people, (B, 128) each, over all processes.

    Parameters
    ----------
    people : (B,) int tensor, optional
        As of `nt_xent`.
    """
    whose = None if people is None else gathered(people.double()[:, None])[:, 0]
    return nt_xent(gathered(one), gathered(other), whose)


def local_loss(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of telling two clips of one run apart, each seen twice, summed over the batch.

    Parameters
    ----------
    first, second : tuples of 2 (B, 128) tensors
        Two views of the first clips, and two of the second ones.
    """
    one, other = torch.stack([first[0], second[0]], dim=1), torch.stack([first[1], second[1]], dim=1)  # (B, 2, 128)
    return nt_xent(one, other).sum()


def gathered(vectors: Tensor) -> Tensor:
    """Return the vectors of all processes in the order of their ranks, with gradients to each; (B, K) -> (world B, K).

    Lightning averages gradients over processes, and each of them has the whole loss: so the gradient is that of one process
    with the whole batch.
    """
    if not _are_several():
        return vectors
    found: Tensor = _Gather.apply(vectors)  # type: ignore[no-untyped-call]
    return found


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Gather(torch.autograd.Function):
    """All processes' vectors; the gradient of a vector is the sum over the processes that used it."""

    @staticmethod
    def forward(_ctx: object, vectors: Tensor) -> Tensor:
        parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        dist.all_reduce(total)
        n = len(total) // dist.get_world_size()
        return total[dist.get_rank() * n : (dist.get_rank() + 1) * n]
