"""What became of every subject, from what the calls left in OUT_DIR/sub-X/log."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.derivatives.call_logs import FAILED, FINISHED, OUTCOME
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import read_json

BEGUN, NOT_BEGUN = "begun, not ended", "not begun"


@dataclass(frozen=True)
class SubjectStatus:
    """The last call on a subject.

    Attributes
    ----------
    subject : str
    status : {"finished", "failed", "begun, not ended", "not begun"}
        begun, not ended: it is running, or was killed.
    requested : str
        Digest of what was asked for.
    windows : int
    seconds : float or None
    memory_mb : int or None
        Largest memory, MB of 10^6 bytes.
    problem : str
        The first one.
    """

    subject: str
    status: str
    requested: str = ""
    windows: int = 0
    seconds: float | None = None
    memory_mb: int | None = None
    problem: str = ""


def status_of(out_dir: Path, subject: str) -> SubjectStatus:
    """Read the outcome of the last call on a subject."""
    calls = sorted(path for path in out_dir.glob(f"sub-{subject}/log/*") if path.is_dir())  # named by time
    if not calls:
        return SubjectStatus(subject, NOT_BEGUN)
    outcome = read_json(calls[-1] / OUTCOME)
    if not outcome:
        return SubjectStatus(subject, BEGUN)
    runs = [run for run in (outcome.get("Runs") or {}).values() if isinstance(run, dict)]
    problems = [problem for run in runs for problem in run.get("Problems", [])]
    return SubjectStatus(
        subject,
        FINISHED if outcome.get("Status") == FINISHED else FAILED,
        str(outcome.get("Requested")),
        sum(int(run.get("Windows", 0)) for run in runs),
        outcome.get("Seconds"),
        outcome.get("PeakMemoryMB"),
        problems[0] if problems else "",
    )


def write_status(path: Path, statuses: Sequence[SubjectStatus]) -> None:
    """Write a table with a row per subject."""
    columns = ("participant_id", "status", "windows", "seconds", "peak_memory_mb", "problem")
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        table.writerow(columns)
        for one in statuses:
            values = (one.windows, one.seconds, one.memory_mb, one.problem)
            table.writerow([f"sub-{one.subject}", one.status, *("n/a" if v is None else v for v in values)])


def count(statuses: Sequence[SubjectStatus]) -> str:
    """Return how many subjects have each status, in words.

    >>> count([SubjectStatus("01", FAILED), SubjectStatus("02", FINISHED), SubjectStatus("03", FINISHED)])
    '2 finished, 1 failed'
    """
    return ", ".join(f"{n} {status}" for status, n in Counter(one.status for one in statuses).most_common())
