"""Regress confounds out of a placed run.

Placing mixes voxels with the same weights in every frame and regression mixes frames with the same weights in every
voxel, so it makes no difference which comes first; here there are fewer voxels.
"""

import numpy as np

from neurostorm_bids.resample.frames import FrameStore

BLOCK = 64  # frames


def regress_out(frames: FrameStore, confounds: np.ndarray, kept: np.ndarray) -> None:
    """Remove from every voxel what its confounds explain, and keep its mean.

    Parameters
    ----------
    frames : FrameStore
        Changed in place.
    confounds : (frames, confounds) array
        Finite.
    kept : (frames,) bool array
        Frames that the fit looks at. The others (scrubbed) are filled in afterwards, linearly between their neighbours.
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
        after = np.searchsorted(good, frame)
        left, right = good[max(after - 1, 0)], good[min(after, len(good) - 1)]
        share = 0.0 if left == right else (frame - left) / (right - left)
        left, right = frames[left : left + 1], frames[right : right + 1]
        frames.write(int(frame), left * (1 - share) + right * share)
