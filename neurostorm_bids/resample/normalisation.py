"""The statistics that a run is standardised with."""

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.gridded import Statistics
from neurostorm_bids.resample.timing import TimeMap

BLOCK = 16  # frames at a time
MIN_SPREAD = 1e-6  # standard deviation over mean; rounding alone makes a constant run differ by less


def checked_statistics(frames: FrameStore, times: TimeMap, name: str) -> Statistics:
    """Return statistics over all brain voxels and resampled frames, negative values as 0.

    Parameters
    ----------
    name : str
        Of the run, for messages.

    Raises
    ------
    NeurostormError
        If nothing is above 0, or everything is the same.
    """
    statistics = _statistics(frames, times)
    if not statistics.maximum > 0:
        raise NeurostormError(f"{name}: no value in the brain is above 0; is it a z-scored or demeaned run?")
    if not statistics.std > MIN_SPREAD * abs(statistics.mean):
        raise NeurostormError(f"{name}: the signal is the same everywhere in the brain; there is nothing to encode")
    return statistics


def _statistics(frames: FrameStore, times: TimeMap) -> Statistics:
    total, squares, smallest, largest = 0.0, 0.0, np.inf, -np.inf
    # deviations from a nearby value, not from 0, so that the squares keep their digits
    near = float(np.maximum(frames[0:1], 0).mean(dtype=np.float64))
    for start in range(0, len(times), BLOCK):
        signal = np.maximum(times(frames, start, start + BLOCK), 0)
        smallest, largest = min(smallest, float(signal.min())), max(largest, float(signal.max()))
        signal -= np.float32(near)
        total += float(signal.sum(dtype=np.float64))
        squares += float(np.einsum("ij,ij->", signal, signal, dtype=np.float64))
    n = len(times) * frames.n_voxels
    mean = total / n
    return Statistics(near + mean, float(np.sqrt(max(squares / n - mean**2, 0.0))), smallest, largest)
