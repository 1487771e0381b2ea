"""The statistics that a run is standardised with, and whether it is one that can be: BOLD with its mean."""

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.gridded import Statistics
from neurostorm_bids.resample.timing import TimeMap

BLOCK = 16  # frames at a time
MAX_NEGATIVE = 0.05  # share of brain voxels and frames; interpolation leaves a few at the edge of the brain
# Median over brain voxels of mean over spread, and spread of the voxels' means over their mean. BOLD has 15 to 300 and 0.2
# to 0.5; what has little of both was scaled voxel by voxel, and what has a thousand was scaled before a mean was added.
MIN_TSNR, LOW_TSNR, MAX_TSNR = 3.0, 10.0, 900.0
MIN_CONTRAST, LOW_CONTRAST = 0.02, 0.15
MIN_FRAMES = 5  # for the spread to mean something
LOOKED_AT = 4000  # voxels
REMEDY = "give fMRIPrep's preprocessed series (desc-preproc_bold)"
MEAN_REMEDY = f"{REMEDY}, or, if this one was only demeaned or filtered, --mean-from with the mean image of the run"
SD_OF_MAD = 1.4826  # of normal numbers
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
    n, step = len(frames), max(1, frames.n_voxels // LOOKED_AT)
    n_negative, looked_at = 0, []
    for start in range(0, n, BLOCK):
        volumes = frames[start : start + BLOCK]
        n_negative += int((volumes < 0).sum())
        looked_at.append(volumes[:, ::step].astype(np.float64))
    share = n_negative / (n * frames.n_voxels)
    if share > MAX_NEGATIVE:
        raise NeurostormError(
            f"{name}: {share:.0%} of the values in the brain are below 0: this series was demeaned, z-scored, filtered or scaled, "
            f"and half of its signal would be lost; {MEAN_REMEDY}"
        )
    if n < MIN_FRAMES:
        return
    series = np.concatenate(looked_at)
    means = np.median(series, axis=0)
    # from one volume to the next, by the median: outlying volumes and drifts are no sign of scaling
    spreads = SD_OF_MAD * np.median(np.abs(np.diff(series, axis=0)), axis=0) / np.sqrt(2)
    moving = spreads > 0
    if not moving.any():
        return
    tsnr, contrast = float(np.median(means[moving] / spreads[moving])), float(means.std() / abs(means.mean()))
    if tsnr < MIN_TSNR or (tsnr < LOW_TSNR and contrast < LOW_CONTRAST):
        raise NeurostormError(
            f"{name}: voxels vary over time by {1 / max(tsnr, 1e-9):.2g} of their mean, and differ from each other by "
            f"{contrast:.2g}: this series was scaled voxel by voxel or lost its mean; {MEAN_REMEDY}"
        )
    if tsnr > MAX_TSNR:
        raise NeurostormError(
            f"{name}: voxels vary over time by only {1 / tsnr:.1g} of their mean: this series was z-scored or scaled, and what a "
            f"mean image cannot bring back is lost; {REMEDY}"
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
