"""Which samples are trained on and which are tested: groups of samples that belong together are never split.

Knows no files and no tables.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

N_FOLDS = 5


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
    n = min(N_FOLDS, len(np.unique(groups)))
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
