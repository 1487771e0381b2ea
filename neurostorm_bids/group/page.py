"""Pages and figures of the group level."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Optional

import jinja2
import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from neurostorm_bids import __version__
from neurostorm_bids.group.evaluate import Evaluation
from neurostorm_bids.report.drawing import ALARM, FAINT, INK, SIGNAL, new_figure, plain, save
from neurostorm_bids.write.atomic import write_text


@dataclass(frozen=True)
class Section:
    """A part of a page: words, facts, tables and figures, in this order."""

    title: str
    words: list = field(default_factory=list)
    facts: list = field(default_factory=list)
    table: Optional[pd.DataFrame] = None
    figures: list = field(default_factory=list)  # of (path relative to the page, caption)
    notes: list = field(default_factory=list)


def write_page(path: Path, title: str, sections: "list[Section]", command: str) -> None:
    """Write a page; it stands in the folder that its figures' paths are relative to."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    template = environment.from_string(files(__package__).joinpath("group.html").read_text(encoding="utf-8"))
    style = files("neurostorm_bids.report").joinpath("subject.css").read_text(encoding="utf-8")
    write_text(path, template.render(title=title, sections=sections, style=style, version=__version__, command=command))


def draw_probe(y: np.ndarray, classes: list, evaluations: "dict[str, Evaluation]", target: str, path: Path) -> None:
    """Every set of features with its interval at the left; at the right out-of-fold predictions of the embedding."""
    ours = evaluations["embedding"]
    figure = new_figure(4.2)
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.5, 1, 1]})
    metric = next(iter(ours.metrics))
    names = list(evaluations)
    for i, name in enumerate(names):
        value, low, high = evaluations[name].metrics[metric]
        left.plot([low, high], [i, i], color=SIGNAL if i == 0 else FAINT, linewidth=2.5)
        left.plot(value, i, "o", color=SIGNAL if i == 0 else INK, markersize=6)
    left.axvline(1 / len(classes) if classes else 0, color=ALARM, linewidth=0.8, linestyle="--")
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_title(f"{metric.replace('_', ' ')}, 95 % interval; dashed: chance", fontsize=9, color=INK)
    if classes:
        counts = confusion_matrix(y, ours.predicted, labels=range(len(classes)))
        middle.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Greens", vmin=0, vmax=1)
        for (i, k), n in np.ndenumerate(counts):
            middle.text(k, i, n, ha="center", va="center", fontsize=8)
        middle.set_xticks(range(len(classes)), classes, fontsize=8, rotation=30)
        middle.set_yticks(range(len(classes)), classes, fontsize=8)
        middle.set_title("true (rows), predicted", fontsize=9, color=INK)
        bins = min(5, max(2, len(y) // 10))
        for k in range(1, len(classes)) if len(classes) == 2 else range(len(classes)):
            share, said = calibration_curve(y == k, ours.probabilities[:, k], n_bins=bins, strategy="quantile")
            right.plot(said, share, "o-", markersize=4, label=classes[k])
        right.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
        right.legend(fontsize=7, frameon=False)
        right.set_title("calibration", fontsize=9, color=INK)
        right.set_xlabel("probability given", fontsize=8)
        right.set_ylabel("share that is so", fontsize=8)
    else:
        middle.plot(y, ours.predicted, "o", markersize=4, color=SIGNAL, alpha=0.7)
        ends = [min(y.min(), ours.predicted.min()), max(y.max(), ours.predicted.max())]
        middle.plot(ends, ends, color=FAINT, linewidth=0.8)
        middle.set_xlabel(target, fontsize=8)
        middle.set_ylabel("predicted, out of fold", fontsize=8)
        right.hist(ours.predicted - y, bins=20, color=SIGNAL)
        right.set_xlabel("predicted - true", fontsize=8)
        right.set_ylabel("samples", fontsize=8)
    for ax in (left, middle, right):
        plain(ax)
    figure.tight_layout()
    save(figure, path)


def draw_confusion(similarity: np.ndarray, subjects: np.ndarray, path: Path) -> None:
    """Similarity of all runs, sorted by subject; blocks on the diagonal are runs of one subject."""
    order = np.argsort(subjects, kind="stable")
    figure = new_figure(6.0)
    ax = figure.subplots(1, 1)
    image = ax.imshow(similarity[np.ix_(order, order)], cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=ax, shrink=0.8)
    ends = np.flatnonzero(np.diff(np.unique(subjects[order], return_inverse=True)[1])) + 0.5
    if len(ends) <= 60:
        for end in ends:
            ax.axhline(end, color="white", linewidth=0.4)
            ax.axvline(end, color="white", linewidth=0.4)
    ax.set_title("cosine similarity of runs, sorted by subject", fontsize=9, color=INK)
    save(figure, path)


def _cell(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3g}"
    return str(value)
