"""Predict a target from features in nested cross-validation, and say how certain the result is.

Samples that belong together (subjects, or families and sites) are never on both sides of a fold, neither of the outer
nor of the inner ones. Everything that is learnt is learnt in the training folds: missing values, confounds, scaling,
the penalty. Knows no files and no tables.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.estimators import N_INNER, ConfoundRegressor, GroupedRidge
from neurostorm_bids.group.exchange import Exchange, exchange_of

PENALTIES = np.logspace(-5, 1, 7)  # C of logistic regression
DEFAULT_PENALTY = PENALTIES[2]  # where there are too few samples to choose
FEWEST_PERMUTATIONS = 19  # with fewer no p-value could reach 0.05
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
        Samples of one group stay together in folds and bootstrap.
    folds : (samples,) int array
        From `folds.make_folds`; samples of fold -1 are trained on and never tested.
    is_class : bool
    seed : int
    subjects : (samples,) array, or None
        Whose samples they are; `None` if each group is a subject.
    exchange_mode : {"auto", "within", "between"}
        Which permutations keep the structure of the data; see `exchange.exchange_of`.
    """

    y: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    is_class: bool
    seed: int = 0
    subjects: np.ndarray | None = None
    exchange_mode: str = "auto"

    @cached_property
    def exchange(self) -> Exchange:
        """What may change places among the samples that are tested."""
        tested = self.tested
        subjects = self.groups if self.subjects is None else self.subjects
        return exchange_of(subjects[tested], self.groups[tested], self.exchange_mode)

    def permutations(self, n: int, rng: np.random.RandomState) -> list[np.ndarray]:
        """Return permutations of all samples; those that are not tested stay where they are."""
        where, moved = np.flatnonzero(self.tested), []
        for order in self.exchange.permutations(n, rng) if n else []:
            index = np.arange(len(self.y))
            index[where] = where[order]
            moved.append(index)
        return moved

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
        From a permutation test of the first metric; NaN if none was made or none is possible.
    null : array
        The first metric under each permutation.
    exchange : str
        What was permuted: "free", or "within", "between" groups, or "both".
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
    null: np.ndarray = field(default_factory=lambda: np.empty(0))
    exchange: str = ""

    @property
    def chance(self) -> tuple[float, float, float]:
        """Mean of the first metric under permutations, and the ends of the middle 95 %; NaN without a test."""
        if not len(self.null):
            return float("nan"), float("nan"), float("nan")
        low, high = np.nanpercentile(self.null, INTERVAL)
        return float(np.nanmean(self.null)), float(low), float(high)


def evaluate(
    features: np.ndarray, design: Design, confounds: np.ndarray | None = None, n_permutations: int = 0
) -> Evaluation:
    """Cross-validate ridge regression, or class-weighted logistic regression.

    With confounds, what is asked is what the features add to them. In a regression they are taken out of features and
    target in the training folds, metrics are of what they leave of the target, and it is the target's residuals that are
    permuted (Freedman and Lane 1983, https://doi.org/10.2307/1391660). In a classification they are taken out of the
    features, whose residuals are permuted.

    Parameters
    ----------
    features : (samples, features) array
        NaN where unknown: replaced by the mean of the training folds.
    design : Design
    confounds : (samples, n) array, optional
        NaN as for features.
    n_permutations : int
        How often everything is done again with labels in other places; at most as often as there are permutations that
        keep the structure of the data.
    """
    rng = np.random.RandomState(design.seed)
    tested, orders = design.tested, design.permutations(n_permutations, rng)
    X, n_confounds = _with_confounds(features, confounds)
    if design.is_class:
        probabilities = _classify(X, design.y, design, n_confounds)
        null = []
        for order in orders:
            found = _classify(_with_residuals_at(X, n_confounds, order), design.y, design, n_confounds).argmax(axis=1)
            null.append(float(balanced_accuracy_score(design.y[tested], found[tested])))
        return _judged(design, _Predictions(design.y, probabilities.argmax(axis=1), probabilities), rng, null)
    known, left = _fitted_by(X[:, X.shape[1] - n_confounds :], design.y)
    targets = np.column_stack([design.y, *(known + left[order] for order in orders)])
    of_confounds, observed, predicted = _regress(X, targets, design, n_confounds)
    null = [_r(observed[tested, i], predicted[tested, i]) for i in range(1, targets.shape[1])]
    whole = of_confounds[:, 0] + predicted[:, 0]
    return _judged(design, _Predictions(observed[:, 0], predicted[:, 0], None, whole), rng, null)


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
    orders = design.permutations(n_permutations, rng)
    null = [_first(metrics_of(design.y[order][tested], predicted[tested], given)) for order in orders]
    return _judged(design, _Predictions(design.y, predicted, probabilities), rng, null)


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


