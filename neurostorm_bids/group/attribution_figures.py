"""The mean map of a group over the template."""

from typing import TYPE_CHECKING

import numpy as np

from neurostorm_bids.report.figures.alignment import template_in
from neurostorm_bids.report.figures.attribution import draw_rows
from neurostorm_bids.report.figures.drawing import new_figure
from neurostorm_bids.report.figures.slices import PLANES, to_ras
from neurostorm_bids.resample.grid import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def map_figure(volumes: dict[str, np.ndarray], grid: Grid) -> "Figure":
    """Return a figure of maps, title -> (X, Y, Z), in three planes."""
    figure = new_figure(4.6 * len(volumes))
    template, _ = template_in(grid)
    rows = [(title.replace(" minus ", "\nminus "), to_ras(volume, grid)) for title, volume in volumes.items()]
    draw_rows(figure, rows, PLANES, to_ras(template, grid), grid, "the output")
    return figure
