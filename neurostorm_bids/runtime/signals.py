"""Stop on a signal: finished work stays, and nothing is left half-written."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any


class Stopped(SystemExit):
    """A scheduler or the user wants this process to end; it is no error, so no ``except Exception`` catches it.

    Attributes
    ----------
    name : str
        Name of the signal, such as SIGTERM.
    status : int
        The exit status that stands for it: 128 plus the signal's number.
    """

    def __init__(self, number: int):
        self.name, self.status = signal.Signals(number).name, 128 + number
        super().__init__(self.status)


def stop_on_signals() -> None:
    """Raise `Stopped` in the main thread on SIGTERM and Ctrl-C; a second signal does not interrupt the clean-up."""
    if threading.current_thread() is not threading.main_thread():  # signals reach no other thread
        return
    if multiprocessing.parent_process() is not None:  # Ctrl-C reaches workers too; their parent stops them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)


def in_worker(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do a piece of work in a worker process, and end the process on a signal: its pool would wait for more work."""
    try:
        return work(*arguments)
    except Stopped as stop:
        os._exit(stop.status)


def stop_workers() -> None:
    """Terminate all processes that this one has started."""
    for child in multiprocessing.active_children():
        child.terminate()


def _stop(number: int, _frame: Any) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