def _fitted_by(confounds: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what confounds explain of a target linearly, and what they leave; unknown ones are their mean."""
    if not confounds.shape[1]:
        return np.full(len(y), y.mean()), y - y.mean()
    known = SimpleImputer(keep_empty_features=True).fit_transform(confounds)
    fitted = LinearRegression().fit(known, y).predict(known)
    return np.asarray(fitted), np.asarray(y - fitted)


def _with_residuals_at(X: np.ndarray, n_confounds: int, order: np.ndarray) -> np.ndarray:
    """Return features whose residuals from the confounds have changed places."""
    if not n_confounds:
        return np.asarray(X[order])
    known = SimpleImputer(keep_empty_features=True).fit_transform(X)
    features, confounds = known[:, :-n_confounds], known[:, -n_confounds:]
    fitted = LinearRegression().fit(confounds, features).predict(confounds)
    return np.hstack([fitted + (features - fitted)[order], X[:, -n_confounds:]])


def _regress(
    X: np.ndarray, targets: np.ndarray, design: Design, n_confounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict several targets out of fold.

    Returns
    -------
    of_confounds : (samples, targets) array
        What the confounds say of a target, learnt in the training folds; 0 without confounds.
    observed : (samples, targets) array
        What they leave of it.
    predicted : (samples, targets) array
        What the features say of that.
    """
    of_confounds, predicted = np.zeros(targets.shape), np.zeros(targets.shape)
    for fold in np.unique(design.folds[design.tested]):
        train, test = design.folds != fold, design.folds == fold
        if n_confounds:
            linear = make_pipeline(SimpleImputer(keep_empty_features=True), LinearRegression())
            linear.fit(X[train, -n_confounds:], targets[train])
            in_training = linear.predict(X[train, -n_confounds:])
            of_confounds[test] = linear.predict(X[test, -n_confounds:])
        else:
            in_training = np.zeros(targets[train].shape)
        model = _pipeline(n_confounds, GroupedRidge(seed=design.seed))
        model.fit(X[train], targets[train] - in_training, groupedridge__groups=design.groups[train])
        predicted[test] = model.predict(X[test])
    return of_confounds, targets - of_confounds, predicted


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


@dataclass(frozen=True)
class _Predictions:
    """What was observed and predicted, (samples,), class probabilities, and predictions in the target's own unit."""

    observed: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    whole: np.ndarray | None = None


def _judged(design: Design, made: _Predictions, rng: np.random.RandomState, null: list[float]) -> Evaluation:
    """Compare predictions with the labels, and with what permuted labels give."""
    tested, probabilities = design.tested, made.probabilities
    known = (made.observed[tested], made.predicted[tested], None if probabilities is None else probabilities[tested])
    metrics = metrics_of(*known)
    intervals = _bootstrap(*known, design.groups[tested], rng)
    first, p = _first(metrics), float("nan")
    if len(null) >= FEWEST_PERMUTATIONS and np.isfinite(first):
        p = (1 + sum(value >= first for value in null)) / (1 + len(null))
    with_intervals = {name: (value, *intervals[name]) for name, value in metrics.items()}
    whole = made.predicted if made.whole is None else made.whole
    return Evaluation(with_intervals, p, whole, probabilities, design.folds, np.array(null), design.exchange.mode)


def _first(metrics: dict[str, float]) -> float:
    return next(iter(metrics.values()))


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
