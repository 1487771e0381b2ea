"""Write job scripts for Slurm: an array over subjects and, if wanted, a job of the group level after it."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.hpc.jobs import JobResources
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.signals import GO_ON

WARNING_SECONDS = 60  # before the time is up, so that the run under way ends in order
TRAINING_WARNING_SECONDS = 300  # so that the step under way, or a look at held-out people, does


def array_script(
    folder: Path, n_tasks: int, at_a_time: int | None, resources: JobResources, words: Sequence[str]
) -> str:
    """Return the script of the array: task i takes the subjects in line i of subjects.txt.

    Parameters
    ----------
    words : sequence of str
        The call of neurostorm, without subjects.
    """
    limit = f"%{at_a_time}" if at_a_time else ""
    subjects = shlex.quote(str(folder / "subjects.txt"))
    return "\n".join(
        [
            "#!/bin/bash",
            "#SBATCH --job-name=neurostorm",
            f"#SBATCH --array=1-{n_tasks}{limit}",
            f"#SBATCH --output={_one_word(folder)}/%A_%a.log",
            *_directives(resources),
            "set -euo pipefail",
            f'read -r -a subjects <<< "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {subjects})"',
            # exec: the scheduler's signals reach the program itself
            f'exec {shlex.join(words)} --omp-nthreads "$SLURM_CPUS_PER_TASK" --participant-label "${{subjects[@]}}"',
            "",
        ]
    )


def group_script(folder: Path, resources: JobResources, words: Sequence[str]) -> str:
    """Return the script of the group level."""
    lines = ["#!/bin/bash", "#SBATCH --job-name=neurostorm-group", f"#SBATCH --output={_one_word(folder)}/group.log"]
    return "\n".join([*lines, *_directives(resources), "set -euo pipefail", f"exec {shlex.join(words)}", ""])


def training_script(
    folder: Path, nodes: int, gpus: int, resources: JobResources, words: Sequence[str], begun: Path
) -> str:
    """Return the script of a training on several GPUs and nodes, which goes back to the queue when its time is up.

    Slurm warns the processes before that; they save a step and end with status 75.

    Parameters
    ----------
    gpus : int
        Of each node; 0 for one process on processors.
    words : sequence of str
        The call of neurostorm.
    begun : Path
        Is there once the training has begun.
    """
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=neurostorm-training",
        f"#SBATCH --output={_one_word(folder)}/%j.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        f"#SBATCH --nodes={nodes}",
        f"#SBATCH --ntasks-per-node={max(1, gpus)}",
        *(line for line in _directives(resources) if "--ntasks=" not in line and "--signal=" not in line),
        *([f"#SBATCH --gres=gpu:{gpus}"] if gpus else []),
        f"#SBATCH --signal=USR1@{TRAINING_WARNING_SECONDS}",
        "set -u",
        "resume=()",
        f"if [ -e {shlex.quote(str(begun))} ]; then resume=(--resume); fi",
        # a container sees no variables but those that are given to it, and Slurm's say which process this is
        """give='for name in ${!SLURM_@}; do export "APPTAINERENV_$name=${!name}"; done; exec "$@"'""",
        f'srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c "$give" task {shlex.join(words)} "${{resume[@]}}"',
        "status=$?",
        f'if [ "$status" = {GO_ON} ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit "$status"',
        "",
    ]
    return "\n".join(lines)


def write_training(folder: Path, script: str) -> Path:
    """Write the script of a training; returns its path."""
    write_text(folder / "training.sbatch", script)
    return folder / "training.sbatch"


def write_scripts(folder: Path, tasks: Sequence[Sequence[str]], array: str | None, group: str | None) -> None:
    """Write subjects.txt and array.sbatch, if any are left, and group.sbatch, if it is wanted."""
    if array is not None:
        write_text(folder / "subjects.txt", "".join(" ".join(task) + "\n" for task in tasks))
        write_text(folder / "array.sbatch", array)
    if group is not None:
        write_text(folder / "group.sbatch", group)


def submit(folder: Path) -> list[str]:
    """Submit what was written; the group job waits until the whole array has succeeded. Returns the jobs' numbers.

    Raises
    ------
    NeurostormError
        If there is no Slurm here, or it refuses.
    """
    first = (folder / name for name in ("array.sbatch", "training.sbatch"))
    jobs = [_sbatch(script) for script in first if script.exists()]
    if (folder / "group.sbatch").exists():
        jobs.append(_sbatch(folder / "group.sbatch", *(f"--dependency=afterok:{job}" for job in jobs)))
    return jobs


def _directives(resources: JobResources) -> list[str]:
    """Return what is asked of the scheduler, as lines of a script."""
    hours, rest = divmod(resources.seconds, 3600)
    lines = [
        "--ntasks=1",
        f"--cpus-per-task={resources.cpus}",
        f"--mem={resources.memory_mb}M",
        f"--time={hours}:{rest // 60:02d}:{rest % 60:02d}",
        f"--signal=B:TERM@{WARNING_SECONDS}",
        *(["--gres=gpu:1"] if resources.gpu else []),
        *resources.more,
    ]
    return [f"#SBATCH {line}" for line in lines]


def _sbatch(script: Path, *options: str) -> str:
    try:
        done = subprocess.run(["sbatch", "--parsable", *options, str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise NeurostormError(f"there is no sbatch on this machine; on one with Slurm: sbatch {script}") from None
    if done.returncode:
        raise NeurostormError(f"sbatch refused {script}: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]


def _one_word(path: Path) -> str:
    if set(str(path)) & set(" \t\n%\"'\\"):
        raise NeurostormError(
            f"{path}: Slurm's log files need a path without spaces, quotes and %; use another OUT_DIR"
        )
    return str(path)
