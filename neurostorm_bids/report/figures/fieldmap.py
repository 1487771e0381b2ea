"""What the correction of distortion changes: the mean of a raw series without and with it, and the shift."""

from pathlib import Path

import numpy as np

from neurostorm_bids.report.figures.alignment import BRIGHTEST
from neurostorm_bids.report.figures.drawing import INK, OUTLINE, new_figure, save
from neurostorm_bids.report.figures.slices import PLANES, rows_of_slices, to_ras
from neurostorm_bids.resample.gridded import GriddedRun

DRAWN = (PLANES[0], PLANES[2])  # distortion along y is seen best in these
LARGEST = 99.5  # percentile of the shift that the colours end at


def draw_fieldmap(run: GriddedRun, path: Path) -> None:
    """Draw the mean BOLD image without and with correction, and the shift in mm, slice under slice."""
    corrected, grid = run.corrected, run.grid
    assert corrected is not None
    mask = np.zeros(grid.shape, dtype=bool)
    mask.flat[run.brain] = True
    ras = to_ras(mask, grid)
    before, after, shift = (_volume(values, run) for values in (corrected.before, corrected.after, corrected.shift))
    bright = float(np.percentile(corrected.after, BRIGHTEST))
    largest = max(float(np.percentile(np.abs(corrected.shift), LARGEST)), 0.1)
    figure = new_figure(8.9)
    images = ((before, "without"), (after, "with fieldmap"), (shift, "shift"))
    drawn = None
    for ax, row, cut in rows_of_slices(figure, DRAWN, [title for _, title in images], ras, grid, right=0.93):
        picture = cut(images[row][0])
        if images[row][0] is shift:
            inside = np.where(cut(ras), picture, np.nan)
            ends = -largest, largest
            drawn = ax.imshow(inside, cmap="RdBu_r", origin="lower", clim=ends, interpolation="nearest")
        else:
            ax.imshow(picture, cmap="gray", origin="lower", vmin=0, vmax=bright, interpolation="nearest")
            ax.contour(cut(ras), levels=[0.5], colors=[OUTLINE], linewidths=0.8)
    assert drawn is not None
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.945, 0.3, 0.012, 0.4)))
    bar.set_label("shift along the phase-encoding axis (mm)", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7.5, colors=INK)
    save(figure, path)


def _volume(values: np.ndarray, run: GriddedRun) -> np.ndarray:
    """Return values in and around the brain as a volume in RAS order."""
    assert run.corrected is not None
    volume = np.zeros(run.grid.shape, dtype=np.float32)
    volume.flat[run.corrected.around] = values
    return to_ras(volume, run.grid)
