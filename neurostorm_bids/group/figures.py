"""Pages and figures of the group level."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Optional

import jinja2
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from neurostorm_bids import __version__
from neurostorm_bids.group.evaluation import Evaluation
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, SIGNAL, new_figure, plain, save
from neurostorm_bids.runtime.atomic import write_text


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
    """Every set of features with its interval at the left; at the right out-of-fold predictions of the first."""
    ours = next(iter(evaluations.values()))
    y, predicted = y[ours.folds >= 0], ours.predicted[ours.folds >= 0]
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
        counts = confusion_matrix(y, predicted, labels=range(len(classes)))
        middle.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Greens", vmin=0, vmax=1)
        for (i, k), n in np.ndenumerate(counts):
            middle.text(k, i, n, ha="center", va="center", fontsize=8)
        middle.set_xticks(range(len(classes)), classes, fontsize=8, rotation=30)
        middle.set_yticks(range(len(classes)), classes, fontsize=8)
        middle.set_title("true (rows), predicted", fontsize=9, color=INK)
        bins = min(5, max(2, len(y) // 10))
        for k in range(1, len(classes)) if len(classes) == 2 else range(len(classes)):
            share, said = calibration_curve(
                y == k, ours.probabilities[ours.folds >= 0, k], n_bins=bins, strategy="quantile"
            )
            right.plot(said, share, "o-", markersize=4, label=classes[k])
        right.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
        right.legend(fontsize=7, frameon=False)
        right.set_title("calibration", fontsize=9, color=INK)
        right.set_xlabel("probability given", fontsize=8)
        right.set_ylabel("share that is so", fontsize=8)
    else:
        middle.plot(y, predicted, "o", markersize=4, color=SIGNAL, alpha=0.7)
        ends = [min(y.min(), predicted.min()), max(y.max(), predicted.max())]
        middle.plot(ends, ends, color=FAINT, linewidth=0.8)
        middle.set_xlabel(target, fontsize=8)
        middle.set_ylabel("predicted, out of fold", fontsize=8)
        right.hist(predicted - y, bins=20, color=SIGNAL)
        right.set_xlabel("predicted - true", fontsize=8)
        right.set_ylabel("samples", fontsize=8)
    for ax in (left, middle, right):
        plain(ax)
    figure.tight_layout(rect=(0, 0, 0.87, 1))
    save(figure, path)


def draw_curves(histories: "dict[str, list[dict]]", path: Path) -> None:
    """Loss of training and validation, and the metric of the validation subjects, epoch by epoch."""
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2)
    metric = next(
        name for name in next(iter(histories.values()))[0] if name.startswith("validation_") and "loss" not in name
    )
    for i, (name, epochs) in enumerate(histories.items()):
        color = f"C{i % 10}"
        numbers = [epoch["epoch"] for epoch in epochs]
        losses = [epoch["validation_loss"] for epoch in epochs]
        best = int(np.argmin(losses))
        left.plot(numbers, [epoch["train_loss"] for epoch in epochs], color=color, linewidth=1, linestyle=":")
        left.plot(numbers, losses, color=color, linewidth=1.4, label=name)
        left.plot(numbers[best], losses[best], "o", color=color, markersize=5)
        right.plot(numbers, [epoch[metric] for epoch in epochs], color=color, linewidth=1.4)
    left.set_title("loss: validation subjects (dot: best epoch), training dotted", fontsize=9, color=INK)
    figure.legend(fontsize=7, frameon=False, loc="center right")
    right.set_title(
        f"{metric.removeprefix('validation_').replace('_', ' ')} of single windows, validation subjects",
        fontsize=9,
        color=INK,
    )
    for ax in (left, right):
        ax.set_xlabel("epoch", fontsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
        plain(ax)
    figure.tight_layout()
    save(figure, path)


def draw_states(
    windows: pd.DataFrame,
    y: np.ndarray,
    classes: "list[str]",
    ours: Evaluation,
    events: dict,
    path: Path,
    most: int = 8,
) -> None:
    """Out-of-fold probabilities over the time of some runs, with the events of the raw data set above."""
    names = windows["run_name"].to_numpy(str)
    runs = [run for _, run in sorted((run not in events, run) for run in np.unique(names))][:most]
    kinds = sorted({kind for run in runs if run in events for kind in events[run]["trial_type"]})
    colors = {name: f"C{i % 10}" for i, name in enumerate([*classes, *(kind for kind in kinds if kind not in classes)])}
    figure = new_figure(1.5 * len(runs) + 0.7)
    axes = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    for ax, run in zip(axes, runs, strict=True):
        rows = np.flatnonzero(names == run)
        onset, duration = windows["onset"].to_numpy(float)[rows], windows["duration"].to_numpy(float)[rows]
        for k, name in enumerate(classes):
            ax.plot(
                onset + duration / 2, ours.probabilities[rows, k], "o-", markersize=3, linewidth=1, color=colors[name]
            )
        for event in events[run].itertuples() if run in events else ():
            ax.axvspan(event.onset, event.onset + event.duration, 0.9, 1, color=colors[event.trial_type], linewidth=0)
        truth = sorted({classes[k] for k in y[rows]})
        ax.set_title(f"{run}{f' ({truth[0]})' if len(truth) == 1 else ''}", fontsize=8, color=INK, loc="left")
        ax.set_ylim(0, 1.13)
        ax.set_yticks([0, 0.5, 1])
        plain(ax)
    axes[-1].set_xlabel("s after the start of the run", fontsize=8)
    handles = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, fontsize=7, frameon=False, loc="upper right", ncols=min(8, len(handles)))
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
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
