"""Read NIfTI runs and masks: some volumes at a time, checked, with every problem named by file."""

import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.orientation import says_orientation
from neurostorm_bids.resample.orientation import stored_as, two_affines
from neurostorm_bids.runtime.files import check_there

READ_ERRORS: Any = (  # exception types; isal has none that type checkers know
    EOFError,
    OSError,
    ValueError,
    TypeError,
    OverflowError,
    zlib.error,
    isal_zlib.IsalError,
    ImageFileError,
    HeaderDataError,
)
MAX_VOXELS_OF_A_VOLUME = 2**25  # of a run; a brain at 0.7 mm has half as many
MAX_VOXELS_OF_A_MASK = 2**31  # a header that claims more is damaged
VOLUMES = 16  # read at a time
MOST_OF_MEAN = 0.3  # of the mean image that a series may have on average where the image is to be added
TIME_UNITS_IN_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it names no file; what matters is reported by us

Image = Any  # a nibabel image: its classes have no useful types
PathOrImage = Any  # a path (str or Path), or a nibabel image


class Bold:
    """One BOLD run, opened but not read.

    Parameters
    ----------
    image : path or nibabel image
        4-D, time last; axes of length 1 beside x, y, z and time are ignored.
    affine_of : Path, optional
        Image on the same voxels whose affine is taken.
    orientation : str, optional
        Such as RAS: how voxels are stored, where the header does not say it.
    mean : Path, optional
        Image that is added to every volume.

    Attributes
    ----------
    name : str
        For messages.
    shape : tuple of 3 int
    n_volumes : int
    affine : (4, 4) array
        Voxel index to world coordinate (RAS), mm.
    header_repetition_time : float or None
        From the header, s; `None` if it says 0 or nothing.
    notes : list of str
        What a user should know about the file.

    Raises
    ------
    NeurostormError
        If it is not a run, or damaged.
    """

    def __init__(
        self,
        image: PathOrImage,
        affine_of: Path | None = None,
        orientation: str | None = None,
        mean: Path | None = None,
    ):
        self._image, self.name = open_image(image)
        shape = self._image.shape
        times = [axis for axis, n in enumerate(shape) if axis > 2 and n > 1]
        if min(shape, default=0) < 1 or math.prod(shape[:3]) > MAX_VOXELS_OF_A_VOLUME:
            raise NeurostormError(f"{self.name}: its header says {shape} voxels; the file is damaged")
        if len(times) > 1:
            raise NeurostormError(f"{self.name} has {len(shape)} axes {shape}; a BOLD run has x, y, z and time")
        if len(shape) < 4 or not times:
            raise NeurostormError(f"{self.name} is one volume {shape}, not a run; give the 4-D *_bold file")
        self._time_axis = times[0]
        if self._image.get_data_dtype().kind not in "iuf":
            raise NeurostormError(
                f"{self.name} holds numbers of type {self._image.get_data_dtype()}; BOLD is integers or real numbers"
            )
        self.shape: tuple[int, int, int] = tuple(shape[:3])
        self.n_volumes: int = shape[self._time_axis]
        self.notes: list[str] = []
        self.affine = self._oriented(affine_of, orientation)
        self.header_repetition_time = _header_repetition_time(self._image.header, self._time_axis)
        self._mean = None if mean is None else self._read_mean(mean)

    def blocks(self, first: int, n_volumes: int = VOLUMES) -> Iterator[np.ndarray]:
        """Read from volume ``first`` to the end.

        Yields
        ------
        (voxels, volumes) float32 array
            Voxels in Fortran order of x, y, z.

        Raises
        ------
        NeurostormError
            If the file is damaged.
        """
        n_voxels = int(np.prod(self.shape))
        for start in range(first, self.n_volumes, n_volumes):
            index = [slice(None)] * len(self._image.shape)
            index[self._time_axis] = slice(start, min(start + n_volumes, self.n_volumes))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # casts of NaN; NaN is looked for later
                    block = np.asanyarray(self._image.dataobj[tuple(index)])
            except READ_ERRORS as error:
                raise NeurostormError(
                    f"{self.name} is damaged or cut short at volume {start} of {self.n_volumes} "
                    f"({str(error) or type(error).__name__}); copy or fetch it again"
                ) from None
            volumes = block.reshape(n_voxels, -1, order="F").astype(np.float32, copy=False)
            if self._mean is not None:
                self._check_mean(volumes)
                volumes = volumes + self._mean[:, None]
            yield volumes
        self._check_to_the_end()

    def mean(self, at_least: int) -> nib.Nifti1Image:
        """Return the mean of the first volumes: whole blocks of them, until there are enough or the run ends."""
        total, n = np.zeros(int(np.prod(self.shape)), dtype=np.float64), 0
        for block in self.blocks(0):
            total += block.sum(axis=1)
            n += block.shape[1]
            if n >= at_least:
                break
        return nib.Nifti1Image((total / n).reshape(self.shape, order="F").astype(np.float32), self.affine)

    def _oriented(self, affine_of: Path | None, orientation: str | None) -> np.ndarray:
        """Return the affine: the header's; of a header without one, another image's or that of stated axes.

        Raises
        ------
        NeurostormError
            If nothing says how the voxels are stored.
        """
        if affine_of is not None:
            other, name = open_image(affine_of)
            return checked_affine(other, name)
        if says_orientation(self._image.header):
            self.notes += two_affines(self._image.header, self.name)
            return checked_affine(self._image, self.name)
        if orientation is None:
            raise NeurostormError(
                f"{self.name}: the header sets neither qform nor sform, so nobody can tell left from right; put the original "
                "header back, or give --orientation RAS (or LAS, ...) if you know how it is stored"
            )
        self.notes.append(f"{self.name}: the header has no orientation; {orientation} was given")
        return stored_as(orientation, self.shape, self._image.header.get_zooms()[:3])

    def _read_mean(self, path: Path) -> np.ndarray:
        """Return an image on the run's voxels, (voxels,) float32."""
        image, name = open_image(path)
        values = np.squeeze(np.asanyarray(image.dataobj)).astype(np.float32)
        lies_there = not says_orientation(image.header) or np.allclose(image.affine, self.affine, atol=1e-3)
        if values.shape != self.shape or not lies_there:
            raise NeurostormError(
                f"{name} is on another grid of voxels than {self.name}; its mean has to be on the same"
            )
        if not np.isfinite(values).all() or not (values > 0).any():
            raise NeurostormError(f"{name} holds no value above 0, or NaN; give the mean of the series over time")
        return np.asarray(values.reshape(-1, order="F"))

    def _check_mean(self, volumes: np.ndarray) -> None:
        """Refuse to add a mean to a series that has its own."""
        assert self._mean is not None
        there = self._mean > 0
        if np.abs(volumes[there].mean(axis=1)).sum() > MOST_OF_MEAN * self._mean[there].sum():
            raise NeurostormError(f"{self.name} has its mean already; leave --mean-from to series that were demeaned")

    def _check_to_the_end(self) -> None:
        """Read a gzip stream past its data: only there is its checksum compared."""
        stream = self._image.file_map["image"].fileobj
        if stream is None:
            return
        try:
            while stream.read(2**20):
                pass
        except READ_ERRORS as error:
            raise NeurostormError(f"{self.name} is damaged ({error}); copy or fetch it again") from None


