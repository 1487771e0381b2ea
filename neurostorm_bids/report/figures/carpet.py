"""The carpet plot: every voxel's signal over time, under the head motion."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, mark_windows, new_figure, plain, save
from neurostorm_bids.resample.gridded import GriddedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 800  # voxels shown
BLOCK = 64  # volumes read at a time
LIMIT = 2.0  # standard deviations at which the grey scale ends
MAX_NUMBERS = 30  # of windows that are numbered


def draw_carpet(encoded: EncodedRun, threshold: float | None, path: Path) -> None:
    """Draw framewise displacement above, and voxels below, from the brain's edge to its centre; windows are marked.

    Parameters
    ----------
    threshold : float or None
        Of the framewise displacement, mm.
    path : Path
        Of the PNG.
    """
    run = encoded.gridded
    carpet = carpet_of(run)
    tr, begin = run.timing.repetition_time, run.timing.onset
    end = begin + carpet.shape[1] * tr
    figure = new_figure(4.6)
    layout = {"height_ratios": [1, 3], "hspace": 0.06, "left": 0.07, "right": 0.99, "top": 0.95, "bottom": 0.1}
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw=layout)
    if run.displacement is None or np.isnan(run.displacement).all():
        top.text(0.5, 0.5, "framewise displacement is not known", transform=top.transAxes, ha="center", color=FAINT)
        top.set_yticks([])
    else:
        top.plot(begin + np.arange(len(run.displacement)) * tr, run.displacement, color=INK, linewidth=0.9)
        top.set_ylim(0, max(0.5, 1.1 * np.nanmax(run.displacement)))
        if threshold is not None:
            top.axhline(threshold, color=ALARM, linewidth=0.8, linestyle="--")
    top.set_ylabel("FD (mm)", fontsize=8, color=INK)
    scale = {"cmap": "gray", "vmin": -LIMIT, "vmax": LIMIT, "aspect": "auto", "interpolation": "antialiased"}
    bottom.imshow(carpet, extent=(begin, end, carpet.shape[0], 0), **scale)
    bottom.set_yticks([0, carpet.shape[0]], ["edge", "centre"])
    bottom.set_xlabel("time after the start of the acquisition (s)", fontsize=8, color=INK)
    for axes in (top, bottom):
        plain(axes)
        mark_windows(axes, encoded.onsets, encoded.duration, encoded.censored)
        axes.set_xlim(begin, end)
    _number_windows(top, encoded.onsets, encoded.duration)
    save(figure, path)


def carpet_of(run: GriddedRun) -> np.ndarray:
    """Return the detrended and standardised signal of voxels from the brain's edge to its centre, (voxels, volumes)."""
    mask = np.zeros(run.grid.shape, dtype=bool)
    mask.flat[run.brain] = True
    depth = distance_transform_edt(mask).ravel()[run.brain]
    order = np.argsort(depth, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, ROWS).round().astype(int))]
    n = len(run.frames)
    signal = np.concatenate([run.frames[i : i + BLOCK][:, chosen] for i in range(0, n, BLOCK)]).T.astype(np.float64)
    line = np.stack([np.ones(n), np.linspace(-1, 1, n)], axis=1)
    signal -= (signal @ np.linalg.pinv(line).T) @ line.T
    scale = signal.std(axis=1, keepdims=True)
    return np.asarray(signal / np.where(scale > 0, scale, 1))


def _number_windows(axes: "Axes", onsets: np.ndarray, duration: float) -> None:
    """Write the numbers of windows above the axes, as many as there is room for."""
    every = int(np.ceil(len(onsets) / MAX_NUMBERS))
    style: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "ha": "center",
        "va": "bottom",
        "fontsize": 7,
        "color": FAINT,
    }
    for i in range(0, len(onsets), every):
        axes.text(onsets[i] + duration / 2, 1.02, str(i + 1), **style)
