"""What a NIfTI header says about left and right, and who else can say it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np


def says_orientation(header: Any) -> bool:
    """Whether a header sets the qform or the sform; without one, left and right are a guess."""
    return not hasattr(header, "get_sform") or int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def affine_source(bold: Path, others: Iterable[Path | None]) -> Path | None:
    """Find an image on the same grid of voxels that says how it lies, for a series that does not.

    Returns
    -------
    Path or None
        `None` if the series says it itself, or no other image does.
    """
    opened = _opened(bold)
    if opened is None or says_orientation(opened.header):
        return None
    for path in others:
        other = _opened(path) if path is not None else None
        if other is not None and _same_voxels(opened, other) and says_orientation(other.header):
            return path
    return None


def _same_voxels(one: Any, other: Any) -> bool:
    sizes = (one.header.get_zooms()[:3], other.header.get_zooms()[:3])
    return bool(one.shape[:3] == other.shape[:3] and np.allclose(*sizes, rtol=0.01))


def _opened(path: Path) -> Any:
    """Return an image; `None` if it cannot be opened, which is reported where it is read."""
    try:
        return nib.load(path, mmap=False) if path.is_file() else None
    except Exception:  # a damaged header can set off any kind
        return None
