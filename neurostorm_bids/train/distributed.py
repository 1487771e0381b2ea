"""Several processes that train together: which one this is. Lightning, torchrun or Slurm's srun starts them.

Every process runs the whole command; the one of rank 0 alone speaks and writes.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.process import end_with_parent
from neurostorm_bids.runtime.signals import Stopped

LOG = logging.getLogger("neurostorm")
AnyItem = TypeVar("AnyItem")
_world_size = 1  # processes that train together


def setup(world_size: int, nodes: int) -> None:
    """Say how many processes train together, before any other function here is called.

    Raises
    ------
    NeurostormError
        If they are on several nodes and nothing has started them there.
    """
    global _world_size
    _world_size = world_size
    srun = f"srun --nodes {nodes} --ntasks-per-node {world_size // nodes}"
    if nodes > 1 and launcher() == "lightning":
        raise NeurostormError(f"--nodes {nodes}: start the command with {srun}, or with torchrun")
    if launcher() == "srun" and "SLURM_NTASKS_PER_NODE" not in os.environ:  # Lightning refuses it
        raise NeurostormError(f"start the command with {srun}, not with --ntasks")


def launcher() -> str:
    """Return who starts the processes: torchrun, srun, or Lightning on this machine."""
    if _world_size > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    # a job's own numbers do not mean that srun has started its tasks: those of a step do
    started_by_srun = os.environ.get("SLURM_STEP_NUM_TASKS") == str(_world_size)
    return "srun" if _world_size > 1 and started_by_srun else "lightning"


def rank() -> int:
    """Return the number of this process among those that train together."""
    name = {"torchrun": "RANK", "srun": "SLURM_PROCID", "lightning": "LOCAL_RANK"}[launcher()]
    return int(os.environ.get(name) or 0) if _world_size > 1 else 0


def is_rank_zero() -> bool:
    """Whether this is the process that speaks and writes."""
    return rank() == 0


def is_first_of_node() -> bool:
    """Whether this is the first of the processes that train on its node."""
    name = "SLURM_LOCALID" if launcher() == "srun" else "LOCAL_RANK"
    return int(os.environ.get(name) or 0) == 0


def own_device(asked: str) -> str:
    """Return the device of this process: where several train on the GPUs of a node, each has its own."""
    import torch

    if _world_size == 1 or asked == "cpu" or not torch.cuda.is_available():
        return asked
    name = "SLURM_LOCALID" if launcher() == "srun" else "LOCAL_RANK"
    return f"cuda:{int(os.environ.get(name) or 0)}"


def redirect_output(path: Path) -> None:
    """In a process that is not of rank 0: write what it says to a file, and end with the one of rank 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(file, stream)
    if launcher() == "lightning":
        end_with_parent(signal.SIGKILL)


def exit_all(status: int) -> None:
    """End at once if other processes train with this one: an orderly exit could wait for them for ever."""
    if _world_size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def shard(items: list[AnyItem]) -> list[AnyItem]:
    """Return the items that this process works on, of a list that is the same in all."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return items
    return items[dist.get_rank() :: dist.get_world_size()]


def all_gather(mine: dict[Any, Any]) -> dict[Any, Any]:
    """Return what all processes found, in each of them."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return mine
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {key: value for each in everyone for key, value in each.items()}


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End all processes that train together when one of them ends with an error or a signal."""
    try:
        yield
    except Stopped as stop:
        exit_all(stop.status)
        raise
    except Exception as error:
        if _world_size > 1:  # the process ends here: nobody else will report it
            expected = isinstance(error, NeurostormError)
            LOG.error("%s", error if expected else f"unexpected {type(error).__name__}: {error} (a bug)")
            LOG.debug("its origin", exc_info=True)
        exit_all(1)
        raise
