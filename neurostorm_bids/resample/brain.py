"""Where the run's brain lies in the model's grid, and whether it lies where the template's does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import binary_dilation

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.fieldmap import Distortion
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.nifti import Bold, PathOrImage, read_mask
from neurostorm_bids.resample.sampler import inside, nearest
from neurostorm_bids.resample.template import NAME, template_brain, template_mask
from neurostorm_bids.resample.transforms import PointMap, map_points

TIE_BREAK = 1e-4  # mm; more than affines in headers are rounded by
MIN_OVERLAP = 0.8  # share of the brain that lies in the template's; fMRIPrep's own masks reach 0.98
GOOD_OVERLAP = 0.9  # below, the alignment should be looked at
MAX_OUTSIDE = 0.1  # share of the brain outside the grid, above which the alignment should be looked at
MIN_COVERAGE = 0.5  # share of the template's brain that a run of a whole brain covers
MIN_VOXELS = 1000  # 8 cm3
SHOWN_AROUND = 6  # voxels around the brain in which it is shown what distortion does
MARGIN = 24  # voxels around the grid in which brain is looked for


@dataclass(frozen=True)
class Distorted:
    """What distortion does to the brain, n voxels of the grid, and somewhat around it, m voxels.

    Attributes
    ----------
    shift : (n,) array
        By how many voxels of the run the signal lies further on along the phase-encoding axis.
    stretch : (n,) array
        By how much it is drawn apart.
    around : (m,) int array
        In the flattened (C order) grid.
    around_voxels : (m, 3) array
        Where they would be in the run without distortion, in voxels.
    around_shift : (m,) array
    """

    shift: np.ndarray
    stretch: np.ndarray
    around: np.ndarray
    around_voxels: np.ndarray
    around_shift: np.ndarray


@dataclass(frozen=True)
class Brain:
    """The brain voxels of the grid.

    Attributes
    ----------
    indices : (n,) int array
        In the flattened (C order) grid.
    voxels : (n, 3) array
        Where they are in the run, in voxels.
    outside : (n, 3) int array
        Where brain lies outside the grid, as voxel indices that continue beyond its ends; every second one along each axis,
        as far as `MARGIN`.
    share_outside : float
        Share of the brain that lies there.
    overlap : float
        Share of the brain that lies in the template's brain.
    notes : list of str
    in_run : (X, Y, Z) bool array
        Which voxels of the run are brain, or near it.
    distorted : Distorted, or None
        What distortion does to a raw run.
    """

    indices: np.ndarray
    voxels: np.ndarray
    outside: np.ndarray
    share_outside: float
    overlap: float
    notes: list[str]
    in_run: np.ndarray
    distorted: Distorted | None = None


@dataclass(frozen=True)
class Maps:
    """How points come from the grid's world to the run's and to its mask's.

    Attributes
    ----------
    to_run : sequence
        Maps in the order in which points go through them.
    to_mask : sequence, or None
        The same; `None` if the mask lies where the run lies.
    distortion : Distortion or None
        Of a raw run, whose mask lies where it would lie without it.
    """

    to_run: Sequence[PointMap]
    to_mask: Sequence[PointMap] | None = None
    distortion: Distortion | None = None


@dataclass(frozen=True)
class _Lookup:
    """Looks up grid voxels in the run and its mask."""

    bold: Bold
    mask: np.ndarray
    mask_affine: np.ndarray
    grid: Grid
    maps: Maps

    def __call__(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which grid voxels (n, 3) are brain, and where they are in the run, in voxels."""
        points = apply_affine(self.grid.matrix, index)
        world = map_points(self.maps.to_run, points)
        voxels = apply_affine(np.linalg.inv(self.bold.affine), world)
        if (distortion := self.maps.distortion) is not None:
            voxels[:, distortion.encoding.axis] += distortion.shift(world)
        at_mask = world if self.maps.to_mask is None else map_points(self.maps.to_mask, points)
        # A point halfway between two voxels goes to the one on its right, front or top: the same one however stored.
        of_mask = apply_affine(np.linalg.inv(self.mask_affine), at_mask + TIE_BREAK)
        return nearest(self.mask, of_mask) & inside(voxels, self.bold.shape), voxels


