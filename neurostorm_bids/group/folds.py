"""Which samples are trained on and which are tested: groups of samples that belong together are never split.

Knows no files and no tables.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

N_FOLDS = 5
FEWEST_TESTED = 4  # samples of a fold: of fewer no r can be told


def n_repeats(n_samples: int) -> int:
    """Return how often the folds are drawn anew: where there are few samples, much depends on the draw."""
    return 10 if n_samples <= 1000 else 3 if n_samples <= 10000 else 1


def repeated_folds(y: np.ndarray, groups: np.ndarray, is_class: bool, seed: int, repeats: int) -> np.ndarray:
    """Return several draws of folds, (repeats, samples) int array; of groups that can be divided in one way only, one."""
    drawn = [make_folds(y, groups, is_class, seed + 1000 * i) for i in range(repeats)]
    first = drawn[0]
    each_group = len(np.unique(groups)) == len(np.unique(first))  # every draw is the same but for the folds' numbers
    return np.stack(drawn[:1] if each_group else drawn)


def folds_of(values: np.ndarray) -> np.ndarray:
    """Return a fold for each value, (1, samples): every site is tested on models of the others."""
    return np.unique(values, return_inverse=True)[1].reshape(1, -1)


def make_folds(y: np.ndarray, groups: np.ndarray, is_class: bool, seed: int) -> np.ndarray:
    """Assign samples to folds, groups undivided, classes spread evenly.

    Parameters
    ----------
    y : (samples,) array
        Values, or classes as 0, 1, ...
    groups : (samples,) array
    is_class : bool
    seed : int

    Returns
    -------
    (samples,) int array
        Numbers of folds, from 0.
    """
    n_groups = len(np.unique(groups))
    n = max(2, min(N_FOLDS, n_groups, len(y) // FEWEST_TESTED))
    splitter: GroupKFold | StratifiedGroupKFold
    if is_class:
        n = max(2, min(n, int(np.bincount(y).min())))
        splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    else:
        splitter = GroupKFold(n, shuffle=True, random_state=seed)
    folds = np.empty(len(y), int)
    for k, (_, test) in enumerate(splitter.split(y, y, groups)):
        folds[test] = k
    return folds


def join_groups(subjects: np.ndarray, given: Sequence[object]) -> np.ndarray:
    """Return a name for all samples that are connected by subject or by group.

    Parameters
    ----------
    subjects : (samples,) array
    given : (samples,) sequence
        Families or sites; samples without one (None or NaN) are connected by subject alone.

    Returns
    -------
    (samples,) array

    Examples
    --------
    >>> join_groups(np.array(["a", "a", "b", "c"]), ["x", None, "x", "y"])
    array(['x', 'x', 'x', 'y'], dtype=object)
    """
    names, of_subject = np.unique(subjects, return_inverse=True)
    known = np.array([value is not None and value == value for value in given])  # NaN is not equal to itself
    codes = {value: i for i, value in enumerate(dict.fromkeys(v for v, ok in zip(given, known, strict=True) if ok))}
    of_group = [len(names) + codes[value] for value, ok in zip(given, known, strict=True) if ok]
    size = len(names) + len(codes)
    edges = csr_array((np.ones(known.sum()), (of_subject[known], of_group)), shape=(size, size))
    part = connected_components(edges, directed=False)[1][of_subject]
    first = {number: i for i, number in reversed(list(enumerate(part)))}
    return np.array(
        [str(given[first[number]]) if known[first[number]] else subjects[first[number]] for number in part],
        dtype=object,
    )
