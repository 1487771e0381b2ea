"""``neurostorm-hpc``: job arrays for Slurm, and what became of them."""

import re
import shlex
import sys
from pathlib import Path

import click

from neurostorm_bids.command.main import name_and_path, settings_of, without_prefix
from neurostorm_bids.command.options import OneLineErrors
from neurostorm_bids.errors import NeurostormError

OURS = {  # not to be given to neurostorm here
    "--participant-label": "give it before --",
    "--omp-nthreads": "give --cpus before --",
    "--nprocs": "one task does one run at a time; give --cpus before --",
    "--nthreads": "one task does one run at a time; give --cpus before --",
    "--n-cpus": "give --cpus before --",
    "--clean-workdir": "it would take away what the other tasks are at",
}


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
def main():
    """Run neurostorm on a cluster."""


def seconds(_ctx, _param, value):
    """Read H:MM:SS, or D-HH:MM:SS as Slurm has it."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", value)
    if not match:
        raise click.BadParameter(f"'{value}' is not H:MM:SS")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


@main.command(context_settings={"max_content_width": 110})
@click.argument("bids_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("options", nargs=-1, metavar="[-- NEUROSTORM OPTIONS]", type=click.UNPROCESSED)
@click.option(
    "--participant-label", multiple=True, callback=without_prefix("sub-"),
    help="A subject, with or without sub-; may be repeated.  [default: all]",
)  # fmt: skip
@click.option(
    "--subjects-per-task", type=click.IntRange(min=1), help="Subjects that one task takes.  [default: chosen]"
)
@click.option("--at-a-time", type=click.IntRange(min=1), help="Tasks that may run at the same time.")
@click.option(
    "--container", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Image for Apptainer (.sif).  [default: neurostorm of the node's PATH]",
)  # fmt: skip
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, help="Processors of a task.")
@click.option("--mem-mb", type=click.IntRange(min=1), help="Memory of a task.  [default: as earlier calls took]")
@click.option("--time", "time_limit", callback=seconds, metavar="H:MM:SS", help="Time of a task.  [default: likewise]")
@click.option("--gpu", is_flag=True, help="Ask for a GPU (--gres=gpu:1), and use it.")
@click.option("--partition", help="Slurm's partition.")
@click.option("--account", help="Slurm's account.")
@click.option("--sbatch-option", multiple=True, metavar="--NAME=VALUE", help="Another option of sbatch.")
@click.option("--group", metavar="OPTIONS", help="Also a job of the group level after the array, with these options.")
@click.option("--all", "everyone", is_flag=True, help="Subjects that are finished, too.")
@click.option("--submit", "submit_now", is_flag=True, help="Submit what is written.")
def slurm(bids_dir: Path, out_dir: Path, options: tuple, **wanted):
    """Write a Slurm job array over the subjects of BIDS_DIR that are not finished in OUT_DIR.

    What follows -- is given to neurostorm as it is. Given again, the same command takes the subjects that failed or
    were never begun. The scripts are in OUT_DIR/logs/slurm/<time>.
    """
    from neurostorm_bids.derivatives.call_logs import new_call_id
    from neurostorm_bids.find.dataset import find_dataset
    from neurostorm_bids.hpc import slurm as scripts
    from neurostorm_bids.hpc.status import FINISHED, status_of
    from neurostorm_bids.participant.level import check_folders
    from neurostorm_bids.settings import digest

    for option in options:
        if reason := OURS.get(option.split("=")[0].replace("_", "-")):
            raise NeurostormError(f"{option} cannot stand after --: {reason}")
    settings = settings_of([str(bids_dir), str(out_dir), "participant", *options])
    dataset = find_dataset(settings.bids_dir, dict(settings.derivatives))
    check_folders(settings, dataset)
    subjects = [label for label in dataset.subjects() if label.isascii() and label.replace("+", "").isalnum()]
    chosen = wanted["participant_label"] or settings.participant_label
    if missing := sorted(set(chosen) - set(subjects)):
        raise NeurostormError(f"{dataset.path} holds no sub-{missing[0]}")
    statuses = [status_of(settings.out_dir, label) for label in chosen or subjects]
    asked = digest(settings.asked)
    left = [s.subject for s in statuses if wanted["everyone"] or s.status != FINISHED or s.asked != asked]
    click.echo(f"{len(statuses) - len(left)} of {len(statuses)} subjects are finished, {len(left)} are left")
    if not left and wanted["group"] is None:
        return
    tasks = scripts.batches(left, wanted["subjects_per_task"]) if left else []
    extra = tuple(f"--{key}={wanted[key]}" for key in ("partition", "account") if wanted[key])
    resources = scripts.resources_for(
        statuses, max(map(len, tasks), default=1), wanted["cpus"], wanted["mem_mb"], wanted["time_limit"],
        wanted["gpu"], (*extra, *wanted["sbatch_option"]),
    )  # fmt: skip
    folder = settings.out_dir / "logs" / "slurm" / new_call_id()
    container = wanted["container"].resolve() if wanted["container"] else None
    array = group = None
    if tasks:
        words = scripts.command(settings, container, wanted["gpu"])
        array = scripts.array_script(folder, len(tasks), wanted["at_a_time"], resources, words)
        click.echo(
            f"{len(tasks)} tasks of {len(tasks[0])} subjects, {resources.memory_mb} MB, {resources.seconds} s each"
        )
    if wanted["group"] is not None:
        try:
            group_options = shlex.split(wanted["group"])
        except ValueError as error:
            raise NeurostormError(f"--group {wanted['group']}: {error}") from None
        of_group = settings_of([str(bids_dir), str(out_dir), "group", *group_options])
        group = scripts.group_script(folder, resources, scripts.command(of_group, container, wanted["gpu"]))
    scripts.write_scripts(folder, tasks, array, group)
    click.echo(f"{folder / ('array.sbatch' if tasks else 'group.sbatch')}")
    if wanted["submit_now"]:
        click.echo(f"submitted: {', '.join(scripts.submit(folder))}")
    else:
        click.echo("submit it with sbatch, or give the same command with --submit")


@main.command()
@click.argument("bids_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-d", "--derivatives", multiple=True, metavar="NAME=PATH", callback=name_and_path, help="As of neurostorm."
)
def status(bids_dir: Path, out_dir: Path, derivatives: tuple):
    """Tell what became of every subject of BIDS_DIR; the table is also written to OUT_DIR/logs/status.tsv.

    The exit status is 0 only if all are finished.
    """
    from neurostorm_bids.derivatives.tables import write_table
    from neurostorm_bids.find.dataset import find_dataset
    from neurostorm_bids.hpc.status import FINISHED, status_of, status_table
    from neurostorm_bids.participant.level import check_folders
    from neurostorm_bids.runtime.locks import lock_folder
    from neurostorm_bids.settings import Settings

    dataset = find_dataset(bids_dir.resolve(), dict(derivatives))
    check_folders(Settings(bids_dir.resolve(), out_dir.resolve()), dataset)
    statuses = [status_of(out_dir, subject) for subject in dataset.subjects()]
    table = status_table(statuses)
    with lock_folder(out_dir):
        write_table(out_dir / "logs" / "status.tsv", table)
    for one in statuses:
        if one.status != FINISHED:
            click.echo(f"sub-{one.subject:<12} {one.status}{f': {one.problem}' if one.problem else ''}")
    counts = ", ".join(f"{n} {name}" for name, n in table["status"].value_counts().items())
    click.echo(f"{counts}; the table is {out_dir / 'logs' / 'status.tsv'}")
    sys.exit(0 if all(one.status == FINISHED for one in statuses) else 1)
