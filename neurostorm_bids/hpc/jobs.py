"""The options of a job array: what a task gets of the cluster, and which subjects it takes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.derivatives.call_logs import FINISHED
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.hpc.status import SubjectStatus
from neurostorm_bids.runtime.options import option

LARGEST_ARRAY = 1000  # tasks; Slurm's default limit is just above
# of a subject that nothing is known of: three times what a base model took here, and half an hour
MEMORY_MB, SECONDS = 3000, 1800
SPARE = 1.3  # times the memory that earlier calls took
TRAININGS = ("pretrain", "finetune")
# of a process that trains, unless it is said: twice what the clips take that are read ahead for eight a step; and a day
TRAINING_MB, TRAINING_SECONDS = 32000, 86400


@dataclass(frozen=True)
class JobOptions:
    """What is asked of the scheduler."""

    title: ClassVar[str] = "Options"

    participant_label: tuple[str, ...] = option(
        (),
        "A subject, with or without sub-; may be repeated; @FILE for a list.",
        prefix="sub-",
        column="participant_id",
        metavar="LABEL",
        shown_default="all",
    )
    subjects_per_task: int | None = option(
        None,
        "Subjects that one task takes.",
        least=1,
        metavar="N",
        shown_default=f"1; more above {LARGEST_ARRAY} subjects",
    )
    at_a_time: int | None = option(None, "Tasks that may run at the same time.", least=1, metavar="N")
    container: Path | None = option(
        None, "Image for Apptainer (.sif).", must_exist=True, shown_default="neurostorm of the node's PATH"
    )
    cpus: int = option(2, "Processors of a task.", least=1, metavar="N")
    mem_mb: int | None = option(
        None, "Memory of a task, MB.", least=1, metavar="MB", shown_default="from earlier calls"
    )
    time: str | None = option(
        None,
        "Time of a task.",
        metavar="H:MM:SS",
        pattern=r"(\d+-)?\d+:\d\d:\d\d",
        pattern_help="H:MM:SS",
        shown_default="from earlier calls",
    )
    gpu: bool = option(False, "Ask for a GPU (--gres=gpu:1), and use it.")
    partition: str | None = option(None, "Slurm's partition.", metavar="NAME")
    account: str | None = option(None, "Slurm's account.", metavar="NAME")
    sbatch_option: tuple[str, ...] = option((), "Another option of sbatch; may be repeated.", metavar="--NAME=VALUE")
    group: str | None = option(
        None, "Write a job of the group level too, with these options, to run after the array.", metavar="OPTIONS"
    )
    group_task: str | None = option(
        None,
        "Write one job that trains, with the options after --, instead of an array; it goes on by itself after its time.",
        choices=TRAININGS,
    )
    nodes: int = option(1, "Nodes that train together.", least=1)
    gpus: int = option(0, "GPUs of each node that train together; 0: processors.", least=0)
    all: bool = option(False, "Take finished subjects too.")
    submit: bool = option(False, "Submit what is written.")


@dataclass(frozen=True)
class JobResources:
    """What a task asks the scheduler for.

    Attributes
    ----------
    cpus : int
    memory_mb : int
    seconds : int
        Of a whole task.
    gpu : bool
    more : tuple of str
        Other options of sbatch, such as ``--partition=gpu``.
    """

    cpus: int
    memory_mb: int
    seconds: int
    gpu: bool = False
    more: tuple[str, ...] = ()


def resources_for(statuses: Sequence[SubjectStatus], subjects_per_task: int, options: JobOptions) -> JobResources:
    """Ask for what earlier calls took, with something to spare; for a generous guess where there were none.

    Raises
    ------
    NeurostormError
        If an option is no option of sbatch.

    Examples
    --------
    >>> took = [SubjectStatus("01", "finished", windows=15, seconds=100.0, memory_mb=1000)]
    >>> resources_for(took, 2, JobOptions(partition="long"))
    JobResources(cpus=2, memory_mb=1300, seconds=700, gpu=False, more=('--partition=long',))
    """
    worked = [one for one in statuses if one.status == FINISHED and one.windows]  # not those that found all done
    memories = [one.memory_mb for one in worked if one.memory_mb]
    times = [one.seconds for one in worked if one.seconds]
    return JobResources(
        options.cpus,
        options.mem_mb or (math.ceil(SPARE * max(memories)) if memories else MEMORY_MB),
        seconds_of(options.time) or math.ceil((2 * max(times) if times else SECONDS) * subjects_per_task) + 300,
        options.gpu,
        more_of(options),
    )


def more_of(options: JobOptions) -> tuple[str, ...]:
    """Return the other options of sbatch that are asked for.

    Raises
    ------
    NeurostormError
        If one is no option of sbatch.
    """
    named = (("partition", options.partition), ("account", options.account))
    more = (*(f"--{name}={value}" for name, value in named if value), *options.sbatch_option)
    if bad := [each for each in more if "\n" in each or not each.startswith("-")]:
        raise NeurostormError(f"--sbatch-option '{bad[0]}' is no option of sbatch; give it as --name=value")
    return more


def seconds_of(time: str | None) -> int:
    """Return a time as Slurm writes it in seconds.

    >>> seconds_of("1-02:00:05")
    93605
    """
    days, hours, minutes, seconds = (
        map(int, re.split("[-:]", time if "-" in time else f"0-{time}")) if time else (0,) * 4
    )
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def batches(subjects: Sequence[str], subjects_per_task: int | None) -> list[Sequence[str]]:
    """Distribute subjects over tasks.

    Raises
    ------
    NeurostormError
        If there would be more tasks than Slurm takes.
    """
    needed = math.ceil(len(subjects) / LARGEST_ARRAY)
    size = subjects_per_task or needed
    if size < needed:
        raise NeurostormError(
            f"{len(subjects)} subjects make more than {LARGEST_ARRAY} tasks: give --subjects-per-task {needed} or more"
        )
    return [subjects[i : i + size] for i in range(0, len(subjects), size)]
