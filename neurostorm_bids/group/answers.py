"""The results of an evaluation as a table, and as a sentence."""

import numpy as np
import pandas as pd

from neurostorm_bids.group.evaluation import FEWEST_PERMUTATIONS, Evaluation
from neurostorm_bids.group.labels import MIN_SUBJECTS, Labels

MOTION = "head motion and covariates alone"
ADDED = "embedding, beyond head motion and covariates"
SIGNIFICANT = 0.05
CHANCE = ("chance", "chance_lower", "chance_upper")  # mean and middle 95 % of the metric under permutations

Evaluations = dict[str, Evaluation]  # name of a set of features -> how well it predicts; the first one is asked about


def metrics_table(evaluations: Evaluations) -> pd.DataFrame:
    """Return a table with a row per set of features and metric."""
    rows = [
        {
            "features": features,
            "metric": name,
            "value": value,
            "lower": low,
            "upper": high,
            "p_value": evaluation.p_value if i == 0 else np.nan,
            **dict(zip(CHANCE, evaluation.chance if i == 0 else (np.nan,) * 3, strict=True)),
        }
        for features, evaluation in evaluations.items()
        for i, (name, (value, low, high)) in enumerate(evaluation.metrics.items())
    ]
    return pd.DataFrame(rows)


def verdict(evaluations: Evaluations, labels: Labels, who: str = "The embedding") -> str:
    """Return what the table comes to, in words; its first set of features is the one asked about."""
    first, ours = next(iter(evaluations.items()))
    target, n_tested = labels.target, int((ours.folds >= 0).sum())
    name, (value, low, high) = next(iter(ours.metrics.items()))
    metric = name.replace("_", " ")
    if n_tested < MIN_SUBJECTS:
        return f"{who} was tested on {n_tested} samples, too few to tell: {metric} {value:.2f} for {target}."
    tested = not np.isnan(ours.p_value)
    if not tested and 0 < len(ours.null) < FEWEST_PERMUTATIONS:
        p = f"only {len(ours.null)} permutations keep the structure of the data: too few for a p-value"
    elif tested:
        at_least = "p <= " if ours.p_value * (1 + len(ours.null)) < 1.5 else "p = "  # no permutation reached it
        p = f"{at_least}{ours.p_value:.3f}"
    else:
        p = "no permutation test"
    found = f"{metric} {value:.2f} (95 % interval {low:.2f} to {high:.2f}, {p})"
    if not (ours.p_value <= SIGNIFICANT if tested else low > labels.chance):
        return f"{who} does not predict {target} better than chance: {found}."
    others = {other: e for other, e in evaluations.items() if other not in (first, ADDED)}
    added = evaluations.get(ADDED)
    if added is not None:
        others.pop(MOTION, None)  # what the embedding adds to it is the question, not which of the two is larger
        beyond = f"{metric} {added.metrics[name][0]:.2f}, p = {added.p_value:.3f}"
        if not added.p_value <= SIGNIFICANT:
            return (
                f"{who} predicts {target} ({found}), but nothing can be told that it adds to head motion and covariates "
                f"({beyond}): what it finds may be motion."
            )
        found += f"; beyond head motion and covariates {beyond}"
    better = [other for other, e in others.items() if e.metrics[name][0] >= value]
    if MOTION in better:
        return (
            f"{who} predicts {target} ({found}), but head motion and covariates alone do so at least as well: "
            "what it finds may be motion."
        )
    if better:
        return f"{who} predicts {target} ({found}); as well or better do: {', '.join(better)}."
    return f"{who} predicts {target} better than chance and than what it was compared with: {found}."


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
