"""Figures of how the run's brain lies in the model's grid."""

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.templateflow import find_template
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, OUTLINE, new_figure, save
from neurostorm_bids.report.figures.slices import PLANES, rows_of_slices, to_ras
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.nifti import open_image
from neurostorm_bids.resample.template import NAME, resampled, template_t1w

MAX_VOLUMES = 100  # that the mean is taken over
BRIGHTEST = 99.5  # percentile of an image that is drawn white


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
    for ax, row, cut in rows_of_slices(figure, PLANES, [title for _, title, _ in images], mask, grid):
        volume, _, top = images[row]
        ax.imshow(cut(volume), cmap="gray", origin="lower", vmin=0, vmax=top, aspect="equal", interpolation="nearest")
        ax.contour(cut(mask), levels=[0.5], colors=[OUTLINE], linewidths=0.8)
    save(figure, path)


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
