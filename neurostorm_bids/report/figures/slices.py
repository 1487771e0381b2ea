"""Slices of a brain, side by side: what the figures of images share. Left is left."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from neurostorm_bids.report.figures.drawing import INK
from neurostorm_bids.resample.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLICES = 8  # of each plane
# plane, axis that it cuts, what is at the left and right of a slice (neurological: left is left)
PLANES = (("axial", 2, "L", "R"), ("coronal", 1, "L", "R"), ("sagittal", 0, "P", "A"))

Cut = Callable[[np.ndarray], np.ndarray]


def rows_of_slices(
    figure: "Figure",
    planes: Sequence[tuple[str, int, str, str]],
    titles: Sequence[str],
    brain: np.ndarray,
    grid: Grid,
    right: float = 0.995,
) -> "Iterator[tuple[Axes, int, Cut]]":
    """Yield axes to draw on, for each plane one row of slices of each image; they are labelled when the next ones are asked for.

    Parameters
    ----------
    planes : sequence
        Of `PLANES`.
    titles : sequence of str
        Of the images.
    brain : (X, Y, Z) bool array
        In RAS order; slices are spread evenly over it.
    right : float
        Where the rows end, as a share of the figure's width.

    Yields
    ------
    axes : Axes
    row : int
        Which image.
    cut : callable
        (X, Y, Z) in RAS order -> the picture of the slices.
    """
    margins = {"hspace": 0.04, "left": 0.045, "right": right, "top": 0.995, "bottom": 0.01}
    axes = figure.subplots(len(planes) * len(titles), 1, gridspec_kw=margins)
    for i, (plane, axis, first, last) in enumerate(planes):
        chosen = slices_of(brain, axis)
        shape = tiles(brain, axis, chosen).shape
        for row, title in enumerate(titles):
            ax = axes[len(titles) * i + row]
            yield ax, row, partial(tiles, axis=axis, chosen=chosen)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            ax.set_ylabel(f"{plane}\n{title}", fontsize=7.5, color=INK)
            mark_sides(ax, shape[1] / SLICES, first, last)
            if row == 0:
                mark_coordinates(ax, shape, [ras_coordinate(grid, axis, int(k)) for k in chosen], "xyz"[axis])


def mark_sides(ax: "Axes", width: float, first: str, last: str) -> None:
    """Write what is at the left and right of every slice."""
    for k in range(SLICES):
        for x, side, letter in ((k * width + 2, "left", first), ((k + 1) * width - 3, "right", last)):
            ax.text(x, 3, letter, color="white", fontsize=8, ha=side, va="bottom", fontweight="bold")


def mark_coordinates(ax: "Axes", shape: tuple[int, ...], coordinates: list[float], axis: str) -> None:
    """Write the world coordinate of every slice."""
    width = shape[1] / SLICES
    for k, millimetres in enumerate(coordinates):
        label = f"{axis} = {millimetres:+.0f} mm"
        ax.text(k * width + 2, shape[0] - 2, label, color="white", fontsize=6.5, ha="left", va="top")


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
