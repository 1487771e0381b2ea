"""ITK transforms as maps of points, applied as ITK applies them.

The conventions are ITK's. A file ``from-A_to-B`` resamples images from A to B, and so maps *points from B to A*: from
the target, where a value is wanted, to the source, where it is looked up. Coordinates in the files are LPS; nitransforms
turns them into RAS, which everything here takes and returns, in mm. Of a composite, the transform that was added last
is applied to points first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.sampler import inside
from neurostorm_bids.runtime.files import check_there


@dataclass(frozen=True)
class AffineMap:
    """An affine map of points, (4, 4), RAS mm."""

    matrix: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (n, 3) points."""
        return np.asarray(apply_affine(self.matrix, points))


@dataclass(frozen=True)
class DisplacementMap:
    """A field of displacements on a grid.

    Displacements, not positions, are interpolated, linearly; a point outside the field stays where it is.

    Attributes
    ----------
    field : (X, Y, Z, 3) float32 array
        mm, RAS.
    affine : (4, 4) array
        Voxel of the field to world coordinate, mm.
    """

    field: np.ndarray
    affine: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (n, 3) points."""
        voxels = apply_affine(np.linalg.inv(self.affine), points)
        within = inside(voxels, self.field.shape[:3])
        at = voxels[within].T
        moved = points.copy()
        for axis in range(3):
            moved[within, axis] += map_coordinates(self.field[..., axis], at, order=1, mode="nearest")
        return moved


PointMap = AffineMap | DisplacementMap


def read_transform(path: Path) -> list[PointMap]:
    """Read an ITK transform file of fMRIPrep or TemplateFlow.

    Parameters
    ----------
    path : Path
        ``.h5`` (composite of affines and displacement fields) or ``.txt`` (one affine).

    Returns
    -------
    list of AffineMap and DisplacementMap
        In the order in which points go through them.

    Raises
    ------
    NeurostormError
        If the file is missing, damaged, or holds something else.
    """
    from nitransforms.io.itk import ITKCompositeH5, ITKLinearTransform

    check_there(path)
    try:
        if path.suffix == ".h5":
            maps = [_to_map(part) for part in ITKCompositeH5.from_filename(path)]
        else:
            maps = [_to_map(ITKLinearTransform.from_filename(path))]
    except NeurostormError:
        raise
    except Exception as error:  # h5py and nitransforms raise many kinds
        raise NeurostormError(
            f"{path} cannot be read as an ITK transform ({type(error).__name__}: {error}); "
            "it is cut short or of another program: fetch fMRIPrep's file again"
        ) from None
    if not maps:
        raise NeurostormError(f"{path} holds no transform; fetch it again")
    for part in maps:
        numbers = part.matrix if isinstance(part, AffineMap) else part.field
        if not np.isfinite(numbers).all() or (isinstance(part, AffineMap) and abs(np.linalg.det(numbers)) < 1e-6):
            raise NeurostormError(f"{path} holds numbers that are no transform (NaN, or an affine that flattens space)")
    return maps[::-1]


def map_points(maps: Iterable[PointMap], points: np.ndarray) -> np.ndarray:
    """Send (n, 3) points through maps, one after the other; RAS, mm."""
    for step in maps:
        points = step(points)
    return points


def _to_map(part: Any) -> PointMap:
    if hasattr(part, "to_ras"):
        return AffineMap(np.asarray(part.to_ras(), dtype=np.float64))
    field = np.asarray(part.dataobj, dtype=np.float32)
    if field.ndim != 4 or field.shape[3] != 3:
        raise ValueError(f"a displacement field of shape {field.shape}")
    return DisplacementMap(field, np.asarray(part.affine, dtype=np.float64))
