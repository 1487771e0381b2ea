"""Write job scripts for Slurm: an array over subjects and, if wanted, a group job after it."""

import json
import math
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.hpc.status import FINISHED, SubjectStatus
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.files import LONGEST_CHAIN, MODEL_FILE
from neurostorm_bids.settings import Settings

LARGEST_ARRAY = 1000  # tasks; Slurm's default limit is just above
MEMORY_MB, SECONDS = (
    3000,
    1800,
)  # of a subject nothing is known of: three times what a base model took here, and half an hour
SPARE = 1.3  # more memory than was ever measured
FOLDERS = {"NEUROSTORM_HOME": "/opt/neurostorm", "TEMPLATEFLOW_HOME": "/opt/templateflow"}  # in the container


@dataclass(frozen=True)
class Resources:
    """What a task asks the scheduler for.

    Attributes
    ----------
    cpus : int
    memory_mb : int
    seconds : int
        Of a whole task.
    gpu : bool
    extra : tuple of str
        Options of sbatch, such as ``--partition=gpu``.
    """

    cpus: int
    memory_mb: int
    seconds: int
    gpu: bool = False
    extra: tuple = ()

    def directives(self) -> "list[str]":
        """As lines of a script."""
        hours, rest = divmod(self.seconds, 3600)
        lines = [
            "--ntasks=1",
            f"--cpus-per-task={self.cpus}",
            f"--mem={self.memory_mb}M",
            f"--time={hours}:{rest // 60:02d}:{rest % 60:02d}",
            # a minute before the time is up, so that the run under way is left in order
            "--signal=B:TERM@60",
            *(["--gres=gpu:1"] if self.gpu else []),
            *self.extra,
        ]
        if bad := [line for line in self.extra if "\n" in line or not line.startswith("-")]:
            raise NeurostormError(f"--sbatch-option '{bad[0]}' is no option of sbatch; give it as --name=value")
        return [f"#SBATCH {line}" for line in lines]


def resources_for(
    statuses: "list[SubjectStatus]",
    subjects_per_task: int,
    cpus: int,
    memory_mb: Optional[int] = None,
    seconds: Optional[int] = None,
    gpu: bool = False,
    extra: tuple = (),
) -> Resources:
    """Ask for what earlier calls took, with something to spare; for a generous guess where there were none.

    Examples
    --------
    >>> took = [SubjectStatus("01", "finished", windows=15, seconds=100.0, memory_mb=1000)]
    >>> resources_for(took, subjects_per_task=2, cpus=2)
    Resources(cpus=2, memory_mb=1300, seconds=700, gpu=False, extra=())
    """
    worked = [one for one in statuses if one.status == FINISHED and one.windows]  # not those that found all done
    memories = [one.memory_mb for one in worked if one.memory_mb]
    times = [one.seconds for one in worked if one.seconds]
    return Resources(
        cpus,
        memory_mb or (math.ceil(SPARE * max(memories)) if memories else MEMORY_MB),
        seconds or math.ceil((2 * max(times) if times else SECONDS) * subjects_per_task) + 300,
        gpu,
        extra,
    )


