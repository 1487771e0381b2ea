"""Several processes that train together: which one this is. Lightning, torchrun or Slurm's srun starts them.

Every process runs the whole command; the main one alone speaks and writes.
"""

import os

# of torchrun; of Lightning's own launcher; of srun
NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_main() -> bool:
    """Whether this is the process that speaks and writes."""
    return not any(os.environ.get(name, "0").isdecimal() and int(os.environ.get(name, "0")) for name in NUMBERS)


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
