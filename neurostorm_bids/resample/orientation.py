"""How an image lies where its header says it twice, or not at all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from nibabel.spatialimages import HeaderDataError

APART = 1.0  # mm that qform and sform may differ by at the corners
# World coordinates of the first voxel and size of the voxels of templates, stored RAS: their shape tells which it is
TEMPLATES = {
    (91, 109, 91): ((-90.0, -126.0, -72.0), 2.0),  # MNI152NLin6Asym
    (182, 218, 182): ((-90.0, -126.0, -72.0), 1.0),
    (113, 136, 113): ((-90.0, -126.0, -72.0), 1.6),
    (97, 115, 97): ((-96.5, -132.5, -78.5), 2.0),  # MNI152NLin2009cAsym
    (193, 229, 193): ((-96.0, -132.0, -78.0), 1.0),
}


def two_affines(header: Any, name: str) -> list[str]:
    """Return a note if qform and sform are both set and say different things; the sform is the one that is used."""
    if not hasattr(header, "get_sform"):
        return []
    try:
        (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    except (ValueError, HeaderDataError):  # quaternions that are no rotation
        return [f"{name}: its qform is damaged; the sform is used"]
    if not (s_code and q_code) or sform is None or qform is None:
        return []
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(header.get_data_shape()[:3]) - 1)
    apart = np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1).max()
    if not apart > APART:
        return []
    return [f"{name}: qform and sform put it up to {apart:.0f} mm apart; the sform is used"]


def stored_as(orientation: str, shape: Sequence[int], voxel_size: Sequence[float]) -> np.ndarray:
    """Return the affine of an image of which only the axes are known.

    An image of a template's shape lies where the template does; another one has its centre at 0.

    Parameters
    ----------
    orientation : str
        Such as RAS: the direction in which each axis runs.
    shape : sequence of 3 int
    voxel_size : sequence of 3 float
        mm.

    Returns
    -------
    (4, 4) array
        Voxel to world coordinate (RAS), mm.
    """
    to_ras = ornt_transform(axcodes2ornt(tuple(orientation)), axcodes2ornt("RAS"))
    in_ras, sizes = np.empty(3, int), np.empty(3)
    for axis, (ras_axis, _) in enumerate(to_ras):
        in_ras[int(ras_axis)], sizes[int(ras_axis)] = shape[axis], voxel_size[axis]
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -sizes * (in_ras - 1) / 2
    for template, (origin, size) in TEMPLATES.items():
        if tuple(in_ras) == template and np.allclose(sizes, size, atol=0.01):
            affine[:3, 3] = origin
    return np.asarray(affine @ np.linalg.inv(inv_ornt_aff(to_ras, tuple(shape))))
