"""The results of an evaluation as tables, and as a sentence."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.evaluation import FEWEST_PERMUTATIONS, Evaluation, difference
from neurostorm_bids.group.labels import FEWEST_FOR_VERDICT, Labels
from neurostorm_bids.group.scores import UNKNOWN, Estimate, areas, correlations, mean_of_known, recalls

MOTION = "head motion and covariates alone"
PLACES = "embedding, places weighted"  # of --pooling attention
BEYOND_COVARIATES = ", beyond covariates"
BEYOND_MOTION = ", beyond head motion and covariates"
SIGNIFICANT = 0.05
MAX_LEVELS = 30  # of a column whose levels have rows of their own

Evaluations = dict[str, Evaluation]  # name of a set of features -> how well it predicts; the first one is asked about

METRICS_COLUMNS: dict[str, dict[str, Any]] = {
    "model": {"Description": "The model whose embedding is asked about"},
    "features": {"Description": "What predicts; 'beyond' names what is taken out of features and target before"},
    "metric": {
        "Description": "r: mean of the folds' correlations, by Fisher's z. partial_r: the same, of what covariates leave. "
        "R2: 1 - squared error over that of the training folds' mean. delta_R2, delta_AUROC: by how much covariates and "
        "features together are better than the covariates. AUROC: area under the ROC curve (several classes: each against "
        "the others, mean). balanced_accuracy: mean over classes of the share recognised. sensitivity, specificity: of the "
        "second and of the first class. MAE: mean absolute error, in the target's unit. pooled_r: one correlation over all "
        "folds, which is biased downwards."
    },
    "value": {"Description": "Mean over folds and their repeats"},
    "lower": {"Description": "Lower end of the 95 % interval of what such models achieve on new people"},
    "upper": {"Description": "Upper end"},
    "p_value": {"Description": "One-sided, from the permutation test of the first metric"},
    "chance": {"Description": "Mean of the metric under permutations"},
    "chance_lower": {"Description": "2.5th percentile of the metric under permutations"},
    "chance_upper": {"Description": "97.5th percentile of the metric under permutations"},
    "difference": {"Description": "The embedding's metric minus this one, mean over the same folds"},
    "difference_lower": {"Description": "Lower end of its 95 % interval"},
    "difference_upper": {"Description": "Upper end"},
    "n": {"Description": "Samples tested"},
}


def metrics_table(evaluations: Evaluations, model: str) -> pd.DataFrame:
    """Return a table with a row per set of features and metric; its columns are those of `METRICS_COLUMNS`."""
    ours = next(iter(evaluations.values()))
    rows = []
    for features, evaluation in evaluations.items():
        differs = UNKNOWN if evaluation is ours or not _comparable(ours, evaluation) else difference(ours, evaluation)
        for i, (name, estimate) in enumerate(evaluation.metrics.items()):
            first = i == 0
            numbers = [
                *estimate,
                evaluation.p_value if first else np.nan,
                *(evaluation.chance if first else UNKNOWN),
                *(differs if first else UNKNOWN),
            ]
            rows.append([model, features, name, *numbers, int((evaluation.folds >= 0).sum())])
    return pd.DataFrame(rows, columns=list(METRICS_COLUMNS))


def shown_table(evaluations: Evaluations) -> pd.DataFrame:
    """Return what a reader looks for first: of each set of features the first metric, and how much is explained or gained."""
    ours = next(iter(evaluations.values()))
    rows = []
    for features, each in evaluations.items():
        differs = "" if each is ours or not _comparable(ours, each) else _interval(difference(ours, each), "+")
        low_high = each.chance
        chance = f"{low_high[1]:.2f} to {low_high[2]:.2f}" if np.isfinite(low_high[1]) else ""
        more = next(
            (name for name in ("delta_R2", "delta_AUROC", "R2", "balanced_accuracy") if name in each.metrics), None
        )
        name = next(iter(each.metrics))
        second = f"{_plain(more)} {_interval(each.metrics[more], '+' if 'delta' in more else '')}" if more else ""
        tested = p_in_words(each).removeprefix("p = ")
        rows.append([features, f"{_plain(name)} {_interval(each.first)}", tested, chance, second, differs])
    columns = ["features", "value (95 % interval)", "p", "95 % by chance", "and", "embedding minus this"]
    return pd.DataFrame(rows, columns=columns)


def _plain(metric: str) -> str:
    return metric.replace("delta_", "gain of ").replace("_", " ")


def _interval(estimate: Estimate, sign: str = "") -> str:
    value, low, high = estimate
    return f"{value:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def verdict(evaluations: Evaluations, labels: Labels, who: str = "The embedding") -> str:
    """Return what the table comes to, in words; its first set of features is the one asked about."""
    first, ours = next(iter(evaluations.items()))
    target, found = labels.target, in_words(ours)
    tested = ours.folds >= 0
    n = labels.names[SUBJECT][tested].nunique()
    if n < FEWEST_FOR_VERDICT:
        return f"{who} was tested on {n} subjects, too few for a verdict on {target}: {found}."
    beyond = next((name for name in (first + BEYOND_MOTION, first + BEYOND_COVARIATES) if name in evaluations), None)
    of_what = beyond.removeprefix(f"{first}, beyond ") if beyond else ""
    predicts = is_significant(ours, labels.chance)
    if beyond is None:
        if not predicts:
            return f"{who} does not predict {target} better than chance: {found}."
        return _compared(evaluations, f"{who} predicts {target} better than chance", found)
    adds = is_significant(evaluations[beyond], 0.0)
    added = in_words(evaluations[beyond])
    if not adds and not predicts:
        return f"{who} does not predict {target} better than chance: {found}; beyond {of_what} {added}."
    if not adds:
        return (
            f"{who} predicts {target} ({found}), but nothing can be told that it adds to {of_what} ({added}): what it finds "
            f"may be {'motion' if BEYOND_MOTION in beyond else 'these'}."
        )
    if not predicts:
        return f"{who} predicts what {of_what} leave of {target} ({added}), though not {target} itself ({found})."
    beginning = f"{who} predicts {target} better than chance, and adds to {of_what}"
    return _compared(evaluations, beginning, f"{found}; beyond {of_what} {added}")


def in_words(evaluation: Evaluation) -> str:
    """Return the first metric with its interval and its p-value."""
    name, (value, low, high) = next(iter(evaluation.metrics.items()))
    words = f"{name.replace('_', ' ')} {value:.2f} (95 % interval {low:.2f} to {high:.2f}, {p_in_words(evaluation)})"
    gained = next((each for each in ("delta_R2", "delta_AUROC") if each in evaluation.metrics), None)
    if gained is None:
        return words
    value, low, high = evaluation.metrics[gained]
    return f"{words}, {gained.removeprefix('delta_')} {value:+.2f} ({low:+.2f} to {high:+.2f})"


def p_in_words(evaluation: Evaluation) -> str:
    """Return the p-value of a permutation test, as the smallest possible where no permutation reached it."""
    n = len(evaluation.null)
    if not np.isfinite(evaluation.p_value):
        if 0 < n < FEWEST_PERMUTATIONS:
            return f"only {n} permutations keep the structure of the data: too few for a p-value"
        return "no permutation test"
    return f"p <= 1/{n + 1}" if evaluation.p_value * (1 + n) < 1.5 else f"p = {evaluation.p_value:.3f}"


def is_significant(evaluation: Evaluation, chance: float) -> bool:
    """Whether a value is above chance: by permutations, or without them by its interval."""
    if np.isfinite(evaluation.p_value):
        return bool(evaluation.p_value <= SIGNIFICANT)
    return bool(evaluation.first[1] > chance)


def _compared(evaluations: Evaluations, beginning: str, found: str) -> str:
    """Return a sentence that says which other features the first are not clearly better than.

    Head motion and covariates are among them unless the sentence says what the first add to these.
    """
    first, ours = next(iter(evaluations.items()))
    adds = any(name.startswith(f"{first}, beyond ") for name in evaluations)
    others = {
        name: difference(ours, each)
        for name, each in evaluations.items()
        if name not in (first, PLACES)  # which is the embedding in another way
        and ", beyond " not in name
        and not (adds and name == MOTION)
        and _comparable(ours, each)
    }
    alike = [f"{name} ({_difference(estimate)})" for name, estimate in others.items() if not estimate[1] > 0]
    if alike:
        return f"{beginning}: {found}. It is not clearly better than: {', '.join(alike)}."
    return f"{beginning}{' and than what it was compared with' if others else ''}: {found}."


def _difference(estimate: Estimate) -> str:
    value, low, high = estimate
    interval = f"{low:+.2f} to {high:+.2f}" if np.isfinite(low) else "no interval from one test"
    return f"difference {value:+.2f}, {interval}"


def _comparable(one: Evaluation, other: Evaluation) -> bool:
    """Whether the first metrics of two evaluations are the same, in the same folds."""
    return next(iter(one.metrics)) == next(iter(other.metrics)) and len(one.of_folds) == len(other.of_folds)


def predictions_table(labels: Labels, evaluations: Evaluations) -> pd.DataFrame:
    """Return the out-of-fold predictions of the first set of features, a row per sample that was tested."""
    ours = next(iter(evaluations.values()))
    tested = np.flatnonzero(ours.folds >= 0)
    table = labels.names.iloc[tested].assign(
        target=labels.named(labels.y[tested]),
        predicted=labels.named(ours.predicted[tested]),
        fold=ours.folds[tested] + 1,
    )
    for k, name in enumerate(labels.classes):
        assert ours.probabilities is not None
        table[f"probability_{name}"] = ours.probabilities[tested, k]
    return table


def predictions_columns(labels: Labels) -> dict[str, dict[str, Any]]:
    """Return what the columns of `predictions_table` are."""
    how = "its class that is most probable relative to its share in training" if labels.classes else "the value"
    return {
        "target": {"Description": f"{labels.target}, as observed"},
        "predicted": {"Description": f"Out of fold, mean over the repeats of the folds: {how}"},
        "fold": {"Description": "Number of the fold that it was tested in, in the first repeat"},
        **{
            f"probability_{name}": {"Description": f"Calibrated probability of {name}, out of fold"}
            for name in labels.classes
        },
    }


def by_level(labels: Labels, evaluation: Evaluation, levels: pd.Series) -> pd.DataFrame | None:
    """Return how well the samples of each level of a column (sites, sexes) are predicted; `None` if it has no two.

    Parameters
    ----------
    levels : (samples,) Series
    """
    tested = (evaluation.folds >= 0) & levels.notna().to_numpy()
    names = levels[tested].unique()
    if not 1 < len(names) <= MAX_LEVELS:
        return None
    rows = []
    for name in sorted(names, key=str):
        which = tested & (levels == name).to_numpy()
        y = labels.y[which]
        row: dict[str, Any] = {str(levels.name): name, "n": int(which.sum())}
        if labels.classes:
            assert evaluation.probabilities is not None
            p = evaluation.probabilities[which]
            classes = [1] if len(labels.classes) == 2 else range(len(labels.classes))
            area = [float(areas(y[:, None] == k, p[:, k, None])[0]) for k in classes]
            row["AUROC"] = float(mean_of_known(np.array(area)))
            row["balanced_accuracy"] = float(
                mean_of_known(recalls(y, evaluation.predicted[which], len(labels.classes)))
            )
        else:
            predicted = evaluation.predicted[which]
            row["r"] = float(correlations(y[:, None], predicted[:, None])[0]) if len(y) > 2 else np.nan
            row["MAE"] = float(np.abs(y - predicted).mean())
            row["mean_error"] = float((predicted - y).mean())
        rows.append(row)
    return pd.DataFrame(rows)


LEVEL_COLUMNS: dict[str, dict[str, Any]] = {
    "n": {"Description": "Samples of this value"},
    "AUROC": {"Description": "Area under the ROC curve within them; of several classes, the mean"},
    "balanced_accuracy": {"Description": "Mean of the classes' recalls within them"},
    "r": {"Description": "Correlation of predicted and observed within them"},
    "MAE": {"Description": "Mean absolute error within them, in the unit of the target"},
    "mean_error": {"Description": "Mean of predicted minus observed within them, in the unit of the target"},
}


def level_columns(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return what the columns of a table of `by_level` are; the first one names the levels."""
    first, *others = map(str, table)
    return {first: {"Description": f"Value of '{first}'"}, **{name: LEVEL_COLUMNS[name] for name in others}}


def follows_size(table: pd.DataFrame) -> str:
    """Return whether larger sites are predicted better, in words; empty for fewer than five."""
    metric = table.columns[2]
    known = table[table[metric].notna()]
    if len(known) < 5:
        return ""
    rho, p = spearmanr(known["n"], known[metric])
    return f"{metric} and the size of a site: Spearman's rho {rho:.2f} (p = {p:.2f}) over {len(known)} sites."


def estimate_in_words(estimate: Estimate) -> str:
    """Return a value with its interval.

    >>> estimate_in_words((0.5, 0.25, 0.75))
    '0.50 (95 % interval 0.25 to 0.75)'
    """
    value, low, high = estimate
    return f"{value:.2f} (95 % interval {low:.2f} to {high:.2f})"
