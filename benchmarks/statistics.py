"""How often a test of the group level calls significant what is not there. Prints STATISTICS.md; takes an hour or so."""

from collections.abc import Callable

import numpy as np

from benchmarks.measure import print_table
from benchmarks.simulations import EFFECTS, NULLS, Cohort
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.folds import make_folds

N_SETS, N_PERMUTATIONS = 200, 99
SIGNIFICANT = 0.05


def p_values(make: Callable[[np.random.Generator], Cohort], n_sets: int, first_seed: int = 0) -> np.ndarray:
    """Return the p-value of each of some simulated cohorts; NaN where no permutation is possible."""
    found = []
    for seed in range(first_seed, first_seed + n_sets):
        cohort = make(np.random.default_rng(seed))
        folds = make_folds(cohort.y, cohort.groups, cohort.is_class, seed)
        design = Design(cohort.y, cohort.groups, folds, cohort.is_class, seed, cohort.subjects)
        confounds = cohort.confounds if cohort.confounds.size else None
        found.append(evaluate(cohort.features, design, confounds, N_PERMUTATIONS).p_value)
    return np.array(found)


def run() -> None:
    """Print the share of simulated cohorts that are called significant."""
    for title, designs in (("Without any effect: 5 % is right", NULLS), ("With an effect: power", EFFECTS)):
        rows = []
        for name, make in designs.items():
            p = p_values(make, N_SETS)
            share = float(np.mean(p <= SIGNIFICANT))
            rows.append((name, f"{100 * share:.1f}", f"{100 * np.sqrt(share * (1 - share) / N_SETS):.1f}"))
        print_table(title, ("design", "p <= 0.05 in (%)", "standard error"), rows)
