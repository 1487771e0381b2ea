"""How the embedding changes over a run: a figure, and the same in words."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, SIGNAL, new_figure, plain, save
from neurostorm_bids.resample.normalisation import SD_OF_MAD

COMPONENTS = 3
ALIKE = 0.9  # cosine similarity at which the colour scale starts at the latest, so that a tiny spread looks like one
COLOURS = (SIGNAL, "#5e35b1", FAINT)
ODD = 5  # robust standard deviations below the others, from which a window is called unlike them
MOTION_R = 0.5  # correlation of the first component with head motion, from which the text warns
MIN_WINDOWS_FOR_MOTION = 8


@dataclass(frozen=True)
class Trajectory:
    """How a run's embedding changes.

    Attributes
    ----------
    similarity : (windows, windows) array
        Cosine.
    scores : (windows, components) array
        Principal components of the windows' embeddings.
    explained : (components,) array
        Share of the variance over windows.
    motion : float
        Correlation of the first component with the mean framewise displacement of windows, without sign; NaN if unknown.
    n_known : int
        Windows whose framewise displacement is known.
    """

    similarity: np.ndarray
    scores: np.ndarray
    explained: np.ndarray
    motion: float
    n_known: int


def trajectory_of(embeddings: np.ndarray, displacement: np.ndarray) -> Trajectory:
    """Return the similarity of windows, and principal components over time.

    Parameters
    ----------
    embeddings : (windows, channels) array
    displacement : (windows,) array
        Mean framewise displacement, mm; NaN where unknown.
    """
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
    explained = s[:n] ** 2 / total if total > 0 else np.zeros(n)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0, norms, 1)  # scikit-learn would take half a second to import
    return Trajectory(unit @ unit.T, scores, explained, float(motion), int(known.sum()))


def describe(trajectory: Trajectory) -> str:
    """Return what the figure shows, for a reader who has never seen one; empty for a single window."""
    similarity, n = trajectory.similarity, len(trajectory.similarity)
    if n < 2:
        return ""
    others = similarity[~np.eye(n, dtype=bool)]
    neighbours = np.diag(similarity, 1)
    text = (
        f"Successive windows have embeddings with a mean cosine similarity of {_cosine(neighbours.mean())}, "
        f"any two windows of {_cosine(others.mean())} (lowest {_cosine(others.min())})"
    )
    if n > COMPONENTS:  # of two windows one component explains everything
        text += f"; one component explains {trajectory.explained[0]:.0%} of the changes"
    text += "."
    to_others = np.array([np.delete(row, i).mean() for i, row in enumerate(similarity)])
    middle = np.median(to_others)
    spread = np.median(np.abs(to_others - middle)) * SD_OF_MAD
    if n > 4 and spread > 0 and to_others.min() < middle - ODD * spread:
        text += f" Window {int(to_others.argmin()) + 1} is unlike the others (mean similarity {to_others.min():.3f})."
    return text + _about_motion(trajectory)


def _about_motion(trajectory: Trajectory) -> str:
    r, n = trajectory.motion, trajectory.n_known
    if np.isnan(r):
        return ""
    if r > MOTION_R and n >= MIN_WINDOWS_FOR_MOTION:
        return f" That component follows head motion (|r| = {r:.2f} with framewise displacement): beware."
    return f" Its correlation with framewise displacement is |r| = {r:.2f} over {n} windows."


def _cosine(value: float) -> str:
    return "above 0.999" if value > 0.9995 else f"{value:.3f}"


def draw_trajectory(encoded: EncodedRun, path: Path) -> None:
    """Draw the similarity of windows at the left, the first components over time at the right.

    Parameters
    ----------
    path : Path
        Of the PNG.
    """
    trajectory = trajectory_of(encoded.windows.embeddings, encoded.motion.mean)
    onsets, duration, n = encoded.onsets, encoded.duration, len(encoded.onsets)
    figure = new_figure(3.4)
    layout = {"width_ratios": [1, 2.3], "left": 0.06, "right": 0.985, "top": 0.9, "bottom": 0.15, "wspace": 0.2}
    left, right = figure.subplots(1, 2, gridspec_kw=layout)
    lowest = min(float(trajectory.similarity.min()), ALIKE)
    image = left.imshow(trajectory.similarity, cmap="viridis", extent=(0.5, n + 0.5, n + 0.5, 0.5), vmin=lowest, vmax=1)
    colours = figure.colorbar(image, ax=left, shrink=0.9)
    colours.ax.tick_params(labelsize=7)
    colours.ax.ticklabel_format(useOffset=False)
    left.set_title("cosine similarity of windows", fontsize=9, color=INK)
    left.set_xlabel("window", fontsize=8, color=INK)
    left.tick_params(labelsize=8, colors=INK)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True))
    for i in range(trajectory.scores.shape[1]):
        label = f"component {i + 1} ({trajectory.explained[i]:.0%})"
        style = {"marker": "o", "markersize": 3, "linewidth": 1.2, "color": COLOURS[i]}
        right.plot(onsets + duration / 2, trajectory.scores[:, i], label=label, **style)
    for onset in onsets[encoded.censored]:
        right.axvspan(onset, onset + duration, color=ALARM, alpha=0.2, linewidth=0)
    right.set_ylabel("principal component of the embedding", fontsize=8, color=INK)
    right.set_xlabel("time after the start of the acquisition (s)", fontsize=8, color=INK)
    right.set_xlim(onsets[0], onsets[-1] + duration)
    plain(right)
    if trajectory.scores.shape[1]:
        right.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.98))
    save(figure, path)
