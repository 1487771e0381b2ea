"""The carpet plot: every voxel's signal over time, under the head motion."""

from pathlib import Path
from typing import Optional

import numpy as np
from scipy.ndimage import distance_transform_edt

from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, mark_windows, new_figure, plain, save
from neurostorm_bids.resample.gridded import PlacedRun

ROWS = 800  # voxels shown
BLOCK = 64  # frames read at a time
LIMIT = 2.0  # standard deviations at which the grey scale ends


def draw_carpet(
    placed: PlacedRun,
    displacement: Optional[np.ndarray],
    onsets: np.ndarray,
    duration: float,
    censored: np.ndarray,
    threshold: Optional[float],
    path: Path,
) -> None:
    """Framewise displacement above, voxels below from the brain's edge to its centre; windows are marked.

    Parameters
    ----------
    displacement : (source frames,) array or None
        Framewise displacement of the kept volumes, mm.
    onsets : (windows,) array
        Of the windows, s after the start of the run.
    duration : float
        Of a window, s.
    censored : (windows,) bool array
    threshold : float or None
        Of the framewise displacement, mm.
    path : Path
        Of the PNG.
    """
    carpet = carpet_of(placed)
    tr = placed.steps["SourceRepetitionTime"]
    begin, end = placed.first_frame_time, placed.first_frame_time + carpet.shape[1] * tr
    figure = new_figure(4.6)
    top, bottom = figure.subplots(
        2, 1, sharex=True,
        gridspec_kw={"height_ratios": [1, 3], "hspace": 0.06, "left": 0.07, "right": 0.99, "top": 0.95, "bottom": 0.1},
    )  # fmt: skip
    if displacement is None or np.isnan(displacement).all():
        top.text(0.5, 0.5, "framewise displacement is not known", transform=top.transAxes, ha="center", color=FAINT)
        top.set_yticks([])
    else:
        top.plot(begin + np.arange(len(displacement)) * tr, displacement, color=INK, linewidth=0.9)
        top.set_ylim(0, max(0.5, 1.1 * np.nanmax(displacement)))
        if threshold is not None:
            top.axhline(threshold, color=ALARM, linewidth=0.8, linestyle="--")
    top.set_ylabel("FD (mm)", fontsize=8, color=INK)
    bottom.imshow(
        carpet, cmap="gray", vmin=-LIMIT, vmax=LIMIT, aspect="auto", interpolation="antialiased",
        extent=(begin, end, carpet.shape[0], 0),
    )  # fmt: skip
    bottom.set_yticks([0, carpet.shape[0]], ["edge", "centre"])
    bottom.set_xlabel("time after the start of the run (s)", fontsize=8, color=INK)
    for axes in (top, bottom):
        plain(axes)
        mark_windows(axes, onsets, duration, censored)
        axes.set_xlim(begin, end)
    number_windows(top, onsets, duration)
    save(figure, path)


def carpet_of(placed: PlacedRun) -> np.ndarray:
    """Detrended and standardised signal of voxels from the brain's edge to its centre, (voxels, source frames)."""
    mask = np.zeros(placed.grid.shape, dtype=bool)
    mask.flat[placed.brain] = True
    depth = distance_transform_edt(mask).ravel()[placed.brain]
    order = np.argsort(depth, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, ROWS).round().astype(int))]
    n = len(placed.frames)
    signal = np.concatenate([placed.frames[i : i + BLOCK][:, chosen] for i in range(0, n, BLOCK)]).T.astype(np.float64)
    line = np.stack([np.ones(n), np.linspace(-1, 1, n)], axis=1)
    signal -= (signal @ np.linalg.pinv(line).T) @ line.T
    scale = signal.std(axis=1, keepdims=True)
    return signal / np.where(scale > 0, scale, 1)


def number_windows(axes, onsets: np.ndarray, duration: float) -> None:
    """Write the windows' numbers above the axes, as many as there is room for."""
    every = int(np.ceil(len(onsets) / 30))
    for i in range(0, len(onsets), every):
        axes.text(
            onsets[i] + duration / 2, 1.02, str(i + 1), transform=axes.get_xaxis_transform(),
            ha="center", va="bottom", fontsize=7, color=FAINT,
        )  # fmt: skip
