"""Sample a run at points between its voxels: one sparse matrix, built once, for all volumes.

The map from source voxels to points is the same for every volume, so interpolation is a product of a sparse
matrix (a row per point; 8 weights for linear, 64 for cubic) with the (voxels x volumes) array.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

SNAP = 1e-4  # voxels; a point nearer to a voxel's centre than this is at the centre (affines in headers are rounded)

Shape = tuple[int, ...]


def inside(voxels: np.ndarray, shape: Shape) -> np.ndarray:
    """Whether (n, 3) voxel coordinates lie in the field of view, which ends half a voxel beyond the outer centres."""
    return np.asarray(((voxels >= -0.5) & (voxels <= np.array(shape) - 0.5)).all(axis=1))


def nearest(volume: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Return the values of a volume at the voxels nearest to (n, 3) coordinates; 0 outside the field of view."""
    within = inside(voxels, volume.shape)
    index = np.clip(np.floor(voxels[within] + 0.5).astype(np.intp), 0, np.array(volume.shape) - 1)
    values = np.zeros(len(voxels), dtype=volume.dtype)
    values[within] = volume[tuple(index.T)]
    return values


@dataclass(frozen=True)
class Sampler:
    """Interpolation of every volume at fixed points.

    Attributes
    ----------
    shape : tuple of 3 int
        Of the source volumes.
    used : (m,) int array
        Source voxels that any point needs, as indices in Fortran order of x, y, z.
    weights : (n, m) sparse array, or None
        `None` where every point is a voxel's centre, so that nothing is interpolated.
    prefilter : tuple of 3 arrays, or None
        For B-splines: along each axis, the matrix that turns samples into coefficients.
    """

    shape: Shape
    used: np.ndarray
    weights: sparse.csr_array | None
    prefilter: tuple[np.ndarray, ...] | None = None

    def __call__(self, volumes: np.ndarray) -> np.ndarray:
        """(voxels, volumes) in Fortran order of x, y, z -> (volumes, points), float32."""
        rows = volumes.T  # a volume's voxels lie together in the file and here
        if self.weights is None:
            return np.asarray(rows[:, self.used])
        if self.prefilter is not None:
            rows = along_axes(rows.reshape(-1, *self.shape[::-1]), *self.prefilter).reshape(len(rows), -1)
        return np.asarray((self.weights @ rows[:, self.used].T).T)


def along_axes(volumes: np.ndarray, along_x: np.ndarray, along_y: np.ndarray, along_z: np.ndarray) -> np.ndarray:
    """Multiply volumes, (n, Z, Y, X) float32, with a matrix along each of their axes, such as that of a spline's filter."""
    import torch  # its batched products of small matrices are several times faster than numpy's

    n, nz, ny, nx = volumes.shape
    out = torch.from_numpy(np.require(volumes, requirements=["C", "W"])).view(-1, nx) @ torch.from_numpy(along_x).T
    out = torch.matmul(torch.from_numpy(along_y), out.view(n * nz, ny, -1))
    out = torch.matmul(torch.from_numpy(along_z), out.view(n, nz, -1))
    return np.asarray(out.view(n, len(along_z), len(along_y), len(along_x)).numpy())


def make_sampler(voxels: np.ndarray, shape: Shape, interpolation: str = "linear") -> Sampler:
    """Build the sampler for (n, 3) voxel coordinates inside the field of view of a volume of this shape.

    Coordinates in the outer half voxel take the value at the edge.

    Parameters
    ----------
    interpolation : {"linear", "cubic"}
        Trilinear, or cubic B-spline with mirrored edges (ITK's).
    """
    size = np.array(shape)
    whole = np.round(voxels)
    voxels = np.where(np.abs(voxels - whole) < SNAP, whole, voxels)
    voxels = np.clip(voxels, 0, size - 1)
    if (voxels == np.round(voxels)).all():  # on the source's own grid
        return Sampler(shape, voxels.astype(np.int64) @ _strides(shape), None)
    first, weights = (_linear_weights if interpolation == "linear" else _cubic_weights)(voxels)  # (n, 3), (n, 3, taps)
    n_points, taps = len(voxels), weights.shape[2]
    columns = np.empty((n_points, taps**3), dtype=np.int32)
    values = np.empty((n_points, taps**3), dtype=np.float32)
    strides = _strides(shape).astype(np.int32)
    at = [_mirrored(first[:, axis, None] + np.arange(taps), size[axis]) * strides[axis] for axis in range(3)]
    for corner, (i, j, k) in enumerate(np.ndindex(taps, taps, taps)):
        columns[:, corner] = at[0][:, i] + at[1][:, j] + at[2][:, k]
        values[:, corner] = weights[:, 0, i] * weights[:, 1, j] * weights[:, 2, k]
    is_used = np.zeros(int(np.prod(shape)), dtype=bool)
    is_used[columns.ravel()] = True
    used = np.flatnonzero(is_used)
    compact = np.cumsum(is_used, dtype=np.int32)[columns.ravel()] - 1
    rows = np.arange(0, n_points * taps**3 + 1, taps**3)
    matrix = sparse.csr_array((values.ravel(), compact, rows), shape=(n_points, len(used)))
    prefilter = None if interpolation == "linear" else tuple(map(_spline_prefilter, shape))
    return Sampler(shape, used, matrix, prefilter)


def _linear_weights(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = np.floor(voxels).astype(np.int32)
    fraction = voxels - first
    return first, np.stack([1 - fraction, fraction], axis=2)


def _cubic_weights(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-spline of the distance to the four nearest coefficients (Unser 1999)."""
    first = np.floor(voxels).astype(np.int32)
    t = voxels - first
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return first - 1, np.stack(weights, axis=2) / 6


def _spline_prefilter(n: int) -> np.ndarray:
    """The (n, n) matrix from samples to cubic B-spline coefficients, edges mirrored.

    It is the inverse of sampling the spline at the voxels. For axes as long as those of fMRI a product with it is
    faster than the usual recursion, and all volumes go through it at once.
    """
    sampling = np.zeros((n, n))
    for row in range(n):
        for step, weight in ((-1, 1), (0, 4), (1, 1)):
            sampling[row, _mirrored(np.array(row + step), n)] += weight / 6
    matrix = np.linalg.inv(sampling)
    matrix[np.abs(matrix) < 1e-12] = 0  # they fall off so fast that float32 would hold denormal numbers, which are slow
    return matrix.astype(np.float32)


def _mirrored(index: np.ndarray, n: int) -> np.ndarray:
    """Mirror indices beyond the edge at the edge's voxel."""
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index)
    return np.where(index > n - 1, 2 * (n - 1) - index, index)


def _strides(shape: Shape) -> np.ndarray:
    return np.array([1, shape[0], shape[0] * shape[1]])
