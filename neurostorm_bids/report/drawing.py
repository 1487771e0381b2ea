"""What all figures share: colours, writing to disk, shading of windows.

Figures are made without pyplot, which keeps state and would draw on a screen where there is one.
"""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neurostorm_bids.write.atomic import replacing

INK, FAINT, SIGNAL, ALARM = "#22303c", "#8a97a3", "#00796b", "#c62828"
OUTLINE = "#ff9f1c"  # of the brain mask, to be seen on grey
WIDTH = 11.0  # inches
DPI = 120


def new_figure(height: float) -> Figure:
    """A figure of the report's width, ``height`` in inches."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, with nothing in it that differs from one call to the next."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def mark_windows(axes, onsets: np.ndarray, duration: float, censored: np.ndarray) -> None:
    """Draw where windows begin, and shade those that were left out for head motion; times in s."""
    for onset, left_out in zip(onsets, censored, strict=True):
        axes.axvline(onset, color=INK, linewidth=0.6, alpha=0.5)
        if left_out:
            axes.axvspan(onset, onset + duration, color=ALARM, alpha=0.22, linewidth=0)
    axes.axvline(onsets[-1] + duration, color=INK, linewidth=0.6, alpha=0.5)


def plain(axes) -> None:
    """Take off the frame's upper and right side."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
