"""What all figures share: colours, writing to disk, marks of windows.

Figures are made without pyplot, which keeps state and would draw on a screen where there is one.
"""

import atexit
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np


def _give_matplotlib_a_folder() -> None:
    """Give matplotlib a folder of this process where HOME cannot be written to (containers); else it complains."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.path.expanduser("~")) / ".config") / "matplotlib"
    existing = next(folder for folder in (own, *own.parents) if folder.exists())
    if "MPLCONFIGDIR" not in os.environ and not os.access(existing, os.W_OK):
        os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="neurostorm-")
        atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)


_give_matplotlib_a_folder()

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from neurostorm_bids.runtime.atomic import replacing  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, SIGNAL, ALARM = "#22303c", "#8a97a3", "#00796b", "#c62828"
OUTLINE = "#ff9f1c"  # of the brain mask, to be seen on grey
WIDTH = 11.0  # inches
DPI = 120


class ShownFigure(Figure):
    """A figure that notebooks show, without pyplot."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def new_figure(height: float) -> Figure:
    """Return a figure of the report's width, ``height`` in inches."""
    return ShownFigure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, with nothing in it that differs from one call to the next."""
    content = to_png(figure)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def to_png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def mark_windows(axes: "Axes", onsets: np.ndarray, duration: float, censored: np.ndarray) -> None:
    """Draw where windows start, and shade those that were left out for head motion; times in s."""
    for onset, left_out in zip(onsets, censored, strict=True):
        axes.axvline(onset, color=INK, linewidth=0.6, alpha=0.5)
        if left_out:
            axes.axvspan(onset, onset + duration, color=ALARM, alpha=0.22, linewidth=0)
    axes.axvline(onsets[-1] + duration, color=INK, linewidth=0.6, alpha=0.5)


def plain(axes: "Axes") -> None:
    """Remove the upper and right side of the frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
