"""Time: which repetition time holds, and how frames are resampled to the model's."""

from dataclasses import dataclass
from typing import Optional

import numpy as np

from neurostorm_bids.errors import NeurostormError

PUBLISHED_TARGET = 0.8  # s; the repetition time of the published preprocessing
PLAUSIBLE = (0.05, 30.0)  # s


def choose_repetition_time(
    name: str, asked: Optional[float] = None, sidecar: Optional[float] = None, header: Optional[float] = None
) -> "tuple[float, str, list]":
    """Decide the repetition time of a run: the user's word, else the sidecar's, else the header's.

    Returns
    -------
    seconds : float
    source : str
    warnings : list of str

    Raises
    ------
    NeurostormError
        If none is above 0, or the one that holds is not plausible.
    """
    candidates = {"--repetition-time": asked, "sidecar": sidecar, "header": header}
    if asked is not None and not asked > 0:
        raise NeurostormError(f"{name}: a repetition time of {asked:g} s was given; it is above 0")
    stated = {source: value for source, value in candidates.items() if value}
    if not stated:
        raise NeurostormError(
            f"{name}: neither its JSON sidecar nor its header gives a repetition time above 0; "
            "give it in seconds with --repetition-time"
        )
    source, seconds = next(iter(stated.items()))
    if not PLAUSIBLE[0] <= seconds <= PLAUSIBLE[1]:
        raise NeurostormError(
            f"{name}: a repetition time of {seconds:g} s (from the {source.strip('-')}) is not plausible; "
            "give it in seconds with --repetition-time"
        )
    warnings = [
        f"{name}: repetition time {seconds:g} s from the {source.strip('-')} is used, the {other} says {value:g} s"
        for other, value in stated.items()
        if abs(value - seconds) > 1e-3 * seconds
    ]
    return seconds, source.strip("-"), warnings


@dataclass(frozen=True)
class TimeMap:
    """Linear interpolation along time, as a frame's two source frames and their mixture.

    Attributes
    ----------
    lower : (T,) int array
        The earlier source frame of each frame.
    fraction : (T,) float array
        Share of the later one.
    repetition_time : float
        Between frames after resampling, s.
    """

    lower: np.ndarray
    fraction: np.ndarray
    repetition_time: float

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def positions(self) -> np.ndarray:
        """Where in the source each frame is, in source frames."""
        return self.lower + self.fraction

    def __call__(self, frames, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        """Frames ``start`` to ``stop`` of the resampled series.

        Parameters
        ----------
        frames : array or FrameStore
            Source frames along the first axis; only those that are needed are read.
        """
        lower, fraction = self.lower[start:stop], self.fraction[start:stop]
        if not len(lower):
            return frames[0:0]
        first = int(lower[0])
        needed = frames[first : int(lower[-1]) + 2]
        lower = lower - first
        if not fraction.any():
            return needed[lower]
        upper = np.minimum(lower + 1, len(needed) - 1)
        share = fraction.astype(needed.dtype).reshape(-1, *[1] * (needed.ndim - 1))
        mixed = needed[lower]
        mixed += share * (needed[upper] - mixed)
        return mixed


def time_map(n_frames: int, repetition_time: float, target: Optional[float]) -> TimeMap:
    """Plan the resampling of a run to round(n_frames * repetition_time / target) frames.

    A frame stands for the interval from its start to the next one's, and intervals are aligned at both ends, as in
    the published preprocessing (``torch.nn.functional.interpolate`` with ``align_corners=False``).

    Parameters
    ----------
    n_frames : int
    repetition_time : float
        Of the source, s.
    target : float or None
        Wanted repetition time, s; `None` keeps the source's.
    """
    if target is not None and not PLAUSIBLE[0] <= target <= PLAUSIBLE[1]:
        raise NeurostormError(f"a target repetition time of {target:g} s is not plausible")
    n_target = n_frames if target is None else max(1, round(n_frames * repetition_time / target))
    scale = n_frames / n_target
    positions = np.clip((np.arange(n_target) + 0.5) * scale - 0.5, 0, n_frames - 1)
    lower = np.minimum(np.floor(positions), n_frames - 1).astype(int)
    return TimeMap(lower, positions - lower, repetition_time * scale)


def parse_target(text: "str | float") -> Optional[float]:
    """Read ``--target-tr``: seconds, or "native" for `None`."""
    if str(text).strip().lower() == "native":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not PLAUSIBLE[0] <= seconds <= PLAUSIBLE[1]:
        raise NeurostormError(
            f"--target-tr is seconds between {PLAUSIBLE[0]} and {PLAUSIBLE[1]}, or native; not '{text}'"
        )
    return seconds
