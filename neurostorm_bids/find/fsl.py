"""FSL's coordinates.

They are voxel times voxel size, in mm; x is counted from the other side where the affine's determinant is above 0.
"""

from collections.abc import Sequence

import numpy as np
from nibabel.affines import voxel_sizes


def fsl_from_voxels(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the (4, 4) matrix from voxels to FSL's coordinates, mm.

    >>> fsl_from_voxels(np.diag([2.0, 2, 2, 1]), (91, 109, 91)) @ [0, 0, 0, 1]
    array([180.,   0.,   0.,   1.])
    """
    sizes = voxel_sizes(affine)
    matrix = np.diag([*sizes, 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        matrix[0] = [-sizes[0], 0, 0, sizes[0] * (shape[0] - 1)]
    return matrix
