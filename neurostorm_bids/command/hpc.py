"""``neurostorm-hpc``: job arrays for Slurm, and what became of them."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from neurostorm_bids import __version__
from neurostorm_bids.command.main import settings_of
from neurostorm_bids.command.options import OneLineErrors, options_from
from neurostorm_bids.derivatives.call_logs import FINISHED, new_call_id, requested
from neurostorm_bids.derivatives.names import BEGUN, LOGS, TRAINING_FOLDER
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset, find_selected
from neurostorm_bids.hpc import slurm as scripts
from neurostorm_bids.hpc.container import call_of
from neurostorm_bids.hpc.jobs import (
    TRAINING_MB,
    TRAINING_SECONDS,
    JobOptions,
    JobResources,
    batches,
    more_of,
    resources_for,
    seconds_of,
)
from neurostorm_bids.hpc.status import SubjectStatus, count, status_of, write_status
from neurostorm_bids.model.names import model_files, not_fetched
from neurostorm_bids.participant.checks import prepare_folders
from neurostorm_bids.runtime.locks import lock_shared_files
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import Selection

# Options of neurostorm that a job array decides
OURS = {
    "--participant-label": "give it before --",
    "--omp-nthreads": "give --cpus before --",
    "--nprocs": "one task processes one run at a time; give --cpus before --",
    "--nthreads": "one task processes one run at a time; give --cpus before --",
    "--n-cpus": "give --cpus before --",
    "--clean-workdir": "it would remove what the other tasks are working on",
}


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run neurostorm on a cluster."""


