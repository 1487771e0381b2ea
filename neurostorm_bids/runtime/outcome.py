"""What became of each run of a call, and the table of them that ends it."""

from collections.abc import Iterable
from dataclasses import dataclass

STATUS = {"done": "done", "skipped": "finished earlier, skipped", "failed": "FAILED"}


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes
    ----------
    run : str
        Name of the run.
    subject : str
        Label of its subject.
    status : {"done", "skipped", "failed", "busy"}
        busy: another process is working on it.
    windows : int
        Windows encoded, over all models.
    seconds : float
        How long it took.
    problems : tuple of str
        Why it failed, one line each.
    account : str
        What was being done when it failed, for the crash file.
    failed_models : tuple of str
        Labels of the models that have no result because of the failure.
    """

    run: str
    subject: str
    status: str
    windows: int = 0
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    account: str = ""
    failed_models: tuple[str, ...] = ()

    def lacks(self, label: str) -> bool:
        """Whether the run failed before a model had a result, so that what an earlier call wrote is out of date."""
        return self.failed and (label in self.failed_models or not (self.failed_models or self.windows))

    @property
    def failed(self) -> bool:
        """Whether the run failed."""
        return self.status == "failed"


def summary_table(outcomes: Iterable[Outcome]) -> str:
    """Return a plain-text table: run, windows, seconds, status."""
    rows = [("run", "windows", "seconds", "status")]
    rows += [(o.run, str(o.windows), f"{o.seconds:.1f}", STATUS[o.status]) for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )
