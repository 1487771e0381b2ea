"""How something measured of each person is related to the columns of the phenotype."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from scipy.stats import t as t_distribution

from neurostorm_bids.find.participants import KEYS
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.evaluation import FEWEST_PERMUTATIONS
from neurostorm_bids.group.exchange import exchange_of

FEWEST = 20  # people
N_PERMUTATIONS = 1999
RELATIONS_COLUMNS: dict[str, dict[str, Any]] = {
    "column": {"Description": "Column of the phenotype; of text with two values, whether it is the second"},
    "n": {"Description": "People in whom both are known"},
    "partial_r": {"Description": "Correlation of what is left of both when the covariates are taken out"},
    "lower": {"Description": "Lower end of its 95 % interval, by Fisher's z"},
    "upper": {"Description": "Upper end"},
    "p_value": {"Description": "Two-sided, from Student's t; with --group-by from permutations that keep the groups"},
    "q_value": {"Description": "p-value corrected for the false discovery rate over all columns of the table"},
}


def phenotype_columns(table: pd.DataFrame, phenotype: pd.DataFrame, without: set[str]) -> dict[str, np.ndarray]:
    """Return the columns of the phenotype that can be related to something, as numbers, a value per row of the table.

    Parameters
    ----------
    table : DataFrame
        Runs or samples, joined with the phenotype.
    phenotype : DataFrame
    without : set of str
        Columns to leave out.
    """
    found = {}
    for name in phenotype:
        name = str(name) if name in table else f"phenotype_{name}"
        if name in KEYS or name in without or name not in table:
            continue
        values = table[name]
        as_numbers = pd.to_numeric(values, errors="coerce")
        if as_numbers.notna().sum() < values.notna().sum():
            levels = sorted(values.dropna().unique(), key=str)
            if len(levels) != 2:
                continue
            as_numbers = (values == levels[1]).astype(float).where(values.notna())
            name = f"{name} ({levels[1]})"
        numbers = as_numbers.to_numpy(float)
        if np.isfinite(numbers).sum() >= FEWEST and np.nanstd(numbers) > 0:
            found[name] = numbers
    return found


def relations_of(
    measure: np.ndarray,
    columns: dict[str, np.ndarray],
    covariates: Confounds,
    subjects: np.ndarray,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return partial correlations of a measure with columns, a row each; its columns are those of `RELATIONS_COLUMNS`.

    Parameters
    ----------
    measure : (samples,) array
        NaN where unknown.
    columns : dict
        Name -> (samples,) array.
    covariates : Confounds
        Taken out of both.
    subjects : (samples,) array
        Several samples of a subject are averaged first.
    groups : (samples,) array, optional
        Families or sites: p-values are then from permutations that keep them, and not from Student's t.
    """
    _, who = np.unique(subjects, return_inverse=True)
    rows = []
    for name, values in columns.items():
        known = np.isfinite(measure) & np.isfinite(values) & covariates.complete
        people = np.unique(who[known])
        if len(people) < FEWEST:
            continue
        everyone = np.ones(int(known.sum()), bool)
        of_known = Confounds(covariates.values[known], covariates.kinds).that_vary()
        taken_out, _ = of_known.columns_for(everyone, everyone)
        a, b, out = (_by_person(each, who[known]) for each in (measure[known], values[known], taken_out))
        *estimate, p = _partial(a[:, 0], b[:, 0], out)
        if groups is not None:
            first = [int(np.flatnonzero(known & (who == person))[0]) for person in people]
            p = _p_with_groups(a[:, 0], b[:, 0], out, groups[first])
        rows.append([name, len(people), *estimate, p])
    table = pd.DataFrame(rows, columns=list(RELATIONS_COLUMNS)[:-1]).assign(q_value=np.nan)
    known = table["p_value"].notna()
    if known.any():
        table.loc[known, "q_value"] = false_discovery_control(table.loc[known, "p_value"])
    return table.sort_values("p_value", ignore_index=True)


def _by_person(values: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Return means over the samples of each person, (people, columns)."""
    return pd.DataFrame(values).groupby(who).mean().to_numpy(float)


def _p_with_groups(a: np.ndarray, b: np.ndarray, out: np.ndarray, groups: np.ndarray) -> float:
    """Return a two-sided p-value from permutations of what is left of the first that keep groups together; NaN if too few."""
    design = np.column_stack([np.ones(len(a)), out])
    left_a, left_b = (x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (a, b))
    exchange = exchange_of(np.arange(len(a)), groups)
    orders = exchange.permutations(N_PERMUTATIONS, np.random.RandomState(0))
    if len(orders) < FEWEST_PERMUTATIONS:
        return float("nan")
    observed = abs(left_a @ left_b)
    reached = sum(abs(left_a[order] @ left_b) >= observed * (1 - 1e-12) for order in orders)
    return (1 + reached) / (1 + len(orders))


def _partial(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> tuple[float, float, float, float]:
    """Return a partial correlation, its interval and its p-value."""
    design = np.column_stack([np.ones(len(a)), out])
    left = [x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (a, b)]
    free = len(a) - np.linalg.matrix_rank(design) - 1
    spread = np.std(left[0]) * np.std(left[1])
    if free < 2 or spread < 1e-12 * (1 + np.std(a) * np.std(b)):
        return (float("nan"),) * 4
    r = float(np.mean(left[0] * left[1]) / spread)
    statistic = r * np.sqrt(free / max(1e-300, 1 - r**2))
    reach = 1.959964 / np.sqrt(max(free - 1, 1))
    low, high = np.tanh(np.arctanh(np.clip(r, -0.9999, 0.9999)) + np.array([-reach, reach]))
    return r, float(low), float(high), float(2 * t_distribution.sf(abs(statistic), free))
