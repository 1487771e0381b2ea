"""Find the runs that fMRIPrep and NiBabies wrote, each in every space that it was written in."""

import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.dataset import Dataset, holds_resampled
from neurostorm_bids.find.entities import ECHO, OF_THE_SPACE, as_number, entities_of, name_of, without_echo
from neurostorm_bids.find.inheritance import sidecars_of
from neurostorm_bids.find.minimal import age_of_name, is_head_motion, motion_file, raw_file, run_of
from neurostorm_bids.find.run import BoldFile, MotionFile, Run
from neurostorm_bids.find.selection import OF_FILES, Filters, near_misses
from neurostorm_bids.settings.participant import FSL_SPACE, Selection

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

LOG = logging.getLogger("neurostorm")
Entities = tuple[tuple[str, str], ...]
OF_SERIES = ("suffix", "datatype", "extension")  # that filters name, and that raw series have too
CONFOUNDS = ("desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv")  # the latter before fMRIPrep 20.2


def find(
    dataset: Dataset,
    selection: Selection,
    filters: Filters,
    subjects: list[str],
    database_dir: Path | None,
    *,
    only_these: bool,
    raw: bool = False,
) -> tuple[list[Run], list[Problem]]:
    """Find the runs of some subjects.

    Parameters
    ----------
    database_dir : Path, optional
        Folder that keeps pybids' index.
    only_these : bool
        Whether the data set has other subjects, which are then not looked into.
    raw : bool
        Look for the raw series of all runs, and not only of those that have no other.

    Returns
    -------
    runs : list of Run
    problems : list of Problem
        Runs that cannot be used.
    """
    layout = _index(dataset, subjects, database_dir, only_these)
    preprocessed = {"suffix": "bold", "desc": "preproc", "extension": [".nii.gz", ".nii"]}
    paths = _query(layout, selection, filters, subjects, preprocessed)
    runs, problems = _grouped(paths, dataset, keep_echoes=ECHO in filters)
    if filters.keys() & ({ECHO, *OF_FILES} - {*OF_SERIES}):  # chooses between preprocessed files
        return runs, problems
    of_runs = {key: value for key, value in filters.items() if key not in OF_FILES}
    found = _query(layout, selection, of_runs, subjects, {"suffix": "xfm", "extension": [".txt"]})
    head_motion = {run_of(path): path for path in sorted(found, key=age_of_name) if is_head_motion(path)}
    if not raw and dataset.raw_is != "given" and (left_out := _left_out(runs, problems, head_motion, dataset)):
        LOG.warning(
            "%d run(s) have transforms alone, though other runs of this data set were resampled (%s, ...): did fMRIPrep not finish them? They "
            "are left out; -d raw=PATH takes them from the raw series",
            len(left_out),
            left_out[0],
        )
        return runs, problems
    return _with_raw_series(runs, problems, head_motion, dataset, of_all=raw)


def beside(run: Run, folder: Path, *endings: str) -> Path | None:
    """Return the first of the run's files in a folder with these endings; of single echoes, also one that all echoes share."""
    return _beside(folder, run.name, endings)


def is_readable(subject: Path) -> bool:
    """Whether all folders with functional data of a subject can be listed."""
    folders = [subject, subject / "func", *subject.glob("ses-*"), *subject.glob("ses-*/func")]
    return all(os.access(folder, os.R_OK | os.X_OK) for folder in folders if folder.is_dir())


def what_is_there(dataset: Dataset, selection: Selection, subjects: list[str]) -> str:
    """Say that there is no preprocessed BOLD, and what there is instead."""
    limits = [("session", selection.session_label), ("task", selection.task_id), ("run", selection.run_label)]
    asked = "; ".join(f"{name} {', '.join(labels)}" for name, labels in limits if labels)
    who = f"sub-{subjects[0]}" if len(subjects) == 1 else f"{len(subjects)} subjects"
    within = f" ({asked})" if asked else ""
    if selection.bids_filter_file:
        within += " within --bids-filter-file"
    missing = f"no *_desc-preproc_bold.nii.gz for {who}{within} in {dataset.path} (written by {dataset.generator})"
    if within:
        files = [path for s in subjects for path in dataset.path.glob(f"sub-{s}/**/func/*desc-preproc_bold.nii*")]
        files += [
            path.with_name(f"{name_of(run_of(path))}_bold.nii.gz")
            for s in subjects
            for path in dataset.path.glob(f"sub-{s}/**/func/*_xfm.txt")
            if is_head_motion(path)
        ]
        there = sorted({_label(path) for path in files})
        if there:
            hint = near_misses(selection, [entities_of(path) for path in files])
            return f"{missing}; there are: {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}{hint}"
    if surfaces := _surfaces(dataset, subjects):
        return (
            f"{missing}: there are surface data alone, such as {surfaces[0].name}, and the model reads volumes; run fMRIPrep again with "
            f"--output-spaces {FSL_SPACE}:res-2, which writes *_space-{FSL_SPACE}_res-2_desc-preproc_bold.nii.gz (with its work folder kept, "
            "that is quick)"
        )
    return (
        f"{missing}, nor transforms from a raw series (--level minimal); fMRIPrep writes it with --level full, with this name "
        "since 20.2"
    )


