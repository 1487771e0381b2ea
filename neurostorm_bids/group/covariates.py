"""From the columns that --covariates names to what a linear model is fitted to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import column, numbers
from neurostorm_bids.group.confounds import KINDS, Confounds

MOST_CODES = 12  # whole numbers of a column that may be codes of categories
# Columns that hold categories, whatever they are coded with
CATEGORIES = {
    "sex", "gender", "site", "site_id", "scanner", "center", "centre", "batch", "study", "group", "diagnosis", "dx",
    "handedness", "race", "ethnicity", "manufacturer",
}  # fmt: skip
FEWEST_OF_A_CATEGORY = 4  # samples, on average
SAME = 0.999  # |r| from which two columns are the same under two names


@dataclass(frozen=True)
class Covariates:
    """What is known of each sample.

    Attributes
    ----------
    confounds : Confounds
    names : tuple of str
        Of the columns, with how each enters, such as age:spline.
    notes : list of str
        What was unknown, left out or decided.
    """

    confounds: Confounds
    names: tuple[str, ...]
    notes: list[str]


def covariates_of(
    table: pd.DataFrame, members: Sequence[np.ndarray], wanted: Sequence[str], coded: Collection[str] = ()
) -> Covariates:
    """Return the covariates of samples.

    Parameters
    ----------
    table : DataFrame
        Runs, joined with the phenotype.
    members : sequence of int array
        Which rows make a sample.
    wanted : sequence of str
        Columns, each with how it enters after a colon if that is not told from its values: age:spline.
    coded : collection of str
        Columns whose numbers are codes.

    Raises
    ------
    NeurostormError
        If a column is missing, differs within a sample, or its kind is unknown.
    """
    columns, kinds, names = [], [], []
    notes: list[str] = []
    for word in wanted:
        name, _, kind = word.partition(":")
        if kind and kind not in KINDS:
            raise NeurostormError(f"--covariates {word}: '{kind}' is none of {', '.join(KINDS)}")
        values = _of_samples(column(table, name), members)
        kind = kind or _kind_of(values, name, coded, notes)
        found = _codes(values) if kind == "categorical" else _numbers(values, name)
        known = found[~np.isnan(found)]
        if kind == "categorical" and len(np.unique(known)) > max(2, len(found) // FEWEST_OF_A_CATEGORY):
            raise NeurostormError(
                f"covariate '{name}' has {len(np.unique(known))} values in {len(found)} samples: as categories these would explain everything"
            )
        if not len(known) or known.std() ** 2 == 0:
            notes.append(f"covariate '{name}' is the same in all samples where it is known: left out")
            continue
        if kind == "log" and known.min() <= 0:
            raise NeurostormError(f"--covariates {word}: '{name}' holds {known.min():g}, which has no logarithm")
        if n_unknown := int(np.isnan(found).sum()):
            notes.append(
                f"covariate '{name}' is unknown for {n_unknown} of {len(found)} samples: these take no part where something "
                "is asked beyond it"
            )
        columns.append(found)
        kinds.append(kind)
        names.append(name if kind == "linear" else f"{name}:{kind}")
    known_of_all = np.column_stack(columns) if columns else np.empty((len(members), 0))
    return Covariates(Confounds(known_of_all, tuple(kinds)), tuple(names), notes)


def looks_coded(values: pd.Series) -> bool:
    """Whether the numbers of a column may be codes: three or more whole ones, few of them."""
    known = pd.to_numeric(values, errors="coerce").dropna()
    distinct = known.unique()
    few = 2 < len(distinct) <= min(MOST_CODES, len(known) // 3)
    return bool(few and (distinct == np.round(distinct)).all() and np.ptp(distinct) < 2 * MOST_CODES)


def _of_samples(values: pd.Series, members: Sequence[np.ndarray]) -> pd.Series:
    """Return one value for each sample: of what differs between its runs, the mean.

    Raises
    ------
    NeurostormError
        If text differs between the runs of a sample.
    """
    of_first = values.iloc[[int(rows[0]) for rows in members]].reset_index(drop=True)
    if all(len(rows) == 1 for rows in members):
        return of_first
    if pd.api.types.is_numeric_dtype(values):
        array = values.to_numpy(float)
        return pd.Series([_mean_of_known(array[rows]) for rows in members], name=values.name)
    for rows in members:
        if values.iloc[rows].nunique() > 1:
            given = ", ".join(map(str, values.iloc[rows].dropna().unique()[:3]))
            raise NeurostormError(
                f"covariate '{values.name}' differs between the runs of a sample ({given}), and is text"
            )
    return pd.Series([_first_known(values.iloc[rows]) for rows in members], name=values.name)


def _kind_of(values: pd.Series, name: str, coded: Collection[str], notes: list[str]) -> str:
    """Tell from a column's values and name how it enters, and note what is not sure."""
    as_numbers = pd.to_numeric(values, errors="coerce")
    if as_numbers.notna().sum() < values.notna().sum():
        return "categorical"
    if as_numbers.nunique() <= 2:
        return "linear"
    if name in coded or (name.lower() in CATEGORIES and looks_coded(values)):
        notes.append(
            f"covariate '{name}': its numbers are taken as codes of categories; {name}:linear takes them as they are"
        )
        return "categorical"
    if looks_coded(values):
        given = ", ".join(f"{v:g}" for v in sorted(as_numbers.dropna().unique())[:4])
        notes.append(
            f"covariate '{name}' ({given}, ...) is taken as a quantity; if these are codes give {name}:categorical"
        )
    return "linear"


def _codes(values: pd.Series) -> np.ndarray:
    """Return categories as 0, 1, ...; NaN where unknown."""
    codes = pd.factorize(values, sort=True)[0].astype(float)
    return np.where(codes < 0, np.nan, codes)


def _numbers(values: pd.Series, name: str) -> np.ndarray:
    as_numbers = pd.to_numeric(values, errors="coerce")
    if as_numbers.notna().sum() < values.notna().sum():
        text = values[values.notna() & as_numbers.isna()].iloc[0]
        raise NeurostormError(f"covariate '{name}' holds text where numbers are needed, such as '{text}'")
    return numbers(values).to_numpy(float)


def _first_known(values: pd.Series) -> object:
    known = values.dropna()
    return known.iloc[0] if len(known) else np.nan


def _mean_of_known(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
