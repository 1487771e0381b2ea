"""Figures of the group level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurostorm_bids.report.figures.drawing import FAINT, INK, SIGNAL, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_figure(histories: dict[str, list[dict[str, float]]]) -> Figure:
    """Draw the losses of training and validation, and the metric of the validation subjects, epoch by epoch."""
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2)
    first = next(iter(histories.values()))[0]
    metric = next(name for name in first if name.startswith("validation_") and "loss" not in name)
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
    words = metric.removeprefix("validation_").replace("_", " ")
    right.set_title(f"{words} of single windows, validation subjects", fontsize=9, color=INK)
    for ax in (left, right):
        ax.set_xlabel("epoch", fontsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
        plain(ax)
    figure.tight_layout()
    return figure


def pretraining_figure(history: pd.DataFrame, of_random: dict[str, float]) -> Figure:
    """Draw losses, skills, and what is known of the embeddings, over the steps; of these, that of random weights dotted."""
    figure = new_figure(3.2)
    axes = figure.subplots(1, 3)
    panels = (
        ("loss", ["train_loss", "validation_loss", "validation_brain_error"]),
        (
            "skill on hidden brain patches",
            ["validation_skill_over_mean_image", "validation_skill_over_time", "validation_skill_over_everybody"],
        ),
        ("embeddings of people held out", ["effective_rank", "rank1"]),
    )
    for ax, (title, names) in zip(axes, panels, strict=True):
        for i, name in enumerate(name for name in names if name in history):
            drawn = ax if name != "rank1" else ax.twinx()
            drawn.plot(history["step"], history[name], "o-", markersize=3, color=f"C{i}", label=name.replace("_", " "))
            if name in of_random:
                drawn.axhline(of_random[name], color=f"C{i}", linestyle=":", linewidth=1)
            drawn.tick_params(labelsize=7)
            drawn.margins(y=0.35)  # room for the legend
            drawn.legend(fontsize=7, frameon=False, loc="lower right" if name == "rank1" else "upper left")
        ax.set_title(title, fontsize=9, color=INK)
        ax.set_xlabel("step", fontsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[1].axhline(0, color=FAINT, linewidth=0.8)
    figure.tight_layout()
    return figure


def slices_figure(images: np.ndarray, limits: np.ndarray) -> Figure:
    """Draw slices of windows: what was there, what was shown, what was made of it, and the error.

    Parameters
    ----------
    images : (windows, 4, X, Y) array
        z-scores; NaN where hidden.
    limits : (2,) array
        Of the grey scale.
    """
    figure = new_figure(2.6 * len(images))
    axes = figure.subplots(len(images), 4, squeeze=False)
    span = limits[1] - limits[0]
    for row, window in zip(axes, images, strict=True):
        for k, (ax, image) in enumerate(zip(row, window, strict=True)):
            low, high = limits if k < 3 else (-span / 2, span / 2)
            ax.set_facecolor("#c9d6df")
            ax.imshow(image.T, origin="lower", cmap="gray" if k < 3 else "coolwarm", vmin=low, vmax=high)
            ax.set_axis_off() if k != 1 else ax.set(xticks=[], yticks=[])
    for ax, title in zip(axes[0], ("input", "shown", "reconstructed", "error"), strict=True):
        ax.set_title(title, fontsize=9, color=INK)
    figure.tight_layout()
    return figure


def time_course_figure(
    windows: pd.DataFrame, y: np.ndarray, classes: Sequence[str], probabilities: np.ndarray, events: dict[str, Any]
) -> Figure:
    """Draw out-of-fold probabilities over the time of some runs, with the events of the raw data set above.

    Parameters
    ----------
    windows : DataFrame
        run_name, onset and duration (s), a row per window.
    y : (windows,) int array
    probabilities : (windows, classes) array
    events : dict
        Name of a run -> its events.
    """
    most = 8  # runs shown, those with events first
    names = windows["run_name"].to_numpy(str)
    runs = [run for _, run in sorted((run not in events, run) for run in np.unique(names))][:most]
    kinds = sorted({kind for run in runs if run in events for kind in events[run]["trial_type"]})
    colors = {name: f"C{i % 10}" for i, name in enumerate(dict.fromkeys([*classes, *kinds]))}
    figure = new_figure(1.5 * len(runs) + 0.7)
    axes = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    for ax, run in zip(axes, runs, strict=True):
        rows = np.flatnonzero(names == run)
        middles = (windows["onset"] + windows["duration"] / 2).to_numpy(float)[rows]
        for k, name in enumerate(classes):
            ax.plot(middles, probabilities[rows, k], "o-", markersize=3, linewidth=1, color=colors[name])
        for event in events[run].itertuples() if run in events else ():
            ax.axvspan(event.onset, event.onset + event.duration, 0.9, 1, color=colors[event.trial_type], linewidth=0)
        truth = sorted({classes[k] for k in y[rows]})
        ax.set_title(f"{run}{f' ({truth[0]})' if len(truth) == 1 else ''}", fontsize=8, color=INK, loc="left")
        ax.set_ylim(0, 1.13)
        ax.set_yticks([0, 0.5, 1])
        plain(ax)
    axes[-1].set_xlabel("s after the start of the acquisition", fontsize=8)
    handles = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, fontsize=7, frameon=False, loc="upper right", ncols=min(8, len(handles)))
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
    return figure


def identification_figure(
    within: np.ndarray, between: np.ndarray, curves: dict[str, np.ndarray], similarity: np.ndarray | None = None
) -> Figure:
    """Draw how similar runs are within and between people, and how soon people are found.

    Parameters
    ----------
    within, between : (pairs,) array
        Cosines of the first set of features.
    curves : dict
        Name of a set of features -> share of runs whose person is among the k nearest, for k from 1.
    similarity : (runs, runs) array, optional
        Cosines, sorted by person.
    """
    figure = new_figure(4.0)
    axes = figure.subplots(1, 2 if similarity is None else 3)
    left, right = axes[0], axes[1]
    edges = np.linspace(min(within.min(), between.min()), max(within.max(), between.max()) + 1e-9, 61)
    for values, color, name in ((between, FAINT, "two people"), (within, SIGNAL, "one person")):
        left.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=color, alpha=0.7, label=name)
    left.legend(fontsize=7, frameon=False, title="runs of", title_fontsize=7, loc="upper left")
    left.set_xlabel("cosine similarity", fontsize=8)
    left.set_ylabel("share of pairs", fontsize=8)
    longest = max(map(len, curves.values()))
    for i, (name, curve) in enumerate(curves.items()):
        color = SIGNAL if i == 0 else f"C{i % 10}"
        shares = np.pad(curve, (0, longest - len(curve)), constant_values=1)  # once all are found
        right.plot(range(1, longest + 1), shares, color=color, linewidth=2.5 if i == 0 else 1, drawstyle="steps-post")
        right.plot(1, curve[0], "o", color=color, markersize=5 if i == 0 else 4, label=name, zorder=3)
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.set_ylim(0, 1.03)
    right.set_xlabel("k", fontsize=8)
    right.set_title("share of runs whose person is among the k nearest", fontsize=9, color=INK)
    for ax in (left, right):
        plain(ax)
    if similarity is not None:
        image = axes[2].imshow(similarity, cmap="viridis", interpolation="nearest")
        figure.colorbar(image, ax=axes[2], shrink=0.8).ax.tick_params(labelsize=7)
        axes[2].set_title("cosine similarity, runs sorted by person", fontsize=9, color=INK)
        axes[2].tick_params(labelsize=7)
        for axis in (axes[2].xaxis, axes[2].yaxis):
            axis.get_major_locator().set_params(integer=True)
    figure.legend(*right.get_legend_handles_labels(), fontsize=7, frameon=False, loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    return figure


def reliability_figure(table: pd.DataFrame) -> Figure:
    """Draw the intraclass correlation of each channel, sorted, for all that is repeated.

    Parameters
    ----------
    table : DataFrame
        Columns over, measure, ICC(2,1) with its interval.
    """
    parts = list(table[table["measure"].str.match(r"channel\d+$")].groupby("over"))
    figure = new_figure(3.2)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for ax, (over, part) in zip(axes, parts, strict=True):
        ordered = part.sort_values("ICC(2,1)")
        x = np.arange(len(ordered))
        ax.fill_between(x, ordered["ICC(2,1)_lower"], ordered["ICC(2,1)_upper"], color=SIGNAL, alpha=0.2, linewidth=0)
        ax.plot(x, ordered["ICC(2,1)"], color=SIGNAL, linewidth=1.5)
        ax.axhline(0, color=FAINT, linewidth=0.8)
        ax.set_ylim(-0.5, 1.02)
        ax.set_title(f"ICC(2,1) over {over}", fontsize=9, color=INK)
        ax.set_xlabel("channels, sorted", fontsize=8)
        plain(ax)
    figure.tight_layout()
    return figure


def deviations_figure(table: pd.DataFrame) -> Figure:
    """Draw the distances of the reference group and of the others.

    Parameters
    ----------
    table : DataFrame
        Columns reference and distance.
    """
    figure = new_figure(3.0)
    ax = figure.subplots(1, 1)
    ends = np.linspace(table["distance"].min(), table["distance"].max() + 1e-9, 30)
    for name, part, color in (
        ("reference group", table[table["reference"]], FAINT),
        ("others", table[~table["reference"]], SIGNAL),
    ):
        if len(part):
            ax.hist(
                part["distance"],
                bins=ends.tolist(),
                alpha=0.6,
                label=f"{name} ({len(part)})",
                color=color,
                density=True,
            )
    ax.legend(fontsize=8, frameon=False)
    ax.set_xlabel("Mahalanobis distance from the reference group", fontsize=8)
    ax.set_yticks([])
    plain(ax)
    figure.tight_layout()
    return figure


def maps_figure(table: pd.DataFrame, maps: dict[str, np.ndarray], explained: np.ndarray, columns: list[str]) -> Figure:
    """Draw maps of the cohort, once for each column that colours it.

    Parameters
    ----------
    maps : dict
        Title -> (runs, 2) array; the first one is of principal components.
    explained : (2,) array
        Share of the variance that these explain.
    """
    panels = [(column, title, places) for column in columns for title, places in maps.items()]
    n_rows = (len(panels) + 1) // 2
    figure = new_figure(3.6 * n_rows)
    for i, (column, title, places) in enumerate(panels, start=1):
        ax = figure.add_subplot(n_rows, 2, i)
        _draw_map(figure, ax, places, table[column])
        ax.set_title(f"{title}, coloured by {column}", fontsize=9, color=INK)
        if places is next(iter(maps.values())):
            ax.set_xlabel(f"first component ({explained[0]:.0%})", fontsize=8)
            ax.set_ylabel(f"second ({explained[1]:.0%})", fontsize=8)
        plain(ax)
    figure.tight_layout()
    return figure


def _draw_map(figure: Figure, ax: "Axes", places: np.ndarray, values: pd.Series) -> None:
    known = values.notna().to_numpy()
    ax.scatter(places[~known, 0], places[~known, 1], s=14, color=FAINT, alpha=0.4)
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2:
        dots = ax.scatter(places[known, 0], places[known, 1], s=16, c=values[known], cmap="viridis")
        figure.colorbar(dots, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
        return
    names = values[known].astype(str).to_numpy(str)
    for i, name in enumerate(np.unique(names)):
        x, y = places[known][names == name].T
        ax.scatter(x, y, s=16, label=name, color=f"C{i % 10}" if i else SIGNAL)
    ax.legend(fontsize=7, frameon=False)
