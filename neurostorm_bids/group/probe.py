"""Probe frozen embeddings for a target, beside what a reviewer asks for in the same folds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.find.participants import column
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.group.evaluation import Evaluation, evaluate, make_folds
from neurostorm_bids.group.labels import FEWEST_SUBJECTS, Labels

MOTION = "head motion and covariates alone"


@dataclass(frozen=True)
class Samples:
    """What is predicted, of whom, and from what.

    Attributes
    ----------
    labels : Labels
    embeddings : (samples, channels) array
        Mean over a sample's runs, weighted by windows.
    motion : (samples, 2) array
        Mean and largest framewise displacement, mm; unknown ones are the mean of the known.
    covariates : (samples, n) array
    """

    labels: Labels
    embeddings: np.ndarray
    motion: np.ndarray
    covariates: np.ndarray


def samples_of(cohort: Cohort, table: pd.DataFrame, labels: Labels, covariates: "tuple[str, ...]" = ()) -> Samples:
    """The features of labelled samples.

    Parameters
    ----------
    table : DataFrame
        The cohort's runs, joined with the phenotype.

    Raises
    ------
    NeurostormError
        If there is no such covariate.
    """
    weights = table["windows"].to_numpy(float)
    first = [rows[0] for rows in labels.members]
    moved = table[["mean_fd", "max_fd"]].to_numpy(float)
    of_samples = [[_mean_of_known(column) for column in moved[rows].T] for rows in labels.members]
    columns = [_encoded(column(table, name).iloc[first]) for name in covariates]
    return Samples(
        labels,
        embeddings=np.stack([np.average(cohort.embeddings[rows], axis=0, weights=weights[rows]) for rows in labels.members]),
        motion=_filled(np.array(of_samples)),
        covariates=np.column_stack(columns) if columns else np.empty((len(first), 0)),
    )  # fmt: skip


def probe(
    samples: Samples,
    others: "dict[str, np.ndarray]",
    seed: int = 0,
    n_permutations: int = 200,
) -> "dict[str, Evaluation]":
    """Evaluate the embedding, and beside it in the same folds head motion and covariates alone, and ``others``.

    Parameters
    ----------
    others : dict
        Name -> (samples, features) array, such as a connectome's.

    Returns
    -------
    evaluations : dict
        "embedding" first; permutation tests for it and for head motion.
    """
    labels = samples.labels
    folds = make_folds(labels.y, labels.groups, bool(labels.classes), seed)
    known = (labels.y, labels.groups, folds, bool(labels.classes))
    alone = np.column_stack([samples.motion, samples.covariates])
    alone = alone[:, np.std(alone, axis=0) > 0]
    evaluations = {
        "embedding": evaluate(samples.embeddings, *known, samples.covariates, seed, n_permutations),
    }
    if alone.shape[1]:
        evaluations[MOTION] = evaluate(alone, *known, None, seed, n_permutations)
    for name, features in others.items():
        evaluations[name] = evaluate(features, *known, samples.covariates, seed)
    return evaluations


def verdict(evaluations: "dict[str, Evaluation]", labels: Labels, who: str = "The embedding") -> str:
    """What the table comes to, in words; its first set of features is who is asked about."""
    first, ours = next(iter(evaluations.items()))
    target = labels.target
    name, (value, low, high) = next(iter(ours.metrics.items()))
    if (ours.folds >= 0).sum() < FEWEST_SUBJECTS:
        n = (ours.folds >= 0).sum()
        return f"{who} was tested on {n} samples, too few to tell: {name.replace('_', ' ')} {value:.2f} for {target}."
    tested = not np.isnan(ours.p_value)
    p = f"p = {ours.p_value:.3f}" if tested else "no permutation test"
    said = f"{name.replace('_', ' ')} {value:.2f} (95 % interval {low:.2f} to {high:.2f}, {p})"
    if not (ours.p_value <= 0.05 if tested else low > labels.chance):
        return f"{who} does not predict {target} better than chance: {said}."
    better = [other for other, e in evaluations.items() if other != first and e.metrics[name][0] >= value]
    if MOTION in better:
        return (
            f"{who} predicts {target} ({said}), but head motion and covariates alone do so at least as well: "
            "what it finds may be motion."
        )
    if better:
        return f"{who} predicts {target} ({said}); as well or better do: {', '.join(better)}."
    return f"{who} predicts {target} better than chance and than what stands beside it: {said}."


def metrics_table(evaluations: "dict[str, Evaluation]") -> pd.DataFrame:
    """A row per set of features and metric."""
    rows = [
        {
            "features": features,
            "metric": name,
            "value": value,
            "lower": low,
            "upper": high,
            "p_value": evaluation.p_value if i == 0 else np.nan,
        }
        for features, evaluation in evaluations.items()
        for i, (name, (value, low, high)) in enumerate(evaluation.metrics.items())
    ]
    return pd.DataFrame(rows)


def _encoded(values: pd.Series) -> np.ndarray:
    """A covariate as numbers: text as indicators of all classes but the first; unknown numbers as the mean."""
    if pd.to_numeric(values, errors="coerce").notna().sum() == values.notna().sum():
        return _filled(pd.to_numeric(values).to_numpy(float)[:, None])
    return pd.get_dummies(values.astype(str), drop_first=True).to_numpy(float)


def _filled(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    means = np.array([column[ok].mean() if ok.any() else 0.0 for column, ok in zip(values.T, known.T, strict=True)])
    return np.where(known, values, means)


def _mean_of_known(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
