"""What the head of a model predicts, read from the output folder."""

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.study import Study

EMBEDDINGS, PREDICTIONS = "_embeddings.tsv", "_predictions.tsv"
VALUE = "prediction"
PROBABILITY = "probability_"


def read_predictions(study: Study) -> pd.DataFrame | None:
    """Return what is predicted of each run of the cohort: its value, or the probabilities of classes.

    Returns
    -------
    DataFrame or None
        A row per run, in the cohort's order, NaN for runs without windows that may be used; `None` for a model without a
        head.

    Raises
    ------
    NeurostormError
        If some runs have predictions and others have none.
    """
    paths = [path.with_name(path.name.removesuffix(EMBEDDINGS) + PREDICTIONS) for path in study.cohort.files]
    there = [path.is_file() for path in paths]
    if not any(there):
        return None
    if not all(there):
        lacking = paths[there.index(False)]
        raise NeurostormError(
            f"{lacking} is missing, though other runs have predictions; run the participant level again"
        )
    rows = []
    for path in paths:
        row = read_table(path).iloc[0]
        probabilities = {name: float(row[name]) for name in row.index if name.startswith(PROBABILITY)}
        rows.append(probabilities or {VALUE: float(row["value"])})
    table = pd.DataFrame(rows)
    if table.isna().to_numpy().any() and len({tuple(row) for row in rows}) > 1:
        raise NeurostormError(
            f"predictions of model '{study.cohort.label}' have different columns; run the participant level again"
        )
    return table


def target_of(study: Study) -> str:
    """Return what the head predicts, as its tables say."""
    path = study.cohort.files[0]
    return str(read_table(path.with_name(path.name.removesuffix(EMBEDDINGS) + PREDICTIONS)).iloc[0]["target"])


def mean_of_samples(table: pd.DataFrame, members: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the mean prediction of each sample over its runs, weighted by windows, (samples, columns)."""
    values = table.to_numpy(float)
    return np.stack([np.average(values[rows], axis=0, weights=weights[rows]) for rows in members])
