"""Report progress: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

LOG = logging.getLogger("neurostorm")
SECONDS_BETWEEN_LINES = 30.0
BARS = True  # off where several processes would overwrite each other's

Advance = Callable[[int, int], None]  # called with (done, total)


class Progress:
    """Progress of one run through its steps.

    Parameters
    ----------
    run : str
        Name of the run.
    position : str
        Which of the runs it is, such as 2/5.
    """

    def __init__(self, run: str, position: str):
        self.title = f"[{position}] {run}"
        self.bar: Any = None
        self.doing = "choosing the files"

    def step(self, text: str, unit: str, holds: tuple[int, str] | None = None) -> Advance:
        """Begin a step; returns a function to be called with (done, total).

        Parameters
        ----------
        holds : tuple of int and str, optional
            What each unit holds, such as 8 clips: how many of these are done in a second is said too.
        """
        self.close()
        self.say(text)
        if BARS and sys.stderr.isatty():
            return self._on_terminal(text.split()[0], unit, holds)
        started = last = time.monotonic()
        before: int | None = None  # what an earlier call has done

        def advance(done: int, total: int) -> None:
            nonlocal last, before
            now, before = time.monotonic(), done - 1 if before is None else before
            if now - last >= SECONDS_BETWEEN_LINES and done < total:
                last = now
                left = (now - started) / (done - before) * (total - done)
                pace = _pace(done - before, now - started, holds)
                LOG.info("%s: %d of %d %ss, %s left%s", self.title, done, total, unit, clock(left), pace)

        return advance

    def say(self, text: str) -> None:
        """Log what begins now."""
        self.doing = text
        LOG.info("%s: %s", self.title, text)

    def _on_terminal(self, verb: str, unit: str, holds: tuple[int, str] | None) -> Advance:
        from tqdm import tqdm

        self.bar = bar = tqdm(desc=f"{self.title.split()[0]} {verb}", unit=unit, leave=False, file=sys.stderr)

        started = time.monotonic()

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(_pace(done, time.monotonic() - started, holds).removeprefix(", "), refresh=False)
            bar.update(done - bar.n)

        return advance

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _pace(done: int, seconds: float, holds: tuple[int, str] | None) -> str:
    """Return how many of what units hold are done in a second, in words; empty where they hold nothing.

    >>> _pace(10, 4.0, (8, "clips")), _pace(10, 4.0, None)
    (', 20 clips a second', '')
    """
    return "" if holds is None else f", {holds[0] * done / max(seconds, 1e-9):.3g} {holds[1]} a second"


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss or m:ss.

    >>> clock(3725), clock(61)
    ('1:02:05', '1:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def start_logging(verbose: int, stream: TextIO | None = None, bars: bool = True) -> None:
    """Send the program's messages to stderr: warnings and progress; details too if ``verbose``, warnings alone if it is below 0."""

    class Handler(logging.StreamHandler):
        def format(self, record: logging.LogRecord) -> str:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            text = f"{level}{record.getMessage()}"
            return text + ("\n" + logging.Formatter().formatException(record.exc_info) if record.exc_info else "")

    global BARS
    BARS = bars and verbose >= 0
    LOG.handlers = [Handler(stream or sys.stderr)]
    LOG.setLevel(logging.WARNING if verbose < 0 else logging.DEBUG if verbose else logging.INFO)
    LOG.propagate = False
