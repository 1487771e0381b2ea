"""How the embedding moves through a run: a figure, and the same in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from matplotlib.ticker import MaxNLocator

from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, SIGNAL, new_figure, plain, save

COMPONENTS = 3
ALIKE = 0.9
COLOURS = (SIGNAL, "#5e35b1", FAINT)


@dataclass(frozen=True)
class Course:
    """The course of a run's embedding.

    Attributes
    ----------
    similarity : (windows, windows) array
        Cosine.
    scores : (windows, components) array
        Principal components of the windows' embeddings.
    explained : (components,) array
        Share of the variance over windows.
    motion : float
        Correlation of the first component with the windows' mean framewise displacement, without sign; NaN if unknown.
    n_known : int
        Windows whose framewise displacement is known.
    """

    similarity: np.ndarray
    scores: np.ndarray
    explained: np.ndarray
    motion: float
    n_known: int


def course_of(embeddings: np.ndarray, displacement: np.ndarray) -> Course:
    """Similarity of windows, and principal components over time.

    Parameters
    ----------
    embeddings : (windows, channels) array
    displacement : (windows,) array
        Mean framewise displacement, mm; NaN where unknown.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0, norms, 1)
    centred = embeddings - embeddings.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    n = min(COMPONENTS, max(0, len(embeddings) - 1))
    # the sign of a component is arbitrary: its largest weight is made positive, so that figures do not flip
    signs = np.sign(vt[np.arange(n), np.abs(vt[:n]).argmax(axis=1)])
    scores, total = u[:, :n] * s[:n] * signs, (s**2).sum()
    known = ~np.isnan(displacement)
    motion = np.nan
    if n and known.sum() > 3 and displacement[known].std() > 0 and scores[known, 0].std() > 0:
        motion = abs(np.corrcoef(scores[known, 0], displacement[known])[0, 1])
    return Course(
        unit @ unit.T, scores, s[:n] ** 2 / total if total > 0 else np.zeros(n), float(motion), int(known.sum())
    )


def in_words(course: Course) -> str:
    """What the figure shows, for a reader who has never seen one."""
    n = len(course.similarity)
    if n < 2:
        return ""  # one window: nothing moves
    others = course.similarity[~np.eye(n, dtype=bool)]
    neighbours = np.diag(course.similarity, 1)
    text = (
        f"Windows that follow each other have embeddings with a mean cosine similarity of {_cosine(neighbours.mean())}, "
        f"any two windows of {_cosine(others.mean())} (lowest {_cosine(others.min())})"
    )
    if n > COMPONENTS:  # of two windows one component describes everything
        text += f"; one component describes {course.explained[0]:.0%} of what changes"
    text += "."
    odd = np.array([np.delete(row, i).mean() for i, row in enumerate(course.similarity)])
    spread = np.median(np.abs(odd - np.median(odd))) * 1.4826
    if n > 4 and spread > 0 and odd.min() < np.median(odd) - 5 * spread:
        text += f" Window {int(odd.argmin()) + 1} is unlike the others (mean similarity {odd.min():.3f})."
    if not np.isnan(course.motion):
        if course.motion > 0.5 and course.n_known >= 8:
            text += (
                f" That component follows head motion (|r| = {course.motion:.2f} with framewise displacement): beware."
            )
        else:
            text += f" Its correlation with framewise displacement is |r| = {course.motion:.2f} over {course.n_known} windows."
    return text


def _cosine(value: float) -> str:
    return "above 0.999" if value > 0.9995 else f"{value:.3f}"


def draw_course(
    course: Course, onsets: np.ndarray, duration: float, censored: Optional[np.ndarray], path: Path
) -> None:
    """Similarity of windows at the left, the first components over time at the right.

    Parameters
    ----------
    onsets : (windows,) array
        s after the start of the run.
    duration : float
        Of a window, s.
    censored : (windows,) bool array or None
    path : Path
        Of the PNG.
    """
    n = len(onsets)
    figure = new_figure(3.4)
    left, right = figure.subplots(
        1, 2, gridspec_kw={"width_ratios": [1, 2.3], "left": 0.06, "right": 0.985, "top": 0.9, "bottom": 0.15, "wspace": 0.2}
    )  # fmt: skip
    lowest = min(float(course.similarity.min()), ALIKE)  # a scale that shows windows as alike when they are
    image = left.imshow(course.similarity, cmap="viridis", extent=(0.5, n + 0.5, n + 0.5, 0.5), vmin=lowest, vmax=1)
    colours = figure.colorbar(image, ax=left, shrink=0.9)
    colours.ax.tick_params(labelsize=7)
    colours.formatter.set_useOffset(False)
    left.set_title("cosine similarity of windows", fontsize=9, color=INK)
    left.set_xlabel("window", fontsize=8, color=INK)
    left.tick_params(labelsize=8, colors=INK)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True))
    middles = onsets + duration / 2
    for i in range(course.scores.shape[1]):
        label = f"component {i + 1} ({course.explained[i]:.0%})"
        right.plot(middles, course.scores[:, i], marker="o", markersize=3, linewidth=1.2, color=COLOURS[i], label=label)
    for onset, left_out in zip(onsets, censored if censored is not None else np.zeros(n, bool), strict=True):
        if left_out:
            right.axvspan(onset, onset + duration, color=ALARM, alpha=0.2, linewidth=0)
    right.set_ylabel("principal component of the embedding", fontsize=8, color=INK)
    right.set_xlabel("time after the start of the run (s)", fontsize=8, color=INK)
    right.set_xlim(onsets[0], onsets[-1] + duration)
    plain(right)
    if course.scores.shape[1]:
        right.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.98))
    save(figure, path)
