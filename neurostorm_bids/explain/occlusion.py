"""Occlusion: what an output loses when a part of the brain is replaced by the baseline. Needs no gradient."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.explain.gradients import Output


def occlude(
    output: Output, clip: Tensor, baseline: Tensor, numbers: Tensor, advance: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return how much the output falls when each parcel is replaced, (parcels,), or of several outputs (parcels, outputs).

    Parameters
    ----------
    output : callable
        (B, 1, X, Y, Z, T) -> (B,) or (B, outputs).
    clip, baseline : (X, Y, Z, T) tensors
    numbers : (X, Y, Z) int tensor
        Of parcels, from 1.
    advance : callable, optional
        Called with (parcels done, parcels in all).
    """
    with torch.inference_mode():
        whole = output(clip[None, None])[0]
        fallen = []
        n = int(numbers.max())
        for parcel in range(1, n + 1):
            fallen.append((whole - output(replaced(clip, baseline, numbers == parcel)[None, None])[0]).cpu().numpy())
            if advance:
                advance(parcel, n)
    return np.array(fallen, dtype=np.float64)


def replaced(clip: Tensor, by: Tensor, where: Tensor) -> Tensor:
    """Return a clip with another one in some voxels, (X, Y, Z, T); ``where`` is (X, Y, Z)."""
    return torch.where(where[..., None], by, clip)
