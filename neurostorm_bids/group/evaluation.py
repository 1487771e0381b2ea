"""Predict a target from features with nested cross-validation, and say how sure that is.

Subjects, or families and sites that are kept together, never stand on both sides of a fold; everything that is learnt
(scaling, covariates, the penalty) is learnt inside the training folds.
"""

from dataclasses import dataclass
from typing import Optional

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

FOLDS, INNER = 5, 3
ALPHAS = np.logspace(-1, 6, 15)  # of ridge regression, for standardised features
PENALTIES = np.logspace(-5, 1, 7)  # C of logistic regression
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Evaluation:
    """How well features predict a target.

    Attributes
    ----------
    metrics : dict
        Name -> (value, lower, upper) with a 95 % interval from the bootstrap over groups.
    p_value : float
        Of a permutation test of the first metric; NaN if it was not made.
    predicted : (samples,) array
        Out of fold: the value, or the class's index.
    probabilities : (samples, classes) array, or None
    folds : (samples,) int array
    """

    metrics: dict
    p_value: float
    predicted: np.ndarray
    probabilities: Optional[np.ndarray]
    folds: np.ndarray


def make_folds(y: np.ndarray, groups: np.ndarray, is_class: bool, seed: int) -> np.ndarray:
    """Assign samples to outer folds, groups whole, (samples,) int array; classes spread evenly."""
    n = min(FOLDS, len(np.unique(groups)))
    if is_class:
        n = max(2, min(n, int(np.bincount(y).min())))
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed) if is_class else GroupKFold(
        n, shuffle=True, random_state=seed
    )  # fmt: skip
    folds = np.empty(len(y), int)
    for k, (_, test) in enumerate(splitter.split(y, y, groups)):
        folds[test] = k
    return folds


def evaluate(
    features: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    is_class: bool,
    covariates: Optional[np.ndarray] = None,
    seed: int = 0,
    n_permutations: int = 0,
) -> Evaluation:
    """Cross-validated ridge regression, or class-weighted logistic regression.

    Parameters
    ----------
    features : (samples, features) array
    y : (samples,) array
        Values, or classes as 0, 1, ...
    groups : (samples,) array
        Samples of one group stay together, in folds, bootstrap and permutation.
    folds : (samples,) int array
        From `make_folds`; samples of fold -1 are learnt from and never tested.
    covariates : (samples, n) array, optional
        Regressed out of the features, fitted on the training folds.
    n_permutations : int
        Labels are permuted this often and everything is done again.
    """
    rng = np.random.RandomState(seed)
    shuffled = [_permuted(y, groups, rng) for _ in range(n_permutations)]
    if is_class:
        probabilities = _classify(features, y, groups, folds, covariates, seed)
        predicted = probabilities.argmax(axis=1)
        null = []
        for other in shuffled:
            found = _classify(features, other, groups, folds, covariates, seed).argmax(axis=1)
            null.append(balanced_accuracy_score(other[folds >= 0], found[folds >= 0]))
    else:
        everything = _regress(features, np.column_stack([y, *shuffled]), folds, covariates)
        probabilities, predicted = None, everything[:, 0]
        null = [_r(other[folds >= 0], everything[folds >= 0, i + 1]) for i, other in enumerate(shuffled)]
    return _judged(y, predicted, probabilities, groups, folds, rng, null)


def judge(
    y: np.ndarray,
    predicted: np.ndarray,
    probabilities: Optional[np.ndarray],
    groups: np.ndarray,
    folds: np.ndarray,
    seed: int = 0,
    n_permutations: int = 0,
) -> Evaluation:
    """Evaluate predictions that were made out of fold elsewhere; the permutation test exchanges labels, and trains nothing anew.

    Parameters
    ----------
    predicted, probabilities : arrays
        As of `Evaluation`.
    """
    rng = np.random.RandomState(seed)
    tested = folds >= 0
    null = []
    for _ in range(n_permutations):
        other = _permuted(y[tested], groups[tested], rng)
        null.append(
            _first(metrics_of(other, predicted[tested], None if probabilities is None else probabilities[tested]))
        )
    return _judged(y, predicted, probabilities, groups, folds, rng, null)


def _judged(y, predicted, probabilities, groups, folds, rng, null: list) -> Evaluation:
    tested = folds >= 0
    known = (y[tested], predicted[tested], None if probabilities is None else probabilities[tested])
    metrics = metrics_of(*known)
    intervals = _bootstrap(*known, groups[tested], rng)
    p = (
        (1 + sum(value >= _first(metrics) for value in null)) / (1 + len(null))
        if null and np.isfinite(_first(metrics))
        else float("nan")
    )
    with_intervals = {name: (value, *intervals[name]) for name, value in metrics.items()}
    return Evaluation(with_intervals, p, predicted, probabilities, folds)


