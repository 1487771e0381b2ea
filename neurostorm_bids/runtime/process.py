"""This process: its threads, seeds, memory, and what happens to it when its parent is killed."""

import ctypes
import multiprocessing
import os
import random
import resource
import signal
import sys
from pathlib import Path

from neurostorm_bids.runtime.progress import start_logging
from neurostorm_bids.runtime.signals import stop_on_signals

MB = 10**6  # bytes; everything we print or are given in MB means this
SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def prepare_process(threads: int, seed: int, verbose: int, bars: bool) -> None:
    """Set threads, seeds, signals and logging of this process.

    Parameters
    ----------
    bars : bool
        Show progress as bars where stderr is a terminal.
    """
    import numpy as np
    import torch

    start_logging(verbose, bars=bars)
    if multiprocessing.parent_process() is not None:
        end_with_parent(signal.SIGTERM)
    stop_on_signals()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def end_with_parent(how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies; Linux only, elsewhere it ends later by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, how)


def processors() -> int:
    """Return how many processors this process may use, as the scheduler set them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_mb() -> float:
    """Return the memory that this process holds now, MB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return _peak_bytes(resource.RUSAGE_SELF) / MB
    return pages * resource.getpagesize() / MB


def peak_mb() -> float:
    """Return the largest memory that this process, or any one that it started, ever held, MB."""
    return max(_peak_bytes(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / MB


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: Python's own, or PyTorch's on a CPU or a GPU."""
    names = {cls.__name__ for cls in type(error).__mro__}
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or "OutOfMemoryError" in names
        or (isinstance(error, RuntimeError) and ("allocate memory" in said or "out of memory" in said))
    )


def _peak_bytes(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
