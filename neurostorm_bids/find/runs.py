"""Find the BOLD runs of a data set, each in every space that it was written in."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.entities import (
    ECHO,
    LABEL,
    OF_THE_SPACE,
    as_number,
    entities_of,
    name_of,
    stem_of,
    without_echo,
)
from neurostorm_bids.find.selection import Filters, filters_of
from neurostorm_bids.settings.participant import BOLD_SPACE, Selection

if TYPE_CHECKING:
    from bids.layout import BIDSLayout


@dataclass(frozen=True)
class BoldFile:
    """One run in one space.

    Attributes
    ----------
    path : Path
    space : str or None
        Such as MNI152NLin6Asym; `None` is the BOLD series' own space.
    res : str or None
        The ``res-`` label.
    """

    path: Path
    space: str | None
    res: str | None

    @property
    def mask(self) -> Path:
        """The brain mask that fMRIPrep writes beside it; all echoes of a run share one."""
        own = self.path.name.replace("_desc-preproc_bold", "_desc-brain_mask")
        names = [form for name in dict.fromkeys((own, without_echo(own))) for form in (name, _other_compression(name))]
        paths = [self.path.with_name(name) for name in names]
        return next((path for path in paths if path.exists() or path.is_symlink()), paths[0])

    @property
    def sidecar(self) -> Path:
        """Its JSON file."""
        return self.path.with_name(stem_of(self.path) + ".json")

    @property
    def space_name(self) -> str:
        """What --input-space calls its space."""
        return self.space or BOLD_SPACE

    def __str__(self) -> str:
        return f"space-{self.space_name}" + (f"_res-{self.res}" if self.res else "")


@dataclass(frozen=True)
class Run:
    """One BOLD run.

    Attributes
    ----------
    entities : tuple of (str, str)
        Those of the source, in their order: sub, ses, task, ...; none of a space.
    files : tuple of BoldFile
    """

    entities: tuple[tuple[str, str], ...]
    files: tuple[BoldFile, ...]

    @property
    def name(self) -> str:
        """Such as sub-01_ses-1_task-rest_run-1."""
        return name_of(self.entities)

    @property
    def subject(self) -> str:
        """Label of the subject."""
        return dict(self.entities)["sub"]

    @property
    def session(self) -> str | None:
        """Label of the session, if there are sessions."""
        return dict(self.entities).get("ses")

    @property
    def folder(self) -> Path:
        """Where outputs go in a derivatives data set: sub-X/[ses-Y/]func."""
        return Path(f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []), "func")

    @property
    def confounds(self) -> Path | None:
        """fMRIPrep's table of confounds; `None` if it is not there."""
        endings = ("timeseries", "regressors")  # the latter before fMRIPrep 20.2
        return self.beside(*(f"desc-confounds_{ending}.tsv" for ending in endings))

    def beside(self, *endings: str) -> Path | None:
        """Return the first of the run's files with these endings; of single echoes, also one that all echoes share."""
        folder = self.files[0].path.parent
        for name in dict.fromkeys((self.name, without_echo(self.name))):
            for ending in endings:
                path = folder / f"{name}_{ending}"
                if path.is_file() or path.is_symlink():  # a link to what was not fetched is reported when it is read
                    return path
        return None


