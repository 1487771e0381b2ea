"""Stop on a signal: finished work stays, and nothing is left half-written."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # ask a process to end; schedulers warn with the last
GO_ON = 75  # exit status of what stopped in order and can be gone on with (EX_TEMPFAIL of sysexits.h)


class Stopped(SystemExit):
    """A scheduler or the user wants this process to end; it is no error, so no ``except Exception`` catches it.

    Attributes
    ----------
    name : str
        Name of the signal, such as SIGTERM.
    status : int
        The exit status that stands for it: 128 plus the signal's number; `GO_ON` for a scheduler's warning.
    """

    def __init__(self, number: int):
        self.name = signal.Signals(number).name
        self.status = GO_ON if number == signal.SIGUSR1 else 128 + number
        super().__init__(self.status)


def note_signals(noted: list[int]) -> None:
    """Add the numbers of signals that ask this process to end to a list.

    The second Ctrl-C ends at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and noted:
            _stop(number, frame)
        noted.append(number)

    for number in STOPPING:
        signal.signal(number, note)


def stop_on_signals() -> None:
    """Raise `Stopped` in the main thread on SIGTERM, Ctrl-C and SIGUSR1; a second signal does not interrupt the clean-up."""
    if threading.current_thread() is not threading.main_thread():  # signals reach no other thread
        return
    if multiprocessing.parent_process() is not None:  # Ctrl-C reaches workers too; their parent stops them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGUSR1, _stop)


def in_worker(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do a piece of work in a worker process, and end the process on a signal: its pool would wait for more work."""
    try:
        return work(*arguments)
    except Stopped as stop:
        os._exit(stop.status)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """In a process that serves another: that one decides what a signal to both means."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)


def stop_workers() -> None:
    """Terminate all processes that this one has started."""
    for child in multiprocessing.active_children():
        child.terminate()


def _stop(number: int, _frame: Any) -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
