"""The runs that a model is trained on: those whose subjects have a label, resampled to the model's grid."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.gridded_files import read_int8, read_motion
from neurostorm_bids.derivatives.names import GriddedOutputs
from neurostorm_bids.encode.motion import motion_of
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.participants import join
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.group.cohort import QUALITY, run_columns
from neurostorm_bids.group.labels import Labels, labels_of
from neurostorm_bids.group.read_runs import ReadRun, read_run
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.model.model import Model
from neurostorm_bids.participant.gridded_runs import keep_gridded
from neurostorm_bids.participant.level import workers
from neurostorm_bids.participant.one_run import Job
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.pool import process
from neurostorm_bids.train.fit import TrainingData


@dataclass(frozen=True)
class LabelledRuns:
    """Runs with labels, each with an int8 store in the work folder or with embeddings that were read.

    Attributes
    ----------
    runs : list of Run
    table : DataFrame
        A row per run: its entities, and the columns of the phenotype.
    labels : Labels
        Of samples, made of these runs.
    problems : list of Problem
        Why other runs take no part.
    read : dict
        Name of a run -> `ReadRun`, where the embeddings are all that is needed.
    allowed : dict
        Name of another run -> whether a window that starts at a frame is not censored, (possible starts,) bool; empty
        without --fd-threshold.
    """

    runs: list[Run]
    table: pd.DataFrame
    labels: Labels
    problems: list[Problem]
    read: dict[str, ReadRun]
    allowed: dict[str, np.ndarray]


def labelled_runs(study: Study, grid: Grid, model: Model) -> LabelledRuns:
    """Find the labelled runs, and resample those that no earlier call has kept.

    Where nothing but a head is trained, the embeddings of runs that have them in the output folder are read instead.

    Raises
    ------
    NeurostormError
        If there is none, or the labels cannot be used.
    """
    selection = study.settings.selection
    runs, problems = find_runs(
        study.dataset, selection, selection.bids_database_dir, raw=study.settings.resampling.of_raw
    )
    if not runs:
        raise NeurostormError(f"{study.dataset.path} has no BOLD run that was asked for")
    table, labels = _labelled(runs, study)
    wanted = [runs[i] for i in labels.rows]
    read = _read(wanted, grid, model, study) if study.settings.training.tuning == "linear" else {}
    problems += resample_all([run for run in wanted if run.name not in read], grid, model.n_frames, study)
    failed = {problem.run for problem in problems}
    stored = [run for run in wanted if run.name not in read and run.name not in failed]
    allowed, more = _allowed(stored, grid, model.n_frames, study)
    problems += more
    for problem in problems:
        LOG.error("%s", problem)
    censored = {name for name, one in read.items() if not len(one.embeddings)}
    censored |= {name for name, starts in allowed.items() if not starts[:: model.n_frames].any()}
    failed = {problem.run for problem in problems}
    left = [run for run in runs if run.name not in failed | censored]
    if not left:
        raise NeurostormError(f"no run is left to train on: {_why(len(failed), len(censored))}")
    table, labels = _labelled(left, study)
    if censored:
        labels.notes.append(f"{len(censored)} runs whose every window is censored for head motion are left out")
    return LabelledRuns(left, table, labels, problems, read, allowed)


def _why(n_failed: int, n_censored: int) -> str:
    if n_censored:
        return f"{n_failed} have problems, and every window of {n_censored} others is censored for head motion"
    return f"all {n_failed} have problems, listed above"


def training_data(labelled: LabelledRuns, labels: Labels, grid: Grid, study: Study) -> TrainingData:
    """Open the stores of the runs, each with its sample's label.

    Parameters
    ----------
    labels : Labels
        Of the samples that take part.
    """
    y, samples = np.full(len(labelled.runs), -1, dtype=labels.y.dtype), np.full(len(labelled.runs), -1)
    for sample, rows in enumerate(labels.members):
        y[rows], samples[rows] = labels.y[sample], sample
    work = study.settings.work
    to_open = {labelled.runs[i].name for i in labels.rows} - labelled.read.keys()
    stores = [
        read_int8(work / GriddedOutputs(run, grid).int8) if run.name in to_open else None for run in labelled.runs
    ]
    allowed = {i: labelled.allowed[run.name] for i, run in enumerate(labelled.runs) if run.name in labelled.allowed}
    return TrainingData(stores, y, labels.classes, samples, allowed=allowed)


def _read(runs: list[Run], grid: Grid, model: Model, study: Study) -> dict[str, ReadRun]:
    """Read the embeddings of the runs that have them."""
    found = {run.name: read_run(run, model, grid, study) for run in runs}
    read = {name: one for name, one in found.items() if one is not None}
    LOG.info(
        "embeddings of %d of %d runs are read from %s, the other %d are resampled and encoded",
        len(read),
        len(runs),
        study.settings.out_dir,
        len(runs) - len(read),
    )
    return read


def _labelled(runs: list[Run], study: Study) -> tuple[pd.DataFrame, Labels]:
    options = study.settings.group
    target = study.target()
    assert target is not None
    table, notes = join(pd.DataFrame([run_columns(run.name) for run in runs]), study.phenotype.table, QUALITY)
    labels = labels_of(
        table, target, options.target_type, options.group_by, of=options.samples, coded=study.phenotype.coded
    )
    labels.notes.extend(notes)
    return table, labels


def resample_all(runs: list[Run], grid: Grid, n_frames: int, study: Study) -> list[Problem]:
    """Make sure that runs have stores of enough frames; returns the problems of those that have not."""
    settings, problems = study.settings, []
    work = partial(keep_gridded, job=Job(study.dataset, settings), grid=grid)
    for outcome in process(runs, work, workers(settings)):
        problems += [Problem(text, outcome.subject, outcome.run) for text in outcome.problems]
    if problems and settings.conduct.stop_on_first_crash:
        raise NeurostormError(str(problems[-1]))
    failed = {problem.run for problem in problems}
    for run in runs:
        if run.name in failed:
            continue
        found = read_int8(settings.work / GriddedOutputs(run, grid).int8).shape[3]
        if found < n_frames:
            text = f"{found} frames are fewer than one window of {n_frames}"
            problems.append(Problem(text, run.subject, run.name))
    return problems


def _allowed(runs: list[Run], grid: Grid, n_frames: int, study: Study) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """Return at which frames windows may start that are not censored, and the runs whose head motion is not known."""
    censoring = study.settings.censoring
    allowed, problems = {}, []
    if censoring.fd_threshold is None:
        return {}, []
    for run in runs:
        motion = read_motion(study.settings.work / GriddedOutputs(run, grid).int8)
        starts = np.arange(len(motion.time_map) - n_frames + 1)
        try:
            of_windows = motion_of(motion, starts, n_frames, censoring.fd_threshold)
        except NeurostormError as error:
            problems.append(Problem(str(error), run.subject, run.name))
            continue
        allowed[run.name] = ~of_windows.censored(censoring.max_censored)
    return allowed, problems