def locate_brain(bold: Bold, mask: PathOrImage | None, grid: Grid, maps: Maps, transforms: Sequence[Path]) -> Brain:
    """Take the brain mask to the grid; nearest neighbour.

    Parameters
    ----------
    mask : path or image, or None
        `None` takes the template's brain.
    maps : Maps
    transforms : sequence of Path
        The files they come from, for messages.

    Raises
    ------
    NeurostormError
        If the mask does not fit the run, or the brain does not lie where the template's does.
    """
    if mask is None:
        in_mask, mask_affine = template_mask()
        mask_name, notes = f"the brain of {NAME}", []
    else:
        in_mask, mask_affine, mask_name = read_mask(mask, bold)
        notes = [] if maps.to_mask is not None else _compare_grids(bold, in_mask, mask_affine, mask_name)
    look_up = _Lookup(bold, in_mask, mask_affine, grid, maps)
    is_brain, voxels = look_up(np.indices(grid.shape).reshape(3, -1).T)
    if not is_brain.any():
        raise NeurostormError(
            f"{mask_name}: none of its brain lies in the grid '{grid.name}' ({grid.template}); "
            + _likely_cause(transforms, "the header's affine does not put this run in that template")
        )
    if is_brain.sum() < MIN_VOXELS:
        raise NeurostormError(
            f"{mask_name}: {is_brain.sum()} voxels of brain in the grid are too few to encode; check the mask"
        )
    overlap, more = _compare_with_template(is_brain, grid, mask_name, transforms)
    margin = _around(grid)
    outside = margin[look_up(margin)[0]]
    n_outside = 8 * len(outside)  # every second one along each axis
    indices = np.flatnonzero(is_brain)
    share = n_outside / (n_outside + len(indices))
    if share > MAX_OUTSIDE:
        more.append(f"{share:.0%} of the brain lies outside the grid: look at the alignment")
    own_mask = maps.to_mask is None and maps.distortion is None
    in_run = _in_run(bold, in_mask, mask_affine) if own_mask else _near(voxels[indices], bold.shape)
    distorted = None if maps.distortion is None else _distorted(is_brain, bold, grid, maps.to_run, maps.distortion)
    return Brain(indices, voxels[indices], outside, share, overlap, [*notes, *more], in_run, distorted)


def _distorted(
    is_brain: np.ndarray, bold: Bold, grid: Grid, to_run: Sequence[PointMap], distortion: Distortion
) -> Distorted:
    """Return what distortion does to a run, in the brain and somewhat around it."""
    around = np.flatnonzero(binary_dilation(is_brain.reshape(grid.shape), iterations=SHOWN_AROUND))
    grid_points = apply_affine(grid.matrix, np.stack(np.unravel_index(around, grid.shape), axis=1))
    points = map_points(to_run, grid_points)
    shift, of_brain = distortion.shift(points), is_brain[around]
    voxels = apply_affine(np.linalg.inv(bold.affine), points)
    return Distorted(shift[of_brain], distortion.stretch(points[of_brain]), around, voxels, shift)


def _in_run(bold: Bold, mask: np.ndarray, mask_affine: np.ndarray) -> np.ndarray:
    """Return which voxels of the run are in a mask in its space."""
    index = np.indices(bold.shape).reshape(3, -1).T
    return nearest(mask, apply_affine(np.linalg.inv(mask_affine) @ bold.affine, index)).reshape(bold.shape)


def _near(voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which voxels of the run are the nearest ones to any of these (n, 3) points."""
    found = np.zeros(shape, dtype=bool)
    found[tuple(np.clip(np.floor(voxels + 0.5).astype(int), 0, np.array(shape) - 1).T)] = True
    return found


def _compare_grids(bold: Bold, mask: np.ndarray, mask_affine: np.ndarray, mask_name: str) -> list[str]:
    """Return a note if the mask is on another grid of voxels than the run."""
    name = Path(mask_name).name
    if mask.shape != bold.shape:
        shapes = (_by(mask.shape), _by(bold.shape))
        return [f"{name} is on another grid of voxels ({shapes[0]}) than the run ({shapes[1]}): it is resampled"]
    if np.allclose(mask_affine, bold.affine, atol=1e-3):
        return []
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(bold.shape) - 1)
    apart = np.linalg.norm(apply_affine(mask_affine, corners) - apply_affine(bold.affine, corners), axis=1).max()
    return [f"{name}: its affine differs from the run's, by up to {apart:.1f} mm; it is resampled"]


def _compare_with_template(
    is_brain: np.ndarray, grid: Grid, mask_name: str, transforms: Sequence[Path]
) -> tuple[float, list[str]]:
    """Return the share of the brain that lies in the template's, and what is to be said of it.

    Raises
    ------
    NeurostormError
        If it is so small that the run cannot be in the template's space.
    """
    template = template_brain(grid)
    overlap, coverage = float(template[is_brain].mean()), float(is_brain[template].mean())
    notes = []
    if coverage < MIN_COVERAGE:
        notes.append(
            f"the run covers only {coverage:.0%} of the brain of {grid.template}; the model was trained on whole brains"
        )
    if overlap < MIN_OVERLAP:
        raise NeurostormError(
            f"{mask_name}: {'after the transforms ' if transforms else ''}only {overlap:.0%} of the brain lies in the "
            f"brain of {grid.template}; "
            + _likely_cause(transforms, "the space of the run is not the one its name says, or its header is damaged")
        )
    if overlap < GOOD_OVERLAP:
        notes.append(f"only {overlap:.0%} of the brain lies in the brain of {grid.template}: look at the alignment")
    return overlap, notes


def _around(grid: Grid) -> np.ndarray:
    """Return every second voxel of the margin around a grid, (n, 3)."""
    axes = (np.arange(-MARGIN, n + MARGIN, 2) for n in grid.shape)
    everywhere = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(everywhere[~inside(everywhere, grid.shape)])


def _likely_cause(transforms: Sequence[Path], otherwise: str) -> str:
    if not transforms:
        return otherwise
    names = ", ".join(path.name for path in transforms)
    return f"a transform is another subject's, or its from and to are swapped: check {names}"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