def _first(metrics: dict) -> float:
    return next(iter(metrics.values()))


def metrics_of(y: np.ndarray, predicted: np.ndarray, probabilities: Optional[np.ndarray]) -> "dict[str, float]":
    """r, R2 and MAE of a regression; balanced accuracy and AUROC (macro over classes) of a classification."""
    if probabilities is None:
        return {"r": _r(y, predicted), "R2": float(r2_score(y, predicted)), "MAE": float(np.abs(y - predicted).mean())}
    there = np.unique(y)
    if len(there) < 2:
        return {"balanced_accuracy": float("nan"), "AUROC": float("nan")}
    columns = [roc_auc_score(y == k, probabilities[:, k]) for k in (there if probabilities.shape[1] > 2 else [1])]
    accuracy = float(np.mean([(predicted[y == k] == k).mean() for k in there]))
    return {"balanced_accuracy": accuracy, "AUROC": float(np.mean(columns))}


def _regress(features, targets, folds, covariates) -> np.ndarray:
    """Out-of-fold predictions of several targets, (samples, targets); each has its own penalty, by leaving one out."""
    predicted = np.zeros(targets.shape)
    for fold in np.unique(folds[folds >= 0]):
        train, test = _prepared(features, covariates, folds != fold)
        middle = targets[folds != fold].mean(axis=0)
        model = RidgeCV(ALPHAS, alpha_per_target=True).fit(train, targets[folds != fold] - middle)
        predicted[folds == fold] = np.reshape(model.predict(test), (len(test), -1)) + middle
    return predicted


def _classify(features, y, groups, folds, covariates, seed) -> np.ndarray:
    """Out-of-fold probabilities, (samples, classes)."""
    probabilities = np.zeros((len(y), int(y.max()) + 1))
    for fold in np.unique(folds[folds >= 0]):
        learn = folds != fold
        train, test = _prepared(features, covariates, learn)
        # a rotation of the features that leaves out what the training samples do not span changes no fit, only time
        _, _, axes = np.linalg.svd(train, full_matrices=False)
        train, test = train @ axes.T, test @ axes.T
        model = LogisticRegression(class_weight="balanced", max_iter=300)
        n_inner = min(INNER, int(np.bincount(y[learn])[np.unique(y[learn])].min()), len(np.unique(groups[learn])))
        if n_inner >= 2:
            inner = StratifiedGroupKFold(n_inner, shuffle=True, random_state=seed)
            model = GridSearchCV(model, {"C": PENALTIES}, scoring="balanced_accuracy", cv=inner)
            model.fit(train, y[learn], groups=groups[learn])
        else:
            model.set_params(C=PENALTIES[2]).fit(train, y[learn])
        probabilities[np.ix_(folds == fold, model.classes_)] = model.predict_proba(test)
    return probabilities


def _prepared(features, covariates, learn) -> "tuple[np.ndarray, np.ndarray]":
    """Training and test features: covariates regressed out, standardised, both as fitted on the training samples."""
    features = np.asarray(features, dtype=np.float64)
    if covariates is not None and covariates.shape[1]:
        design = np.column_stack([np.ones(len(features)), covariates])
        weights, *_ = np.linalg.lstsq(design[learn], features[learn], rcond=None)
        features = features - design @ weights
    scaler = StandardScaler().fit(features[learn])
    return scaler.transform(features[learn]), scaler.transform(features[~learn])


def _permuted(y: np.ndarray, groups: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Labels exchanged between samples; where all samples of every group share a label, between whole groups."""
    names, index = np.unique(groups, return_inverse=True)
    firsts = y[[np.flatnonzero(index == k)[0] for k in range(len(names))]]
    if len(names) < len(y) and np.array_equal(firsts[index], y):
        return rng.permutation(firsts)[index]
    return rng.permutation(y)


def _bootstrap(y, predicted, probabilities, groups, rng) -> "dict[str, tuple[float, float]]":
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(names))]
    values = []
    for _ in range(BOOTSTRAP):
        chosen = np.concatenate([members[k] for k in rng.randint(len(names), size=len(names))])
        if len(np.unique(y[chosen])) < 2:
            continue
        values.append(
            metrics_of(y[chosen], predicted[chosen], None if probabilities is None else probabilities[chosen])
        )
    ends = {}
    for name in values[0] if values else metrics_of(y, predicted, probabilities):
        found = np.array([one[name] for one in values], dtype=float)
        ends[name] = tuple(float(v) for v in np.nanpercentile(found, [2.5, 97.5])) if len(found) else (np.nan, np.nan)
    return ends


def _r(y: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation; 0 where nothing varies."""
    if np.std(y) == 0 or np.std(predicted) < 1e-12 * (1 + np.abs(predicted).max()):
        return 0.0
    return float(np.corrcoef(y, predicted)[0, 1])
