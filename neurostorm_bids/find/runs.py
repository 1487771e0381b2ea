"""Find the BOLD runs of a data set, each in every space it was written in."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset

OF_THE_SPACE = ("space", "cohort", "res", "den", "desc")  # entities that tell versions of one run apart
ECHO = "echo"


@dataclass(frozen=True)
class BoldFile:
    """One run in one space.

    Attributes
    ----------
    path : Path
    space : str or None
        Such as MNI152NLin6Asym; `None` is the BOLD's own space.
    res : str or None
        The ``res-`` label.
    """

    path: Path
    space: Optional[str]
    res: Optional[str]

    @property
    def mask(self) -> Path:
        """The brain mask that fMRIPrep writes beside it."""
        return _sibling(self.path, "_desc-preproc_bold", "_desc-brain_mask")

    @property
    def sidecar(self) -> Path:
        """Its JSON file."""
        return self.path.with_name(_stem(self.path) + ".json")

    def __str__(self) -> str:
        return f"space-{self.space or 'bold'}" + (f"_res-{self.res}" if self.res else "")


@dataclass(frozen=True)
class Run:
    """One BOLD run.

    Attributes
    ----------
    entities : tuple of (str, str)
        Those of the source, in their order: sub, ses, task, ...; none of a space.
    files : tuple of BoldFile
    """

    entities: tuple
    files: tuple

    @property
    def name(self) -> str:
        """Such as sub-01_ses-1_task-rest_run-1."""
        return "_".join(f"{key}-{value}" for key, value in self.entities)

    @property
    def subject(self) -> str:
        """Label of the subject."""
        return dict(self.entities)["sub"]

    @property
    def session(self) -> Optional[str]:
        """Label of the session, if there are sessions."""
        return dict(self.entities).get("ses")

    @property
    def folder(self) -> Path:
        """Where outputs go in a derivatives data set: sub-X/[ses-Y/]func."""
        parts = [f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []), "func"]
        return Path(*parts)

    @property
    def confounds(self) -> Optional[Path]:
        """fMRIPrep's table of confounds; `None` if it is not there."""
        folder = self.files[0].path.parent
        of_all_echoes = "_".join(f"{key}-{value}" for key, value in self.entities if key != ECHO)
        for name in (self.name, of_all_echoes):
            for ending in ("timeseries", "regressors"):  # the latter before fMRIPrep 20.2
                path = folder / f"{name}_desc-confounds_{ending}.tsv"
                if path.is_file() or path.is_symlink():  # a link to what was not fetched is told when it is read
                    return path
        return None


@dataclass(frozen=True)
class Selection:
    """Which runs are wanted; labels without their prefixes, empty means all.

    Attributes
    ----------
    subjects, sessions, tasks, runs : tuple of str
    filters : dict
        pybids entities and values, from the ``bold`` entry of a BIDS filter file.
    """

    subjects: tuple = ()
    sessions: tuple = ()
    tasks: tuple = ()
    runs: tuple = ()
    filters: Optional[dict] = None

    @property
    def is_everything(self) -> bool:
        """Whether all runs of the subjects are wanted."""
        return not (self.sessions or self.tasks or self.runs or self.filters)


