"""Processors and memory: how many threads, how many windows at a time, and seeds."""

import math
import os
import random
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from neurostorm_bids.encode.load import Model
from neurostorm_bids.encode.windows import clip_bytes
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.progress import start_logging
from neurostorm_bids.settings import Settings


def prepare_process(settings: Settings) -> None:
    """Threads, seeds and messages of this process."""
    start_logging(settings.verbose)
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    torch.set_num_threads(settings.threads)
    random.seed(settings.random_seed)
    np.random.seed(settings.random_seed % 2**32)
    torch.manual_seed(settings.random_seed)


def batch_size(model: Model, settings: Settings) -> int:
    """Windows to encode at a time: more do not help a CPU, and each takes memory.

    Raises
    ------
    NeurostormError
        If ``mem_mb`` has no room for one.
    """
    wanted = settings.batch_size or (8 if model.device.type == "cuda" else 1)
    if settings.mem_mb is None or model.device.type == "cuda":
        return wanted
    used = resident_mb()
    left = settings.mem_mb / settings.nprocs - used
    each = clip_bytes(model) / 2**20
    if left < each:
        needed = math.ceil((used + each) * settings.nprocs)
        raise NeurostormError(
            f"--mem-mb {settings.mem_mb} is too little: this run needs about {needed} MB with --nprocs {settings.nprocs}; "
            "give more, or use a smaller --nprocs"
        )
    return min(wanted, int(left / each))


def resident_mb() -> float:
    """Memory that this process holds now, MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20
