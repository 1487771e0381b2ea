"""Whether two halves of the people tell the same."""

from collections.abc import Callable

import numpy as np

WAYS = 100  # to halve people
FEWEST = 4  # people or families


def agreement_of_halves(families: np.ndarray, summary: Callable[[np.ndarray], np.ndarray], seed: int) -> float | None:
    """Return how what is made of one half of the people correlates with what is made of the other: the mean over ways to halve them.

    Parameters
    ----------
    families : (people,) array
        People of one family stay in one half.
    summary : callable
        Numbers of people -> (parcels,) array; where it does not vary, or is not finite, that way to halve people counts as 0.
    seed : int

    Returns
    -------
    float or None
        `None` of fewer than four families.
    """
    names, which = np.unique(families, return_inverse=True)
    if len(names) < FEWEST:
        return None
    rng, found = np.random.default_rng(seed), []
    for _ in range(WAYS):
        is_first = np.isin(which, rng.permutation(len(names))[: len(names) // 2])
        one, other = (summary(np.flatnonzero(half)) for half in (is_first, ~is_first))
        vary = np.isfinite([one, other]).all() and np.ptp(one) and np.ptp(other)
        found.append(float(np.corrcoef(one, other)[0, 1]) if vary else 0.0)
    return float(np.mean(found))
