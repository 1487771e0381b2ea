"""What happened during a run, from the raw data set's events.tsv."""

from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.entities import without_echo

MAX_TIME = 10**6  # s; a larger number is no time in a run
COLUMNS = ("onset", "duration", "trial_type")


def find_events(dataset: Dataset, run: str) -> Path | None:
    """Find the events of a run by its name; `None` if the raw data set is not known or has none.

    All echoes of a run share one table, which has no echo in its name.
    """
    if dataset.raw is None:
        return None
    name = without_echo(run)
    parts = name.split("_")
    session = parts[1] if len(parts) > 1 and parts[1].startswith("ses-") else ""
    task = "_".join(part for part in parts if part.startswith("task-"))
    subject = dataset.raw / parts[0]
    paths = (
        subject / session / "func" / f"{name}_events.tsv",
        subject / f"{parts[0]}_{task}_events.tsv",  # BIDS inheritance principle
        dataset.raw / f"{task}_events.tsv",
    )
    return next((path for path in paths if path.is_file()), None)


def read_events(path: Path) -> pd.DataFrame:
    """Read onset and duration (s after the start of the run) and trial_type of all events that have the three.

    Raises
    ------
    NeurostormError
        If the table is unusable.
    """
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise NeurostormError(f"{path} cannot be read as a table ({error})") from None
    times = COLUMNS[:2]
    if missing := [name for name in times if name not in table]:
        raise NeurostormError(f"{path} has no column {missing[0]}; there are: {', '.join(table.columns)}")
    table = table.assign(trial_type=table.get("trial_type", "event"))
    for name in times:
        values = pd.to_numeric(table[name], errors="coerce")
        if wrong := table[name][values.isna() & table[name].notna()].tolist():
            raise NeurostormError(f"{path}: column {name} holds '{wrong[0]}' where a number is needed")
        table[name] = values
    table = table[list(COLUMNS)].dropna()  # numbered as in the file
    for name in times:
        if not np.isfinite(table[name]).all() or table[name].abs().max() > MAX_TIME:
            raise NeurostormError(f"{path}: column {name} holds a number that cannot be a time in s")
    if (table["duration"] < 0).any():
        raise NeurostormError(f"{path}: column duration holds a negative number")
    return table
