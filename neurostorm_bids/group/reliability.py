"""How far repeated measurements of people agree: intraclass correlations, and discriminability.

Shrout and Fleiss (1979), https://doi.org/10.1037/0033-2909.86.2.420; McGraw and Wong (1996),
https://doi.org/10.1037/1082-989X.1.1.30; Bridgeford et al. (2021), https://doi.org/10.1371/journal.pcbi.1009279. Knows
no files and no tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution
from sklearn.metrics import pairwise_distances

LEVEL = 0.95
CONSTANT = 1e-12  # share of a variance that is rounding
FEWEST = 3  # people with repeated measurements
AT_A_TIME = 500  # rows of a matrix of distances


@dataclass(frozen=True)
class ICC:
    """Intraclass correlations of one or several measures, each with the ends of its 95 % interval: (3, measures) arrays.

    Attributes
    ----------
    agreement : array
        ICC(2,1): of single measurements, where a shift between sessions counts as disagreement.
    consistency : array
        ICC(3,1): where it does not.
    n_people, n_repeats : int
    """

    agreement: np.ndarray
    consistency: np.ndarray
    n_people: int
    n_repeats: int


def balanced(values: np.ndarray, subjects: np.ndarray, n_repeats: int | None = None) -> np.ndarray:
    """Return the measurements of people who have enough, (people, repeats, measures).

    Parameters
    ----------
    values : (samples, measures) array
        In the order of the measurements.
    subjects : (samples,) array
    n_repeats : int, optional
        How many are taken of each person, the first ones; by default as many as keep most measurements in all.
    """
    names, who = np.unique(subjects, return_inverse=True)
    counts = np.bincount(who, minlength=len(names))
    if n_repeats is None:
        candidates = [k for k in range(2, counts.max(initial=0) + 1) if (counts >= k).sum() >= FEWEST]
        n_repeats = max(candidates, key=lambda k: (k * (counts >= k).sum(), -k), default=2)
    rows = [np.flatnonzero(who == i)[:n_repeats] for i in range(len(names)) if counts[i] >= n_repeats]
    return np.stack([values[each] for each in rows]) if rows else np.empty((0, n_repeats, values.shape[1]))


def icc(measurements: np.ndarray) -> ICC:
    """Return ICC(2,1) and ICC(3,1) with intervals.

    Parameters
    ----------
    measurements : (people, repeats, measures) array

    Raises
    ------
    ValueError
        If there are fewer than three people, or no repeats.
    """
    n, k = measurements.shape[:2]
    if n < FEWEST or k < 2:
        raise ValueError(f"{n} people with {k} measurements are too few")
    mean = measurements.mean(axis=(0, 1))
    of_people, of_repeats = measurements.mean(axis=1), measurements.mean(axis=0)
    varies = measurements.var(axis=(0, 1)) > CONSTANT * (1 + mean**2)
    measurements = np.where(varies, measurements, np.nan)  # of what is constant nothing can be said
    rows = k * ((of_people - mean) ** 2).sum(axis=0) / (n - 1)
    columns = n * ((of_repeats - mean) ** 2).sum(axis=0) / (k - 1)
    left = measurements - of_people[:, None] - of_repeats[None] + mean
    error = np.maximum((left**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1)), CONSTANT * (rows + columns))
    return ICC(_agreement(rows, columns, error, n, k), _consistency(rows, error, n, k), n, k)


def _consistency(rows: np.ndarray, error: np.ndarray, n: int, k: int) -> np.ndarray:
    ratio, (a, b) = rows / error, (n - 1, (n - 1) * (k - 1))
    upper = 0.5 + LEVEL / 2
    low, high = ratio / f_distribution.ppf(upper, a, b), ratio * f_distribution.ppf(upper, b, a)
    return np.stack([(each - 1) / (each + k - 1) for each in (ratio, low, high)])


def _agreement(rows: np.ndarray, columns: np.ndarray, error: np.ndarray, n: int, k: int) -> np.ndarray:
    value = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    free = (a * columns + b * error) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    upper = 0.5 + LEVEL / 2
    above, below = f_distribution.ppf(upper, n - 1, free), f_distribution.ppf(upper, free, n - 1)
    spread = k * columns + (k * n - k - n) * error
    low = n * (rows - above * error) / (above * spread + n * rows)
    high = n * (below * rows - error) / (spread + n * below * rows)
    return np.stack([value, low, high])


def discriminability(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Return how often each measurement is nearer to another one of its person than to one of another person.

    The mean over measurements is the discriminability: 0.5 by chance, 1 at best.

    Parameters
    ----------
    values : (samples, features) array
        Distances are Euclidean.
    subjects : (samples,) array

    Returns
    -------
    (samples,) array
        NaN for the only measurement of a person.
    """
    shares, who = np.full(len(values), np.nan), np.unique(subjects, return_inverse=True)[1]
    for start in range(0, len(values), AT_A_TIME):
        distances = pairwise_distances(values[start : start + AT_A_TIME], values)
        for i, row in enumerate(distances, start):
            own = who == who[i]
            others = np.sort(row[~own])
            own[i] = False
            if not own.any() or not len(others):
                continue
            nearer, tied = np.searchsorted(others, row[own], "left"), np.searchsorted(others, row[own], "right")
            shares[i] = np.mean(1 - (nearer + tied) / 2 / len(others))
    return shares


def reliability_in_words(values: np.ndarray, subjects: np.ndarray) -> str:
    """Return the intraclass correlations of one measure, in words.

    Parameters
    ----------
    values : (samples,) array
        NaN where unknown.
    subjects : (samples,) array
    """
    known = np.isfinite(values)
    measurements = balanced(values[known, None], subjects[known])
    if len(measurements) < FEWEST:
        return f"{len(measurements)} people with repeated measurements are too few for an intraclass correlation"
    found = icc(measurements)
    parts: Sequence[str] = [
        f"{name} {each[0, 0]:.2f} (95 % interval {each[1, 0]:.2f} to {each[2, 0]:.2f})"
        for name, each in (("ICC(2,1)", found.agreement), ("ICC(3,1)", found.consistency))
    ]
    return f"{', '.join(parts)}, in {found.n_people} people with {found.n_repeats} measurements"
