"""A run in the model's grid: what the model is fed, made window by window."""

from dataclasses import dataclass, field

import numpy as np

from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.timing import TimeMap


@dataclass(frozen=True)
class PlacedRun:
    """A run in a model's grid, z-scored, an array-like (X, Y, Z, T) of float32.

    Only brain voxels at the source's frames are kept, in memory or on disk; volumes are built when asked for, so ``run[..., 40:60]`` costs
    20 frames and ``numpy.asarray(run)`` the whole run.

    Attributes
    ----------
    grid : Grid
    brain : (n,) int array
        Brain voxels, as indices into the flattened (C order) grid.
    frames : FrameStore
        (source frames, n) float32. Signal before time resampling and normalisation.
    time_map : TimeMap
    first_frame_time : float
        Time of the first kept source frame after the start of the run, s.
    mean, std, minimum, maximum : float
        Over all brain voxels and resampled frames, negatives as 0.
    steps : dict
        What was done, for sidecars.
    notes : list of str
        What a user should know.
    beyond : (n, 3) int array
        Where brain lies beyond the grid, as indices of its voxels continued; every second one along each axis.
    """

    grid: Grid
    brain: np.ndarray
    frames: FrameStore
    time_map: TimeMap
    first_frame_time: float
    mean: float
    std: float
    minimum: float
    maximum: float
    steps: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    beyond: np.ndarray = field(default_factory=lambda: np.empty((0, 3), int))

    @property
    def shape(self) -> tuple:
        """(X, Y, Z, T)."""
        return (*self.grid.shape, len(self.time_map))

    ndim = 4
    dtype = np.dtype(np.float32)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel index to world coordinate (RAS), mm."""
        return self.grid.matrix

    @property
    def repetition_time(self) -> float:
        """Between frames, s."""
        return self.time_map.repetition_time

    @property
    def frame_times(self) -> np.ndarray:
        """Time of every frame after the start of the run, s, shape (T,)."""
        return self.first_frame_time + np.arange(len(self.time_map)) * self.repetition_time

    def window(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop``, float32, (X, Y, Z, stop - start)."""
        signal = np.maximum(self.time_map(self.frames, start, stop), 0)
        signal -= np.float32(self.mean)
        signal /= np.float32(self.std)
        volumes = np.full((len(signal), np.prod(self.grid.shape)), self.background, dtype=np.float32)
        volumes[:, self.brain] = signal
        return np.moveaxis(volumes.reshape(-1, *self.grid.shape), 0, -1)

    @property
    def background(self) -> np.float32:
        """Value outside the brain: the smallest inside."""
        return np.float32((self.minimum - self.mean) / self.std)

    def __getitem__(self, index) -> np.ndarray:
        """Index as an array of shape `shape`; a slice of time alone (``[..., a:b]``) builds just those frames."""
        index = index if isinstance(index, tuple) else (index,)
        n_given = sum(1 for i in index if i is not Ellipsis and i is not None)
        times = index[-1] if index[-1] is not Ellipsis and (n_given == 4 or Ellipsis in index[:-1]) else slice(None)
        if isinstance(times, slice) and times.step in (None, 1):
            start, stop, _ = times.indices(self.shape[3])
            built = self.window(start, max(start, stop))
            return built[(*index[:-1], slice(None))] if times != slice(None) else built[index]
        return np.asarray(self)[index]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("a PlacedRun is built when asked for: it cannot be had without a copy")
        return self.window(0, self.shape[3]).astype(dtype or np.float32, copy=False)
