"""Several questions at once: p-values corrected for how many were asked. Knows no files and no tables."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control

from neurostorm_bids.group.evaluation import TOLERANCE, Evaluation


def by_max_statistic(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """Return p-values that hold for all questions together (family-wise), (questions,).

    Each metric is measured in standard deviations of its own permutations, and compared with the largest over all
    questions under each permutation (Westfall and Young 1993). Questions about the same samples share their permutations,
    so that what they have in common is kept.
    """
    tested = [i for i, each in enumerate(evaluations) if np.isfinite(each.p_value)]
    found = np.full(len(evaluations), np.nan)
    if not tested:
        return found
    n = min(len(evaluations[i].null) for i in tested)
    nulls = np.stack([evaluations[i].null[:n] for i in tested])
    middle, spread = np.nanmean(nulls, axis=1), np.nanstd(nulls, axis=1)
    spread = np.where(spread > 0, spread, np.inf)
    observed = (np.array([evaluations[i].first[0] for i in tested]) - middle) / spread
    largest = np.nanmax((nulls - middle[:, None]) / spread[:, None], axis=0)
    found[tested] = [(1 + (largest >= value - TOLERANCE).sum()) / (1 + n) for value in observed]
    return found


def by_false_discovery_rate(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """Return p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), (questions,)."""
    p = np.array([each.p_value for each in evaluations])
    found, known = np.full(len(p), np.nan), np.isfinite(p)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found
