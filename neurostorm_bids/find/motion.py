"""Head motion of a run, from the file that its pipeline wrote: framewise displacement of Power et al. (2012).

https://doi.org/10.1016/j.neuroimage.2011.10.018: the sum of the absolute changes of the six parameters from one volume
to the next, rotations as arcs on a sphere of 50 mm.
"""

from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.confounds import Confounds, read_confounds
from neurostorm_bids.find.run import MotionFile
from neurostorm_bids.runtime.files import check_fetched, check_there

MIN_DETERMINANT = 1e-6  # of a map of points, below which it flattens space
HEAD_RADIUS = 50.0  # mm
PARAMETERS = 6


def read_motion(file: MotionFile | None, n_volumes: int) -> Confounds | None:
    """Read the head motion of a run, and which volumes to drop if that is known; `None` if there is no file.

    Raises
    ------
    NeurostormError
        If the file cannot be read, or has another number of rows than the run has volumes.
    """
    if file is None:
        return None
    if file.layout == "fmriprep":
        return read_confounds(file.path, n_volumes)
    if file.layout == "itk":
        millimetres, radians = parameters_of(read_rigid_transforms(file.path, n_volumes), file.reference)
        return Confounds(framewise_displacement(millimetres, radians), None)
    table = _table(file.path)
    if len(table) != n_volumes:
        raise NeurostormError(
            f"{file.path} has {len(table)} rows, the run {n_volumes} volumes; are they of another run?"
        )
    if file.layout == "hcp":  # x, y, z in mm, then three rotations in degrees
        millimetres, radians = table[:, :3], np.deg2rad(table[:, 3:])
    else:  # FSL's .par: three rotations in radians, then x, y, z in mm
        radians, millimetres = table[:, :3], table[:, 3:]
    return Confounds(framewise_displacement(millimetres, radians), 0)


def framewise_displacement(millimetres: np.ndarray, radians: np.ndarray) -> np.ndarray:
    """Return the framewise displacement (volumes,), mm; NaN at the first volume.

    Parameters
    ----------
    millimetres, radians : (volumes, 3) arrays
        Translations and rotations of every volume.
    """
    moved = np.abs(np.diff(millimetres, axis=0)).sum(axis=1)
    turned = HEAD_RADIUS * np.abs(np.diff(radians, axis=0)).sum(axis=1)
    return np.concatenate([[np.nan], moved + turned])


def read_rigid_transforms(path: Path, n_volumes: int) -> np.ndarray:
    """Read one transform a volume, of ITK: maps of points (RAS, mm) of the BOLD reference to each volume, (volumes, 4, 4).

    Raises
    ------
    NeurostormError
        If the file cannot be read, or has another number of transforms than the run has volumes.
    """
    from nitransforms.io.itk import ITKLinearTransformArray

    check_there(path)
    try:
        maps = np.asarray(ITKLinearTransformArray.from_filename(path).to_ras(), dtype=np.float64).reshape(-1, 4, 4)
    except Exception as error:  # nitransforms raises many kinds
        raise NeurostormError(
            f"{path} cannot be read as ITK transforms ({type(error).__name__}: {error}); it is cut short or of another program: "
            "fetch fMRIPrep's file again"
        ) from None
    if len(maps) != n_volumes:
        raise NeurostormError(
            f"{path} has transforms of {len(maps)} volumes, the raw series {n_volumes} volumes; are they of another run, or is one "
            "of them cut short?"
        )
    if not np.isfinite(maps).all() or (np.abs(np.linalg.det(maps[:, :3, :3])) < MIN_DETERMINANT).any():
        raise NeurostormError(
            f"{path} holds numbers that are no transform (NaN, or an affine that flattens space); fetch it again"
        )
    return maps


def parameters_of(maps: np.ndarray, reference: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return translations (mm) and rotations (radians) of volumes as FSL's mcflirt would, (volumes, 3) each.

    Rotations are about the centre of mass of the reference, in FSL's coordinates (voxels times voxel size).

    Parameters
    ----------
    maps : (volumes, 4, 4) array
        From `read_rigid_transforms`.
    reference : Path
        The BOLD reference.

    Raises
    ------
    NeurostormError
        If the reference cannot be read.
    """
    import nibabel as nib
    from nibabel.affines import apply_affine
    from scipy.ndimage import center_of_mass
    from scipy.spatial.transform import Rotation

    from neurostorm_bids.find.fsl import fsl_from_voxels

    assert reference is not None
    if not reference.exists() and not reference.is_symlink():
        raise NeurostormError(
            f"file not found: {reference}, the BOLD reference, about whose centre head motion is measured where there is no table of confounds; "
            "fetch it"
        )
    check_there(reference)
    try:
        image: Any = nib.load(reference)
        values, affine = np.squeeze(np.asanyarray(image.dataobj)), np.asarray(image.affine, dtype=np.float64)
        centre_voxel = np.array(center_of_mass(np.nan_to_num(np.clip(values, 0, None))))
        into = fsl_from_voxels(affine, values.shape) @ np.linalg.inv(affine)
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise NeurostormError(
            f"{reference} cannot be read as NIfTI ({' '.join(str(error).split())}); fetch it again"
        ) from None
    moved = into @ np.linalg.inv(maps) @ np.linalg.inv(into)  # FSL's matrices lead from a volume to the reference
    centre = apply_affine(fsl_from_voxels(affine, values.shape), centre_voxel)
    rotations = np.swapaxes(moved[:, :3, :3], 1, 2)
    radians = Rotation.from_matrix(rotations).as_euler("XYZ")
    return moved[:, :3, 3] - rotations @ centre + centre, radians


def _table(path: Path) -> np.ndarray:
    """Return the six parameters of every volume; what columns follow are their derivatives."""
    check_fetched(path)
    try:
        table = np.loadtxt(path, ndmin=2, usecols=range(PARAMETERS))
    except (OSError, ValueError) as error:
        raise NeurostormError(
            f"{path} cannot be read as a table of six motion parameters ({error}); fetch it again"
        ) from None
    if not np.isfinite(table).all():
        raise NeurostormError(f"{path} holds something that is no number; fetch it again")
    return table
