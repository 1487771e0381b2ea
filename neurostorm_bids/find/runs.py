"""Find the runs of a data set, whichever program preprocessed them."""

import re
from dataclasses import replace
from pathlib import Path

from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find import fmriprep
from neurostorm_bids.find.dataset import COHORTS, Dataset
from neurostorm_bids.find.entities import LABEL, as_number, near_miss
from neurostorm_bids.find.exclusions import which_stay
from neurostorm_bids.find.folders import folders_in
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.selection import filters_of, near_misses, wants
from neurostorm_bids.settings.participant import Selection


def find_runs(
    dataset: Dataset, selection: Selection, database_dir: Path | None = None, *, raw: bool = False
) -> tuple[list[Run], list[Problem]]:
    """Find the selected runs.

    Parameters
    ----------
    database_dir : Path, optional
        Folder that keeps pybids' index.
    raw : bool
        Look for the raw series of all runs, and not only of those that have no other.

    Returns
    -------
    runs : list of Run
        Sorted by name.
    problems : list of Problem
        Labels that nothing was found for, and runs that cannot be used.

    Raises
    ------
    NeurostormError
        If nothing at all was found.
    """
    if not dataset.is_bids:
        runs, problems = _of_a_cohort(dataset, selection)
    else:
        runs, problems = _of_fmriprep(dataset, selection, database_dir, raw=raw)
    stay = which_stay(selection, [run.name for run in runs])
    return [run for run, stays in zip(runs, stay, strict=True) if stays], problems + _labels_not_found(runs, selection)


def _of_fmriprep(
    dataset: Dataset, selection: Selection, database_dir: Path | None, *, raw: bool
) -> tuple[list[Run], list[Problem]]:
    if selection.series == "clean":
        raise NeurostormError(
            "--series clean: fMRIPrep writes no denoised series; give --denoise, or leave out --series"
        )
    filters = filters_of(selection)
    subjects, all_there, problems = _subjects(dataset, selection)
    if not subjects:
        raise NeurostormError(
            "; ".join(problem.text for problem in problems) or f"{dataset.path} holds no subject folder (sub-*)"
        )
    runs, unusable = fmriprep.find(
        dataset, selection, filters, subjects, database_dir, only_these=not all_there, raw=raw
    )
    if not runs and not unusable:
        texts = [problem.text for problem in problems]
        raise NeurostormError("; ".join([*texts, fmriprep.what_is_there(dataset, selection, subjects)]))
    problems += unusable
    if selection.participant_label:
        without = sorted(set(subjects) - {run.subject for run in runs} - {p.subject for p in unusable})
        problems += [Problem(fmriprep.what_is_there(dataset, selection, [label]), label) for label in without]
    return runs, problems


def _of_a_cohort(dataset: Dataset, selection: Selection) -> tuple[list[Run], list[Problem]]:
    """Find the runs of folders that are not BIDS; only those of the selected subjects are looked into."""
    reader, filters = COHORTS[dataset.input_type], filters_of(selection)
    selection = replace(selection, participant_label=tuple(map(dataset.label_of, selection.participant_label)))
    there = dataset.subject_folders(selection.participant_label)
    missing = [label for label in selection.participant_label if label not in there]
    every = dataset.subjects() if missing else []
    problems = [Problem(_not_of_the_cohort(label, every, dataset)) for label in missing]
    runs: list[Run] = []
    others: list[Run] = []
    for label in sorted(there):
        found, unusable = reader.runs_in(label, there[label], selection.series)
        wanted = [run for run in found if wants(selection, filters, run.name)]
        problems += [problem for problem in unusable if wants(selection, filters, problem.run or "")]
        if not wanted and selection.participant_label and not unusable:
            problems.append(Problem(_nothing_of(f"sub-{label}", found, dataset, selection), label))
        runs += wanted
        others += found
    if not runs:
        texts = [str(problem) for problem in problems[:8]] or [_nothing_of("any subject", others, dataset, selection)]
        raise NeurostormError("; ".join(texts))
    return sorted(runs, key=lambda run: run.name), problems


def _not_of_the_cohort(label: str, there: list[str], dataset: Dataset) -> str:
    """Say that a subject is not there, or that its folder is and holds nothing."""
    empty = [folder for folder in folders_in(dataset.path) if dataset.label_of(folder.name) == label]
    if empty:
        return f"{empty[0]} holds no data of {dataset.generator} ({COHORTS[dataset.input_type].LAYOUT}); fetch or unpack them"
    return _not_found("sub", label, there)


def _nothing_of(whose: str, found: list[Run], dataset: Dataset, selection: Selection) -> str:
    """Say that the runs that are there are not those that were asked for."""
    there = (", ".join(run.name for run in found[:8]) or "none") + (", ..." if len(found) > 8 else "")
    hint = near_misses(selection, [dict(run.entities) for run in found])
    return f"none of the runs of {whose} in {dataset.path} was asked for; there are: {there}{hint}"


def _subjects(dataset: Dataset, selection: Selection) -> tuple[list[str], bool, list[Problem]]:
    """Return the selected subjects that can be read, whether they are all there are, and what is wrong with others."""
    there = dataset.subjects()
    wanted = selection.participant_label
    problems = [Problem(_not_found("sub", label, there)) for label in wanted if label not in there]
    chosen = [label for label in there if not wanted or label in wanted]
    odd = [label for label in chosen if not re.fullmatch(LABEL, label)]
    problems += [Problem(f"sub-{label!r}: BIDS labels are letters and digits; it is left out") for label in odd]
    closed = [label for label in chosen if label not in odd and not fmriprep.is_readable(dataset.path / f"sub-{label}")]
    problems += [
        Problem(f"{dataset.path / f'sub-{label}'} cannot be read: permission denied", label) for label in closed
    ]
    usable = [label for label in chosen if label not in odd and label not in closed]
    return usable, len(usable) == len(there), problems


def _labels_not_found(runs: list[Run], selection: Selection) -> list[Problem]:
    """Return a problem for each session, task and run that was asked for and that no run has."""
    problems = []
    for entity, labels in (("ses", selection.session_label), ("task", selection.task_id), ("run", selection.run_label)):
        there = {dict(run.entities).get(entity) for run in runs} - {None}
        numbers = {as_number(label) for label in there}
        problems += [
            Problem(_not_found(entity, label, sorted(map(str, there))))
            for label in labels
            if as_number(label) not in numbers
        ]
    return problems


def _not_found(entity: str, label: str, there: list[str]) -> str:
    """Say that a label is not there, and which one may have been meant."""
    found = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "none"
    return f"{entity}-{label} was asked for but not found; there are: {found}{near_miss(entity, [label], there)}"