def find_runs(dataset: Dataset, wanted: Selection, database_dir: Optional[Path] = None) -> "tuple[list, list]":
    """Find the runs that are wanted.

    Returns
    -------
    runs : list of Run
        Sorted by name.
    problems : list of str
        Labels that nothing was found for, and runs that cannot be used.

    Raises
    ------
    NeurostormError
        If nothing at all was found.
    """
    subjects = dataset.subjects()
    odd = [label for label in subjects if not re.fullmatch("[A-Za-z0-9+]+", label)]
    problems = [_unknown("sub", label, subjects) for label in wanted.subjects if label not in subjects]
    subjects = [label for label in subjects if not wanted.subjects or label in wanted.subjects]
    closed = [label for label in subjects if label not in odd and not _readable(dataset.path / f"sub-{label}")]
    problems += [
        f"sub-{label!r}: BIDS labels are letters and digits; it is left out" for label in odd if label in subjects
    ]
    problems += [
        f"{dataset.path / f'sub-{label}'} cannot be read: permission denied" for label in closed if label in subjects
    ]
    subjects = [label for label in subjects if label not in odd and label not in closed]
    if not subjects:
        raise NeurostormError("; ".join(problems) or f"{dataset.path} holds no subject folder (sub-*)")
    paths = _query(dataset, wanted, subjects, database_dir, only_these=bool(wanted.subjects or odd or closed))
    if not paths:
        raise NeurostormError("; ".join([*problems, _nothing(dataset, wanted, subjects)]))
    runs, unusable = _grouped(paths, keep_echoes=ECHO in (wanted.filters or {}))
    problems += unusable
    if wanted.subjects:
        without = sorted(set(subjects) - {run.subject for run in runs})
        problems += [_nothing(dataset, wanted, [subject]) for subject in without]
    for entity, labels in (("ses", wanted.sessions), ("task", wanted.tasks), ("run", wanted.runs)):
        there = {dict(run.entities).get(entity) for run in runs} - {None}
        there_as_given = {_number(label) for label in there}
        problems += [_unknown(entity, label, sorted(there)) for label in labels if _number(label) not in there_as_given]
    return runs, problems


def read_filter_file(path: Path) -> dict:
    """Read the ``bold`` entry of a BIDS filter file; other entries (t1w, ...) are for other apps.

    `null` means that the entity must be absent, ``"*"`` that it may have any value but must be there.
    """
    from bids.layout import Query

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise NeurostormError(f"--bids-filter-file {path} cannot be read as JSON ({error})") from None
    filters = content.get("bold", {}) if isinstance(content, dict) else None
    if filters == {} and (like := [key for key in content if key.strip().lower() == "bold" and key != "bold"]):
        raise NeurostormError(f'--bids-filter-file {path}: write "bold", not "{like[0]}"')
    if not isinstance(filters, dict):
        raise NeurostormError(f'--bids-filter-file {path}: give an object such as {{"bold": {{"task": "rest"}}}}')
    meaning = {None: Query.NONE, "*": Query.ANY, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY}
    return {
        key: meaning.get(value, value) if value is None or isinstance(value, str) else value
        for key, value in filters.items()
    }


def entities_of(path: Path) -> dict:
    """The key-value pairs of a BIDS file name, in their order.

    >>> entities_of(Path("sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz"))["res"]
    '2'
    """
    return dict(part.split("-", 1) for part in _stem(path).split("_") if "-" in part)


