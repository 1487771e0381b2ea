"""Stopping on a signal: what is finished stays, what is under way leaves nothing half-written."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable


class Stopped(SystemExit):
    """A scheduler or the user wants this process to end; not an error, so no `except Exception` takes it.

    Attributes
    ----------
    name : str
        Of the signal, such as SIGTERM.
    status : int
        Exit status that says so: 128 and the signal's number.
    """

    def __init__(self, number: int):
        self.name, self.status = signal.Signals(number).name, 128 + number
        super().__init__(self.status)


def stop_on_signals() -> None:
    """Raise `Stopped` in the main thread on SIGTERM and Ctrl-C; a second signal does not disturb the tidying up."""
    if threading.current_thread() is not threading.main_thread():  # only that one is told of signals
        return
    if multiprocessing.parent_process() is not None:  # Ctrl-C reaches workers too: their parent tells them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)


def in_worker(work: Callable, *arguments):
    """Do a piece of work in a worker, which ends when it is told to: its pool would have it wait for more."""
    try:
        return work(*arguments)
    except Stopped as stop:
        os._exit(stop.status)


def stop_workers() -> None:
    """Tell all processes that this one began to stop."""
    for child in multiprocessing.active_children():
        child.terminate()


def _stop(number: int, _frame) -> None:
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    raise Stopped(number)
