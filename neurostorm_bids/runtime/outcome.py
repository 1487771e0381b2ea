"""The table at the end of a call."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes
    ----------
    run : str
    status : {"done", "skipped", "failed", "busy"}
        busy: another process is at it.
    windows : int
        Encoded, over all models.
    seconds : float
    problems : tuple of str
        Why it failed, a line each.
    account : str
        What was being done when it failed, for the crash file.
    """

    run: str
    status: str
    windows: int = 0
    seconds: float = 0.0
    problems: tuple = ()
    account: str = ""

    @property
    def subject(self) -> str:
        """Label of the run's subject."""
        return self.run.split("_")[0].removeprefix("sub-")


STATUS = {"done": "done", "skipped": "finished earlier, skipped", "failed": "FAILED"}


def summary_table(outcomes: "list[Outcome]") -> str:
    """The table as plain text: run, windows, seconds, status."""
    rows = [("run", "windows", "seconds", "status")]
    rows += [(o.run, str(o.windows), f"{o.seconds:.1f}", STATUS[o.status]) for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )
