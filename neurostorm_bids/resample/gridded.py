"""A run in the model's grid: what the model is fed, made window by window."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.timing import RunTiming, TimeMap

if TYPE_CHECKING:
    from neurostorm_bids.find.source import RunSource
    from neurostorm_bids.resample.fieldmap import Corrected


class FrameSource(Protocol):
    """A run in the model's grid that frames can be taken from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z, T)."""

    @property
    def background(self) -> float:
        """Value outside the brain."""

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start`` to ``stop``, float32, (X, Y, Z, stop - start)."""


@dataclass(frozen=True)
class Statistics:
    """Statistics over all brain voxels and resampled frames, negative values as 0."""

    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class GriddedRun:
    """A run in a model's grid, z-scored; an array-like (X, Y, Z, T) of float32.

    Only brain voxels at the run's own volumes are kept, in memory or on disk. Frames are built when they are asked for,
    so that ``run[..., 40:60]`` costs 20 frames and ``numpy.asarray(run)`` the whole run.

    Attributes
    ----------
    grid : Grid
    brain : (n,) int array
        Brain voxels, as indices into the flattened (C order) grid.
    frames : FrameStore
        (volumes, n) float32: the signal before time resampling and normalisation.
    time_map : TimeMap
    timing : RunTiming
    statistics : Statistics
    steps : dict
        What was done, for sidecars.
    notes : list of str
        What a user should know.
    brain_outside : (n, 3) int array
        Where brain lies outside the grid, as voxel indices that continue beyond its ends; every second one along each axis.
    displacement : (volumes,) array or None
        Framewise displacement of the volumes that were kept, mm; `None` if it is not known.
    source : RunSource or None
        What it was read from; `None` for images that were given as such.
    corrected : Corrected or None
        What a fieldmap changed in it.
    """

    grid: Grid
    brain: np.ndarray
    frames: FrameStore
    time_map: TimeMap
    timing: RunTiming
    statistics: Statistics
    steps: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    brain_outside: np.ndarray = field(default_factory=lambda: np.empty((0, 3), int))
    displacement: np.ndarray | None = None
    source: "RunSource | None" = None
    corrected: "Corrected | None" = None

    ndim = 4
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(X, Y, Z, T)."""
        return (*self.grid.shape, len(self.time_map))

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel index to world coordinate (RAS), mm."""
        return self.grid.matrix

    @property
    def repetition_time(self) -> float:
        """Time from one frame to the next, s."""
        return self.time_map.repetition_time

    @property
    def frame_times(self) -> np.ndarray:
        """The moment after the start of the acquisition that every frame's values stand for, s, shape (T,)."""
        return self.timing.moments(self.time_map.positions)

    @property
    def frame_onsets(self) -> np.ndarray:
        """Where after the start of the acquisition the interval of every frame starts, s, shape (T,)."""
        return np.asarray(self.timing.onset + np.arange(len(self.time_map)) * self.repetition_time)

    @property
    def background(self) -> float:
        """Value outside the brain: the smallest one inside."""
        s = self.statistics
        return float(np.float32((s.minimum - s.mean) / s.std))

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start`` to ``stop``, float32, (X, Y, Z, stop - start)."""
        signal = self.signal(start, stop)
        volumes = np.full((len(signal), np.prod(self.grid.shape)), self.background, dtype=np.float32)
        volumes[:, self.brain] = signal
        return np.moveaxis(volumes.reshape(-1, *self.grid.shape), 0, -1)

    def signal(self, start: int, stop: int) -> np.ndarray:
        """Return the brain voxels of frames ``start`` to ``stop``, float32, (stop - start, n)."""
        signal: np.ndarray = np.maximum(self.time_map(self.frames, start, stop), 0)
        signal -= np.float32(self.statistics.mean)
        signal /= np.float32(self.statistics.std)
        return signal

    def __getitem__(self, index: Any) -> np.ndarray:
        """Index as an array of shape `shape`; a slice of time alone (``[..., a:b]``) builds only those frames."""
        index = index if isinstance(index, tuple) else (index,)
        n_given = sum(1 for i in index if i is not Ellipsis and i is not None)
        times = index[-1] if index[-1] is not Ellipsis and (n_given == 4 or Ellipsis in index[:-1]) else slice(None)
        if isinstance(times, slice) and times.step in (None, 1):
            start, stop, _ = times.indices(self.shape[3])
            built = self.window(start, max(start, stop))
            return np.asarray(built[(*index[:-1], slice(None))] if times != slice(None) else built[index])
        return np.asarray(np.asarray(self)[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a GriddedRun is built when it is asked for: there is no array without a copy")
        return self.window(0, self.shape[3]).astype(dtype or np.float32, copy=False)
