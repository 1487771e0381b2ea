"""Time: the convention, which repetition time is used, and resampling along time.

The convention, which everything else in this package follows. Times are in seconds after the start of the acquisition.

- Volume *i* of a run stands for an interval of one repetition time, from ``start + i TR`` to ``start + (i + 1) TR``.
  ``start`` is the run's BIDS ``StartTime``, 0 unless the run was cut. After slice timing correction all values of a
  volume stand for one moment, ``StartTime + i TR``, which is the middle of the interval: ``start = StartTime - TR/2``.
- Resampling aligns intervals: the frames that replace *n* volumes cover the same time. A window of frames starts where
  the interval of its first frame starts.
- A frame lies between volumes: its value stands for ``StartTime + position TR``, where the position counts volumes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neurostorm_bids.errors import NeurostormError

PUBLISHED_TR = 0.8  # s; the repetition time of the published preprocessing
PLAUSIBLE_TR = (0.05, 30.0)  # s


class Frames(Protocol):
    """Frames along the first axis, in memory or on disk."""

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Return the frames of a slice with step 1."""


@dataclass(frozen=True)
class RunTiming:
    """When the volumes of a run were acquired, and what becomes of them.

    Attributes
    ----------
    repetition_time : float
        s.
    source : str
        What the repetition time was taken from: sidecar, header, ...
    target : float or None
        Repetition time to resample to, s; `None` keeps the run's.
    dummy_scans : int
        Volumes to drop at the start.
    start_time : float
        BIDS ``StartTime``, s.
    slice_timing_corrected : bool
    """

    repetition_time: float
    source: str
    target: float | None = PUBLISHED_TR
    dummy_scans: int = 0
    start_time: float = 0.0
    slice_timing_corrected: bool = False

    @property
    def onset(self) -> float:
        """Where the interval of the first volume that is kept starts, s."""
        start = self.start_time - (self.repetition_time / 2 if self.slice_timing_corrected else 0.0)
        return start + self.dummy_scans * self.repetition_time

    def moments(self, positions: np.ndarray) -> np.ndarray:
        """Return the moments that positions, counted in volumes that are kept, stand for, s."""
        return np.asarray(self.start_time + (self.dummy_scans + positions) * self.repetition_time)


@dataclass(frozen=True)
class TimeMap:
    """Linear interpolation along time: for each frame, two volumes and their mixture.

    Attributes
    ----------
    lower : (T,) int array
        The earlier volume of each frame.
    fraction : (T,) float array
        Share of the later one.
    repetition_time : float
        Time from one frame to the next, s.
    """

    lower: np.ndarray
    fraction: np.ndarray
    repetition_time: float

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def positions(self) -> np.ndarray:
        """Where among the volumes each frame lies, counted in volumes."""
        return np.asarray(self.lower + self.fraction)

    def __call__(self, frames: Frames, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return frames ``start`` to ``stop`` of the resampled series.

        Parameters
        ----------
        frames : array or FrameStore
            Volumes along the first axis; only those that are needed are read.
        """
        lower, fraction = self.lower[start:stop], self.fraction[start:stop]
        if not len(lower):
            return frames[0:0]
        first = int(lower[0])
        needed = frames[first : int(lower[-1]) + 2]
        lower = lower - first
        if not fraction.any():
            return np.asarray(needed[lower])
        upper = np.minimum(lower + 1, len(needed) - 1)
        share = fraction.astype(needed.dtype).reshape(-1, *[1] * (needed.ndim - 1))
        mixed = needed[lower]
        mixed += share * (needed[upper] - mixed)
        return np.asarray(mixed)


def time_map(n_volumes: int, repetition_time: float, target: float | None) -> TimeMap:
    """Plan the resampling of a run to round(n_volumes * repetition_time / target) frames.

    The intervals of volumes and frames are aligned at both ends, as in the published preprocessing
    (``torch.nn.functional.interpolate`` with ``align_corners=False``).

    Parameters
    ----------
    n_volumes : int
    repetition_time : float
        Of the source, s.
    target : float or None
        Wanted repetition time, s; `None` keeps the source's.

    Raises
    ------
    NeurostormError
        If the target is not plausible.
    """
    if target is not None and not PLAUSIBLE_TR[0] <= target <= PLAUSIBLE_TR[1]:
        raise NeurostormError(f"a target repetition time of {target:g} s is not plausible")
    n_frames = n_volumes if target is None else max(1, round(n_volumes * repetition_time / target))
    scale = n_volumes / n_frames
    positions = np.clip((np.arange(n_frames) + 0.5) * scale - 0.5, 0, n_volumes - 1)
    lower = np.minimum(np.floor(positions), n_volumes - 1).astype(int)
    return TimeMap(lower, positions - lower, repetition_time * scale)


def choose_repetition_time(
    name: str, asked: float | None = None, sidecar: float | None = None, header: float | None = None
) -> tuple[float, str, list[str]]:
    """Decide the repetition time of a run: the user's, else the sidecar's, else the header's.

    Returns
    -------
    seconds : float
    source : str
        Which one it is.
    warnings : list of str
        Which of the others say something else.

    Raises
    ------
    NeurostormError
        If none is above 0, or the one that counts is not plausible.
    """
    if asked is not None and not asked > 0:
        raise NeurostormError(f"{name}: a repetition time of {asked:g} s was given; it has to be above 0")
    stated = {
        source: value
        for source, value in (("repetition-time", asked), ("sidecar", sidecar), ("header", header))
        if value
    }
    if not stated:
        raise NeurostormError(
            f"{name}: neither its JSON sidecar nor its header gives a repetition time above 0; "
            "give it in seconds with --repetition-time"
        )
    source, seconds = next(iter(stated.items()))
    if not PLAUSIBLE_TR[0] <= seconds <= PLAUSIBLE_TR[1]:
        raise NeurostormError(
            f"{name}: a repetition time of {seconds:g} s (from the {source}) is not plausible; "
            "give it in seconds with --repetition-time"
        )
    warnings = [
        f"{name}: the repetition time of {seconds:g} s from the {source} is used, the {other} says {value:g} s"
        for other, value in stated.items()
        if abs(value - seconds) > 1e-3 * seconds
    ]
    return seconds, source, warnings