def batches(subjects: Sequence[str], subjects_per_task: Optional[int]) -> "list[Sequence[str]]":
    """Share subjects out over tasks.

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


def command(settings: Settings, container: Optional[Path], gpu: bool) -> "list[str]":
    """The call of neurostorm, in the container if there is one, without the subjects; all paths are absolute."""
    files = [name for name in settings.model if Path(name).is_file() or Path(name, MODEL_FILE).is_file()]
    settings = replace(
        settings,
        model=tuple(str(Path(name).absolute()) if name in files else name for name in settings.model),
        bids_filter_file=settings.bids_filter_file.absolute() if settings.bids_filter_file else None,
        phenotype=settings.phenotype.absolute() if settings.phenotype else None,
        split=settings.split.absolute() if settings.split else None,
        participant_label=(),
    )
    words = settings.as_words()
    if container is None:
        return words
    weights = [path for name in files for path in _with_backbones(Path(name))]
    given = [*weights, settings.bids_filter_file, settings.phenotype, settings.split]
    inputs = [settings.bids_dir, *(path for _, path in settings.derivatives)]
    # of a link, its own folder and the one it leads to
    inputs += [folder for path in given if path for folder in (path.absolute().parent, path.resolve().parent)]
    outputs = [path for path in (settings.out_dir, settings.work_dir, settings.bids_database_dir) if path]
    binds = {(path, path): ":ro" for path in inputs} | {(path, path): "" for path in outputs}
    binds |= {(Path(os.environ[name]), Path(inside)): ":ro" for name, inside in FOLDERS.items() if os.environ.get(name)}
    for path in outputs:
        path.mkdir(parents=True, exist_ok=True)
    call = ["apptainer", "run", "--cleanenv", "--containall", "--writable-tmpfs", *(["--nv"] if gpu else [])]
    # what lies deeper comes later, or the folder above would cover it
    for (outside, inside), how in sorted(binds.items(), key=lambda bind: len(bind[0][1].parts)):
        if set(":,\n") & set(f"{outside}{inside}"):
            raise NeurostormError(f"{outside}: Apptainer cannot bind a path with a colon or a comma; use another name")
        call += ["--bind", f"{outside}:{inside}{how}"]
    return [*call, str(container), *words[1:]]


def _with_backbones(path: Path) -> "list[Path]":
    """A model's file or folder, and the files of the models that it was tuned from."""
    from safetensors import SafetensorError, safe_open

    found = [path]
    while (found[-1] / MODEL_FILE).is_file() and len(found) < LONGEST_CHAIN:
        try:
            with safe_open(str(found[-1] / MODEL_FILE), framework="np") as file:
                backbone = json.loads((file.metadata() or {})["hyper_parameters"])["backbone"]["name"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            break  # a whole model; or the call itself will say
        if not Path(backbone).exists():  # a name of the registry, or a copy in the model's own folder
            break
        found.append(Path(backbone))
    return [one / MODEL_FILE if one.is_dir() else one for one in found]


def array_script(folder: Path, n_tasks: int, at_a_time: Optional[int], resources: Resources, words: "list[str]") -> str:
    """The script of the array: task i takes the subjects of line i of subjects.txt."""
    limit = f"%{at_a_time}" if at_a_time else ""
    return "\n".join(
        [
            "#!/bin/bash",
            "#SBATCH --job-name=neurostorm",
            f"#SBATCH --array=1-{n_tasks}{limit}",
            f"#SBATCH --output={_one_word(folder)}/%A_%a.log",
            *resources.directives(),
            "set -euo pipefail",
            f'read -r -a subjects <<< "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(folder / "subjects.txt"))})"',
            # exec: the scheduler's signals reach the program itself
            f'exec {shlex.join(words)} --omp-nthreads "$SLURM_CPUS_PER_TASK" --participant-label "${{subjects[@]}}"',
            "",
        ]
    )


def group_script(folder: Path, resources: Resources, words: "list[str]") -> str:
    """The script of the group level."""
    lines = ["#!/bin/bash", "#SBATCH --job-name=neurostorm-group", f"#SBATCH --output={_one_word(folder)}/group.log"]
    return "\n".join([*lines, *resources.directives(), "set -euo pipefail", f"exec {shlex.join(words)}", ""])


def write_scripts(folder: Path, tasks: "list[Sequence[str]]", array: Optional[str], group: Optional[str]) -> None:
    """Write subjects.txt and array.sbatch, if any are left, and group.sbatch, if it is wanted."""
    if array is not None:
        write_text(folder / "subjects.txt", "".join(" ".join(task) + "\n" for task in tasks))
        write_text(folder / "array.sbatch", array)
    if group is not None:
        write_text(folder / "group.sbatch", group)


def submit(folder: Path) -> "list[str]":
    """Submit what was written; the group job waits until the whole array has succeeded. Returns the jobs' numbers.

    Raises
    ------
    NeurostormError
        If there is no Slurm here, or it refuses.
    """
    jobs = [_sbatch(folder / "array.sbatch")] if (folder / "array.sbatch").exists() else []
    if (folder / "group.sbatch").exists():
        jobs.append(_sbatch(folder / "group.sbatch", *(f"--dependency=afterok:{job}" for job in jobs)))
    return jobs


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
