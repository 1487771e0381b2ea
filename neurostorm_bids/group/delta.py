"""Predicted minus observed, corrected for the mean that predictions fall back to (brain age). Knows no files and no tables."""

import numpy as np


def corrected_delta(y: np.ndarray, predicted: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return each sample's error without what depends on the observed value.

    Predictions fall back to the mean, so that the young look older and the old younger than they are. How much is learnt
    from the samples of the other folds, as a line of the error on the observed value, and taken off (Beheshti et al. 2019,
    https://doi.org/10.1016/j.nicl.2019.102063).

    Parameters
    ----------
    y, predicted : (samples,) arrays
        In the target's unit.
    folds : (samples,) int array
        In which fold each was tested; -1 for those that were not.

    Returns
    -------
    (samples,) array
        NaN for samples that were not tested, and where the others do not tell a line.
    """
    error, delta = predicted - y, np.full(len(y), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        others, own = (folds >= 0) & (folds != fold), folds == fold
        if others.sum() < 3 or np.ptp(y[others]) == 0:
            continue
        slope, at_zero = np.polyfit(y[others], error[others], 1)
        delta[own] = error[own] - (at_zero + slope * y[own])
    return delta
