"""What happened during a run, from the raw data set's events.tsv."""

from pathlib import Path
from typing import Optional

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset

LONGEST = 10**6  # s
EVENTS = ("onset", "duration", "trial_type")


def find_events(dataset: Dataset, run: str) -> Optional[Path]:
    """The events of a run, by its name; `None` if the raw data set is not known or has none.

    The echo is left out of the name: all echoes have one table.
    """
    if dataset.raw is None:
        return None
    entities = [part for part in run.split("_") if not part.startswith("echo-")]
    folder = dataset.raw / entities[0]
    if len(entities) > 1 and entities[1].startswith("ses-"):
        folder = folder / entities[1]
    shared = "_".join(part for part in entities if part.startswith("task-"))
    paths = (
        folder / "func" / f"{'_'.join(entities)}_events.tsv",
        dataset.raw / entities[0] / f"{entities[0]}_{shared}_events.tsv",  # inherited, as BIDS says
        dataset.raw / f"{shared}_events.tsv",
    )
    return next((path for path in paths if path.is_file()), None)


def read_events(path: Path) -> pd.DataFrame:
    """Onset and duration, s after the start of the run, and trial_type, of all events that have the three.

    Raises
    ------
    NeurostormError
        If the table is unusable.
    """
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise NeurostormError(f"{path} cannot be read as a table ({error})") from None
    if missing := [name for name in EVENTS[:2] if name not in table]:
        raise NeurostormError(f"{path} has no column {missing[0]}; there are: {', '.join(table.columns)}")
    table = table.assign(trial_type=table.get("trial_type", "event"))
    for name in EVENTS[:2]:
        values = pd.to_numeric(table[name], errors="coerce")
        if wrong := table[name][values.isna() & table[name].notna()].tolist():
            raise NeurostormError(f"{path}: column {name} holds '{wrong[0]}' where a number is needed")
        table[name] = values
    table = table[list(EVENTS)].dropna().reset_index(drop=True)
    if wrong := [
        name for name in EVENTS[:2] if not np.isfinite(table[name]).all() or table[name].abs().max() > LONGEST
    ]:
        raise NeurostormError(f"{path}: column {wrong[0]} holds a number that is no time in s")
    if (table["duration"] < 0).any():
        raise NeurostormError(f"{path}: column duration holds a negative number")
    return table
