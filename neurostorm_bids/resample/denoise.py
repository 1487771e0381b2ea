"""Regress confounds out of a resampled run.

Interpolation mixes voxels with the same weights in every volume, and regression mixes volumes with the same weights in
every voxel, so the order makes no difference; after the interpolation there are fewer voxels.
"""

import numpy as np

from neurostorm_bids.resample.frames import FrameStore

BLOCK = 64  # volumes at a time


def regress_out(frames: FrameStore, confounds: np.ndarray, kept: np.ndarray) -> None:
    """Remove from every voxel what the confounds explain, and keep its mean.

    Parameters
    ----------
    frames : FrameStore
        Changed in place.
    confounds : (volumes, confounds) array
        Finite.
    kept : (volumes,) bool array
        Volumes that the fit looks at. The others (scrubbed) are then replaced by linear interpolation between their
        neighbours.
    """
    n = len(frames)
    centred = confounds - confounds[kept].mean(axis=0)
    scale = centred[kept].std(axis=0)
    centred = centred[:, scale > 0] / scale[scale > 0]
    solver = np.zeros((centred.shape[1], n))
    solver[:, kept] = np.linalg.pinv(centred[kept])
    loadings = np.zeros((centred.shape[1], frames.n_voxels))
    for start in range(0, n, BLOCK):
        loadings += solver[:, start : start + BLOCK] @ frames[start : start + BLOCK]
    for start in range(0, n, BLOCK):
        frames.write(start, frames[start : start + BLOCK] - centred[start : start + BLOCK] @ loadings)
    good = np.flatnonzero(kept)
    for frame in np.flatnonzero(~kept):
        after = int(np.searchsorted(good, frame))
        left, right = good[max(after - 1, 0)], good[min(after, len(good) - 1)]
        share = 0.0 if left == right else (frame - left) / (right - left)
        before, behind = frames[int(left) : int(left) + 1], frames[int(right) : int(right) + 1]
        frames.write(int(frame), before * (1 - share) + behind * share)