def _options(group: type, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options of a group, or those of these names, to a command."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        params = [param for param in options_from(group) if not names or param.name in names]
        before = getattr(function, "__click_params__", [])
        function.__click_params__ = [*before, *reversed(params)]  # type: ignore[attr-defined]
        return function

    return add


@main.command(context_settings={"max_content_width": 110})
@click.argument("bids_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("words", nargs=-1, metavar="[-- NEUROSTORM OPTIONS]", type=click.UNPROCESSED)
@_options(JobOptions)
def slurm(bids_dir: Path, out_dir: Path, words: Sequence[str], **values: Any) -> None:
    """Write a Slurm job array over the subjects of BIDS_DIR that are not finished in OUT_DIR.

    What follows -- is passed to neurostorm. The same command again takes the subjects that failed or were never begun.
    The scripts are in OUT_DIR/logs/slurm/<time>. With --group-task, one job that trains on several GPUs and nodes.
    """
    options = JobOptions(**values)
    if options.group_task is not None:
        _write_training(bids_dir, out_dir, words, options)
        return
    for word in words:
        if reason := OURS.get(word.split("=")[0].replace("_", "-")):
            raise NeurostormError(f"{word} cannot follow --: {reason}")
    settings = settings_of([str(bids_dir), str(out_dir), "participant", *words])
    dataset = find_selected(settings.bids_dir, settings.selection)
    prepare_folders(settings, dataset)
    chosen = options.participant_label or settings.selection.participant_label
    statuses = _statuses(dataset, settings, chosen)
    wanted = requested(settings, model_files(settings.encoding.model))
    if missing := [model.name for model in not_fetched(settings.encoding.model)]:
        click.echo(
            f"warning: the weights of {missing[0]} are not on this machine; see that the nodes have them", err=True
        )
    left = [s.subject for s in statuses if options.all or s.status != FINISHED or s.requested != wanted]
    click.echo(f"{len(statuses) - len(left)} of {len(statuses)} subjects are finished, {len(left)} are left")
    if left or options.group is not None:
        _write(settings, left, statuses, options)


def _write_training(bids_dir: Path, out_dir: Path, words: Sequence[str], options: JobOptions) -> None:
    """Write the job of a training and, if wanted, submit it."""
    asked = (*words, "--devices", str(max(1, options.gpus)), "--nodes", str(options.nodes))
    call = [str(bids_dir), str(out_dir), "group", "--group-task", str(options.group_task), *asked]
    settings = settings_of([*call, *(["--omp-nthreads", str(options.cpus)] if "--omp-nthreads" not in words else [])])
    name = settings.training.save_as
    of_arrays = ("participant_label", "subjects_per_task", "at_a_time", "gpu", "group", "all")
    if given := [each for each in of_arrays if getattr(options, each) != getattr(JobOptions, each)]:
        raise NeurostormError(
            f"--{given[0].replace('_', '-')} is of arrays; for a training, give --gpus, and what selects runs after --"
        )
    if name is None or settings.training.resume:
        raise NeurostormError(
            "give --save-as NAME after --, and no --resume: the job goes on by itself where it has begun"
        )
    prepare_folders(settings, find_selected(settings.bids_dir, settings.selection))
    resources = JobResources(
        options.cpus,
        options.mem_mb or TRAINING_MB * max(1, options.gpus),
        seconds_of(options.time) or TRAINING_SECONDS,
        False,
        more_of(options),
    )
    folder = settings.out_dir / LOGS / "slurm" / new_call_id()
    container = options.container.resolve() if options.container else None
    call = call_of(settings, container, options.gpus > 0, subjects=True)
    begun = settings.work / TRAINING_FOLDER / name / BEGUN
    if begun.exists():
        click.echo(
            f"a training of this name has begun, and the job goes on with it; to begin anew, remove {begun.parent}"
        )
    script = scripts.training_script(folder, options.nodes, options.gpus, resources, call, begun)
    click.echo(f"{scripts.write_training(folder, script)}")
    _submit(folder, options)


def _submit(folder: Path, options: JobOptions) -> None:
    if options.submit:
        click.echo(f"submitted: {', '.join(scripts.submit(folder))}")
    else:
        click.echo("submit it with sbatch, or give the same command with --submit")


def _statuses(dataset: Dataset, settings: Settings, chosen: Sequence[str]) -> list[SubjectStatus]:
    """Return what became of the chosen subjects, or of all."""
    subjects = [label for label in dataset.subjects() if label.isascii() and label.replace("+", "").isalnum()]
    if missing := sorted(set(chosen) - set(subjects)):
        raise NeurostormError(f"{dataset.path} holds no sub-{missing[0]}")
    return [status_of(settings.out_dir, label) for label in chosen or subjects]


def _write(settings: Settings, left: Sequence[str], statuses: Sequence[SubjectStatus], options: JobOptions) -> None:
    """Write the scripts and, if wanted, submit them."""
    tasks = batches(left, options.subjects_per_task) if left else []
    resources = resources_for(statuses, max(map(len, tasks), default=1), options)
    folder = settings.out_dir / LOGS / "slurm" / new_call_id()
    container = options.container.resolve() if options.container else None
    array = group = None
    if tasks:
        call = call_of(settings, container, options.gpu)
        array = scripts.array_script(folder, len(tasks), options.at_a_time, resources, call)
        minutes, seconds = divmod(resources.seconds, 60)
        click.echo(
            f"tasks: {len(tasks)}; subjects in each: {len(tasks[0])}; memory of each: {resources.memory_mb} MB; "
            f"time of each: {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        )
    if options.group is not None:
        call = call_of(_group_settings(settings, options.group), container, options.gpu)
        group = scripts.group_script(folder, resources, call)
    scripts.write_scripts(folder, tasks, array, group)
    click.echo(f"{folder / ('array.sbatch' if tasks else 'group.sbatch')}")
    _submit(folder, options)


def _group_settings(settings: Settings, options: str) -> Settings:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise NeurostormError(f"--group {options}: {error}") from None
    return settings_of([str(settings.bids_dir), str(settings.out_dir), "group", *words])


@main.command()
@click.argument("bids_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_options(Selection, "derivatives", "input_type")
def status(bids_dir: Path, out_dir: Path, **values: Any) -> None:
    """Show how the last call on every subject of BIDS_DIR ended, also in OUT_DIR/logs/status.tsv.

    Whatever its options were: slurm compares these too. The exit status is 0 only if all are finished.
    """
    settings = Settings.of(bids_dir.resolve(), out_dir.resolve(), **values)
    dataset = find_selected(settings.bids_dir, settings.selection)
    prepare_folders(settings, dataset)
    statuses = [status_of(settings.out_dir, label) for label in dataset.subjects()]
    table = out_dir / LOGS / "status.tsv"
    with lock_shared_files(out_dir):
        write_status(table, statuses)
    for one in statuses:
        if one.status != FINISHED:
            click.echo(f"sub-{one.subject:<12} {one.status}{f': {one.problem}' if one.problem else ''}")
    click.echo(f"{count(statuses)}; the table is {table}")
    sys.exit(0 if all(one.status == FINISHED for one in statuses) else 1)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--image", default=f"neurostorm:{__version__}", show_default=True, help="The container image.")
@click.option("--image-type", type=click.Choice(["docker", "singularity"]), default="docker", show_default=True)
def boutiques(file: Path, image: str, image_type: str) -> None:
    """Write a Boutiques descriptor of neurostorm to FILE, for Nipoppy, CBRAIN and the like."""
    from neurostorm_bids.hpc.boutiques import descriptor
    from neurostorm_bids.runtime.json_files import write_json

    write_json(file, descriptor(image, image_type))
    click.echo(f"{file}")
