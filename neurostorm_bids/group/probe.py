"""Probe frozen embeddings for a target, beside what a reviewer asks for in the same folds."""

from dataclasses import dataclass
from typing import Optional

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.evaluate import Evaluation, evaluate, make_folds
from neurostorm_bids.group.gather import Cohort
from neurostorm_bids.group.phenotype import SESSION, SUBJECT, column, numbers

MOTION = "head motion and covariates alone"
FEWEST_SUBJECTS = 10
FEW = 100  # subjects, below which the answer says how uncertain it is


@dataclass(frozen=True)
class Samples:
    """What is predicted, and of whom.

    Attributes
    ----------
    names : DataFrame
        participant_id and, where the target changes between sessions, session_id.
    embeddings : (samples, channels) array
        Mean over a sample's runs, weighted by windows.
    y : (samples,) array
        Values, or classes as 0, 1, ...
    classes : list of str
        Empty for a regression.
    groups : (samples,) array
    motion : (samples, 2) array
        Mean and largest framewise displacement, mm; unknown ones are the mean of the known.
    covariates : (samples, n) array
    members : list of int array
        Which runs of the cohort make a sample.
    notes : list of str
    """

    names: pd.DataFrame
    embeddings: np.ndarray
    y: np.ndarray
    classes: list
    groups: np.ndarray
    motion: np.ndarray
    covariates: np.ndarray
    members: list
    notes: list


def samples_of(
    cohort: Cohort,
    table: pd.DataFrame,
    target: str,
    target_type: str = "auto",
    group_by: Optional[str] = None,
    covariates: "tuple[str, ...]" = (),
) -> Samples:
    """Make one sample of each subject (of each session, where the target differs between them).

    Parameters
    ----------
    table : DataFrame
        The cohort's runs, joined with the phenotype.
    target_type : {"auto", "regression", "classification"}
        auto: text and numbers of two values are classes.

    Raises
    ------
    NeurostormError
        If a column is missing or unusable, or too few are left.
    """
    labels = column(table, target)
    is_class = target_type == "classification" or (target_type == "auto" and _looks_like_classes(labels))
    labels = labels if is_class else numbers(labels)
    changes = SESSION in table and (table.groupby(SUBJECT)[target].nunique() > 1).any()
    keys = [SUBJECT, SESSION] if changes else [SUBJECT]
    if not changes and (labels.groupby(table[SUBJECT]).nunique() > 1).any():
        raise NeurostormError(f"'{target}' differs between runs of a subject; give a table with session_id")
    missing = table.loc[labels.isna(), SUBJECT].unique()
    notes = [f"{len(missing)} subjects have no '{target}': {_some(missing)}"] if len(missing) else []
    kept = table[labels.notna()]
    grouped = kept.groupby(keys, sort=True).indices
    members = [np.flatnonzero(labels.notna().to_numpy())[rows] for rows in grouped.values()]
    if len(members) < FEWEST_SUBJECTS:
        raise NeurostormError(
            f"{len(members)} subjects with results have a '{target}', at least {FEWEST_SUBJECTS} are needed"
        )
    weights = table["windows"].to_numpy(float)
    mean = np.stack([np.average(cohort.embeddings[rows], axis=0, weights=weights[rows]) for rows in members])
    first = [rows[0] for rows in members]
    classes, y = [], labels.iloc[first].to_numpy()
    if is_class:
        names = labels.iloc[first].map(lambda v: str(int(v)) if isinstance(v, float) and v.is_integer() else str(v))
        classes, y = sorted(names.unique()), names.to_numpy()
        counts = names.value_counts()
        if len(classes) < 2:
            raise NeurostormError(f"every subject with results has the same '{target}': {classes[0]}")
        if counts.min() < 2:
            raise NeurostormError(f"'{target}' has a class of one subject ({counts.idxmin()}); it cannot be tested")
        y = np.array([classes.index(name) for name in y])
        if counts.max() > 3 * counts.min():
            notes.append(
                f"classes are unbalanced ({', '.join(f'{n} {c}' for c, n in counts.items())}); they are weighted"
            )
    elif np.std(y.astype(float)) == 0:
        raise NeurostormError(f"every subject with results has the same '{target}': {y[0]}")
    groups = table[SUBJECT].iloc[first].to_numpy(str)
    if group_by is not None:
        given = column(table, group_by).iloc[first]
        groups = np.where(given.isna(), groups, given.astype(str))
        if len(np.unique(groups)) < 3:
            raise NeurostormError(
                f"--group-by {group_by}: {len(np.unique(groups))} groups are too few to test on others"
            )
    if len(first) < FEW:
        notes.append(f"{len(first)} samples are few: look at the intervals before the values")
    return Samples(
        names=table.iloc[first][keys].reset_index(drop=True),
        embeddings=mean,
        y=y if is_class else y.astype(float),
        classes=classes,
        groups=groups,
        motion=_filled(np.array([[np.nanmean(v) if np.isfinite(v).any() else np.nan for v in table[["mean_fd", "max_fd"]].to_numpy(float)[rows].T] for rows in members])),
        covariates=np.column_stack([_encoded(column(table, name).iloc[first]) for name in covariates]) if covariates else np.empty((len(first), 0)),
        members=members,
        notes=notes,
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
    is_class = bool(samples.classes)
    folds = make_folds(samples.y, samples.groups, is_class, seed)
    known = (samples.y, samples.groups, folds, is_class)
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


def verdict(evaluations: "dict[str, Evaluation]", target: str, chance: float) -> str:
    """What the table comes to, in words; ``chance`` is what the first metric would be by guessing."""
    ours = evaluations["embedding"]
    name, (value, low, high) = next(iter(ours.metrics.items()))
    tested = not np.isnan(ours.p_value)
    p = f"p = {ours.p_value:.3f}" if tested else "no permutation test"
    said = f"{name.replace('_', ' ')} {value:.2f} (95 % interval {low:.2f} to {high:.2f}, {p})"
    if not (ours.p_value <= 0.05 if tested else low > chance):
        return f"The embedding does not predict {target} better than chance: {said}."
    better = [other for other, e in evaluations.items() if other != "embedding" and e.metrics[name][0] >= value]
    if MOTION in better:
        return (
            f"The embedding predicts {target} ({said}), but head motion and covariates alone do so at least as well: "
            "what it finds may be motion."
        )
    if better:
        return f"The embedding predicts {target} ({said}); as well or better do: {', '.join(better)}."
    return f"The embedding predicts {target} better than chance and than what stands beside it: {said}."


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


def _looks_like_classes(labels: pd.Series) -> bool:
    known = labels.dropna()
    as_numbers = pd.to_numeric(known, errors="coerce")
    mostly_text = as_numbers.isna().mean() > 0.5
    return bool(mostly_text or (as_numbers.notna().all() and known.nunique() <= 2))


def _encoded(values: pd.Series) -> np.ndarray:
    """A covariate as numbers: text as indicators of all classes but the first; unknown numbers as the mean."""
    if pd.to_numeric(values, errors="coerce").notna().sum() == values.notna().sum():
        return _filled(pd.to_numeric(values).to_numpy(float)[:, None])
    return pd.get_dummies(values.astype(str), drop_first=True).to_numpy(float)


def _filled(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    means = np.array([column[ok].mean() if ok.any() else 0.0 for column, ok in zip(values.T, known.T, strict=True)])
    return np.where(known, values, means)


def _some(names, n: int = 5) -> str:
    return ", ".join(map(str, names[:n])) + (", ..." if len(names) > n else "")