def read_mask(image: PathOrImage, bold: Bold) -> tuple[np.ndarray, np.ndarray, str]:
    """Read a brain mask; one whose header has no orientation lies as the run does, if it has the run's voxels.

    Returns
    -------
    brain : (X, Y, Z) bool array
    affine : (4, 4) array
        Voxel index to world coordinate (RAS), mm.
    name : str
        For messages.

    Raises
    ------
    NeurostormError
        If it is not a mask, empty, or damaged.
    """
    opened, name = open_image(image)
    values = one_volume(opened, name, "a brain mask is one volume")
    if values.dtype.kind not in "iufb":
        raise NeurostormError(f"{name} holds numbers of type {values.dtype}; a brain mask is 0 and 1")
    brain = values > 0.5 if values.dtype.kind == "f" else values != 0
    if not brain.any():
        raise NeurostormError(f"{name} is empty: no voxel is brain; check fMRIPrep's report of this run")
    if not says_orientation(opened.header):
        if brain.shape != bold.shape:
            raise NeurostormError(
                f"{name}: the header sets neither qform nor sform, so nobody can tell left from right; put it back, or give a "
                "mask on the run's voxels"
            )
        return brain, bold.affine, name
    return brain, checked_affine(opened, name), name


def one_volume(opened: Image, name: str, words: str) -> np.ndarray:
    """Read an image of one volume, (X, Y, Z).

    Parameters
    ----------
    words : str
        What it should be, for the message.

    Raises
    ------
    NeurostormError
        If it is damaged, or of another shape.
    """
    if math.prod(opened.shape) > MAX_VOXELS_OF_A_MASK:
        raise NeurostormError(f"{name}: its header says {opened.shape} voxels; the file is damaged")
    try:
        values: np.ndarray = np.squeeze(np.asanyarray(opened.dataobj))
    except READ_ERRORS as error:
        raise NeurostormError(f"{name} is damaged or cut short ({error}); copy or fetch it again") from None
    if values.ndim != 3:
        raise NeurostormError(f"{name} has shape {opened.shape}; {words}")
    return values


def checked_affine(image: Image, name: str) -> np.ndarray:
    """Return the affine of an image, float64.

    Raises
    ------
    NeurostormError
        If it cannot be inverted.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise NeurostormError(f"{name}: its affine cannot be inverted; the header is damaged")
    return affine


def open_image(image: PathOrImage) -> tuple[Image, str]:
    """Open a path as a stream (gzip through ISA-L, read once from front to back), or take an image as it is.

    Returns
    -------
    image : nibabel image
    name : str
        For messages.

    Raises
    ------
    NeurostormError
        If it is not NIfTI, or damaged.
    """
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


def _header_repetition_time(header: Any, time_axis: int) -> float | None:
    if not hasattr(header, "get_xyzt_units"):
        return None
    zooms = header.get_zooms()
    if len(zooms) <= time_axis:
        return None
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:  # a code that stands for no unit
        unit = "unknown"
    seconds = float(zooms[time_axis]) * TIME_UNITS_IN_S.get(unit, 1.0)
    return seconds if np.isfinite(seconds) and seconds > 0 else None
