"""The grid of voxels that a model was trained in: a template, a voxel size, an orientation and a field of view.

World coordinates are those of NIfTI everywhere in this package: RAS, in mm (+x is the subject's right).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from neurostorm_bids.errors import NeurostormError

SIDES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))  # low and high end of x, y, z


@dataclass(frozen=True)
class Grid:
    """A box of voxels in a template's space.

    Attributes
    ----------
    name : str
        What `--grid` calls it.
    template : str
        TemplateFlow's identifier of the space its world coordinates are in.
    shape : tuple of 3 int
        Voxels along the array's axes.
    affine : (4, 4) tuple of tuples
        Voxel index to world coordinate, mm.
    """

    name: str
    template: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @property
    def matrix(self) -> np.ndarray:
        """The affine as a (4, 4) array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def orientation(self) -> str:
        """Where the array's axes point, such as LAS (first axis to the left)."""
        import nibabel as nib

        return "".join(nib.aff2axcodes(self.matrix))

    @property
    def voxel_size(self) -> tuple[float, ...]:
        """Voxel size along the array's axes, mm."""
        return tuple(float(size) for size in voxel_sizes(self.matrix))

    def describe(self) -> dict[str, Any]:
        """Return what a reader of a sidecar needs to rebuild the grid."""
        return {
            "Name": self.name,
            "Template": self.template,
            "Shape": list(self.shape),
            "VoxelSizeInMM": list(self.voxel_size),
            "Orientation": self.orientation,
            "Affine": [list(row) for row in self.affine],
        }


def sides_outside(grid: Grid, indices: np.ndarray) -> list[str]:
    """Return on which sides of a grid voxels outside of it lie, such as inferior.

    Parameters
    ----------
    indices : (n, 3) int array
        Voxel indices that continue beyond the grid's ends.

    Examples
    --------
    >>> sides_outside(FSL, np.array([[96, 50, -2]]))  # stored LAS: the first axis runs to the left
    ['left', 'inferior']
    """
    found = []
    for axis in range(3):
        direction = grid.matrix[:3, axis]
        world = int(np.abs(direction).argmax())
        low, high = (indices[:, axis] < 0).any(), (indices[:, axis] >= grid.shape[axis]).any()
        low, high = (low, high) if direction[world] > 0 else (high, low)
        found += [(world, name) for name, there in zip(SIDES[world], (low, high), strict=True) if there]
    return [name for _, name in sorted(found, key=lambda pair: pair[0])]


def centre_crop(name: str, template: str, affine: np.ndarray, shape: tuple[int, ...], size: int = 96) -> Grid:
    """Crop or pad every axis of a template's array to ``size`` voxels, as in the published preprocessing.

    A longer axis starts at (n - size) // 2; a shorter one gets ceil((size - n) / 2) voxels before it.

    >>> import numpy as np
    >>> grid = centre_crop("x", "y", np.diag([2.0, 2.0, 2.0, 1.0]), (91, 109, 97))
    >>> [int(grid.matrix[axis, 3] / 2) for axis in range(3)]
    [-3, 6, 0]
    """
    start = [(n - size) // 2 if n >= size else -((size - n + 1) // 2) for n in shape]
    cropped = np.array(affine, dtype=np.float64)
    cropped[:3, 3] += cropped[:3, :3] @ start
    return Grid(name, template, (size, size, size), tuple(map(tuple, cropped.tolist())))


#: FSL's MNI152 2 mm standard space as HCP and UK Biobank store it, 91 x 109 x 91, LAS: most of the pretraining data.
FSL = centre_crop(
    "fsl",
    "MNI152NLin6Asym",
    np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]]),
    (91, 109, 91),
)
#: MNI152NLin2009cAsym at 2 mm as fMRIPrep stores it, 97 x 115 x 97, RAS: how fMRIPrep files were fed as published.
AS_FMRIPREP = centre_crop(
    "as-fmriprep",
    "MNI152NLin2009cAsym",
    np.array([[2.0, 0, 0, -96.5], [0, 2.0, 0, -132.5], [0, 0, 2.0, -78.5], [0, 0, 0, 1]]),
    (97, 115, 97),
)
GRIDS = {grid.name: grid for grid in (FSL, AS_FMRIPREP)}


def get_grid(grid: "str | Grid | None") -> Grid:
    """Look up a grid by its name; `None` is the default, `FSL`.

    Raises
    ------
    NeurostormError
        If there is no grid of that name.
    """
    if grid is None:
        return FSL
    if isinstance(grid, Grid):
        return grid
    if grid not in GRIDS:
        raise NeurostormError(f"unknown grid '{grid}'; there are: {', '.join(GRIDS)}")
    return GRIDS[grid]
