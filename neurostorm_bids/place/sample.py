"""Sample a run at points between its voxels: one sparse matrix, built once, for all frames.

The map from source voxels to points is the same for every frame, so interpolation is a product of a sparse
matrix (a row per point, at most 8 weights) with the (voxels x frames) array.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

SNAP = 1e-4  # voxels; nearer to a voxel's centre than this is at the centre (rounding of affines in headers)


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (n, 3) points through a (4, 4) affine."""
    return points @ affine[:3, :3].T + affine[:3, 3]


def inside(voxels: np.ndarray, shape: tuple) -> np.ndarray:
    """Which (n, 3) voxel coordinates lie in the field of view, half a voxel beyond the outer centres included."""
    return ((voxels >= -0.5) & (voxels <= np.array(shape) - 0.5)).all(axis=1)


def nearest(volume: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Values of a volume at the nearest voxel to (n, 3) coordinates; 0 outside the field of view."""
    within = inside(voxels, volume.shape)
    index = np.clip(np.floor(voxels[within] + 0.5).astype(np.intp), 0, np.array(volume.shape) - 1)
    values = np.zeros(len(voxels), dtype=volume.dtype)
    values[within] = volume[tuple(index.T)]
    return values


@dataclass(frozen=True)
class Sampler:
    """Linear interpolation of every frame at fixed points.

    Attributes
    ----------
    used : (m,) int array
        Source voxels that any point needs, as indices in Fortran order of x, y, z.
    weights : (n, m) sparse array, or None
        `None` where every point is a voxel's centre and nothing is to be interpolated.
    """

    used: np.ndarray
    weights: "sparse.csr_array | None"

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(voxels, frames) in Fortran order of x, y, z -> (frames, points), float32."""
        gathered = frames.T[:, self.used]  # a frame's voxels lie together in the file and here
        if self.weights is None:
            return gathered
        return (self.weights @ gathered.T).T


def linear_sampler(voxels: np.ndarray, shape: tuple) -> Sampler:
    """Build the sampler for (n, 3) voxel coordinates inside the field of view of a volume of this shape.

    Coordinates in the outer half voxel take the value at the edge.
    """
    size = np.array(shape)
    whole = np.round(voxels)
    voxels = np.where(np.abs(voxels - whole) < SNAP, whole, voxels)
    voxels = np.clip(voxels, 0, size - 1)
    lower = np.minimum(np.floor(voxels).astype(np.int64), np.maximum(size - 2, 0))
    fraction = voxels - lower
    strides = np.array([1, shape[0], shape[0] * shape[1]])
    columns, values = [], []
    for corner in np.ndindex(2, 2, 2):
        upper = np.array(corner, dtype=bool)
        values.append(np.where(upper, fraction, 1 - fraction).prod(axis=1))
        columns.append((np.minimum(lower + upper, size - 1) * strides).sum(axis=1))
    columns, values = np.stack(columns, axis=1), np.stack(values, axis=1)
    if (values.max(axis=1) == 1).all():  # on the source's own grid
        return Sampler(columns[np.arange(len(columns)), values.argmax(axis=1)], None)
    rows = np.repeat(np.arange(len(voxels)), 8)
    keep = values.ravel() > 0
    used, compact = np.unique(columns.ravel()[keep], return_inverse=True)
    weights = sparse.csr_array(
        (values.ravel()[keep].astype(np.float32), (rows[keep], compact)), shape=(len(voxels), len(used))
    )
    return Sampler(used, weights)
