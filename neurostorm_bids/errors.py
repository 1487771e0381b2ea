"""What can go wrong in a way that users are meant to read about."""

from dataclasses import dataclass


class NeurostormError(Exception):
    """A problem with the user's input or machine, in one line: which file, what is wrong, what to do.

    Any other exception that reaches the user is a bug.
    """


@dataclass(frozen=True)
class Problem:
    """A problem that does not stop the other runs.

    Attributes
    ----------
    text : str
        One line: what is wrong and what to do.
    subject : str or None
        Label of the subject it belongs to; `None` if it belongs to the call as a whole.
    run : str or None
        Name of the run it belongs to, such as sub-01_task-rest.
    """

    text: str
    subject: str | None = None
    run: str | None = None

    def __str__(self) -> str:
        return f"{self.run}: {self.text}" if self.run else self.text
