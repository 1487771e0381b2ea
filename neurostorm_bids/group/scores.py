"""How well predictions agree with what was observed: in each fold, over all folds, and with an interval.

One r over all folds is biased: a prediction that hardly varies is each fold's training mean, which lies opposite to the
fold's own (r about -0.2 without any effect). So everything is computed in each fold, and then averaged. Knows no files
and no tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata, t

LEVEL = 0.95
N_BOOTSTRAP = 1000

Estimate = tuple[float, float, float]  # value, and the ends of its 95 % interval
UNKNOWN: Estimate = (float("nan"),) * 3


@dataclass(frozen=True)
class FoldSizes:
    """Samples of all folds of all repeats.

    Attributes
    ----------
    tested, trained : (folds,) int arrays
    inflation : float
        By which factor intervals are wider than the spread of the folds says; see `inflated`.
    """

    tested: np.ndarray
    trained: np.ndarray
    inflation: float = 1.0

    def inflated(self, spread: float, spread_by_chance: float, effect: float) -> "FoldSizes":
        """Return the same folds with intervals as wide as chance makes values differ.

        Folds share more than their training sets: each pair of samples is twice on both sides. So without any effect the
        mean over folds varies more than the folds' spread tells, by a factor of about the square root of two; permutations
        show by how much. With an effect that part shrinks (chosen by simulation, benchmarks/STATISTICS.md).

        Parameters
        ----------
        spread : float
            Standard error by the folds.
        spread_by_chance : float
            Standard deviation of the value under permutations.
        effect : float
            From 0 to 1, such as r.
        """
        factor = spread_by_chance * (1 - effect**2) / spread if spread > 0 else 1.0
        return replace(self, inflation=max(1.0, factor) if np.isfinite(factor) else 1.0)


def correlations(observed: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return Pearson's r of each column, (targets,); 0 where nothing varies.

    Parameters
    ----------
    observed, predicted : (samples, targets) arrays
    """
    a, b = observed - observed.mean(axis=0), predicted - predicted.mean(axis=0)
    spread_a, spread_b = np.sqrt((a**2).sum(axis=0)), np.sqrt((b**2).sum(axis=0))
    size = len(predicted) * (1e-12 + np.abs(predicted).max(axis=0, initial=0))
    varies = (spread_a > 0) & (spread_b > 1e-12 * size)
    return np.where(varies, (a * b).sum(axis=0) / np.where(varies, spread_a * spread_b, 1.0), 0.0)


def areas(is_class: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each column, (targets,); NaN where all are of one class.

    Parameters
    ----------
    is_class : (samples, targets) bool array
    scores : (samples, targets) array
    """
    n, n_of_class = len(is_class), is_class.sum(axis=0)
    ranks = rankdata(scores, axis=0)
    above = (ranks * is_class).sum(axis=0) - n_of_class * (n_of_class + 1) / 2
    pairs = n_of_class * (n - n_of_class)
    return np.asarray(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))


def recalls(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the share of each class that is recognised, (classes,); NaN for a class that is not there."""
    right = np.bincount(y[predicted == y], minlength=n_classes)
    there = np.bincount(y, minlength=n_classes)
    return np.asarray(np.where(there > 0, right / np.maximum(there, 1), np.nan))


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    return np.asarray(np.where(counts > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(counts, 1), np.nan))


def mean_r(of_folds: np.ndarray, sizes: FoldSizes) -> np.ndarray:
    """Return the mean over folds by Fisher's z, of (folds,) or (folds, targets) values of r."""
    z = _fishers_z(of_folds)
    return np.asarray(np.tanh(np.average(z, axis=0, weights=_weights_of_r(sizes))))


def mean_known(of_folds: np.ndarray, sizes: FoldSizes) -> np.ndarray:
    """Return the mean over folds, weighted by their size, of (folds,) or (folds, targets) values; without NaN."""
    known = np.isfinite(of_folds)
    weights = np.where(known, sizes.tested.reshape(-1, *[1] * (of_folds.ndim - 1)), 0.0)
    total = weights.sum(axis=0)
    return np.asarray(np.where(total > 0, (np.where(known, of_folds, 0) * weights).sum(axis=0) / total, np.nan))


def estimate_of_r(of_folds: np.ndarray, sizes: FoldSizes) -> Estimate:
    """Return the mean r and its interval, both by Fisher's z."""
    z = _fishers_z(of_folds)
    value, low, high = _estimate(z, _weights_of_r(sizes), sizes)
    return float(np.tanh(value)), float(np.tanh(low)), float(np.tanh(high))


def estimate_of_mean(of_folds: np.ndarray, sizes: FoldSizes, limits: tuple[float, float] | None = None) -> Estimate:
    """Return the mean of a measure over folds, weighted by their size, and its interval, cut at limits."""
    known = np.isfinite(of_folds)
    if not known.any():
        return UNKNOWN
    of_known = replace(sizes, tested=sizes.tested[known], trained=sizes.trained[known])
    value, low, high = _estimate(of_folds[known], of_known.tested.astype(float), of_known)
    if limits is None:
        return value, low, high
    if limits == (0.0, 1.0):  # where all folds agree, as near 0 and 1, samples still are a sample
        n = float(np.mean(of_known.tested + of_known.trained))
        middle = (n * value + 1) / (n + 2)
        reach = float(t.ppf(0.5 + LEVEL / 2, max(n - 1, 1)) * np.sqrt(middle * (1 - middle) / n))
        low, high = min(low, value - reach), max(high, value + reach)
    return value, float(np.clip(low, *limits)), float(np.clip(high, *limits))


def estimate_of_ratio(above: np.ndarray, below: np.ndarray, sizes: FoldSizes) -> Estimate:
    """Return the ratio of two sums over folds, such as 1 - R2 is, and its interval by linearisation."""
    ratio = above.sum() / below.sum() if below.sum() > 0 else np.nan
    each = ratio + (above - ratio * below) / below.mean()
    return _estimate(each, np.ones(len(each)), sizes)


def _fishers_z(r: np.ndarray) -> np.ndarray:
    return np.asarray(np.arctanh(np.clip(r, -0.999, 0.999)))


def _weights_of_r(sizes: FoldSizes) -> np.ndarray:
    return np.maximum(sizes.tested - 3.0, 0.5)  # inverse variance of Fisher's z


def _estimate(values: np.ndarray, weights: np.ndarray, sizes: FoldSizes) -> Estimate:
    """Return a weighted mean over folds and its interval.

    The folds' training sets overlap, so that their values are not independent: the variance is corrected as Nadeau and
    Bengio (2003), https://doi.org/10.1023/A:1024068626366, do.
    """
    value = float(np.average(values, weights=weights))
    if len(values) < 2:
        return value, float("nan"), float("nan")
    error = _standard_error(values, weights, sizes) * sizes.inflation
    reach = float(t.ppf(0.5 + LEVEL / 2, len(values) - 1) * error)
    return value, value - reach, value + reach


def spread_of_r(of_folds: np.ndarray, sizes: FoldSizes) -> float:
    """Return the standard error of Fisher's z by the spread of the folds."""
    return _standard_error(_fishers_z(of_folds), _weights_of_r(sizes), sizes)


def spread_of_mean(of_folds: np.ndarray, sizes: FoldSizes) -> float:
    """Return the standard error of the mean over folds by their spread."""
    known = np.isfinite(of_folds)
    of_known = replace(sizes, tested=sizes.tested[known], trained=sizes.trained[known])
    return _standard_error(of_folds[known], of_known.tested.astype(float), of_known)


def _standard_error(values: np.ndarray, weights: np.ndarray, sizes: FoldSizes) -> float:
    """Return the standard error of a weighted mean over folds, corrected for the overlap of their training sets."""
    n, shares = len(values), weights / weights.sum()
    if n < 2:
        return float("nan")
    variance = float(shares @ (values - shares @ values) ** 2) * n / (n - 1)
    overlap = float(np.mean(sizes.tested / np.maximum(sizes.trained, 1)))
    return float(np.sqrt(variance * (float(shares @ shares) + overlap)))


def bootstrap(
    score: Callable[[np.ndarray], dict[str, float]], groups: np.ndarray, rng: np.random.RandomState
) -> dict[str, Estimate]:
    """Return the scores of a fixed model on new people, with intervals from resampled groups.

    Parameters
    ----------
    score : callable
        Returns the scores of some samples, given their numbers.
    groups : (samples,) array
    rng : RandomState
    """
    whole = score(np.arange(len(groups)))
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    members: Sequence[np.ndarray] = np.split(order, starts[1:])
    drawn = []
    for _ in range(N_BOOTSTRAP):
        chosen = np.concatenate([members[k] for k in rng.randint(len(members), size=len(members))])
        drawn.append(score(chosen))
    found = {}
    for name, value in whole.items():
        values = np.array([each[name] for each in drawn])
        ends = (
            np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
            if np.isfinite(values).any()
            else [np.nan] * 2
        )
        found[name] = (value, float(ends[0]), float(ends[1]))
    return found