def _surfaces(dataset: Dataset, subjects: list[str]) -> list[Path]:
    """Return series on surfaces: CIFTI (fsLR) and GIFTI (fsaverage, fsnative)."""
    endings = ("*_bold.dtseries.nii", "*_bold.func.gii")
    return sorted(path for s in subjects for end in endings for path in dataset.path.glob(f"sub-{s}/**/func/{end}"))


def _query(
    layout: "BIDSLayout", selection: Selection, filters: Filters, subjects: list[str], kind: dict[str, Any]
) -> list[Path]:
    """Ask pybids for functional files of a kind."""
    query: dict[str, Any] = {
        "subject": subjects,
        "session": [*selection.session_label] or None,
        "task": [*selection.task_id] or None,
        "run": [as_number(label) for label in selection.run_label] or None,
        "datatype": "func",
        **kind,
    }
    query |= filters
    try:
        files = layout.get(**{key: value for key, value in query.items() if value is not None})
    except Exception as error:  # a filter's values can set off any kind
        raise NeurostormError(f"--bids-filter-file: {type(error).__name__}: {str(error).splitlines()[0]}") from None
    return sorted(Path(file.path) for file in files)


def _index(dataset: Dataset, subjects: list[str], database_dir: Path | None, only_these: bool) -> "BIDSLayout":
    """Index a data set with pybids, or load its index."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    # A kept index is there to be used again for other subjects: it holds all of them.
    others = [_any_but(subjects)] if only_these and not database_dir else []
    indexer = BIDSLayoutIndexer(
        validate=False,
        index_metadata=False,  # reading every sidecar takes hours on a large data set; we read those we use
        ignore=[*others, re.compile(r"^/(?!sub-)[^/]+/"), re.compile(r"/(figures|log|anat|fmap|dwi)/")],
    )
    try:
        layout = BIDSLayout(
            dataset.path,
            validate=False,
            derivatives=False,
            config=["bids", "derivatives"],
            indexer=indexer,
            database_path=database_dir,
        )
    except Exception as error:  # pybids and its database raise many kinds, for odd file names and damaged indexes alike
        where = f" (index in {database_dir})" if database_dir else ""
        raise NeurostormError(
            f"{dataset.path} cannot be indexed{where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}; "
            "look for file names that are not text, or choose subjects with --participant-label"
        ) from None
    if database_dir is not None:
        _check_database(layout, dataset, subjects, database_dir)
    return layout


def _check_database(layout: "BIDSLayout", dataset: Dataset, subjects: list[str], database_dir: Path) -> None:
    """Check that a kept index is of this data set, and not older than its subjects."""
    remedy = f"remove --bids-database-dir {database_dir} or give another"
    if Path(layout.root) != dataset.path:
        raise NeurostormError(f"the index in {database_dir} is of {layout.root}, not of {dataset.path}; {remedy}")
    known = set(layout.get_subjects())
    if unknown := [subject for subject in subjects if subject not in known]:
        raise NeurostormError(f"the index in {database_dir} is older than sub-{unknown[0]}; {remedy}")


def _any_but(subjects: list[str]) -> re.Pattern[str]:
    labels = "|".join(re.escape(label) for label in subjects)
    return re.compile(rf"^/sub-(?!({labels})(/|$|\.|_))")


def _grouped(paths: list[Path], dataset: Dataset, keep_echoes: bool) -> tuple[list[Run], list[Problem]]:
    """Group files into runs; of a multi-echo run only the combined series is kept."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[Path, dict[str, str]]]] = {}
    for path in paths:
        entities = entities_of(path)
        key = tuple((k, v) for k, v in entities.items() if k not in OF_THE_SPACE and (keep_echoes or k != ECHO))
        groups.setdefault(key, []).append((path, entities))
    runs, problems = [], []
    for key, members in sorted(groups.items()):
        combined = [member for member in members if keep_echoes or ECHO not in member[1]]
        if not combined and len({entities[ECHO] for _, entities in members}) > 1:
            text = "only single echoes are there, not their combination; run fMRIPrep with its defaults"
            problems.append(Problem(text, dict(key)["sub"], name_of(key)))
            continue
        if not combined:  # one echo, which is the run
            combined = members
            key = tuple((k, v) for k, v in members[0][1].items() if k not in OF_THE_SPACE)
        confounds = _beside(combined[0][0].parent, name_of(key), CONFOUNDS)
        motion = MotionFile(confounds, "fmriprep") if confounds else None
        runs.append(Run(key, tuple(_file(path, entities, dataset) for path, entities in combined), motion))
    return runs, problems


