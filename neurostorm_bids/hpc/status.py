"""What became of every subject, by what the calls left in OUT_DIR/sub-X/log."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pandas as pd

from neurostorm_bids.derivatives.call_logs import OUTCOME
from neurostorm_bids.derivatives.sidecars import read_json

FINISHED, FAILED, BEGUN, NOT_BEGUN = "finished", "failed", "begun, not ended", "not begun"


@dataclass(frozen=True)
class SubjectStatus:
    """The last call on a subject.

    Attributes
    ----------
    subject : str
    status : {"finished", "failed", "begun, not ended", "not begun"}
        begun, not ended: it runs, or was killed.
    asked : str
        Digest of what was asked for.
    windows : int
    seconds : float or None
    memory_mb : int or None
        Largest memory, MB.
    problem : str
        The first one.
    """

    subject: str
    status: str
    asked: str = ""
    windows: int = 0
    seconds: Optional[float] = None
    memory_mb: Optional[int] = None
    problem: str = ""


def status_of(out_dir: Path, subject: str) -> SubjectStatus:
    """Read the last call's outcome of a subject."""
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
        str(outcome.get("Asked")),
        sum(int(run.get("Windows", 0)) for run in runs),
        outcome.get("Seconds"),
        outcome.get("PeakMemoryMB"),
        problems[0] if problems else "",
    )


def status_table(statuses: "list[SubjectStatus]") -> pd.DataFrame:
    """One row per subject."""
    rows = [
        {
            "participant_id": f"sub-{one.subject}",
            "status": one.status,
            "windows": one.windows,
            "seconds": one.seconds,
            "peak_memory_mb": one.memory_mb,
            "problem": one.problem,
        }
        for one in statuses
    ]
    return pd.DataFrame(
        rows, columns=["participant_id", "status", "windows", "seconds", "peak_memory_mb", "problem"]
    )  # fmt: skip
