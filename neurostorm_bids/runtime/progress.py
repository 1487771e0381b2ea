"""Tell what is going on: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from typing import Optional

LOG = logging.getLogger("neurostorm")
SECONDS_BETWEEN_LINES = 30.0
BARS = True  # off where several processes would write over each other's


class Progress:
    """Progress of one run through its steps.

    Parameters
    ----------
    run : str
        Name of the run.
    place : str
        Where it stands among the others, such as 2/5.
    """

    def __init__(self, run: str, place: str):
        self.title = f"[{place}] {run}"
        self.bar = None
        self.doing = "choosing the files"

    def step(self, text: str, unit: str):
        """Begin a step; returns a function to be called with (done, in all)."""
        self.close()
        self.say(text)
        if BARS and sys.stderr.isatty():
            return self._on_terminal(text.split()[0], unit)
        started = last = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES and done < total:
                last = now
                left = (now - started) / done * (total - done)
                LOG.info("%s: %d of %d %ss, %s left", self.title, done, total, unit, clock(left))

        return advance

    def say(self, text: str) -> None:
        """Tell what is begun."""
        self.doing = text
        LOG.info("%s: %s", self.title, text)

    def _on_terminal(self, verb: str, unit: str):
        from tqdm import tqdm

        self.bar = tqdm(desc=f"{self.title.split()[0]} {verb}", unit=unit, leave=False, file=sys.stderr)

        def advance(done: int, total: int) -> None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)

        return advance

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> clock(3725), clock(61)
    ('1:02:05', '1:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def start_logging(verbose: int, stream: Optional[object] = None, bars: bool = True) -> None:
    """Send the program's messages to stderr: warnings and progress; with -v details too."""

    class Handler(logging.StreamHandler):
        def format(self, record: logging.LogRecord) -> str:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            text = f"{level}{record.getMessage()}"
            return text + ("\n" + logging.Formatter().formatException(record.exc_info) if record.exc_info else "")

    global BARS
    BARS = bars
    LOG.handlers = [Handler(stream or sys.stderr)]
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    LOG.propagate = False
