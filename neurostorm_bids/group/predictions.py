"""What the head of a model predicts, read from the output folder."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.seen import SEEN_COLUMN
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.cohort import QUALITY, weighted_means
from neurostorm_bids.group.study import Study

EMBEDDINGS, PREDICTIONS = "_embeddings.tsv", "_predictions.tsv"
VALUE = "prediction"
PROBABILITY = "probability_"
MISSING = "n/a"


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
    paths = [_beside(path) for path in study.cohort.files]
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
        row = _row_of(path)
        probabilities = {name: row[name] for name in row if name.startswith(PROBABILITY)} or {VALUE: row["value"]}
        rows.append({name: float(value) if value != MISSING else np.nan for name, value in probabilities.items()})
    table = pd.DataFrame(rows)
    if table.isna().to_numpy().any() and len({tuple(row) for row in rows}) > 1:
        raise NeurostormError(
            f"predictions of model '{study.cohort.label}' have different columns; run the participant level again"
        )
    return table


def target_of(study: Study) -> str:
    """Return what the head predicts, as its tables say."""
    return _row_of(_beside(study.cohort.files[0]))["target"]


def _beside(embeddings: Path) -> Path:
    return embeddings.with_name(embeddings.name.removesuffix(EMBEDDINGS) + PREDICTIONS)


def _row_of(path: Path) -> dict[str, str]:
    """Read a table of one row.

    Raises
    ------
    NeurostormError
        If it is damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError, csv.Error) as error:
        raise NeurostormError(
            f"{path} cannot be read ({error}); remove it and run the participant level again"
        ) from None
    if len(rows) != 1 or None in rows[0] or None in rows[0].values() or not {"target", "value"} <= set(rows[0]):
        raise NeurostormError(f"{path} is damaged; remove it and run the participant level again")
    return rows[0]


def mean_of_samples(table: pd.DataFrame, members: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the mean prediction of each sample over its runs, weighted by windows, (samples, columns)."""
    values = table.to_numpy(float)
    return weighted_means(values, members, weights)


def predictions_of_runs(study: Study) -> pd.DataFrame | None:
    """Return a table of what a model's head predicts of every run; `None` for a model without one."""
    found = read_predictions(study)
    if found is None:
        return None
    runs = study.cohort.runs
    known = [name for name in ("run_name", SUBJECT, SESSION, "task", "windows", SEEN_COLUMN) if name in runs]
    return pd.concat([runs[known], found.assign(target=target_of(study))], axis=1)


def predicted_columns(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return what the columns of `predictions_of_runs` are."""
    columns: dict[str, dict[str, Any]] = {
        "windows": QUALITY["windows"],
        "target": {"Description": "What is predicted"},
        VALUE: {"Description": "Predicted value, mean over windows"},
    }
    return {name: columns[name] for name in columns if name in table} | {
        name: {"Description": f"Probability of {name.removeprefix(PROBABILITY)}"}
        for name in map(str, table)
        if name.startswith(PROBABILITY)
    }
