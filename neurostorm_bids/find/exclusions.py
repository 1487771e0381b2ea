"""Who takes no part, by a table: runs, sessions or subjects, and why."""

import csv
import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.entities import entities_of
from neurostorm_bids.settings.participant import Selection

LOG = logging.getLogger("neurostorm")
RUN, SUBJECT, SESSION, REASON = "run_name", "participant_id", "session_id", "reason"
NO_REASON = "no reason given"
MOST_NAMED = 5


def excluded(selection: Selection, run: str) -> str | None:
    """Return why a run takes no part; `None` if it does.

    Parameters
    ----------
    run : str
        Such as sub-01_ses-1_task-rest_run-01.

    Raises
    ------
    NeurostormError
        If the table of --exclude is unusable.
    """
    if selection.exclude is None:
        return None
    reasons, entities = read_exclusions(selection.exclude), entities_of(run)
    subject, session = f"sub-{entities.get('sub')}", f"ses-{entities.get('ses')}"
    return next((reasons[key] for key in (run, f"{subject}_{session}", subject) if key in reasons), None)


def which_stay(selection: Selection, runs: Sequence[str]) -> np.ndarray:
    """Return which runs take part, (runs,) bool, and say who does not and why.

    Raises
    ------
    NeurostormError
        If none is left, or the table is unusable.
    """
    reasons = [excluded(selection, run) for run in runs]
    warn_of_near_misses(selection, runs)
    left_out = [f"{run} ({reason})" for run, reason in zip(runs, reasons, strict=True) if reason is not None]
    if left_out:
        more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
        words = f"left out by {selection.exclude}: {', '.join(left_out[:MOST_NAMED])}{more}"
        if len(left_out) == len(runs):
            raise NeurostormError(f"all runs are {words}")
        LOG.warning("%d of %d runs %s", len(left_out), len(runs), words)
    return np.array([reason is None for reason in reasons], dtype=bool)


def read_exclusions(path: Path) -> dict[str, str]:
    """Read who takes no part: name of a run, ``sub-X_ses-Y`` or ``sub-X`` -> why.

    Raises
    ------
    NeurostormError
        If the table names neither runs nor participants.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise NeurostormError(f"--exclude {path} cannot be read as a table ({error})") from None


def warn_of_near_misses(selection: Selection, runs: Sequence[str]) -> None:
    """Say which lines of the table name nobody, but somebody who is there otherwise: run-1 for run-01, sub-1 for sub-01."""
    if selection.exclude is None:
        return
    by_number: dict[str, str] = {}
    for run in runs:
        parts = run.split("_")
        for key in (run, "_".join(parts[:2]), parts[0]):
            by_number.setdefault(_without_zeros(key), key)
    for key in read_exclusions(selection.exclude):
        there = by_number.get(_without_zeros(key.removesuffix("_bold")))
        if there is not None and there != key:
            LOG.warning(
                "%s: %s names nobody, and nobody is left out by it; is %s meant?", selection.exclude, key, there
            )


def _without_zeros(name: str) -> str:
    return re.sub(r"-0+(?=[0-9])", "-", name)


@lru_cache(maxsize=4)
def _read(path: Path, _written: int) -> dict[str, str]:
    import pandas as pd

    is_comma = path.suffix == ".csv"
    try:
        table = pd.read_csv(
            path,
            sep="," if is_comma else "\t",
            quoting=csv.QUOTE_MINIMAL if is_comma else csv.QUOTE_NONE,  # of tab-separated values, a quote is a letter
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
        )
    except (OSError, ValueError) as error:
        raise NeurostormError(f"--exclude {path} cannot be read as a table ({error})") from None
    if RUN not in table and SUBJECT not in table:
        raise NeurostormError(
            f"--exclude {path} has neither a column {RUN} nor {SUBJECT}; there are: {', '.join(map(str, table)) or 'none'}"
        )
    found: dict[str, str] = {}
    for row in table.to_dict("records"):
        values = {
            str(name): value.strip() for name, value in row.items() if isinstance(value, str) and value.strip() != "n/a"
        }
        if key := _key_of(values):
            found[key] = values.get(REASON) or NO_REASON
    return found


def _key_of(values: dict[str, str]) -> str:
    if run := values.get(RUN, ""):
        return run if run.startswith("sub-") else f"sub-{run}"
    subject, session = (values.get(name, "") for name in (SUBJECT, SESSION))
    if not subject:
        return ""
    whole = f"sub-{subject.removeprefix('sub-')}"
    return f"{whole}_ses-{session.removeprefix('ses-')}" if session else whole
