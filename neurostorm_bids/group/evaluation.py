"""Predict a target from features in nested cross-validation, and say how certain the result is.

Samples that belong together (subjects, or families and sites) are never on both sides of a fold, neither of the outer
nor of the inner ones. Everything that is learnt is learnt in the training folds: missing values, confounds, scaling,
the penalty. Knows no files and no tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

N_INNER = 3  # folds that choose the penalty
ALPHAS = np.logspace(-1, 6, 15)  # of ridge regression, for standardised features
PENALTIES = np.logspace(-5, 1, 7)  # C of logistic regression
DEFAULT_PENALTY = PENALTIES[2]  # where there are too few samples to choose
N_BOOTSTRAP = 1000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Design:
    """What is predicted, and how that is tested.

    Attributes
    ----------
    y : (samples,) array
        Values, or classes as 0, 1, ...
    groups : (samples,) array
        Samples of one group stay together, in folds, bootstrap and permutation.
    folds : (samples,) int array
        From `folds.make_folds`; samples of fold -1 are trained on and never tested.
    is_class : bool
    seed : int
    """

    y: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    is_class: bool
    seed: int = 0

    @property
    def tested(self) -> np.ndarray:
        """Which samples are tested, (samples,) bool."""
        return np.asarray(self.folds >= 0)

    @property
    def n_folds(self) -> int:
        """Number of folds that are tested."""
        return len(np.unique(self.folds[self.tested]))


@dataclass(frozen=True)
class Evaluation:
    """How well features predict a target.

    Attributes
    ----------
    metrics : dict
        Name -> (value, lower, upper) with a 95 % interval from the bootstrap over groups.
    p_value : float
        From a permutation test of the first metric; NaN if none was made.
    predicted : (samples,) array
        Out of fold: the value, or the number of the class.
    probabilities : (samples, classes) array, or None
    folds : (samples,) int array
    """

    metrics: dict[str, tuple[float, float, float]]
    p_value: float
    predicted: np.ndarray
    probabilities: np.ndarray | None
    folds: np.ndarray


class ConfoundRegressor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Regress the last columns out of the others, and drop them.

    Parameters
    ----------
    n_confounds : int
        How many columns are confounds.
    """

    def __init__(self, n_confounds: int = 0):
        self.n_confounds = n_confounds

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> "ConfoundRegressor":
        """Fit a linear model of the features on the confounds."""
        if self.n_confounds:
            features, confounds = self._split(X)
            self.model_ = LinearRegression().fit(confounds, features)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the features without what the confounds explain."""
        if not self.n_confounds:
            return X
        features, confounds = self._split(X)
        return np.asarray(features - self.model_.predict(confounds))

    def _split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X[:, : -self.n_confounds], X[:, -self.n_confounds :]


class GroupedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of one or several targets, each with its own penalty, chosen with groups kept together.

    The penalty is the one with the smallest mean squared error over inner folds, as scikit-learn's GridSearchCV would
    choose it for each target alone.

    Parameters
    ----------
    alphas : sequence of float
    n_inner : int
        Inner folds.
    seed : int
        Of the inner folds.
    """

    def __init__(self, alphas: Sequence[float] = tuple(ALPHAS), n_inner: int = N_INNER, seed: int = 0):
        self.alphas, self.n_inner, self.seed = alphas, n_inner, seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> "GroupedRidge":
        """Choose the penalties, then fit on all samples."""
        targets = y.reshape(len(y), -1)
        n = min(self.n_inner, len(np.unique(groups)))
        errors = np.zeros((len(self.alphas), targets.shape[1]))
        if n >= 2:
            for train, test in GroupKFold(n, shuffle=True, random_state=self.seed).split(X, groups=groups):
                for i, alpha in enumerate(self.alphas):
                    predicted = Ridge(alpha).fit(X[train], targets[train]).predict(X[test])
                    errors[i] += ((predicted.reshape(targets[test].shape) - targets[test]) ** 2).mean(axis=0) / n
        self.alpha_ = np.asarray(self.alphas)[errors.argmin(axis=0)]
        self.model_ = Ridge(self.alpha_).fit(X, targets)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions, (samples, targets)."""
        return np.asarray(self.model_.predict(X)).reshape(len(X), -1)


def evaluate(
    features: np.ndarray, design: Design, confounds: np.ndarray | None = None, n_permutations: int = 0
) -> Evaluation:
    """Cross-validate ridge regression, or class-weighted logistic regression.

    Parameters
    ----------
    features : (samples, features) array
        NaN where unknown: replaced by the mean of the training folds.
    design : Design
    confounds : (samples, n) array, optional
        Regressed out of the features, fitted on the training folds; NaN as for features.
    n_permutations : int
        How often labels are permuted and everything is done again.
    """
    rng = np.random.RandomState(design.seed)
    y, tested = design.y, design.tested
    shuffled = [_permuted(y, design.groups, rng) for _ in range(n_permutations)]
    X, n_confounds = _with_confounds(features, confounds)
    probabilities: np.ndarray | None = None
    if design.is_class:
        probabilities = _classify(X, y, design, n_confounds)
        predicted = probabilities.argmax(axis=1)
        null = []
        for other in shuffled:
            found = _classify(X, other, design, n_confounds).argmax(axis=1)
            null.append(float(balanced_accuracy_score(other[tested], found[tested])))
    else:
        everything = _regress(X, np.column_stack([y, *shuffled]), design, n_confounds)
        predicted = everything[:, 0]
        null = [_r(other[tested], everything[tested, i + 1]) for i, other in enumerate(shuffled)]
    return _judged(design, predicted, probabilities, rng, null)


def judge(
    predicted: np.ndarray, probabilities: np.ndarray | None, design: Design, n_permutations: int = 0
) -> Evaluation:
    """Evaluate predictions that were made out of fold elsewhere; the permutation test trains nothing again.

    Parameters
    ----------
    predicted, probabilities : arrays
        As of `Evaluation`.
    design : Design
    n_permutations : int
        How often labels are exchanged.
    """
    rng = np.random.RandomState(design.seed)
    tested = design.tested
    given = None if probabilities is None else probabilities[tested]
    null = []
    for _ in range(n_permutations):
        other = _permuted(design.y[tested], design.groups[tested], rng)
        null.append(_first(metrics_of(other, predicted[tested], given)))
    return _judged(design, predicted, probabilities, rng, null)


def metrics_of(y: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None) -> dict[str, float]:
    """Return r, R2 and MAE of a regression; balanced accuracy and AUROC (macro over classes) of a classification."""
    if probabilities is None:
        return {"r": _r(y, predicted), "R2": float(r2_score(y, predicted)), "MAE": float(np.abs(y - predicted).mean())}
    there = np.unique(y)
    if len(there) < 2:
        return {"balanced_accuracy": float("nan"), "AUROC": float("nan")}
    one_against_rest = there if probabilities.shape[1] > 2 else [1]
    areas = [roc_auc_score(y == k, probabilities[:, k]) for k in one_against_rest]
    accuracy = float(np.mean([(predicted[y == k] == k).mean() for k in there]))
    return {"balanced_accuracy": accuracy, "AUROC": float(np.mean(areas))}


def _with_confounds(features: np.ndarray, confounds: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Return features and confounds side by side, and the number of confounds."""
    features = np.asarray(features, dtype=np.float64)
    if confounds is None or not confounds.shape[1]:
        return features, 0
    return np.hstack([features, confounds]), confounds.shape[1]


