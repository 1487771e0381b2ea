"""What a model is fed to tell anatomy from activity: the run's temporal mean alone, and the run without it."""

from dataclasses import dataclass

import numpy as np

from neurostorm_bids.model.names import AT_MEAN
from neurostorm_bids.resample.gridded import FrameSource, GriddedRun

FRAMES_AT_A_TIME = 20


@dataclass(frozen=True)
class Control:
    """A run of which only the mean, or all but the mean, is left; in the units of the run as the model sees it.

    Attributes
    ----------
    run : GriddedRun
    mean : (voxels,) float32 array
        Over all frames, of the flattened grid; 0 outside the brain where it is to be taken off.
    only_mean : bool
    """

    run: GriddedRun
    mean: np.ndarray
    only_mean: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z, T)."""
        return self.run.shape

    @property
    def background(self) -> float:
        """Value outside the brain, as in the run."""
        return self.run.background

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start`` to ``stop``, float32, (X, Y, Z, stop - start)."""
        mean = self.mean.reshape(self.run.grid.shape)
        if self.only_mean:
            return np.moveaxis(np.repeat(mean[None], stop - start, axis=0), 0, -1)
        return np.asarray(self.run.window(start, stop) - mean[..., None])


def as_fed(run: GriddedRun, control: str) -> FrameSource:
    """Return what a model is fed of a run: the run, or what its control input leaves of it."""
    if not control:
        return run
    n = run.shape[3]
    total = np.zeros(np.prod(run.grid.shape))
    for start in range(0, n, FRAMES_AT_A_TIME):
        frames = run.window(start, min(start + FRAMES_AT_A_TIME, n))
        total += frames.sum(axis=-1, dtype=float).ravel()
    only_mean = control == AT_MEAN
    mean = np.full(len(total), run.background if only_mean else 0, np.float32)
    mean[run.brain] = total[run.brain] / n
    return Control(run, mean, only_mean)
