"""Add up, fold by fold, what predictions come to. Knows no files and no tables."""

from collections import defaultdict

import numpy as np

from neurostorm_bids.group.estimators import Calibration
from neurostorm_bids.group.scores import (
    Estimate,
    FoldSizes,
    areas,
    bootstrap,
    correlations,
    estimate_of_mean,
    estimate_of_r,
    estimate_of_ratio,
    mean_known,
    mean_of_known,
    mean_r,
    recalls,
    spread_of_mean,
    spread_of_r,
)

WITHOUT_PERMUTATIONS = float(np.sqrt(2))  # by which intervals are wider where chance is not known; see `FoldSizes`


class Tally:
    """What predictions come to, over the folds of all repeats.

    Parameters
    ----------
    y : (samples,) array
        Values, or classes as 0, 1, ...
    n_classes : int
        0 for a regression.
    has_confounds : bool
        Whether the first metric is of what confounds leave.
    """

    def __init__(self, y: np.ndarray, n_classes: int, has_confounds: bool):
        self.y, self.n_classes, self.has_confounds = y, n_classes, has_confounds
        self.n_columns = n_classes if n_classes > 2 else 1
        self.firsts: list[np.ndarray] = []
        self.tests: list[np.ndarray] = []
        self.trained: list[int] = []
        self.of_folds: dict[str, list[float]] = defaultdict(list)
        self.total = np.zeros((len(y), max(1, n_classes)))
        self.relative = np.zeros((len(y), n_classes))
        self.times = np.zeros(len(y))

    @property
    def first_is_r(self) -> bool:
        """Whether the first metric is a correlation; else it is an area under a ROC curve."""
        return self.has_confounds or not self.n_classes

    @property
    def first_of_folds(self) -> np.ndarray:
        """The first metric, (folds, 1 + permutations)."""
        return np.stack(self.firsts)

    @property
    def sizes(self) -> FoldSizes:
        """Samples of the folds."""
        return FoldSizes(np.array([len(test) for test in self.tests]), np.array(self.trained), WITHOUT_PERMUTATIONS)

    def add_values(
        self, train: np.ndarray, test: np.ndarray, first: np.ndarray, found: tuple[np.ndarray, np.ndarray | None]
    ) -> None:
        """Add a fold of a regression.

        Parameters
        ----------
        train, test : (samples,) bool arrays
        first : (1 + permutations,) array
            The first metric.
        found : tuple of 2 (tested samples,) arrays
            What is predicted, and what the confounds alone predict.
        """
        predicted, alone = found
        self._add(train, test, first)
        y, mean = self.y[test], self.y[train].mean() if train.any() else self.y[test].mean()
        self.of_folds["squares"].append(((y - predicted) ** 2).sum())
        self.of_folds["squares of the mean"].append(((y - mean) ** 2).sum())
        self.of_folds["MAE"].append(np.abs(y - predicted).mean())
        self.of_folds["MAE_of_the_mean"].append(np.abs(y - mean).mean())
        if alone is not None:
            self.of_folds["squares alone"].append(((y - alone) ** 2).sum())
        self.total[test, 0] += predicted

    def add_classes(
        self,
        train: np.ndarray,
        test: np.ndarray,
        first: np.ndarray,
        found: tuple[Calibration, np.ndarray, np.ndarray],
    ) -> None:
        """Add a fold of a classification.

        Parameters
        ----------
        train, test : (samples,) bool arrays
        first : (1 + permutations,) array
            The first metric.
        found : tuple
            Calibration, scores (tested samples, columns), and scores of the confounds alone.
        """
        calibration, scores, alone = found
        probabilities = calibration.probabilities(scores)
        shares = calibration.shares
        relative = np.where(
            shares > 0, probabilities / np.where(shares > 0, shares, 1), 0
        )  # what was not there is never decided on
        self._add(train, test, first)
        is_class = np.column_stack([self.y[test] == k for k in calibration.columns])
        area, area_alone = areas(is_class, scores), areas(is_class, alone)
        self.of_folds["AUROC"].append(_mean(area))
        self.of_folds["delta_AUROC"].append(_mean(area - area_alone))
        self._add_decisions(test, probabilities, relative)

    def add_judged(
        self, train: np.ndarray, test: np.ndarray, first: np.ndarray, found: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Add a fold of a classification that was made elsewhere: class probabilities, and the classes decided on."""
        probabilities, predicted = found
        self._add(train, test, first)
        self._add_decisions(test, probabilities, np.eye(self.n_classes)[predicted])

    def _add(self, train: np.ndarray, test: np.ndarray, first: np.ndarray) -> None:
        self.firsts.append(first)
        self.tests.append(np.flatnonzero(test))
        self.trained.append(int(train.sum()))
        self.times[test] += 1

    def _add_decisions(self, test: np.ndarray, probabilities: np.ndarray, relative: np.ndarray) -> None:
        found = recalls(self.y[test], relative.argmax(axis=1), self.n_classes)
        self.of_folds["balanced_accuracy"].append(_mean(found))
        if self.n_classes == 2:
            self.of_folds["specificity"].append(float(found[0]))
            self.of_folds["sensitivity"].append(float(found[1]))
        self.total[test] += probabilities
        self.relative[test] += relative

    def predictions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return values or classes, (samples,), and probabilities, (samples, classes), means over repeats."""
        means = self.total / np.maximum(self.times, 1)[:, None]
        return (self.relative.argmax(axis=1), means) if self.n_classes else (means[:, 0], None)

    def metrics(self, null: np.ndarray, groups: np.ndarray, seed: int) -> tuple[dict[str, Estimate], FoldSizes]:
        """Return all metrics with intervals, the first one first; and the folds' sizes, which say how wide intervals are.

        Parameters
        ----------
        null : (permutations,) array
            The first metric by chance.
        groups : (samples,) array
        seed : int
        """
        if len(self.tests) == 1 and not self.has_confounds:
            return self._of_a_fixed_model(groups, seed), self.sizes
        sizes = self._sizes_by_chance(null)
        return (self._of_classes(sizes) if self.n_classes else self._of_values(sizes)), sizes

    def _sizes_by_chance(self, null: np.ndarray) -> FoldSizes:
        """Return the folds' sizes, with intervals as wide as permutations show them to be."""
        sizes, first = self.sizes, self.first_of_folds[:, 0]
        null = null[np.isfinite(null)]
        if len(null) < 2:
            return sizes
        if self.first_is_r:
            spread, by_chance = spread_of_r(first, sizes), np.arctanh(null).std(ddof=1)
            effect = float(mean_r(first, sizes))
        else:
            spread, by_chance = spread_of_mean(first, sizes), null.std(ddof=1)
            effect = 2 * float(mean_known(first, sizes)) - 1
        return sizes.inflated(spread, float(by_chance), effect)

    def _of_values(self, sizes: FoldSizes) -> dict[str, Estimate]:
        found = {name: np.array(values) for name, values in self.of_folds.items()}
        squares, of_mean = found["squares"], found["squares of the mean"]
        first = estimate_of_r(self.first_of_folds[:, 0], sizes)
        metrics = {"partial_r" if self.has_confounds else "r": first}
        if self.has_confounds:
            metrics["delta_R2"] = estimate_of_ratio(found["squares alone"] - squares, of_mean, sizes)
        metrics["R2"] = estimate_of_ratio(of_mean - squares, of_mean, sizes)
        for name in ("MAE", "MAE_of_the_mean"):
            metrics[name] = estimate_of_mean(found[name], sizes, (0.0, np.inf))
        if not self.has_confounds:
            tested = self.times > 0
            pooled = correlations(self.y[tested, None], self.predictions()[0][tested, None])
            metrics["pooled_r"] = (float(pooled[0]), float("nan"), float("nan"))
        return metrics

    def _of_classes(self, sizes: FoldSizes) -> dict[str, Estimate]:
        found = {name: np.array(values) for name, values in self.of_folds.items()}
        metrics = {}
        if self.has_confounds:
            metrics["partial_r"] = estimate_of_r(self.first_of_folds[:, 0], sizes)
            metrics["delta_AUROC"] = estimate_of_mean(found["delta_AUROC"], sizes)
            metrics["AUROC"] = estimate_of_mean(found["AUROC"], sizes, (0.0, 1.0))
        else:
            metrics["AUROC"] = estimate_of_mean(self.first_of_folds[:, 0], sizes, (0.0, 1.0))
        for name in ("balanced_accuracy", "sensitivity", "specificity"):
            if name in found:
                metrics[name] = estimate_of_mean(found[name], sizes, (0.0, 1.0))
        return metrics

    def _of_a_fixed_model(self, groups: np.ndarray, seed: int) -> dict[str, Estimate]:
        """Return the metrics of one model on people it did not see; the bootstrap says how they differ with the people."""
        (test,) = self.tests
        y, means = self.y[test], self.total[test]
        decided = self.relative[test].argmax(axis=1) if self.n_classes else y

        def of_values(chosen: np.ndarray) -> dict[str, float]:
            a, b = y[chosen], means[chosen, 0]
            return {
                "r": float(correlations(a[:, None], b[:, None])[0]),
                "R2": float(1 - ((a - b) ** 2).sum() / max(((a - mean) ** 2).sum(), 1e-300)),
                "MAE": float(np.abs(a - b).mean()),
            }

        def of_classes(chosen: np.ndarray) -> dict[str, float]:
            classes = [1] if self.n_classes == 2 else range(self.n_classes)
            each = [float(areas(y[chosen, None] == k, means[chosen, k, None])[0]) for k in classes]
            accuracy = _mean(recalls(y[chosen], decided[chosen], self.n_classes))
            return {"AUROC": _mean(np.array(each)), "balanced_accuracy": accuracy}

        trained_on = np.setdiff1d(np.arange(len(self.y)), test)
        mean = self.y[trained_on].mean() if len(trained_on) else y.mean()
        rng = np.random.RandomState(seed)
        return bootstrap(of_classes if self.n_classes else of_values, groups[test], rng)


def _mean(values: np.ndarray) -> float:
    """Return the mean of known values; NaN without any."""
    return float(mean_of_known(values))
