"""Figures of how well something is predicted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_curve

from neurostorm_bids.group.answers import SIGNIFICANT, Evaluations, p_in_words
from neurostorm_bids.group.evaluation import Evaluation
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.report.figures.drawing import ALARM, FAINT, INK, SIGNAL, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLORS = 10  # of sites in a scatter
NAMES = {"r": "r", "partial_r": "partial r", "AUROC": "area under the ROC curve"}


def null_figure(evaluations: Evaluations) -> Figure:
    """Draw the observed value of every test against what permutations give."""
    tested = {name: each for name, each in evaluations.items() if np.isfinite(each.null).any()}
    first = next(iter(evaluations))
    shown = {name: each for name, each in tested.items() if name.startswith(first)} or dict(list(tested.items())[:1])
    figure = new_figure(2.9)
    if not shown:
        figure.text(0.5, 0.5, "no permutation test (--n-permutations 0)", ha="center", color=FAINT)
        return figure
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, (name, each) in zip(axes, shown.items(), strict=True):
        value, _, _ = each.first
        ax.hist(each.null, bins=25, color=FAINT, alpha=0.6)
        ax.axvline(value, color=SIGNAL, linewidth=2.5)
        metric = next(iter(each.metrics))
        ax.set_title(f"{name}:\n{NAMES[metric]} {value:.2f}, {p_in_words(each)}", fontsize=8, color=INK)
        ax.set_xlabel(f"{NAMES[metric]}; grey: labels in other places, green: observed", fontsize=8)
        ax.set_yticks([])
        plain(ax)
        ax.spines["left"].set_visible(False)
    figure.tight_layout()
    return figure


def forest_figure(evaluations: Evaluations) -> Figure:
    """Draw every set of features with its interval, and the middle 95 % of what chance gives behind it."""
    by_metric: dict[str, list[tuple[str, Evaluation]]] = {}
    for name, each in evaluations.items():
        by_metric.setdefault(next(iter(each.metrics)), []).append((name, each))
    figure = new_figure(1.1 + 0.38 * len(evaluations) + 0.5 * len(by_metric))
    heights = [len(rows) + 0.8 for rows in by_metric.values()]
    axes = figure.subplots(len(by_metric), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    first = next(iter(evaluations))
    for ax, (metric, rows) in zip(axes, by_metric.items(), strict=True):
        for i, (name, each) in enumerate(rows):
            _draw_estimate(ax, i, each, name.startswith(first))
        ax.axvline(0.5 if metric == "AUROC" else 0, color=FAINT, linewidth=0.8)
        ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(
            f"{NAMES.get(metric, metric)}: 95 % interval; grey bar: middle 95 % by chance",
            fontsize=9,
            color=INK,
            loc="left",
        )
        plain(ax)
    figure.tight_layout()
    return figure


def _draw_estimate(ax: "Axes", i: int, evaluation: Evaluation, is_ours: bool) -> None:
    value, low, high = evaluation.first
    _, chance_low, chance_high = evaluation.chance
    if np.isfinite(chance_low):
        ax.barh(i, chance_high - chance_low, left=chance_low, height=0.6, color=FAINT, alpha=0.25)
    ax.plot([low, high], [i, i], color=SIGNAL if is_ours else INK, linewidth=2.2)
    ax.plot(value, i, "o", color=SIGNAL if is_ours else INK, markersize=6)


def targets_figure(table: pd.DataFrame) -> Figure:
    """Draw the value of every target with its interval.

    Parameters
    ----------
    table : DataFrame
        Columns column, metric, value, lower, upper, q_value.
    """
    parts = list(table.groupby("metric", sort=False))
    most = 40  # of each metric
    sizes = [min(len(part), most) for _, part in parts]
    figure = new_figure(1.0 + 0.24 * sum(sizes) + 0.5 * len(parts))
    axes = figure.subplots(len(parts), 1, squeeze=False, gridspec_kw={"height_ratios": [n + 1 for n in sizes]})[:, 0]
    for ax, (metric, part) in zip(axes, parts, strict=True):
        part = part.head(most)
        for i, (value, low, high, q) in enumerate(part[["value", "lower", "upper", "q_value"]].to_numpy(float)):
            color = SIGNAL if q <= SIGNIFICANT else INK
            ax.plot([low, high], [i, i], color=color, linewidth=2)
            ax.plot(value, i, "o", color=color, markersize=5)
        ax.axvline(0.5 if metric == "AUROC" else 0, color=FAINT, linewidth=0.8)
        ax.set_yticks(range(len(part)), part["column"], fontsize=8)
        ax.set_ylim(len(part) - 0.5, -0.5)
        ax.set_title(
            f"{NAMES.get(str(metric), metric)}: 95 % interval; green: q <= 0.05", fontsize=9, color=INK, loc="left"
        )
        plain(ax)
    figure.tight_layout()
    return figure


def windows_figure(y: np.ndarray, classes: Sequence[str], evaluations: Evaluations) -> Figure:
    """Draw how well the states of windows are decoded: every set of features, and which are taken for which.

    Parameters
    ----------
    y : (windows,) int array
    """
    ours = next(iter(evaluations.values()))
    figure = new_figure(4.0)
    left, right = figure.subplots(1, 2)
    for i, (name, each) in enumerate(evaluations.items()):
        _draw_estimate(left, i, each, name == next(iter(evaluations)))
    left.axvline(0.5, color=FAINT, linewidth=0.8)
    left.set_yticks(range(len(evaluations)), list(evaluations), fontsize=8)
    left.set_ylim(len(evaluations) - 0.5, -0.5)
    left.set_title(f"{NAMES['AUROC']}, 95 % interval", fontsize=9, color=INK)
    _draw_confusion(right, y, ours.predicted, classes)
    for ax in (left, right):
        plain(ax)
    figure.tight_layout()
    return figure


def predictions_figure(
    labels: Labels, evaluation: Evaluation, colors: Sequence[str] | None = None, axis: str = "predicted, out of fold"
) -> Figure:
    """Draw out-of-fold predictions: of values against the observed ones and their errors; of classes how often each is found.

    Parameters
    ----------
    colors : (samples,) sequence of str, optional
        Levels that colour the samples of a regression, such as sites.
    axis : str
        What predictions are called.
    """
    tested = evaluation.folds >= 0
    figure = new_figure(4.0)
    axes = figure.subplots(1, 3)
    y, predicted = labels.y[tested], evaluation.predicted[tested]
    if labels.classes:
        assert evaluation.probabilities is not None
        probabilities = evaluation.probabilities[tested]
        _draw_confusion(axes[0], y, predicted, labels.classes)
        _draw_roc(axes[1], y, probabilities, labels.classes)
        _draw_calibration(axes[2], y, probabilities, labels.classes)
    else:
        names = None if colors is None else np.asarray(colors, str)[tested]
        _draw_scatter(axes[0], y, predicted, (labels.target, axis), names)
        _draw_errors(axes[1], y, predicted, labels.target)
        axes[2].hist(predicted - y, bins=20, color=SIGNAL)
        axes[2].axvline(0, color=INK, linewidth=0.8)
        axes[2].set_xlabel("predicted - observed", fontsize=8)
        axes[2].set_ylabel("samples", fontsize=8)
    for ax in axes:
        plain(ax)
    figure.tight_layout()
    return figure


def _draw_confusion(ax: "Axes", y: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> None:
    counts = confusion_matrix(y, predicted, labels=range(len(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Greens", vmin=0, vmax=1.6)  # light enough for dark numbers
    if len(classes) <= 12:
        for (i, k), n in np.ndenumerate(counts):
            ax.text(k, i, f"{n}\n{shares[i, k]:.0%}", ha="center", va="center", fontsize=8, color=INK)
    ax.set_xticks(range(len(classes)), classes, fontsize=8, rotation=30)
    ax.set_yticks(range(len(classes)), classes, fontsize=8)
    ax.set_title("observed (rows), predicted (columns)", fontsize=9, color=INK)


def _draw_roc(ax: "Axes", y: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    for k in range(1, 2) if len(classes) == 2 else range(len(classes)):
        false_alarms, hits, _ = roc_curve(y == k, probabilities[:, k])
        ax.plot(
            false_alarms, hits, linewidth=1.5, label=classes[k], color=SIGNAL if len(classes) == 2 else f"C{k % 10}"
        )
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    ax.set_aspect("equal")
    ax.set_xlabel("false positive rate", fontsize=8)
    ax.set_ylabel("true positive rate", fontsize=8)
    ax.set_title("ROC, out of fold", fontsize=9, color=INK)
    ax.legend(fontsize=7, frameon=False, loc="lower right")


def _draw_calibration(ax: "Axes", y: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    bins = min(5, max(2, len(y) // 10))
    for k in range(1, len(classes)) if len(classes) == 2 else range(len(classes)):
        observed, given = calibration_curve(y == k, probabilities[:, k], n_bins=bins, strategy="quantile")
        ax.plot(
            given, observed, "o-", markersize=4, label=classes[k], color=SIGNAL if len(classes) == 2 else f"C{k % 10}"
        )
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    ax.set_aspect("equal")
    ax.legend(fontsize=7, frameon=False)
    ax.set_title("calibration", fontsize=9, color=INK)
    ax.set_xlabel("predicted probability", fontsize=8)
    ax.set_ylabel("observed frequency", fontsize=8)


def _draw_scatter(
    ax: "Axes", y: np.ndarray, predicted: np.ndarray, called: tuple[str, str], names: np.ndarray | None
) -> None:
    levels = [] if names is None else sorted(set(names))
    if 1 < len(levels) <= MOST_COLORS and names is not None:
        for i, level in enumerate(levels):
            which = names == level
            ax.plot(y[which], predicted[which], "o", markersize=4, alpha=0.7, color=f"C{i}", label=level)
        ax.legend(fontsize=7, frameon=False)
    else:
        ax.plot(y, predicted, "o", markersize=4, color=SIGNAL, alpha=0.7)
    ends = [min(y.min(), predicted.min()), max(y.max(), predicted.max())]
    ax.plot(ends, ends, color=FAINT, linewidth=0.8)
    ax.set_aspect("equal")
    ax.set_xlabel(called[0], fontsize=8)
    ax.set_ylabel(called[1], fontsize=8)


def _draw_errors(ax: "Axes", y: np.ndarray, predicted: np.ndarray, target: str) -> None:
    """Draw errors against what was observed: predictions fall back to the mean, the more the less is known."""
    ax.plot(y, predicted - y, "o", markersize=4, color=SIGNAL, alpha=0.7)
    slope, at_zero = np.polyfit(y, predicted - y, 1)
    ends = np.array([y.min(), y.max()])
    ax.plot(ends, at_zero + slope * ends, color=ALARM, linewidth=1)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.set_xlabel(target, fontsize=8)
    ax.set_ylabel("predicted - observed", fontsize=8)
    ax.set_title(f"error, slope {slope:.2f}", fontsize=9, color=INK)
