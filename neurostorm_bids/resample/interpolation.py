"""Interpolate a run at the brain voxels of the grid, reading it once from front to back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.brain import Brain
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.nifti import VOLUMES, Bold
from neurostorm_bids.resample.sampler import make_sampler

Advance = Callable[[int, int], None]


def interpolate(
    bold: Bold, brain: Brain, n_dummies: int, interpolation: str, work_dir: Path | None, advance: Advance | None
) -> tuple[FrameStore, str]:
    """Interpolate each volume of a run at the brain voxels of the grid.

    Parameters
    ----------
    n_dummies : int
        Volumes to drop at the start.
    interpolation : {"linear", "cubic"}
    work_dir : Path or None
        Keep the result in a nameless file of this folder; `None` keeps it in memory.
    advance : callable or None
        Called with (volumes read, volumes in all).

    Returns
    -------
    frames : FrameStore
        (volumes, brain voxels).
    how : str
        How they were interpolated, if they were.

    Raises
    ------
    NeurostormError
        If the file is damaged, no volume is left, or brain voxels are undefined.
    """
    if not 0 <= n_dummies < bold.n_volumes:
        raise NeurostormError(f"{bold.name}: cannot drop {n_dummies} dummy scans of {bold.n_volumes} volumes")
    sampler = make_sampler(brain.voxels, bold.shape, interpolation)
    frames = FrameStore(len(brain.indices), work_dir)
    for block in bold.blocks(n_dummies, VOLUMES):
        frames.append(sampler(without_undefined(block, bold, brain)))
        if advance:
            advance(len(frames), bold.n_volumes - n_dummies)
    return frames, "none (voxels coincide)" if sampler.weights is None else interpolation


def without_undefined(block: np.ndarray, bold: Bold, brain: Brain) -> np.ndarray:
    """Set NaN and infinity outside the brain to 0, so that interpolation at its edge does not spread them.

    Raises
    ------
    NeurostormError
        If there are any in the brain.
    """
    if np.isfinite(block.sum(dtype=np.float64)):
        return block
    undefined = ~np.isfinite(block)
    in_brain = brain.in_run.reshape(-1, order="F")
    n = int(undefined[in_brain].any(axis=1).sum())
    if n:
        raise NeurostormError(
            f"{bold.name}: {n} brain voxels hold NaN or infinity; "
            "find out which step wrote them, or take them out of the brain mask"
        )
    return np.where(undefined, np.float32(0), block)
