"""What the classical way begins with: the mean series of each parcel of a gridded run, and how these go together."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.parcels import Parcels

LEAST_COVERED = 0.5  # of a parcel's voxels; of fewer, its series is unknown
FRAMES = 64  # at a time


@dataclass(frozen=True)
class ParcelSeries:
    """The series of parcels of one run.

    Attributes
    ----------
    parcels : Parcels
    series : (T, parcels) array
        Means over a parcel's brain voxels, z-scores of the whole brain; NaN for parcels that the run hardly covers.
    coverage : (parcels,) array
        Share of a parcel's voxels that are in the run's brain.
    onsets : (T,) array
        Of the frames, s after the start of the acquisition.
    """

    parcels: Parcels
    series: np.ndarray
    coverage: np.ndarray
    onsets: np.ndarray

    def connectome(self) -> np.ndarray:
        """Return the correlations of parcels, (parcels, parcels); NaN where one of them is unknown or does not vary."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.corrcoef(self.series.T))


def parcel_series(run: GriddedRun, parcels: Parcels) -> ParcelSeries:
    """Average a gridded run over the brain voxels of parcels; some frames at a time are in memory."""
    numbers, n = parcels.numbers[run.brain], len(parcels)
    counts = np.bincount(numbers, minlength=n + 1)[1:]
    inside = np.flatnonzero(numbers)
    shares = csr_array((1 / counts[numbers[inside] - 1], (numbers[inside] - 1, inside)), shape=(n, len(numbers)))
    n_frames = run.shape[3]
    series = np.empty((n_frames, n))
    for start in range(0, n_frames, FRAMES):
        stop = min(start + FRAMES, n_frames)
        series[start:stop] = (shares @ run.signal(start, stop).T.astype(np.float64)).T
    coverage = counts / np.bincount(parcels.numbers, minlength=n + 1)[1:]
    series[:, coverage < LEAST_COVERED] = np.nan
    return ParcelSeries(parcels, series, coverage, run.frame_onsets)
