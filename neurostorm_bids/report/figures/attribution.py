"""Where in the brain a prediction comes from, over the template; below, what random weights would show."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.explain.run import Explanation
from neurostorm_bids.report.figures.alignment import BRIGHTEST, template_in
from neurostorm_bids.report.figures.drawing import INK, new_figure, save
from neurostorm_bids.report.figures.slices import PLANES, rows_of_slices, to_ras
from neurostorm_bids.resample.grid import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 99.9  # percentile of the map that the colours end at: one parcel that stands out is less than 1 % of a brain
HARDLY = 0.15  # of the largest value, below which nothing is drawn


def draw_attribution(explanation: Explanation, path: Path) -> None:
    """Draw the map and that of random weights, slice under slice, each in colours of its own range."""
    grid = explanation.encoded.gridded.grid
    template, _ = template_in(grid)
    rows = [
        (title, to_ras(values.reshape(grid.shape), grid))
        for title, values in (("map", explanation.volume), ("random\nweights", explanation.of_random))
    ]
    figure = new_figure(6.2)
    draw_rows(figure, rows, (PLANES[0], PLANES[2]), to_ras(template, grid), grid, explanation.target.name)
    save(figure, path)


def draw_rows(
    figure: "Figure",
    rows: Sequence[tuple[str, np.ndarray]],
    planes: Sequence[tuple[str, int, str, str]],
    template: np.ndarray,
    grid: Grid,
    output: str,
) -> None:
    """Draw volumes in RAS order over the template, a row of slices of each in each plane.

    Parameters
    ----------
    rows : sequence of (str, (X, Y, Z) array)
        Title and volume.
    planes : sequence
        Of `PLANES`.
    output : str
        What the map is of.
    """
    bright, drawn = float(np.percentile(template, BRIGHTEST)), None
    brain = rows[0][1] != 0
    for ax, row, cut in rows_of_slices(figure, planes, [title for title, _ in rows], brain, grid, right=0.93):
        volume = rows[row][1]
        top = float(np.percentile(np.abs(volume[volume != 0]), LARGEST)) if volume.any() else 1.0
        picture = cut(volume) / top
        over = np.where(np.abs(picture) > HARDLY, picture, np.nan)
        ax.imshow(cut(template), cmap="gray", origin="lower", vmin=0, vmax=bright, interpolation="nearest")
        drawn = ax.imshow(over, cmap="RdBu_r", origin="lower", vmin=-1, vmax=1, interpolation="nearest", alpha=0.75)
    assert drawn is not None
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.945, 0.3, 0.012, 0.4)), ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["lowers", "0", "raises"])
    bar.set_label(output, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=INK)