def _query(dataset: Dataset, wanted: Selection, subjects: list, database_dir: Optional[Path], only_these: bool) -> list:
    """Ask pybids for the preprocessed BOLD files; only the wanted subjects' folders are looked into."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    # A database is there to be used again for other subjects: it holds all of them.
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
            "look for file names that are no text, or choose subjects with --participant-label"
        ) from None
    _check_database(layout, dataset, subjects, database_dir)
    query = {
        "subject": subjects,
        "session": [*wanted.sessions] or None,
        "task": [*wanted.tasks] or None,
        "run": [_number(label) for label in wanted.runs] or None,
        "datatype": "func",
        "suffix": "bold",
        "desc": "preproc",
        "extension": [".nii.gz", ".nii"],
    }
    filters = wanted.filters or {}
    if twice := sorted(key for key in filters if key in ("session", "task", "run") and query[key] is not None):
        raise NeurostormError(f"--bids-filter-file and the command line both choose the {twice[0]}; give one of them")
    if "subject" in filters:
        raise NeurostormError("--bids-filter-file chooses the subject; give --participant-label instead")
    known = set(layout.get_entities())
    if unknown := sorted(set(filters) - known):
        raise NeurostormError(
            f"--bids-filter-file: there is no entity '{unknown[0]}'; there are: {', '.join(sorted(known))}"
        )
    query |= filters
    try:
        files = layout.get(**{key: value for key, value in query.items() if value is not None})
    except Exception as error:  # what a filter's values may set off
        raise NeurostormError(f"--bids-filter-file: {type(error).__name__}: {str(error).splitlines()[0]}") from None
    return sorted(Path(file.path) for file in files)


def _check_database(layout, dataset: Dataset, subjects: list, database_dir: Optional[Path]) -> None:
    """An index that was kept may be of another data set, or older than the data."""
    if database_dir is None:
        return
    remedy = f"remove --bids-database-dir {database_dir} or give another"
    if Path(layout.root) != dataset.path:
        raise NeurostormError(f"the index in {database_dir} is of {layout.root}, not of {dataset.path}; {remedy}")
    known = set(layout.get_subjects())
    if unknown := [subject for subject in subjects if subject not in known]:
        raise NeurostormError(f"the index in {database_dir} is older than sub-{unknown[0]}; {remedy}")


def _any_but(subjects: list) -> re.Pattern:
    labels = "|".join(re.escape(label) for label in subjects)
    return re.compile(rf"^/sub-(?!({labels})(/|$|\.|_))")


def _grouped(paths: list, keep_echoes: bool) -> "tuple[list, list]":
    """Group files into runs; of a multi-echo run only the combined series is kept."""
    groups = {}
    for path in paths:
        entities = entities_of(path)
        key = tuple((k, v) for k, v in entities.items() if k not in OF_THE_SPACE and (keep_echoes or k != ECHO))
        groups.setdefault(key, []).append((path, entities))
    runs, problems = [], []
    for key, members in sorted(groups.items()):
        combined = [m for m in members if keep_echoes or ECHO not in m[1]]
        if not combined:
            if len({m[1][ECHO] for m in members}) > 1:
                name = "_".join(f"{k}-{v}" for k, v in key)
                problems.append(f"{name}: only single echoes are there, not their combination; run fMRIPrep's default")
                continue
            combined = members
            key = tuple((k, v) for k, v in members[0][1].items() if k not in OF_THE_SPACE)
        files = tuple(BoldFile(path, _space(e), e.get("res")) for path, e in combined)
        runs.append(Run(key, files))
    return runs, problems


def _space(entities: dict) -> Optional[str]:
    space = entities.get("space")
    return f"{space}+{entities['cohort']}" if space and "cohort" in entities else space


def _number(label: Optional[str]):
    return int(label) if label and label.isascii() and label.isdecimal() else label


def _unknown(entity: str, label: str, there: list) -> str:
    found = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") if there else "none"
    return f"{entity}-{label} was asked for but not found; there are: {found}"


def _nothing(dataset: Dataset, wanted: Selection, subjects: list) -> str:
    asked = [
        f"{k} {', '.join(v)}"
        for k, v in (("session", wanted.sessions), ("task", wanted.tasks), ("run", wanted.runs))
        if v
    ]
    who = f"sub-{subjects[0]}" if len(subjects) == 1 else f"{len(subjects)} subjects"
    limits = f" ({'; '.join(asked)})" if asked else ""
    if wanted.filters:
        limits += " within --bids-filter-file"
    missing = f"no *_desc-preproc_bold.nii.gz for {who}{limits} in {dataset.path} (written by {dataset.generator})"
    if limits:
        there = sorted(
            {_label(path) for s in subjects for path in dataset.path.glob(f"sub-{s}/**/func/*desc-preproc_bold.nii*")}
        )
        if there:
            return f"{missing}; there are: {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}"
    return (
        f"{missing}; fMRIPrep writes it with --level full (not minimal or resampling), by this name since version 20.2"
    )


def _label(path: Path) -> str:
    """A run without its subject and space, such as ses-1_task-rest_run-2."""
    return "_".join(f"{k}-{v}" for k, v in entities_of(path).items() if k != "sub" and k not in OF_THE_SPACE)


def _readable(subject: Path) -> bool:
    folders = [subject, subject / "func", *subject.glob("ses-*"), *subject.glob("ses-*/func")]
    return all(os.access(folder, os.R_OK | os.X_OK) for folder in folders if folder.is_dir())


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$|\.json$|\.tsv$", "", path.name)


def _sibling(path: Path, old: str, new: str) -> Path:
    """The file of the same name with another ending, compressed or not."""
    name = path.name.replace(old, new)
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return path.with_name(name if path.with_name(name).exists() or not path.with_name(other).exists() else other)
