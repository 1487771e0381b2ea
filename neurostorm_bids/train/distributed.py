"""Several processes that train together: which one this is. Lightning, torchrun or Slurm's srun starts them.

Every process runs the whole command; the main one alone speaks and writes.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

from neurostorm_bids.errors import NeurostormError

_together = 1  # processes that train together


def join(n: int, nodes: int) -> None:
    """Say how many processes train together, before any other function here is called.

    Raises
    ------
    NeurostormError
        If they are on several nodes and nothing has started them there.
    """
    global _together
    _together = n
    if nodes > 1 and starter() == "lightning":
        raise NeurostormError(
            f"--nodes {nodes}: start the command as srun --nodes {nodes} --ntasks-per-node {n // nodes}, or with torchrun"
        )
    if starter() == "srun" and "SLURM_NTASKS_PER_NODE" not in os.environ:  # Lightning refuses it
        raise NeurostormError(
            f"start the command as srun --nodes {nodes} --ntasks-per-node {n // nodes}, not with --ntasks"
        )


def starter() -> str:
    """Who starts the processes: torchrun, srun, or Lightning on this machine."""
    if _together > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    # a job's own numbers do not mean that srun has started its tasks: those of a step do
    return "srun" if _together > 1 and os.environ.get("SLURM_STEP_NUM_TASKS") == str(_together) else "lightning"


def is_main() -> bool:
    """Whether this is the process that speaks and writes."""
    return number() == 0


def number() -> int:
    """Of this process among those that train together."""
    name = {"torchrun": "RANK", "srun": "SLURM_PROCID", "lightning": "LOCAL_RANK"}[starter()]
    return int(os.environ.get(name) or 0) if _together > 1 else 0


def own_device(asked: str) -> str:
    """The device of this process: where several train on a node's GPUs, each has its own."""
    import torch

    if _together == 1 or asked == "cpu" or not torch.cuda.is_available():
        return asked
    name = "SLURM_LOCALID" if starter() == "srun" else "LOCAL_RANK"
    return f"cuda:{int(os.environ.get(name) or 0)}"


def be_quiet(account: Path) -> None:
    """In a process that is not the main one: write what it says to a file, and end with the main one."""
    account.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(account, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(file, stream)
    if sys.platform == "linux" and starter() == "lightning":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def leave(status: int) -> None:
    """End at once if other processes train with this one: leaving in order could wait for them for ever."""
    if _together > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def share(items: list) -> list:
    """The items that this process works on, of a list that is the same in all."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return items
    return items[dist.get_rank() :: dist.get_world_size()]


def gathered(mine: dict) -> dict:
    """What all processes found, in each of them."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return mine
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {key: value for one in everyone for key, value in one.items()}
