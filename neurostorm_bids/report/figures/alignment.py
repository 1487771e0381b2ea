"""Figures of where a brain came to lie in the model's grid."""

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.templateflow import find_template
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, OUTLINE, new_figure, save
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import PlacedRun

SLICES = 8  # of each plane
FRAMES = 100  # that the mean is taken over
# plane, axis it cuts, what stands at the left and right of a slice (neurological: left is left)
PLANES = (("axial", 2, "L", "R"), ("coronal", 1, "L", "R"), ("sagittal", 0, "P", "A"))


def draw_mosaic(placed: PlacedRun, path: Path) -> None:
    """The placed mean BOLD and the template, slice under slice, both with the outline of the run's brain mask.

    Parameters
    ----------
    path : Path
        Of the PNG.
    """
    grid = placed.grid
    mask = np.zeros(grid.shape, dtype=bool)
    mask.flat[placed.brain] = True
    mean = np.zeros(grid.shape, dtype=np.float32)
    mean.flat[placed.brain] = mean_of(placed)
    template, name = template_in(grid)
    mean, mask, template = (to_ras(volume, grid) for volume in (mean, mask, template))
    figure = new_figure(8.6)
    axes = figure.subplots(
        6, 1, gridspec_kw={"hspace": 0.04, "left": 0.045, "right": 0.995, "top": 0.995, "bottom": 0.01}
    )
    inside = mean[mask]
    low, high = 0.0, float(np.percentile(inside, 99.5))
    for i, (plane, axis, first, last) in enumerate(PLANES):
        chosen = slices_of(mask, axis)
        outline = tiles(mask, axis, chosen)
        for row, (volume, title, top) in enumerate(
            ((mean, "mean BOLD", high), (template, name, float(np.percentile(template, 99.5))))
        ):
            ax = axes[2 * i + row]
            picture = tiles(volume, axis, chosen)
            ax.imshow(picture, cmap="gray", origin="lower", vmin=low, vmax=top, aspect="equal", interpolation="nearest")
            ax.contour(outline, levels=[0.5], colors=[OUTLINE], linewidths=0.8)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            ax.set_ylabel(f"{plane}\n{title}", fontsize=7.5, color=INK)
            width = picture.shape[1] / SLICES
            for k, index in enumerate(chosen):
                for x, side, letter in ((k * width + 2, "left", first), ((k + 1) * width - 3, "right", last)):
                    ax.text(x, 3, letter, color="white", fontsize=8, ha=side, va="bottom", fontweight="bold")
                if row == 0:
                    millimetres = ras_coordinate(grid, axis, index)
                    ax.text(
                        k * width + 2, picture.shape[0] - 2, f"{'xyz'[axis]} = {millimetres:+.0f} mm",
                        color="white", fontsize=6.5, ha="left", va="top",
                    )  # fmt: skip
    save(figure, path)


def draw_crop(placed: PlacedRun, path: Path) -> None:
    """What lies beyond the grid: the brain from three sides, the grid's box, and in red what the box cuts off."""
    grid = placed.grid
    inside = np.stack(np.unravel_index(placed.brain, grid.shape), axis=1)
    figure = new_figure(3.6)
    for i, (plane, axis, first, last) in enumerate(reversed(PLANES)):
        ax = figure.add_subplot(1, 3, i + 1)
        across, up = (a for a in range(3) if a != axis)
        for voxels, colour, step in ((inside, FAINT, 2.0), (placed.beyond, ALARM, 4.0)):
            world = nib.affines.apply_affine(grid.matrix, voxels)
            spots = np.unique(np.round(world[:, [across, up]] / step) * step, axis=0)
            ax.scatter(*spots.T, s=4.0 if step == 2.0 else 24.0, marker="s", color=colour, linewidths=0)
        corners = nib.affines.apply_affine(grid.matrix, [[-0.5] * 3, [n - 0.5 for n in grid.shape]])
        (x0, y0), (x1, y1) = corners[:, [across, up]].min(axis=0), corners[:, [across, up]].max(axis=0)
        ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=INK, linewidth=1.2)
        ax.set_aspect("equal")
        ax.axis("off")
        ax.set_title(f"{plane} ({first} left, {last} right)", fontsize=8, color=INK)
    save(figure, path)


def mean_of(placed: PlacedRun) -> np.ndarray:
    """Mean over frames taken evenly from the run, (brain voxels,)."""
    chosen = np.unique(np.linspace(0, len(placed.frames) - 1, FRAMES).round().astype(int))
    total = np.zeros(placed.frames.n_voxels)
    for i in chosen:
        total += placed.frames[int(i) : int(i) + 1][0]
    return np.maximum(total / len(chosen), 0)


@lru_cache(maxsize=4)
def template_in(grid: Grid) -> "tuple[np.ndarray, str]":
    """The T1w template in the grid and its name; nilearn's where TemplateFlow's is not on this machine."""
    from nilearn.datasets import load_mni152_template
    from nilearn.image import resample_img

    try:
        image, name = nib.load(find_template(grid.template, None, "T1w", fetch=False)), grid.template
    except NeurostormError:
        image, name = load_mni152_template(resolution=2), "MNI152 of nilearn"
    placed = resample_img(image, grid.matrix, grid.shape, interpolation="linear", force_resample=True, copy_header=True)
    return np.asarray(placed.dataobj, dtype=np.float32), name


def to_ras(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """The volume with its axes to the right, the front and the top."""
    return nib.orientations.apply_orientation(volume, nib.orientations.io_orientation(grid.matrix))


def ras_coordinate(grid: Grid, axis: int, index: int) -> float:
    """World coordinate of a slice of a volume in RAS order, mm."""
    ras = nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(grid.matrix), grid.shape)
    return float((grid.matrix @ ras)[axis] @ [*(index if a == axis else 0 for a in range(3)), 1])


def slices_of(mask: np.ndarray, axis: int) -> np.ndarray:
    """Indices of slices spread evenly over the brain."""
    there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return np.linspace(there[0], there[-1], SLICES + 2).round().astype(int)[1:-1]


def tiles(volume: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    """Slices side by side, (rows, columns): columns run to the right or the front, rows to the top or the front."""
    return np.concatenate([np.take(volume, int(i), axis=axis).T for i in chosen], axis=1)
