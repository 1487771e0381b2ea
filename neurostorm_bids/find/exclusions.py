"""Who takes no part, by a table: runs, sessions or subjects, and why."""

import logging
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
    left_out = [f"{run} ({reason})" for run, reason in zip(runs, reasons, strict=True) if reason is not None]
    if left_out:
        more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
        words = f"left out by {selection.exclude}: {', '.join(left_out[:MOST_NAMED])}{more}"
        if len(left_out) == len(runs):
            raise NeurostormError(f"all runs are {words}")
        LOG.warning("%d of %d runs %s", len(left_out), len(runs), words)
    return np.array([reason is None for reason in reasons], dtype=bool)


@lru_cache(maxsize=4)
def read_exclusions(path: Path) -> dict[str, str]:
    """Read who takes no part: name of a run, ``sub-X_ses-Y`` or ``sub-X`` -> why.

    Raises
    ------
    NeurostormError
        If the table names neither runs nor participants.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            path, sep="," if path.suffix == ".csv" else "\t", dtype=str, encoding="utf-8-sig", keep_default_na=False
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
