"""Distortion of echo-planar images by the magnetic field: where the signal of a point of the head lies in the raw array.

fMRIPrep keeps a field as the coefficients of a cubic B-spline on a grid of knots, in Hz, as sdcflows makes them. It
moves the signal along the phase-encoding axis of the array, by the field times the readout time, in voxels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.acquisition import PhaseEncoding
from neurostorm_bids.find.orientation import says_orientation
from neurostorm_bids.find.run import Fieldmap
from neurostorm_bids.resample.nifti import READ_ERRORS, checked_affine, open_image
from neurostorm_bids.resample.transforms import AffineMap, read_transform

EDGE = 1e-3  # voxels beyond the outer centres of the reference that still count as inside: affines are rounded
STEP = 0.5  # voxels to each side, over which the derivative is taken


@dataclass(frozen=True)
class Knots:
    """Coefficients of a cubic B-spline, one at each knot.

    Attributes
    ----------
    coefficients : (X, Y, Z) float64 array
        Hz.
    from_world : (4, 4) array
        Point (RAS, mm) to index of the knot.
    """

    coefficients: np.ndarray
    from_world: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the spline at (n, 3) points."""
        at = apply_affine(self.from_world, points).T
        # coefficients are no samples: nothing to filter, and beyond the last knot they are 0
        return np.asarray(map_coordinates(self.coefficients, at, order=3, prefilter=False, mode="grid-constant"))


@dataclass(frozen=True)
class Field:
    """The magnetic field around a head, as a function of points of the BOLD reference.

    Attributes
    ----------
    levels : tuple of Knots
        They add up.
    to_fieldmap : AffineMap
        From points of the BOLD reference to those of the fieldmap.
    reference : tuple of (4, 4) array and (X, Y, Z), or None
        Point to voxel of the fieldmap's own image, and its shape: outside, the field is taken as 0, as by fMRIPrep.
    """

    levels: tuple[Knots, ...]
    to_fieldmap: AffineMap
    reference: tuple[np.ndarray, tuple[int, ...]] | None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the field at (n, 3) points (RAS, mm), Hz."""
        return np.where(self.is_known_at(points), self.everywhere(points), 0.0)

    def everywhere(self, points: np.ndarray) -> np.ndarray:
        """Return what the splines say at (n, 3) points, be it far from all that was measured, Hz."""
        there = self.to_fieldmap(points)
        return np.asarray(sum(level(there) for level in self.levels))

    def is_known_at(self, points: np.ndarray) -> np.ndarray:
        """Return which of (n, 3) points lie between the outer voxels of the fieldmap's image."""
        if self.reference is None:
            return np.ones(len(points), dtype=bool)
        to_voxels, shape = self.reference
        voxels = apply_affine(to_voxels, self.to_fieldmap(points))
        return np.asarray(((voxels >= -EDGE) & (voxels <= np.array(shape) - 1 + EDGE)).all(axis=1))


@dataclass(frozen=True)
class Distortion:
    """How a field distorts a series: the same for all volumes, since it belongs to the scanner and not to the head.

    Attributes
    ----------
    field : Field
    encoding : PhaseEncoding
    affine : (4, 4) array
        Voxel of the series to point (RAS, mm).
    """

    field: Field
    encoding: PhaseEncoding
    affine: np.ndarray

    @property
    def voxel_size(self) -> float:
        """Of the series along the phase-encoding axis, mm."""
        return float(np.linalg.norm(self.affine[:3, self.encoding.axis]))

    def shift(self, points: np.ndarray) -> np.ndarray:
        """Return by how many voxels along the phase-encoding axis the signal of (n, 3) points lies further on."""
        return self.field(points) * self.encoding.readout_time

    def stretch(self, points: np.ndarray) -> np.ndarray:
        """Return by how much the field draws the signal of (n, 3) points apart: 1 plus the derivative of the shift."""
        step = STEP * self.affine[:3, self.encoding.axis]
        slope = (self.field.everywhere(points + step) - self.field.everywhere(points - step)) / (2 * STEP)
        return 1 + np.where(self.field.is_known_at(points), slope * self.encoding.readout_time, 0.0)


@dataclass(frozen=True)
class Corrected:
    """What a field changes in a run, to be drawn.

    Attributes
    ----------
    around : (m,) int array
        Voxels in and around the brain, in the flattened (C order) grid.
    shift : (m,) array
        mm along the phase-encoding axis.
    before, after : (m,) arrays
        Mean of the same volumes without and with it.
    """

    around: np.ndarray
    shift: np.ndarray
    before: np.ndarray
    after: np.ndarray


def read_field(files: Fieldmap) -> Field:
    """Read a field of fMRIPrep, and the way to it.

    Raises
    ------
    NeurostormError
        If a file is missing, damaged, or does not say how it lies.
    """
    levels = tuple(_read_knots(path) for path in files.coefficients)
    maps = read_transform(files.transform)
    if len(maps) != 1 or not isinstance(maps[0], AffineMap):
        raise NeurostormError(f"{files.transform} is no affine transform; fetch fMRIPrep's file again")
    reference = None
    if files.reference is not None:
        image, name = open_image(files.reference)
        reference = np.linalg.inv(checked_affine(image, name)), tuple(image.shape[:3])
    return Field(levels, AffineMap(np.linalg.inv(maps[0].matrix)), reference)


def _read_knots(path: Path) -> Knots:
    image, name = open_image(path)
    if not says_orientation(image.header):
        raise NeurostormError(
            f"{name}: the header sets neither qform nor sform, so nobody can tell where its spline coefficients lie; fetch fMRIPrep's "
            "file again"
        )
    try:
        values = np.squeeze(np.asarray(image.dataobj, dtype=np.float64))
    except READ_ERRORS as error:
        raise NeurostormError(f"{name} is damaged or cut short ({error}); copy or fetch it again") from None
    if values.ndim != 3 or not np.isfinite(values).all():
        raise NeurostormError(
            f"{name} is not one volume of spline coefficients ({image.shape}), or holds NaN; fetch it again"
        )
    return Knots(values, np.linalg.inv(checked_affine(image, name)))
