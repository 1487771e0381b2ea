"""What a target is predicted from: the embedding of each sample, its head motion, and covariates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.find.participants import column
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.group.labels import Labels


@dataclass(frozen=True)
class Samples:
    """What is predicted, for whom, and from what.

    Attributes
    ----------
    labels : Labels
    embeddings : (samples, channels) array
        Mean over a sample's runs, weighted by windows.
    motion : (samples, 2) array
        Mean and largest framewise displacement, mm; NaN where unknown.
    covariates : (samples, n) array
        NaN where unknown.
    """

    labels: Labels
    embeddings: np.ndarray
    motion: np.ndarray
    covariates: np.ndarray


def samples_of(cohort: Cohort, table: pd.DataFrame, labels: Labels, covariates: tuple[str, ...] = ()) -> Samples:
    """Return the features of labelled samples.

    Parameters
    ----------
    table : DataFrame
        The cohort's runs, joined with the phenotype.

    Raises
    ------
    NeurostormError
        If there is no such covariate.
    """
    weights = table["windows"].to_numpy(float)
    first = [rows[0] for rows in labels.members]
    motion = table[["mean_fd", "max_fd"]].to_numpy(float)
    columns = [_encoded(column(table, name).iloc[first]) for name in covariates]
    means = [np.average(cohort.embeddings[rows], axis=0, weights=weights[rows]) for rows in labels.members]
    return Samples(
        labels,
        np.stack(means),
        np.array([[_mean_of_known(values) for values in motion[rows].T] for rows in labels.members]),
        np.column_stack(columns) if columns else np.empty((len(first), 0)),
    )


def varying(columns: np.ndarray) -> np.ndarray:
    """Return the columns with at least two known values that differ."""
    known = [values[~np.isnan(values)] for values in columns.T]
    return columns[:, [len(values) > 1 and bool(np.std(values) > 0) for values in known]]


def _encoded(values: pd.Series) -> np.ndarray:
    """Return a covariate as numbers: text as indicators of all classes but the first; NaN where unknown."""
    as_numbers = pd.to_numeric(values, errors="coerce")
    if as_numbers.notna().sum() == values.notna().sum():
        return as_numbers.to_numpy(float)[:, None]
    indicators = pd.get_dummies(values, drop_first=True).astype(float)
    indicators[values.isna().to_numpy()] = np.nan
    return indicators.to_numpy(float)


def _mean_of_known(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
