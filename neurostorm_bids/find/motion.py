"""Head motion of a run, from the file that its pipeline wrote: framewise displacement of Power et al. (2012).

https://doi.org/10.1016/j.neuroimage.2011.10.018: the sum of the absolute changes of the six parameters from one volume
to the next, rotations as arcs on a sphere of 50 mm.
"""

from pathlib import Path

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.confounds import Confounds, read_confounds
from neurostorm_bids.find.run import MotionFile
from neurostorm_bids.runtime.files import check_fetched

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