def _pipeline(n_confounds: int, *steps: BaseEstimator) -> Pipeline:
    imputer = SimpleImputer(keep_empty_features=True)
    return make_pipeline(imputer, ConfoundRegressor(n_confounds), StandardScaler(), *steps)


def _regress(X: np.ndarray, targets: np.ndarray, design: Design, n_confounds: int) -> np.ndarray:
    """Return out-of-fold predictions of several targets, (samples, targets)."""
    predicted = np.zeros(targets.shape)
    for fold in np.unique(design.folds[design.tested]):
        train, test = design.folds != fold, design.folds == fold
        model = _pipeline(n_confounds, GroupedRidge(seed=design.seed))
        model.fit(X[train], targets[train], groupedridge__groups=design.groups[train])
        predicted[test] = model.predict(X[test])
    return predicted


def _classify(X: np.ndarray, y: np.ndarray, design: Design, n_confounds: int) -> np.ndarray:
    """Return out-of-fold probabilities, (samples, classes)."""
    probabilities = np.zeros((len(y), int(y.max()) + 1))
    for fold in np.unique(design.folds[design.tested]):
        train, test = design.folds != fold, design.folds == fold
        groups = design.groups[train]
        n_inner = min(N_INNER, int(np.bincount(y[train])[np.unique(y[train])].min()), len(np.unique(groups)))
        # all components: a rotation into the space of the training samples, which changes no fit and saves time
        classifier = LogisticRegression(C=DEFAULT_PENALTY, class_weight="balanced", max_iter=300)
        if n_inner < 2:
            model = _pipeline(n_confounds, PCA(), classifier).fit(X[train], y[train])
        else:
            inner = StratifiedGroupKFold(n_inner, shuffle=True, random_state=design.seed)
            search = GridSearchCV(classifier, {"C": PENALTIES}, scoring="balanced_accuracy", cv=inner)
            model = _pipeline(n_confounds, PCA(), search)
            model.fit(X[train], y[train], gridsearchcv__groups=groups)
        probabilities[np.ix_(test, model.classes_)] = model.predict_proba(X[test])
    return probabilities


