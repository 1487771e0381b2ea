"""Tests over people of many values at a time; the largest statistic corrects for how many there are.

Nichols & Holmes (2002), https://doi.org/10.1002/hbm.1058. Knows no files. Against 0: the null hypothesis is that a family's values
are as likely as their negatives, and signs are flipped. With a label: that it has nothing to do with the values, and labels change
places.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

MOST_EXACT = 12  # families up to which all flips are enumerated


def t_values(values: np.ndarray) -> np.ndarray:
    """Return the t statistic of each column of (people, columns) against 0; 0 where nothing varies."""
    n = len(values)
    spread = values.std(axis=0, ddof=1)
    return np.divide(values.mean(axis=0) * np.sqrt(n), spread, out=np.zeros(values.shape[1]), where=spread > 0)


def sign_flip_test(
    values: np.ndarray, n_flips: int, seed: int, families: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Test each column against 0.

    Parameters
    ----------
    values : (people, columns) array
    n_flips : int
        Random ones; all there are for `MOST_EXACT` families or fewer.
    families : (people,) array, optional
        Whose signs are flipped together; by default everybody is alone.

    Returns
    -------
    t : (columns,) array
    p : (columns,) array
        Two-sided, corrected for all columns (family-wise).
    n : int
        Flips that were made, the true signs among them.
    """
    t = t_values(values)
    _, which = np.unique(np.arange(len(values)) if families is None else families, return_inverse=True)
    flips = _signs(int(which.max()) + 1, n_flips, seed)[:, which]
    largest = np.array([np.abs(t_values(values * signs[:, None])).max(initial=0) for signs in flips])
    return t, _corrected(t, largest), len(largest)


def correlations(values: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation of each column of (people, columns) with a label; 0 where nothing varies."""
    centred, label = values - values.mean(axis=0), y - y.mean()
    size = np.linalg.norm(centred, axis=0) * np.linalg.norm(label)
    return np.divide(label @ centred, size, out=np.zeros(values.shape[1]), where=size > 0)


def label_test(values: np.ndarray, y: np.ndarray, orders: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Test whether columns go with a label.

    Parameters
    ----------
    values : (people, columns) array
    y : (people,) array
    orders : sequence of (people,) int arrays
        Permutations of people that the null hypothesis allows.

    Returns
    -------
    r : (columns,) array
        Correlations.
    p : (columns,) array
        Two-sided, corrected for all columns (family-wise).
    """
    r = correlations(values, y)
    largest = np.array(
        [np.abs(correlations(values, y[order])).max(initial=0) for order in (np.arange(len(y)), *orders)]
    )
    return r, _corrected(r, largest)


def _corrected(statistic: np.ndarray, largest: np.ndarray) -> np.ndarray:
    return (largest[:, None] >= np.abs(statistic)[None] - 1e-9).mean(axis=0)


def _signs(n: int, n_flips: int, seed: int) -> np.ndarray:
    """Return the signs of families in each flip, (flips, families); the first ones are all 1."""
    if n <= MOST_EXACT:
        return np.array(list(product([1.0, -1.0], repeat=n)))
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], (n_flips, n))
    return np.vstack([np.ones(n), drawn])