def _left_out(
    runs: list[Run], problems: list[Problem], head_motion: dict[Entities, Path], dataset: Dataset
) -> list[str]:
    """Return the runs that have transforms alone in a data set whose other runs were resampled."""
    known = {run.entities for run in runs}
    unusable = {problem.run for problem in problems}
    names = [name_of(each) for each in head_motion if each not in known and name_of(each) not in unusable]
    return sorted(names) if names and (runs or holds_resampled(dataset.path)) else []


def _with_raw_series(
    runs: list[Run], problems: list[Problem], head_motion: dict[Entities, Path], dataset: Dataset, *, of_all: bool
) -> tuple[list[Run], list[Problem]]:
    """Add to runs the raw series that transforms lead to, and the runs that have nothing else.

    A raw series that cannot be used is a problem only of a run that has nothing else, or where that of all is wanted.
    """
    found, unusable = {run.entities: run for run in runs}, {problem.run for problem in problems}
    for entities, path in head_motion.items():
        run, name = found.get(entities), name_of(entities)
        if name in unusable or (run is not None and not of_all):
            continue
        try:
            file = raw_file(path, dataset)
        except NeurostormError as problem:
            problems.append(Problem(str(problem), dict(entities)["sub"], name))
            found.pop(entities, None)
            continue
        if run is not None:
            found[entities] = replace(run, files=(*run.files, file))
        else:
            confounds = _beside(path.parent, name, CONFOUNDS)
            motion = MotionFile(confounds, "fmriprep") if confounds else motion_file(file)
            found[entities] = Run(entities, (file,), motion)
    return sorted(found.values(), key=lambda run: run.entities), problems


def _file(path: Path, entities: dict[str, str], dataset: Dataset) -> BoldFile:
    """Return a BOLD file with what fMRIPrep writes beside it."""
    reference = next((each for each in _siblings(path, "_boldref") if each.is_file()), None)
    return BoldFile(
        path,
        _space(entities),
        entities.get("res"),
        _mask(path),
        tuple(_anatomical_masks(path, entities, dataset)),
        tuple(sidecars_of(path, dataset)),
        reference,
    )


def _mask(path: Path) -> Path:
    """Return the brain mask beside a BOLD file; all echoes of a run share one."""
    paths = _siblings(path, "_desc-brain_mask")
    return next((each for each in paths if each.exists() or each.is_symlink()), paths[0])


def _siblings(path: Path, ending: str) -> list[Path]:
    """Return what a file beside a BOLD file may be called: with or without its echo, compressed or not."""
    own = path.name.replace("_desc-preproc_bold", ending)
    names = [form for name in dict.fromkeys((own, without_echo(own))) for form in (name, _other_compression(name))]
    return [path.with_name(name) for name in names]


def _anatomical_masks(path: Path, entities: dict[str, str], dataset: Dataset) -> list[Path]:
    """Return the subject's brain masks in the template of a BOLD file: of its session and resolution first."""
    if entities.get("space", "T1w") == "T1w":
        return []
    subject = dataset.path / f"sub-{entities['sub']}"
    space = "".join(f"_{key}-{entities[key]}" for key in ("space", "cohort") if key in entities)
    sessions = [subject / f"ses-{entities['ses']}" / "anat"] if "ses" in entities else []
    own = [f"_res-{entities['res']}"] if "res" in entities else []
    found = [
        mask
        for folder in (*sessions, subject / "anat")
        for resolution in (*own, "", "_res-*")
        for mask in sorted(folder.glob(f"sub-{entities['sub']}*{space}{resolution}_desc-brain_mask.nii*"))
    ]
    return list(dict.fromkeys(found))


def _beside(folder: Path, run: str, endings: tuple[str, ...]) -> Path | None:
    for name in dict.fromkeys((run, without_echo(run))):
        for ending in endings:
            path = folder / f"{name}_{ending}"
            if path.is_file() or path.is_symlink():  # a link to what was not fetched is reported when it is read
                return path
    return None


def _space(entities: dict[str, str]) -> str | None:
    space = entities.get("space")
    return f"{space}+{entities['cohort']}" if space and "cohort" in entities else space


def _label(path: Path) -> str:
    """Return a run's name without its subject and space, such as ses-1_task-rest_run-2."""
    return name_of({k: v for k, v in entities_of(path).items() if k != "sub" and k not in OF_THE_SPACE})


def _other_compression(name: str) -> str:
    return name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
