"""Read NIfTI runs and masks: frame after frame, checked, with every problem named by file."""

import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.files import check_there

READ_ERRORS = (
    EOFError, OSError, ValueError, TypeError, OverflowError, zlib.error, isal_zlib.IsalError, ImageFileError, HeaderDataError,
)  # fmt: skip
MOST_IN_A_VOLUME = 2**25  # of a run: 0.7 mm are half of it
MOST_VOXELS = 2**31  # of a mask: more is a damaged header
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it names no file; what matters is told by us
TIME_UNITS_IN_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


class Bold:
    """One BOLD run, opened but not read.

    Parameters
    ----------
    image : path or nibabel image
        4-D, time last; single axes beside x, y, z and time are ignored.

    Attributes
    ----------
    name : str
        For messages.
    shape : tuple of 3 int
    n_frames : int
    affine : (4, 4) array
        Voxel index to world coordinate (RAS), mm.
    header_repetition_time : float or None
        From the header, s; `None` if it says 0 or nothing.
    notes : list of str
        What a user should know of the file.
    """

    def __init__(self, image):
        self._image, self.name = open_image(image)
        shape = self._image.shape
        times = [axis for axis, n in enumerate(shape) if axis > 2 and n > 1]
        if min(shape, default=0) < 1 or math.prod(shape[:3]) > MOST_IN_A_VOLUME:
            raise NeurostormError(f"{self.name}: its header says {shape} voxels; the file is damaged")
        if len(times) > 1:
            raise NeurostormError(f"{self.name} has {len(shape)} axes {shape}; a BOLD run has x, y, z and time")
        if len(shape) < 4 or not times:
            raise NeurostormError(f"{self.name} is one volume {shape}, not a run; give the 4-D *_bold file")
        self._time_axis = times[0]
        if self._image.get_data_dtype().kind not in "iuf":
            raise NeurostormError(
                f"{self.name} holds numbers of type {self._image.get_data_dtype()}; BOLD is whole or real numbers"
            )
        self.shape, self.n_frames = tuple(shape[:3]), shape[self._time_axis]
        self.affine = checked_affine(self._image, self.name)
        self.header_repetition_time = _header_repetition_time(self._image.header)
        self.notes = []
        if not _says_orientation(self._image.header):
            self.notes.append(f"{self.name}: the header sets neither qform nor sform, so left and right are a guess")

    def blocks(self, first: int, n_frames: int = 16) -> "Iterator[np.ndarray]":
        """Read from frame ``first`` to the end; yields (voxels, frames) float32, voxels in Fortran order of x, y, z."""
        n_voxels = int(np.prod(self.shape))
        for start in range(first, self.n_frames, n_frames):
            index = [slice(None)] * len(self._image.shape)
            index[self._time_axis] = slice(start, min(start + n_frames, self.n_frames))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # casts of NaN; NaN is looked for later
                    block = np.asanyarray(self._image.dataobj[tuple(index)])
            except READ_ERRORS as error:
                raise NeurostormError(
                    f"{self.name} is damaged or cut short at volume {start} of {self.n_frames} "
                    f"({str(error) or type(error).__name__}); copy or fetch it again"
                ) from None
            yield block.reshape(n_voxels, -1, order="F").astype(np.float32, copy=False)
        self._check_to_the_end()

    def _check_to_the_end(self) -> None:
        """Read a gzip stream past its data: its checksum is compared there and nowhere else."""
        stream = self._image.file_map["image"].fileobj
        if stream is None:
            return
        try:
            while stream.read(2**20):
                pass
        except READ_ERRORS as error:
            raise NeurostormError(f"{self.name} is damaged ({error}); copy or fetch it again") from None


def read_mask(image) -> "tuple[np.ndarray, np.ndarray, str]":
    """Read a brain mask.

    Returns
    -------
    brain : (X, Y, Z) bool array
    affine : (4, 4) array
    name : str
        For messages.
    """
    opened, name = open_image(image)
    if math.prod(opened.shape) > MOST_VOXELS:
        raise NeurostormError(f"{name}: its header says {opened.shape} voxels; the file is damaged")
    try:
        values = np.squeeze(np.asanyarray(opened.dataobj))
    except READ_ERRORS as error:
        raise NeurostormError(f"{name} is damaged or cut short ({error}); copy or fetch it again") from None
    if values.ndim != 3:
        raise NeurostormError(f"{name} has shape {opened.shape}; a brain mask is one volume")
    if values.dtype.kind not in "iufb":
        raise NeurostormError(f"{name} holds numbers of type {values.dtype}; a brain mask is 0 and 1")
    brain = values > 0.5 if values.dtype.kind == "f" else values != 0
    if not brain.any():
        raise NeurostormError(f"{name} is empty: no voxel is brain; check fMRIPrep's report of this run")
    return brain, checked_affine(opened, name), name


def checked_affine(image, name: str) -> np.ndarray:
    """The affine of an image, float64; an error if it cannot place voxels in the world."""
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise NeurostormError(f"{name}: its affine cannot be inverted; the header is damaged")
    return affine


def open_image(image):
    """Open a path as a stream (gzip through ISA-L, read once from front to back), or take an image as it is."""
    if not isinstance(image, (str, Path)):
        if not hasattr(image, "dataobj"):
            raise NeurostormError(f"an image is a path or a nibabel image, not {type(image).__name__}")
        return image, str(image.get_filename() or "the image given")
    path = Path(image)
    check_there(path)
    try:
        opened = nib.load(path, mmap=False)
        if not isinstance(opened, nib.Nifti1Image):  # Nifti2Image is one too
            raise NeurostormError(f"{path} is {type(opened).__name__}, not NIfTI")
        if path.name.endswith(".gz"):
            opened = type(opened).from_stream(igzip.open(path))
    except NeurostormError:
        raise
    except Exception as error:  # a damaged header can set off any kind
        why = " ".join(str(error).split()) or type(error).__name__
        raise NeurostormError(f"{path} cannot be read as NIfTI ({why}); copy or fetch it again") from None
    return opened, str(path)


def _says_orientation(header) -> bool:
    return not hasattr(header, "get_sform") or int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def _header_repetition_time(header) -> Optional[float]:
    if not hasattr(header, "get_xyzt_units"):
        return None
    zooms = header.get_zooms()
    if len(zooms) < 4:
        return None
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:  # bits that stand for no unit
        unit = "unknown"
    seconds = float(zooms[3]) * TIME_UNITS_IN_S.get(unit, 1.0)
    return seconds if np.isfinite(seconds) and seconds > 0 else None
