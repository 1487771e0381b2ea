"""The statistics that a run is standardised with, and whether it is one that can be: BOLD with its mean."""

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.gridded import Statistics
from neurostorm_bids.resample.timing import TimeMap

BLOCK = 16  # frames at a time
MAX_NEGATIVE = 0.05  # share of brain voxels and frames; interpolation leaves a few at the edge of the brain
# Median over brain voxels of mean over standard deviation, and spread of the voxels' means over their mean. BOLD has 15 to
# 100 and 0.2 to 0.5; what has little of both was scaled voxel by voxel.
MIN_TSNR, LOW_TSNR = 3.0, 10.0
MIN_CONTRAST, LOW_CONTRAST = 0.02, 0.15
MIN_FRAMES = 5  # for the temporal standard deviation to mean something
REMEDY = (
    "give fMRIPrep's preprocessed series (desc-preproc_bold), or, if only this one is left, --mean-from with the mean image "
    "of the run"
)
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
        If the series lacks its mean or its contrast, nothing is above 0, or everything is the same.
    """
    _check_kind(frames, name)
    statistics = _statistics(frames, times)
    if not statistics.maximum > 0:
        raise NeurostormError(f"{name}: no value in the brain is above 0; is it a z-scored or demeaned run?")
    if not statistics.std > MIN_SPREAD * abs(statistics.mean):
        raise NeurostormError(f"{name}: the signal is the same everywhere in the brain; there is nothing to encode")
    return statistics


def _check_kind(frames: FrameStore, name: str) -> None:
    """Refuse what denoising tools leave: series that were demeaned, z-scored, band-passed or scaled to percent.

    What is below 0 would be set to 0, and half of such a series with it.
    """
    n = len(frames)
    total, squares = np.zeros(frames.n_voxels), np.zeros(frames.n_voxels)
    first = frames[0:1][0].astype(np.float64)  # deviations from it keep their digits
    n_negative = 0
    for start in range(0, n, BLOCK):
        volumes = frames[start : start + BLOCK]
        n_negative += int((volumes < 0).sum())
        deviations = volumes - first
        total += deviations.sum(axis=0)
        squares += np.einsum("ij,ij->j", deviations, deviations)
    share = n_negative / (n * frames.n_voxels)
    if share > MAX_NEGATIVE:
        raise NeurostormError(
            f"{name}: {share:.0%} of the values in the brain are below 0: this series was demeaned, z-scored or filtered, and "
            f"half of its signal would be lost; {REMEDY}"
        )
    if n < MIN_FRAMES:
        return
    means = first + total / n
    spreads = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    moving = spreads > 0
    if not moving.any():
        return
    tsnr = float(np.median(means[moving] / spreads[moving]))
    contrast = float(means.std()) / abs(float(means.mean()))
    if tsnr < MIN_TSNR or (tsnr < LOW_TSNR and contrast < LOW_CONTRAST):
        raise NeurostormError(
            f"{name}: voxels vary over time by as much as {1 / max(tsnr, 1e-9):.2g} of their mean: this series was scaled "
            f"voxel by voxel or lost its mean; {REMEDY}"
        )
    if contrast < MIN_CONTRAST:
        raise NeurostormError(
            f"{name}: all voxels have nearly the same mean ({means.mean():.4g}): this series was scaled to percent signal "
            f"change or the like; {REMEDY}"
        )


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
