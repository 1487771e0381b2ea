"""Head motion in each window."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.timing import TimeMap


class HasMotion(Protocol):
    """A run in the model's grid, in memory or kept, with what is known of head motion in it."""

    @property
    def time_map(self) -> TimeMap:
        """Which volumes each frame is mixed from."""

    @property
    def displacement(self) -> np.ndarray | None:
        """Framewise displacement of the volumes, mm, (volumes,); `None` if it is not known."""


@dataclass(frozen=True)
class WindowMotion:
    """Head motion in each window.

    Attributes
    ----------
    mean, largest : (windows,) arrays
        Framewise displacement, mm; NaN where it is unknown.
    above : (windows,) array, or None
        Share of the volumes above the threshold; `None` if there is no threshold.
    """

    mean: np.ndarray
    largest: np.ndarray
    above: np.ndarray | None

    def censored(self, most: float) -> np.ndarray:
        """Return which windows have a larger share of volumes above the threshold than ``most``, (windows,) bool."""
        return np.zeros(len(self.mean), dtype=bool) if self.above is None else self.above > most


def motion_of(run: HasMotion, starts: np.ndarray, length: int, threshold: float | None = None) -> WindowMotion:
    """Return the head motion of windows, over the volumes that each window is made from.

    Parameters
    ----------
    starts : (windows,) int array
        First frames of the windows.
    length : int
        Frames of a window.
    threshold : float, optional
        Framewise displacement above which a volume counts, mm.

    Raises
    ------
    NeurostormError
        If there is a threshold, and the framewise displacement is not known.
    """
    mean, largest, above = np.full((3, len(starts)), np.nan)
    for i, start in enumerate(starts if run.displacement is not None else ()):
        # the volumes that the window's frames are mixed from: interpolating the displacement would flatten its peaks
        first, last = run.time_map.lower[start], np.ceil(run.time_map.positions[start + length - 1])
        volumes = run.displacement[first : int(last) + 1]  # type: ignore[index]
        known = volumes[~np.isnan(volumes)]
        if len(known):
            mean[i], largest[i] = known.mean(), known.max()
            above[i] = np.nan if threshold is None else (known > threshold).mean()
    if threshold is not None and np.isnan(above).any():
        raise NeurostormError(
            "--fd-threshold needs framewise displacement, which is not known of this run (no confounds or motion file, or none in them)"
        )
    return WindowMotion(mean, largest, above if threshold is not None else None)
