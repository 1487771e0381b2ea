"""ITK transforms and FSL's fields as maps of points, applied as ITK and FSL apply them.

The conventions of ITK's files. A file ``from-A_to-B`` resamples images from A to B, and so maps *points from B to A*: from
the target, where a value is wanted, to the source, where it is looked up. Coordinates in the files are LPS; nitransforms
turns them into RAS, which everything here takes and returns, in mm. Of a composite, the transform that was added last
is applied to points first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import map_coordinates, spline_filter

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.fsl import fsl_from_voxels
from neurostorm_bids.resample.nifti import READ_ERRORS, checked_affine, open_image
from neurostorm_bids.resample.sampler import inside
from neurostorm_bids.runtime.files import check_there

COARSE = 2.5  # mm between the displacements of a field; at 4 mm, linear and cubic interpolation differ by up to 0.01 mm
COEFFICIENTS = (2007, 2008, 2009)  # intent codes of FNIRT's spline coefficients; 2006 is a field


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

    Displacements, not positions, are interpolated.

    Attributes
    ----------
    field : (X, Y, Z, 3) float32 array
        mm, along the axes of the world.
    affine : (4, 4) array
        Voxel of the field to world coordinate, mm.
    outside : float
        Displacement of a point outside the field, mm: 0 as in ITK; NaN where such a point leads nowhere.
    order : {1, 3}
        Linear as in ITK; cubic B-spline.
    """

    field: np.ndarray
    affine: np.ndarray
    outside: float = 0.0
    order: Literal[1, 3] = 1

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (n, 3) points."""
        voxels = apply_affine(np.linalg.inv(self.affine), points)
        within = inside(voxels, self.field.shape[:3])
        at = voxels[within].T
        moved = np.where(within[:, None], points, points + self.outside)
        mode: Literal["nearest", "mirror"] = "nearest" if self.order == 1 else "mirror"
        for axis, along in enumerate(self._coefficients):
            moved[within, axis] += map_coordinates(along, at, order=self.order, prefilter=False, mode=mode)
        return moved

    @cached_property
    def _coefficients(self) -> list[np.ndarray]:
        """What is interpolated along each axis of the world."""
        along = [self.field[..., axis] for axis in range(3)]
        return along if self.order == 1 else [spline_filter(each, self.order, output=np.float32) for each in along]

    def as_fmriprep(self) -> "DisplacementMap":
        """Return the same field, interpolated as fMRIPrep's own resampler does since 23.2, where that makes a difference."""
        is_coarse = voxel_sizes(self.affine).max() > COARSE
        return replace(self, order=3) if is_coarse else self


PointMap = AffineMap | DisplacementMap


@dataclass(frozen=True)
class Moving:
    """The voxels of an image that a transform leads to, which FSL's coordinates are of.

    Attributes
    ----------
    affine : (4, 4) array
        Voxel to world coordinate (RAS), mm.
    shape : tuple of 3 int
    """

    affine: np.ndarray
    shape: tuple[int, ...]


def read_transform(path: Path, moving: Moving | None = None) -> list[PointMap]:
    """Read a transform file of fMRIPrep or TemplateFlow (ITK), or of FSL.

    Parameters
    ----------
    path : Path
        ITK's ``.h5`` (composite of affines and displacement fields) or ``.txt`` (one affine), or FSL's field, ``.nii.gz``.
    moving : Moving, optional
        The image that it leads to; needed for FSL's.

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
    if path.name.endswith((".nii", ".nii.gz")):
        return read_fsl_field(path, moving)
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
    _check_numbers(maps, path)
    return maps[::-1]


def read_fsl_field(path: Path, moving: Moving | None) -> list[PointMap]:
    """Read a displacement field of FSL's fnirt or convertwarp.

    FSL's coordinates are voxel times voxel size, of the field for what goes in and of the moving image for what comes
    out; x is counted from the other side where the affine's determinant is above 0. At a point of the reference, the
    field holds what is added to come to the moving image.

    Raises
    ------
    NeurostormError
        If it is none, or holds coefficients of splines.
    """
    if moving is None:
        raise NeurostormError(f"{path}: FSL's field leads to a BOLD series, and can only be the last transform")
    image, _ = open_image(path)
    intent = int(image.header["intent_code"])
    if intent in COEFFICIENTS:
        raise NeurostormError(
            f"{path} holds FNIRT's coefficients, not a displacement field; make one with FSL's "
            f"fnirtfileutils --in={path.name} --ref=REFERENCE --out=FIELD --withaff, and put it there under this name"
        )
    if len(image.shape) != 4 or image.shape[3] != 3:
        raise NeurostormError(
            f"{path} has shape {image.shape}; FSL's displacement field has x, y, z and 3 numbers at each"
        )
    try:
        field = np.asarray(image.dataobj, dtype=np.float32)
    except READ_ERRORS as error:
        raise NeurostormError(f"{path} is damaged or cut short ({error}); copy or fetch it again") from None
    affine = checked_affine(image, str(path))
    into, out_of = fsl_from_voxels(affine, field.shape[:3]), fsl_from_voxels(moving.affine, moving.shape)
    maps: list[PointMap] = [
        AffineMap(into @ np.linalg.inv(affine)),
        DisplacementMap(field, into, outside=np.nan),
        AffineMap(moving.affine @ np.linalg.inv(out_of)),
    ]
    _check_numbers(maps, path)
    return maps


def _check_numbers(maps: Iterable[PointMap], path: Path) -> None:
    for part in maps:
        numbers = part.matrix if isinstance(part, AffineMap) else part.field
        if not np.isfinite(numbers).all() or (isinstance(part, AffineMap) and abs(np.linalg.det(numbers)) < 1e-6):
            raise NeurostormError(f"{path} holds numbers that are no transform (NaN, or an affine that flattens space)")


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
