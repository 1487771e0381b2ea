"""Figures of how the run's brain lies in the model's grid."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.templateflow import find_template
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, OUTLINE, new_figure, save
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.nifti import open_image
from neurostorm_bids.resample.template import NAME, resampled, template_t1w

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLICES = 8  # of each plane
MAX_VOLUMES = 100  # that the mean is taken over
BRIGHTEST = 99.5  # percentile of an image that is drawn white
# plane, axis that it cuts, what is at the left and right of a slice (neurological: left is left)
PLANES = (("axial", 2, "L", "R"), ("coronal", 1, "L", "R"), ("sagittal", 0, "P", "A"))


def draw_alignment(run: GriddedRun, path: Path) -> None:
    """Draw the mean BOLD image and the template, slice under slice, both with the outline of the run's brain mask."""
    grid = run.grid
    mask = np.zeros(grid.shape, dtype=bool)
    mask.flat[run.brain] = True
    mean = np.zeros(grid.shape, dtype=np.float32)
    mean.flat[run.brain] = mean_of(run)
    template, name = template_in(grid)
    mean, mask, template = (to_ras(volume, grid) for volume in (mean, mask, template))
    images = (
        (mean, "mean BOLD", float(np.percentile(mean[mask], BRIGHTEST))),
        (template, name, float(np.percentile(template, BRIGHTEST))),
    )
    figure = new_figure(8.6)
    axes = figure.subplots(
        6, 1, gridspec_kw={"hspace": 0.04, "left": 0.045, "right": 0.995, "top": 0.995, "bottom": 0.01}
    )
    for i, (plane, axis, first, last) in enumerate(PLANES):
        chosen = slices_of(mask, axis)
        outline = tiles(mask, axis, chosen)
        for row, (volume, title, top) in enumerate(images):
            ax = axes[2 * i + row]
            picture = tiles(volume, axis, chosen)
            ax.imshow(picture, cmap="gray", origin="lower", vmin=0, vmax=top, aspect="equal", interpolation="nearest")
            ax.contour(outline, levels=[0.5], colors=[OUTLINE], linewidths=0.8)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            ax.set_ylabel(f"{plane}\n{title}", fontsize=7.5, color=INK)
            _mark_sides(ax, picture.shape[1] / SLICES, first, last)
            if row == 0:
                _mark_coordinates(ax, picture.shape, [ras_coordinate(grid, axis, int(k)) for k in chosen], "xyz"[axis])
    save(figure, path)


def _mark_sides(ax: "Axes", width: float, first: str, last: str) -> None:
    """Write what is at the left and right of every slice."""
    for k in range(SLICES):
        for x, side, letter in ((k * width + 2, "left", first), ((k + 1) * width - 3, "right", last)):
            ax.text(x, 3, letter, color="white", fontsize=8, ha=side, va="bottom", fontweight="bold")


def _mark_coordinates(ax: "Axes", shape: tuple[int, ...], coordinates: list[float], axis: str) -> None:
    """Write the world coordinate of every slice."""
    width = shape[1] / SLICES
    for k, millimetres in enumerate(coordinates):
        label = f"{axis} = {millimetres:+.0f} mm"
        ax.text(k * width + 2, shape[0] - 2, label, color="white", fontsize=6.5, ha="left", va="top")


def draw_outside(run: GriddedRun, path: Path) -> None:
    """Draw the brain from three sides, the box of the grid, and in red the brain that lies outside of it."""
    grid = run.grid
    in_grid = np.stack(np.unravel_index(run.brain, grid.shape), axis=1)
    figure = new_figure(3.6)
    for i, (plane, axis, first, last) in enumerate(reversed(PLANES)):
        ax = figure.add_subplot(1, 3, i + 1)
        across, up = (a for a in range(3) if a != axis)
        # outside, every second voxel is known: larger dots
        for voxels, colour, spacing, size in ((in_grid, FAINT, 2.0, 4.0), (run.brain_outside, ALARM, 4.0, 24.0)):
            world = nib.affines.apply_affine(grid.matrix, voxels)
            spots = np.unique(np.round(world[:, [across, up]] / spacing) * spacing, axis=0)
            ax.scatter(spots[:, 0], spots[:, 1], s=size, marker="s", color=colour, linewidths=0)
        corners = nib.affines.apply_affine(grid.matrix, [[-0.5] * 3, [n - 0.5 for n in grid.shape]])
        (x0, y0), (x1, y1) = corners[:, [across, up]].min(axis=0), corners[:, [across, up]].max(axis=0)
        ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=INK, linewidth=1.2)
        ax.set_aspect("equal")
        ax.axis("off")
        ax.set_title(f"{plane} ({first} left, {last} right)", fontsize=8, color=INK)
    save(figure, path)


def mean_of(run: GriddedRun) -> np.ndarray:
    """Return the mean over volumes taken evenly from the run, (brain voxels,)."""
    chosen = np.unique(np.linspace(0, len(run.frames) - 1, MAX_VOLUMES).round().astype(int))
    total = np.zeros(run.frames.n_voxels)
    for i in chosen:
        total += run.frames[int(i) : int(i) + 1][0]
    return np.asarray(np.maximum(total / len(chosen), 0))


@lru_cache(maxsize=4)
def template_in(grid: Grid) -> tuple[np.ndarray, str]:
    """Return the T1w template in the grid and its name; nilearn's where TemplateFlow's is not on this machine."""
    try:
        image, _ = open_image(find_template(grid.template, None, "T1w", fetch=False))
    except NeurostormError:
        return template_t1w(grid), NAME
    return resampled(np.asarray(image.dataobj, dtype=np.float32), image.affine, grid), grid.template


def to_ras(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the volume with its axes pointing right, forward and up."""
    return np.asarray(nib.orientations.apply_orientation(volume, nib.orientations.io_orientation(grid.matrix)))


def ras_coordinate(grid: Grid, axis: int, index: int) -> float:
    """Return the world coordinate of a slice of a volume in RAS order, mm."""
    ras = nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(grid.matrix), grid.shape)
    return float((grid.matrix @ ras)[axis] @ [*(index if a == axis else 0 for a in range(3)), 1])


def slices_of(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return the indices of slices spread evenly over the brain."""
    there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return np.linspace(there[0], there[-1], SLICES + 2).round().astype(int)[1:-1]


def tiles(volume: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    """Return slices side by side, (rows, columns): columns go right or forward, rows forward or up."""
    return np.concatenate([np.take(volume, int(i), axis=axis).T for i in chosen], axis=1)
