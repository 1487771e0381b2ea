"""Interpolate volumes at points that lie elsewhere in each of them.

Outside a volume everything is 0, and interpolation fades to it over the last voxel: as fMRIPrep since 25.2. A run that lies
where its volumes lie needs none of this: `sampler` builds one matrix for all of its volumes.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal

import numpy as np
from scipy.ndimage import map_coordinates

from neurostorm_bids.resample.sampler import along_axes

PADDING = {"linear": 1, "cubic": 6}  # voxels of 0 around a volume; coefficients of B-splines fall off to 1e-4 over it
POLE = 3**0.5 - 2  # of the filter that turns samples into coefficients of a cubic B-spline (Unser 1999)


@dataclass(frozen=True)
class Points:
    """Points of the BOLD reference, as voxels of a series.

    Attributes
    ----------
    voxels : (n, 3) float32 array
        Of the undistorted reference.
    shift : (n,) float32 array, or None
        What is added along an axis after the head's motion, voxels.
    axis : {0, 1, 2}
    """

    voxels: np.ndarray
    shift: np.ndarray | None = None
    axis: int = 0


def prepared(volumes: np.ndarray, interpolation: str) -> np.ndarray:
    """Pad volumes with zeros; for cubic interpolation, make them coefficients of B-splines.

    Parameters
    ----------
    volumes : (n, Z, Y, X) float32 array
    interpolation : {"linear", "cubic"}

    Returns
    -------
    (n, Z + 2 p, Y + 2 p, X + 2 p) float32 array
        With p of `PADDING`.
    """
    around = PADDING[interpolation]
    if interpolation == "linear":
        return np.pad(volumes, ((0, 0), *((around, around),) * 3))
    along_z, along_y, along_x = (_spline_filter(size, around) for size in volumes.shape[1:])
    return along_axes(volumes, along_x, along_y, along_z)


def gather(volume: np.ndarray, points: Points, moved: np.ndarray, interpolation: str) -> np.ndarray:
    """Interpolate a volume from `prepared` at points.

    Parameters
    ----------
    volume : (Z, Y, X) float32 array, contiguous
    moved : (4, 4) array
        From voxels of the reference to those of this volume.

    Returns
    -------
    (n,) float32 array
    """
    around = PADDING[interpolation]
    into = np.ascontiguousarray(moved[:3], dtype=np.float64).copy()
    into[:, 3] += around
    found = library()
    if found is None:
        return _gather_slowly(volume, points, into, interpolation)
    out = np.empty(len(points.voxels), np.float32)
    size = np.array(volume.shape[::-1], dtype=np.int64)
    function = found.neurostorm_gather_linear if interpolation == "linear" else found.neurostorm_gather_cubic
    shift = None if points.shift is None else _at(points.shift)
    n = ctypes.c_int64(len(out))
    function(_at(volume), _at(size), _at(points.voxels), shift, ctypes.c_int64(points.axis), _at(into), n, _at(out))
    return out


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled gather.c; `None` where the package was installed without a compiler."""
    spec = find_spec("neurostorm_bids.resample._gather")
    return ctypes.CDLL(spec.origin) if spec is not None and spec.origin else None


def _gather_slowly(volume: np.ndarray, points: Points, into: np.ndarray, interpolation: str) -> np.ndarray:
    """Do the same with scipy."""
    at = points.voxels @ into[:, :3].T + into[:, 3]
    if points.shift is not None:
        at[:, points.axis] += points.shift
    order: Literal[1, 3] = 1 if interpolation == "linear" else 3
    return np.asarray(map_coordinates(volume, at[:, ::-1].T, order=order, prefilter=False), dtype=np.float32)


def _spline_filter(n: int, around: int) -> np.ndarray:
    """The (n + 2 around, n) matrix from samples to cubic B-spline coefficients, with zeros beyond the samples.

    It is the impulse response of the filter; for axes as long as those of fMRI a product with it is faster than the usual
    recursion.
    """
    apart = np.abs(np.arange(-around, n + around)[:, None] - np.arange(n))
    matrix = 3**0.5 * POLE**apart
    matrix[apart > 20] = 0  # float32 would hold denormal numbers, which are slow
    return np.asarray(matrix, dtype=np.float32)


def _at(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
