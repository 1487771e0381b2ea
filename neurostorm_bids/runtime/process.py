"""Processors and memory: how many threads, how many windows at a time, and seeds."""

import ctypes
import math
import multiprocessing
import os
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from neurostorm_bids.encode.windows import clip_bytes
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import cpu_encoder as cpu
from neurostorm_bids.model.load import Model
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.runtime.progress import start_logging
from neurostorm_bids.runtime.signals import stop_on_signals
from neurostorm_bids.settings import Settings

MOST_ON_GPU = 16  # windows at a time
PLACING_MB = 400  # beside what the libraries take: measured on runs of 2 mm


def prepare_process(settings: Settings) -> None:
    """Threads, seeds and messages of this process."""
    start_logging(settings.verbose, bars=settings.nprocs == 1)
    end_with_parent()
    stop_on_signals()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    torch.set_num_threads(settings.threads)
    random.seed(settings.random_seed)
    np.random.seed(settings.random_seed % 2**32)
    torch.manual_seed(settings.random_seed)


def end_with_parent() -> None:
    """Have the kernel end a worker whose parent was killed; elsewhere than on Linux it ends by itself, later."""
    if sys.platform == "linux" and multiprocessing.parent_process() is not None:
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def check_precision(models: "list[Model]", settings: Settings) -> None:
    """Refuse half precision where it would only be slower.

    Raises
    ------
    NeurostormError
        If the processor has no instructions for it.
    """
    on_cpu = any(model.device.type == "cpu" for model in models)
    if settings.precision == "bf16" and on_cpu and not (cpu.has_bfloat16() and kernels.library()):
        raise NeurostormError("--precision bf16: this processor has no bfloat16 instructions; use --precision fp32")
    if settings.precision == "fp16" and on_cpu:
        raise NeurostormError("--precision fp16 is for GPUs; on a CPU use --precision fp32, or bf16")


def check_memory(models: "list[Model]", settings: Settings) -> None:
    """Say before the work begins that ``mem_mb`` is too little for it.

    Raises
    ------
    NeurostormError
        With what is needed.
    """
    if settings.mem_mb is None:
        return
    of_one = resident_mb() + PLACING_MB + max(_window_mb(model) for model in models)
    needed = math.ceil(of_one * settings.nprocs)
    if settings.mem_mb < needed:
        raise NeurostormError(
            f"--mem-mb {settings.mem_mb} is too little: {settings.nprocs} run(s) at a time need about {needed} MB; "
            "give more" + (", or use a smaller --nprocs" if settings.nprocs > 1 else "")
        )


def batch_size(model: Model, settings: Settings) -> int:
    """Windows to encode at a time.

    On a GPU as many as its free memory has room for, up to where more fill no further cores. On a CPU one, since more
    do not help it, and never more than ``mem_mb`` has room for.
    """
    if model.device.type == "cuda":
        free_mb = torch.cuda.mem_get_info(model.device)[0] / 2**20 / settings.nprocs
        return settings.batch_size or max(1, min(MOST_ON_GPU, int(0.8 * free_mb / _window_mb(model))))
    wanted = settings.batch_size or 1
    if settings.mem_mb is None:
        return wanted
    left = settings.mem_mb / settings.nprocs - resident_mb()
    return max(1, min(wanted, int(left / _window_mb(model))))


def _window_mb(model: Model) -> float:
    return clip_bytes(model) / 2**20


def resident_mb() -> float:
    """Memory that this process holds now, MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20
