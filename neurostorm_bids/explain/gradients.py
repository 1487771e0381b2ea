"""Integrated gradients: how much each voxel and moment adds to an output, on the way from a baseline to the clip.

Sundararajan et al. (2017), arXiv 1703.01365. The integral along the straight line from the baseline to the clip is taken by
Gauss-Legendre quadrature. By the completeness property all attributions sum to the difference of the outputs: nodes are added
until they do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NODES = (8, 16, 32, 64)
GOOD, BAD = 0.01, 0.05  # error of completeness, relative to the difference, that is enough, and that is too much
SMALLEST = 1e-3  # difference over the size of the outputs, below which errors are relative to this

Output = Callable[[Tensor], Tensor]  # clips (B, 1, X, Y, Z, T) -> (B,)


@dataclass(frozen=True)
class Attribution:
    """What a clip's voxels and moments add to an output.

    Attributes
    ----------
    values : (X, Y, Z, T) float32 array
    output, of_baseline : float
        Of the clip, and of its baseline.
    nodes : int
        Of the quadrature.
    error : float
        Of completeness: of the sum of all values, relative to the difference of the outputs.
    """

    values: np.ndarray
    output: float
    of_baseline: float
    nodes: int
    error: float

    @property
    def over_time(self) -> np.ndarray:
        """Sums over the frames, (X, Y, Z)."""
        return np.asarray(self.values.sum(axis=3, dtype=np.float64))

    @property
    def difference(self) -> float:
        """What the clip adds to the baseline's output."""
        return self.output - self.of_baseline


def integrated_gradients(
    output: Output,
    clip: Tensor,
    baseline: Tensor,
    nodes: tuple[int, ...] = NODES,
    advance: Callable[[], None] | None = None,
) -> Attribution:
    """Attribute the output of a clip.

    Parameters
    ----------
    output : callable
        Differentiable.
    clip, baseline : (X, Y, Z, T) tensors
    nodes : tuple of int
        Numbers of nodes to try, one after the other, until completeness holds.
    advance : callable, optional
        Called after each gradient.
    """
    apart = clip - baseline
    with torch.no_grad():
        at_clip, at_baseline = (float(output(x[None, None])) for x in (clip, baseline))
    difference = at_clip - at_baseline
    scale = max(abs(difference), SMALLEST * (abs(at_clip) + abs(at_baseline)), 1e-12)
    values, error, n = np.empty(0), np.inf, 0
    for n in nodes:
        values = (apart * _mean_gradient(output, baseline, apart, n, advance)).cpu().numpy()
        error = abs(float(values.sum(dtype=np.float64)) - difference) / scale
        if error <= GOOD:
            break
    return Attribution(values, at_clip, at_baseline, n, error)


def _mean_gradient(
    output: Output, baseline: Tensor, apart: Tensor, n: int, advance: Callable[[], None] | None
) -> Tensor:
    """Return the mean of the gradient from the baseline to the clip, one node after the other: memory is that of one."""
    at, weights = np.polynomial.legendre.leggauss(n)
    total = torch.zeros_like(apart)
    for share, weight in zip((at + 1) / 2, weights / 2, strict=True):
        point = (baseline + float(share) * apart).requires_grad_()
        (gradient,) = torch.autograd.grad(output(point[None, None]).sum(), point)
        total += float(weight) * gradient
        if advance:
            advance()
    return total