def _judged(
    design: Design,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    rng: np.random.RandomState,
    null: list[float],
) -> Evaluation:
    """Compare predictions with the labels, and with what permuted labels give."""
    tested = design.tested
    known = (design.y[tested], predicted[tested], None if probabilities is None else probabilities[tested])
    metrics = metrics_of(*known)
    intervals = _bootstrap(*known, design.groups[tested], rng)
    first, p = _first(metrics), float("nan")
    if null and np.isfinite(first):
        p = (1 + sum(value >= first for value in null)) / (1 + len(null))
    with_intervals = {name: (value, *intervals[name]) for name, value in metrics.items()}
    return Evaluation(with_intervals, p, predicted, probabilities, design.folds)


def _first(metrics: dict[str, float]) -> float:
    return next(iter(metrics.values()))


def _permuted(y: np.ndarray, groups: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Exchange labels between samples; where all samples of every group share a label, between whole groups."""
    names, index = np.unique(groups, return_inverse=True)
    firsts = y[np.unique(index, return_index=True)[1]]
    if len(names) < len(y) and np.array_equal(firsts[index], y):
        return np.asarray(rng.permutation(firsts)[index])
    return rng.permutation(y)


def _bootstrap(
    y: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray | None,
    groups: np.ndarray,
    rng: np.random.RandomState,
) -> dict[str, tuple[float, float]]:
    """Return the ends of the interval of each metric, from resampled groups."""
    names, index = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(names))]
    values = []
    for _ in range(N_BOOTSTRAP):
        chosen = np.concatenate([members[k] for k in rng.randint(len(names), size=len(names))])
        if len(np.unique(y[chosen])) < 2:
            continue
        given = None if probabilities is None else probabilities[chosen]
        values.append(metrics_of(y[chosen], predicted[chosen], given))
    ends = {}
    for name in metrics_of(y, predicted, probabilities):
        found = np.array([each[name] for each in values], dtype=float)
        low, high = np.nanpercentile(found, INTERVAL) if len(found) else (np.nan, np.nan)
        ends[name] = (float(low), float(high))
    return ends


def _r(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where nothing varies."""
    if np.std(y) == 0 or np.std(predicted) < 1e-12 * (1 + np.abs(predicted).max()):
        return 0.0
    return float(np.corrcoef(y, predicted)[0, 1])
