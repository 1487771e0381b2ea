"""How often tests of the group level call significant what is not there, and whether intervals cover. An hour or more."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import print_table
from benchmarks.simulations import EFFECTS, NULLS, Cohort, effect
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.estimators import GroupedRidge
from neurostorm_bids.group.evaluation import Design, Evaluation, evaluate
from neurostorm_bids.group.features import prepared
from neurostorm_bids.group.folds import repeated_folds
from neurostorm_bids.group.scores import FoldSizes, areas, correlations, mean_known, mean_r

N_SETS, N_PERMUTATIONS = 200, 99
N_REPEATS = 3  # of the folds where tests are counted; more of them change power, not the level
N_NEW = 2000  # people on whom fold models are tried
SIGNIFICANT = 0.05
COVERED = {
    "no effect, n = 60": {"n": 60, "explained": 0.0},
    "no effect, n = 200": {"n": 200, "explained": 0.0},
    "30 % of the variance, n = 60": {"n": 60, "explained": 0.3},
    "50 % of the variance, n = 60": {"n": 60, "explained": 0.5},
    "10 % of the variance, n = 200": {"n": 200, "explained": 0.1},
    "30 % of the variance, n = 200": {"n": 200, "explained": 0.3},
    "no effect, 60 people x 3 sessions": {"n": 60, "explained": 0.0, "each": 3},
    "30 % of the variance, 60 people x 3 sessions": {"n": 60, "explained": 0.3, "each": 3},
    "two classes, no effect, n = 60": {"n": 60, "explained": 0.0, "is_class": True},
    "two classes, 30 % of the variance, n = 60": {"n": 60, "explained": 0.3, "is_class": True},
    "two classes, 30 % of the variance, n = 200": {"n": 200, "explained": 0.3, "is_class": True},
}


def evaluation_of(cohort: Cohort, seed: int, repeats: int = N_REPEATS) -> tuple[Design, Evaluation]:
    """Evaluate one simulated cohort."""
    folds = repeated_folds(cohort.y, cohort.groups, cohort.is_class, seed, repeats)
    design = Design(cohort.y, cohort.groups, folds, cohort.is_class, seed, cohort.subjects)
    return design, evaluate(cohort.features, design, cohort.confounds, N_PERMUTATIONS)


def p_values(
    make: Callable[[np.random.Generator], Cohort], n_sets: int, first_seed: int = 0, repeats: int = N_REPEATS
) -> np.ndarray:
    """Return the p-value of each of some simulated cohorts; NaN where no permutation is possible."""
    seeds = range(first_seed, first_seed + n_sets)
    return np.array([evaluation_of(make(np.random.default_rng(s)), s, repeats)[1].p_value for s in seeds])


def coverage(population: dict[str, Any], n_sets: int, repeats: int = 10) -> tuple[float, float, float, float]:
    """Return in which share of cohorts the interval covers what fold models achieve on new people, and leaves chance out.

    Returns
    -------
    covers, without_chance : float
    value, true : float
        Means over the cohorts of r (or of the area under the ROC curve), and of what it is on new people.
    """
    found = []
    n = population["n"] * population.get("each", 1)
    for seed in range(n_sets):
        whole = effect(n_new=N_NEW, **population)(np.random.default_rng(seed))
        cohort = Cohort(whole.features[:n], whole.y[:n], whole.subjects[:n], whole.groups[:n], is_class=whole.is_class)
        design, evaluation = evaluation_of(cohort, seed, repeats)
        true = _on_new_people(design, cohort, whole.features[n:], whole.y[n:])
        value, low, high = evaluation.first
        chance = 0.5 if cohort.is_class else 0.0
        found.append((low <= true <= high, not low <= chance <= high, value, true))
    covers, without_chance, value, true = np.mean(found, axis=0)
    return covers, without_chance, value, true


def _on_new_people(design: Design, cohort: Cohort, features: np.ndarray, y: np.ndarray) -> float:
    """Return the mean r, or area under the ROC curve, of the fold models of the first repeat on people of no fold."""
    values, sizes = [], []
    nothing = (np.empty((len(cohort.y), 0)), np.empty((len(y), 0)))
    for train, test in Design(design.y, design.groups, design.folds[0], design.is_class, design.seed).splits():
        known = (nothing[0][train], nothing[1])
        a, b = prepared((cohort.features[train], features), known)
        model = GroupedRidge(seed=design.seed).fit(a, cohort.y[train].astype(float), cohort.groups[train])
        predicted = model.predict(b)
        values.append(
            (areas(y[:, None] == 1, predicted) if design.is_class else correlations(y[:, None], predicted))[0]
        )
        sizes.append((test.sum(), train.sum()))
    average = mean_known if design.is_class else mean_r
    return float(average(np.array(values), FoldSizes(*np.array(sizes).T)))


def verdict_shares(n: int, n_sets: int) -> dict[str, float]:
    """Return how often the probe says what, where label and embedding follow head motion and nothing else."""
    import pandas as pd

    from neurostorm_bids.group.answers import verdict
    from neurostorm_bids.group.covariates import Covariates
    from neurostorm_bids.group.labels import Labels
    from neurostorm_bids.group.probing import probe
    from neurostorm_bids.group.samples import Samples

    said = []
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        cohort = effect(n, 0.0)(rng)
        fd = np.exp(rng.normal(-2, 0.5, n))
        log = (np.log(fd) - np.log(fd).mean()) / np.log(fd).std()
        features = cohort.features + 0.3 * np.outer(log, rng.standard_normal(cohort.features.shape[1]))
        y = 0.7 * log + np.sqrt(1 - 0.49) * rng.standard_normal(n)
        names = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(n)]})
        labels = Labels("score", names, y, [], cohort.groups, [np.array([i]) for i in range(n)], [])
        motion = Confounds(np.column_stack([fd, fd * np.exp(rng.normal(1, 0.2, n))]), ("log", "log"))
        samples = Samples(labels, features, motion, Covariates(Confounds.none(n), (), []))
        folds = repeated_folds(y, cohort.groups, False, seed, N_REPEATS)
        words = verdict(probe(samples, {}, Design(y, cohort.groups, folds, False, seed), N_PERMUTATIONS), labels)
        said.append("may be motion" if "may be motion" in words else "not better" if "does not" in words else "better")
    return {what: float(np.mean([each == what for each in said])) for what in ("better", "may be motion", "not better")}


def run() -> None:
    """Print what the simulations come to."""
    for title, designs in (("Without any effect: 5 % is right", NULLS), ("With an effect: power", EFFECTS)):
        rows = []
        for name, make in designs.items():
            p = p_values(make, N_SETS)
            share = float(np.mean(p <= SIGNIFICANT))
            rows.append((name, f"{100 * share:.1f}", f"{100 * np.sqrt(share * (1 - share) / N_SETS):.1f}"))
        print_table(title, ("design", "p <= 0.05 in (%)", "standard error"), rows)
    rows = []
    for name, population in COVERED.items():
        covers, without_chance, value, true = coverage(population, N_SETS)
        rows.append((name, f"{100 * covers:.1f}", f"{100 * without_chance:.1f}", f"{value:.2f}", f"{true:.2f}"))
    title = "Intervals of r, or of the area under the ROC curve: 95 % is right"
    print_table(title, ("design", "covers (%)", "leaves chance out (%)", "mean value", "on new people"), rows)
    rows = []
    for n in (60, 200):
        shares = verdict_shares(n, N_SETS // 2)
        rows.append((f"n = {n}", *(f"{100 * share:.1f}" for share in shares.values())))
    title = "Label and embedding follow head motion and nothing else: what the probe says, in %"
    print_table(title, ("people", "better than chance", "may be motion", "not better than chance"), rows)
