"""Predict a target from features in repeated nested cross-validation, and say how certain the result is.

Samples that belong together (subjects, or families and sites) are never on both sides of a fold, neither of the outer
nor of the inner ones. Everything that is learnt is learnt in the training folds: missing values, harmonisation,
confounds, scaling, the penalty, the calibration. Knows no files and no tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.estimators import WEAK_PENALTY, Calibration, RidgeOfPlaces
from neurostorm_bids.group.exchange import Exchange, exchange_of
from neurostorm_bids.group.features import Harmonisation, explained, parts_of, prepared
from neurostorm_bids.group.scores import (
    Estimate,
    FoldSizes,
    areas,
    correlations,
    estimate_of_mean,
    mean_known,
    mean_of_known,
    mean_r,
    spread_of_mean,
)
from neurostorm_bids.group.tally import Tally

FEWEST_PERMUTATIONS = 19  # with fewer no p-value could reach 0.05
INTERVAL = (2.5, 97.5)  # percentiles
TOLERANCE = 1e-12  # of a comparison with a permutation that gives the same


@dataclass(frozen=True)
class Design:
    """What is predicted, and how that is tested.

    Attributes
    ----------
    y : (samples,) array
        Values, or classes as 0, 1, ...
    groups : (samples,) array
        Samples of one group stay together in folds.
    folds : (repeats, samples) int array, or (samples,) for one
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "folds", np.atleast_2d(self.folds))

    @cached_property
    def exchange(self) -> Exchange:
        """What may change places among the samples that are tested."""
        tested = self.tested
        subjects = self.groups if self.subjects is None else self.subjects
        return exchange_of(subjects[tested], self.groups[tested], self.exchange_mode)

    def only(self, which: np.ndarray) -> "Design":
        """Return the design of some samples, given as a (samples,) bool mask."""
        subjects = None if self.subjects is None else self.subjects[which]
        return replace(self, y=self.y[which], groups=self.groups[which], folds=self.folds[:, which], subjects=subjects)

    def permutations(self, n: int, rng: np.random.RandomState) -> list[np.ndarray]:
        """Return permutations of all samples; those that are not tested stay where they are."""
        where, moved = np.flatnonzero(self.tested), []
        for order in self.exchange.permutations(n, rng) if n else []:
            index = np.arange(len(self.y))
            index[where] = where[order]
            moved.append(index)
        return moved

    def splits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield who is trained on and who is tested, (samples,) bool, in each fold of each repeat."""
        for folds in self.folds:
            for fold in np.unique(folds[folds >= 0]):
                yield folds != fold, folds == fold

    @property
    def tested(self) -> np.ndarray:
        """Which samples are tested, (samples,) bool."""
        return np.asarray(self.folds[0] >= 0)

    @property
    def n_folds(self) -> int:
        """Number of folds of one repeat that are tested."""
        return len(np.unique(self.folds[0][self.tested]))

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return int(self.y.max()) + 1 if self.is_class else 0

    @property
    def columns(self) -> np.ndarray:
        """The target as columns to regress on, (samples, columns): values, the second of two classes, or each class."""
        if not self.is_class:
            return np.asarray(self.y, float)[:, None]
        classes = [1] if self.n_classes == 2 else range(self.n_classes)
        return np.column_stack([self.y == k for k in classes]).astype(float)


@dataclass(frozen=True)
class Evaluation:
    """How well features predict a target.

    Attributes
    ----------
    metrics : dict
        Name -> (value, lower, upper) with a 95 % interval.
    p_value : float
        From a permutation test of the first metric; NaN if none was made or none is possible.
    predicted : (samples,) array
        Out of fold, mean over repeats: the value; or the class that is most probable relative to its share in training.
    probabilities : (samples, classes) array, or None
        Mean over repeats.
    folds : (samples,) int array
        Of the first repeat.
    null : array
        The first metric under each permutation.
    exchange : str
        What was permuted: "free", or "within", "between" groups, or "both".
    of_folds : (folds of all repeats,) array
        The first metric.
    sizes : FoldSizes
    """

    metrics: dict[str, Estimate]
    p_value: float
    predicted: np.ndarray
    probabilities: np.ndarray | None
    folds: np.ndarray
    null: np.ndarray = field(default_factory=lambda: np.empty(0))
    exchange: str = ""
    of_folds: np.ndarray = field(default_factory=lambda: np.empty(0))
    sizes: FoldSizes = field(default_factory=lambda: FoldSizes(np.empty(0), np.empty(0)))

    def among(self, which: np.ndarray) -> "Evaluation":
        """Return the same for all samples, where it was made of some, given as a (samples,) bool mask."""

        def spread(values: np.ndarray, instead: float) -> np.ndarray:
            whole = np.full((len(which), *values.shape[1:]), instead, dtype=values.dtype)
            whole[which] = values
            return whole

        predicted = spread(self.predicted, np.nan if self.predicted.dtype.kind == "f" else -1)
        probabilities = None if self.probabilities is None else spread(self.probabilities, np.nan)
        return replace(self, predicted=predicted, probabilities=probabilities, folds=spread(self.folds, -1))

    @property
    def first(self) -> Estimate:
        """The first metric, which the test is of."""
        return next(iter(self.metrics.values()))

    @property
    def chance(self) -> Estimate:
        """Mean of the first metric under permutations, and the ends of the middle 95 %; NaN without a test."""
        if not np.isfinite(self.null).any():
            return float("nan"), float("nan"), float("nan")
        low, high = np.nanpercentile(self.null, INTERVAL)
        return float(np.nanmean(self.null)), float(low), float(high)


def evaluate(
    features: "np.ndarray | Confounds",
    design: Design,
    confounds: Confounds | None = None,
    n_permutations: int = 0,
    harmonisation: Harmonisation | None = None,
) -> Evaluation:
    """Cross-validate ridge regression; of classes, on their indicators, with calibrated probabilities.

    With confounds, what is asked is what the features add to them. Confounds are taken out of features and target in the
    training folds; the test is of the correlation between what they leave of the target and what the features predict of
    that, and it is what they leave of the target that is permuted (Freedman and Lane 1983,
    https://doi.org/10.2307/1391660). Beside it stands how much better confounds and features together predict than the
    confounds alone. Samples of which not all confounds are known take no part: whatever stood for what is unknown would leave
    the confound's effect in them.

    Parameters
    ----------
    features : (samples, features) array, (samples, places, features) array, or Confounds
        NaN where unknown: replaced by the mean of the training folds. Of several places, each predicts, and those count more
        that do so better (`RidgeOfPlaces`).
    design : Design
    confounds : Confounds, optional
    n_permutations : int
        How often everything is done again with labels in other places; at most as often as there are permutations that
        keep the structure of the data.
    harmonisation : Harmonisation, optional
    """
    if not isinstance(features, Confounds):
        features = np.asarray(features, np.float64)
    confounds = Confounds.none(len(design.y)) if confounds is None else confounds.that_vary()
    if not (complete := confounds.complete).all():
        assert not isinstance(features, Confounds)
        part = None if harmonisation is None else harmonisation.only(complete)
        found = evaluate(features[complete], design.only(complete), confounds.only(complete), n_permutations, part)
        return found.among(complete)
    columns, orders = design.columns, design.permutations(n_permutations, np.random.RandomState(design.seed))
    targets = _permuted(columns, confounds, design, orders)
    tally = Tally(design.y, design.n_classes, bool(len(confounds)))
    for train, test in design.splits():
        known = _known(confounds, design, train, test)
        of_confounds = explained(known, targets[train])
        of_places = [prepared(part, known) for part in parts_of(features, train, test, harmonisation)]
        model = RidgeOfPlaces(seed=design.seed, n_kept=columns.shape[1] if design.is_class else 0)
        model.fit([a for a, _ in of_places], targets[train] - of_confounds[0], design.groups[train])
        predicted = model.predict([b for _, b in of_places])
        first = _first_metric(targets[test], of_confounds[1], predicted, tally)
        n = columns.shape[1]
        whole, alone = of_confounds[1][:, :n] + predicted[:, :n], of_confounds[1][:, :n]
        if design.is_class:
            calibration = Calibration(of_confounds[0][:, :n] + model.inner_, design.y[train], design.n_classes)
            tally.add_classes(train, test, first, (calibration, whole, alone))
        else:
            tally.add_values(train, test, first, (whole[:, 0], alone[:, 0]))
    return _judged(design, tally, n_permutations)


def judge(
    predicted: np.ndarray, probabilities: np.ndarray | None, design: Design, n_permutations: int = 0
) -> Evaluation:
    """Evaluate predictions that were made out of fold elsewhere; the permutation test trains nothing again.

    Parameters
    ----------
    predicted, probabilities : arrays
        As of `Evaluation`.
    design : Design
        With one repeat of folds. Where there is one fold only, the model is fixed: intervals are of new people, from the
        bootstrap over groups.
    n_permutations : int
        How often labels are exchanged.
    """
    orders = design.permutations(n_permutations, np.random.RandomState(design.seed))
    labels = np.column_stack([design.y, *(design.y[order] for order in orders)])
    tally = Tally(design.y, design.n_classes, False)
    for train, test in design.splits():
        if probabilities is None:
            guesses = np.repeat(predicted[test, None], labels.shape[1], axis=1)
            tally.add_values(train, test, correlations(labels[test], guesses), (predicted[test], None))
        else:
            classes = [1] if design.n_classes == 2 else list(range(design.n_classes))
            found = [
                areas(labels[test] == k, np.repeat(probabilities[test, k, None], labels.shape[1], 1)) for k in classes
            ]
            tally.add_judged(train, test, mean_of_known(np.array(found)), (probabilities[test], predicted[test]))
    return _judged(design, tally, n_permutations, is_trained_again=False)


def difference(one: Evaluation, other: Evaluation) -> Estimate:
    """Return by how much the first metric of one set of features is larger, in the same folds.

    NaN for the interval where there is one fold only.
    """
    apart, sizes = one.of_folds - other.of_folds, one.sizes
    if len(apart) > 1 and len(one.null) == len(other.null) > 1:  # the same permutations
        by_chance = float(np.nanstd(one.null - other.null, ddof=1))
        is_area = next(iter(one.metrics)) == "AUROC"
        effect = max(abs(2 * each.first[0] - 1 if is_area else each.first[0]) for each in (one, other))
        sizes = one.sizes.inflated(spread_of_mean(apart, one.sizes), by_chance, min(1.0, effect))
    return estimate_of_mean(apart, sizes)


def _known(confounds: Confounds, design: Design, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns that confounds are taken out by, for both folds.

    A class does not follow a confound in a line, but as its probability does: the one that a logistic regression gives is a
    column too.
    """
    known = confounds.columns_for(train, test)
    if not design.is_class or not len(confounds) or len(np.unique(design.y[train])) < 2:
        return known
    model = make_pipeline(StandardScaler(), LogisticRegression(C=WEAK_PENALTY, max_iter=500))
    model.fit(known[0], design.y[train])
    a, b = (np.hstack([part, model.predict_proba(part)[:, 1:]]) for part in known)
    return a, b


def _permuted(columns: np.ndarray, confounds: Confounds, design: Design, orders: list[np.ndarray]) -> np.ndarray:
    """Return targets and permuted ones side by side, (samples, columns x (1 + permutations)).

    With confounds, what a linear model of them leaves changes places.
    """
    if not len(confounds):
        return np.hstack([columns, *(columns[order] for order in orders)])
    everyone = np.ones(len(columns), bool)
    fitted, _ = explained(_known(confounds, design, everyone, everyone), columns)
    left = columns - fitted
    return np.hstack([columns, *(fitted + left[order] for order in orders)])


def _first_metric(targets: np.ndarray, of_confounds: np.ndarray, predicted: np.ndarray, tally: Tally) -> np.ndarray:
    """Return the first metric in one fold, of the target and of each permutation: (1 + permutations,)."""
    if tally.n_classes and not tally.has_confounds:
        each = areas(targets > 0.5, predicted)
    else:
        each = correlations(targets - of_confounds, predicted)
    n = tally.n_columns
    return each if n == 1 else mean_of_known(each.reshape(-1, n).T)


def _judged(design: Design, tally: Tally, n_permutations: int, *, is_trained_again: bool = True) -> Evaluation:
    """Average over folds, and compare with what permuted labels give.

    Models that are not trained again on permuted labels differ less from each other by chance than those that are: what
    folds share is lacking. So that null is stretched about its mean (benchmarks/STATISTICS.md).
    """
    first, sizes = tally.first_of_folds, tally.sizes
    average = mean_r if tally.first_is_r else mean_known
    observed, *null = average(first, sizes)
    by_chance = np.array(null)
    if not is_trained_again and len(tally.tests) > 1 and len(null):
        by_chance = _stretched(by_chance, tally.first_is_r)
    p = float("nan")
    if len(null) >= FEWEST_PERMUTATIONS and np.isfinite(observed):
        p = (1 + int((~(by_chance < observed - TOLERANCE)).sum())) / (1 + len(null))
    metrics, sizes = tally.metrics(by_chance, design.groups, design.seed)
    predicted, probabilities = tally.predictions()
    mode = design.exchange.mode if n_permutations else ""
    return Evaluation(metrics, p, predicted, probabilities, design.folds[0], by_chance, mode, first[:, 0], sizes)


def _stretched(null: np.ndarray, is_r: bool) -> np.ndarray:
    """Return a null distribution whose standard deviation is larger by a factor of the square root of two."""
    values = np.arctanh(null) if is_r else null
    middle = np.nanmean(values)
    wider = middle + np.sqrt(2) * (values - middle)
    return np.asarray(np.tanh(wider) if is_r else wider)