def find_runs(
    dataset: Dataset, selection: Selection, database_dir: Path | None = None
) -> tuple[list[Run], list[Problem]]:
    """Find the selected runs.

    Parameters
    ----------
    database_dir : Path, optional
        Folder that keeps pybids' index.

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
    filters = filters_of(selection)
    subjects, all_there, problems = _subjects(dataset, selection)
    if not subjects:
        raise NeurostormError(
            "; ".join(problem.text for problem in problems) or f"{dataset.path} holds no subject folder (sub-*)"
        )
    paths = _query(dataset, selection, filters, subjects, database_dir, only_these=not all_there)
    if not paths:
        texts = [problem.text for problem in problems]
        raise NeurostormError("; ".join([*texts, _nothing(dataset, selection, subjects)]))
    runs, unusable = _grouped(paths, keep_echoes=ECHO in filters)
    problems += unusable
    if selection.participant_label:
        without = sorted(set(subjects) - {run.subject for run in runs} - {p.subject for p in unusable})
        problems += [Problem(_nothing(dataset, selection, [label]), label) for label in without]
    return runs, problems + _labels_not_found(runs, selection)


def _subjects(dataset: Dataset, selection: Selection) -> tuple[list[str], bool, list[Problem]]:
    """Return the selected subjects that can be read, whether they are all there are, and what is wrong with others."""
    there = dataset.subjects()
    wanted = selection.participant_label
    problems = [Problem(_not_found("sub", label, there)) for label in wanted if label not in there]
    chosen = [label for label in there if not wanted or label in wanted]
    odd = [label for label in chosen if not re.fullmatch(LABEL, label)]
    problems += [Problem(f"sub-{label!r}: BIDS labels are letters and digits; it is left out") for label in odd]
    closed = [label for label in chosen if label not in odd and not _readable(dataset.path / f"sub-{label}")]
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


def _query(
    dataset: Dataset,
    selection: Selection,
    filters: Filters,
    subjects: list[str],
    database_dir: Path | None,
    *,
    only_these: bool,
) -> list[Path]:
    """Ask pybids for the preprocessed BOLD files; only the selected subjects' folders are looked into."""
    layout = _index(dataset, subjects, database_dir, only_these)
    query: dict[str, Any] = {
        "subject": subjects,
        "session": [*selection.session_label] or None,
        "task": [*selection.task_id] or None,
        "run": [as_number(label) for label in selection.run_label] or None,
        "datatype": "func",
        "suffix": "bold",
        "desc": "preproc",
        "extension": [".nii.gz", ".nii"],
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


def _grouped(paths: list[Path], keep_echoes: bool) -> tuple[list[Run], list[Problem]]:
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
        runs.append(Run(key, tuple(BoldFile(path, _space(e), e.get("res")) for path, e in combined)))
    return runs, problems


def _space(entities: dict[str, str]) -> str | None:
    space = entities.get("space")
    return f"{space}+{entities['cohort']}" if space and "cohort" in entities else space


def _not_found(entity: str, label: str, there: list[str]) -> str:
    found = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "none"
    return f"{entity}-{label} was asked for but not found; there are: {found}"


def _nothing(dataset: Dataset, selection: Selection, subjects: list[str]) -> str:
    """Say that there is no preprocessed BOLD, and what there is instead."""
    limits = [("session", selection.session_label), ("task", selection.task_id), ("run", selection.run_label)]
    asked = "; ".join(f"{name} {', '.join(labels)}" for name, labels in limits if labels)
    who = f"sub-{subjects[0]}" if len(subjects) == 1 else f"{len(subjects)} subjects"
    within = f" ({asked})" if asked else ""
    if selection.bids_filter_file:
        within += " within --bids-filter-file"
    missing = f"no *_desc-preproc_bold.nii.gz for {who}{within} in {dataset.path} (written by {dataset.generator})"
    if within:
        files = (path for s in subjects for path in dataset.path.glob(f"sub-{s}/**/func/*desc-preproc_bold.nii*"))
        there = sorted({_label(path) for path in files})
        if there:
            return f"{missing}; there are: {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}"
    return f"{missing}; fMRIPrep writes it with --level full (not minimal or resampling), with this name since 20.2"


def _label(path: Path) -> str:
    """Return a run's name without its subject and space, such as ses-1_task-rest_run-2."""
    return name_of({k: v for k, v in entities_of(path).items() if k != "sub" and k not in OF_THE_SPACE})


def _readable(subject: Path) -> bool:
    folders = [subject, subject / "func", *subject.glob("ses-*"), *subject.glob("ses-*/func")]
    return all(os.access(folder, os.R_OK | os.X_OK) for folder in folders if folder.is_dir())


def _other_compression(name: str) -> str:
    return name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
