"""Find the volumes at the start of a series that were acquired before the signal was steady, as fMRIPrep does.

The rule of nipype's NonSteadyStateDetector: volumes at the start whose mean over the image lies farther than 3.5 from the
median of the first 50, in units of the median absolute deviation (times 1 / 0.6745).
"""

import numpy as np

from neurostorm_bids.resample.nifti import Bold

LOOKED_AT = 50  # volumes
FAR, NORMAL = 3.5, 0.6745


def non_steady_state(bold: Bold) -> int:
    """Return how many volumes at the start of a series are not in the steady state.

    Raises
    ------
    NeurostormError
        If the file is damaged.
    """
    means: list[np.ndarray] = []
    for block in bold.blocks(0):
        finite = np.isfinite(block)
        sums = np.where(finite, block, 0).sum(axis=0, dtype=np.float64)
        means.append(np.asarray(sums / np.maximum(finite.sum(axis=0), 1)))
        if sum(map(len, means)) >= LOOKED_AT:
            break
    return outliers_at_start(np.concatenate(means)[:LOOKED_AT])


def outliers_at_start(signal: np.ndarray) -> int:
    """Return how many of the first values of a signal are outliers, up to the first that is none.

    >>> outliers_at_start(np.array([9.0, 8, 1, 2, 1, 2, 1, 2, 1, 2]))
    2
    """
    apart = np.abs(signal - np.median(signal))
    typical = np.median(apart)
    if not typical > 0:
        return 0
    steady = np.flatnonzero(NORMAL * apart / typical <= FAR)
    return int(steady[0]) if len(steady) else len(signal)
