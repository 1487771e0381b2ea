"""Find the fMRIPrep derivatives: the folder given, or one below it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError

PROBED = 25  # subjects looked into before a folder without a description is said to hold no preprocessed BOLD


@dataclass(frozen=True)
class Dataset:
    """A folder of fMRIPrep derivatives.

    Attributes
    ----------
    path : Path
    link : str
        Its name in BIDS URIs (``bids:<link>:sub-01/...``).
    description : dict
        Its dataset_description.json; empty if there is none.
    raw : Path or None
        The raw data set that it was found in.
    """

    path: Path
    link: str
    description: dict[str, Any]
    raw: Path | None = None

    @property
    def generator(self) -> str:
        """The program that wrote it, such as "fMRIPrep 25.2.0"."""
        made = _generated_by(self.description)
        return f"{made[0].get('Name', '?')} {made[0].get('Version', '')}".strip() if made else "an unnamed program"

    @property
    def name(self) -> str:
        """The name of the data: the raw data set's where it is known, since derivatives are named after programs."""
        described = self.description if self.raw is None else read_description(self.raw)
        return str(described.get("Name") or self.path.name)

    def subjects(self) -> list[str]:
        """Return the labels of its subjects, sorted."""
        return sorted(folder.name.removeprefix("sub-") for folder in _subject_folders(self.path))

    def uri(self, path: Path) -> str:
        """Return a file as a BIDS URI if it is one of the data set or TemplateFlow's, else as a file URI."""
        if path.is_relative_to(self.path):
            return f"bids:{self.link}:{path.relative_to(self.path).as_posix()}"
        if path.name.startswith("tpl-"):
            return f"bids:templateflow:{path.parent.name}/{path.name}"
        return path.as_uri()


def find_dataset(bids_dir: Path, derivatives: dict[str, Path] | None = None) -> Dataset:
    """Find the fMRIPrep derivatives that ``bids_dir`` stands for.

    Looked for in this order: a folder given in ``derivatives``; ``bids_dir`` itself; ``derivatives/*fmriprep*`` or
    ``*fmriprep*`` in it; any other folder in ``derivatives`` with preprocessed BOLD.

    Raises
    ------
    NeurostormError
        With what was found instead, and what to give.
    """
    if derivatives:
        return _given(bids_dir, derivatives)
    _check_folder(bids_dir)
    if bids_dir.name.startswith("sub-"):
        label = bids_dir.name.removeprefix("sub-")
        raise NeurostormError(
            f"{bids_dir} is the folder of one subject; give its parent {bids_dir.parent} and --participant-label {label}"
        )
    description = read_description(bids_dir)
    if _is_derivative(description) and next(_subject_folders(bids_dir), None):
        return Dataset(bids_dir.resolve(), "fmriprep", description)
    below = sorted(folder for pattern in ("derivatives/*fmriprep*", "*fmriprep*") for folder in bids_dir.glob(pattern))
    below = [folder for folder in below if folder.is_dir()]
    if below:
        return _only(below, bids_dir)
    if _holds_bold(bids_dir):
        return Dataset(bids_dir.resolve(), "fmriprep", description)
    others = [folder for folder in sorted(bids_dir.glob("derivatives/*")) if folder.is_dir()]
    holding = [folder for folder in others if _holds_bold(folder)]
    if holding:
        return _only(holding, bids_dir)
    raise NeurostormError(f"{bids_dir} holds no fMRIPrep output: {_what_is_there(bids_dir, others)}")


def read_description(folder: Path) -> dict[str, Any]:
    """Read a folder's dataset_description.json; empty if it is missing or not a JSON object."""
    path = folder / "dataset_description.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _check_folder(bids_dir: Path) -> None:
    if not bids_dir.is_dir():
        raise NeurostormError(f"BIDS_DIR: there is no folder {bids_dir}")


def _given(bids_dir: Path, derivatives: dict[str, Path]) -> Dataset:
    """Return the data set that --derivatives names."""
    names = [name for name in derivatives if name.lower().startswith("fmriprep")] or list(derivatives)
    if len(names) > 1:
        raise NeurostormError(
            f"--derivatives: which of {', '.join(names)} is fMRIPrep's? Give that one as fmriprep=PATH"
        )
    path = Path(derivatives[names[0]])
    _check_folder(bids_dir)
    if not path.is_dir():
        raise NeurostormError(f"--derivatives {names[0]}={path}: there is no such folder")
    return Dataset(path.resolve(), _link(names[0]), read_description(path), raw=bids_dir)


def _only(folders: list[Path], bids_dir: Path) -> Dataset:
    exact = [folder for folder in folders if folder.name == "fmriprep"]
    folders = exact or folders
    if len(folders) > 1:
        raise NeurostormError(
            f"{bids_dir} holds several fMRIPrep outputs ({', '.join(folder.name for folder in folders)}); "
            f"say which: --derivatives fmriprep={folders[-1]}"
        )
    return Dataset(folders[0].resolve(), _link(folders[0].name), read_description(folders[0]), raw=bids_dir)


def _link(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", name) or "fmriprep"


def _generated_by(description: dict[str, Any]) -> list[dict[str, Any]]:
    made = description.get("GeneratedBy") or description.get("PipelineDescription") or []  # the latter before BIDS 1.4
    made = made if isinstance(made, list) else [made]
    return [entry for entry in made if isinstance(entry, dict)]


def _is_derivative(description: dict[str, Any]) -> bool:
    if "DatasetType" in description:
        return bool(description["DatasetType"] == "derivative")
    # before BIDS 1.4 the program's name was the only sign; raw data sets name their converter
    return any("fmriprep" in str(made.get("Name")).lower() for made in _generated_by(description))


def _subject_folders(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.glob("sub-*") if entry.is_dir())


def _holds_bold(folder: Path) -> bool:
    patterns = ("func/*desc-preproc_bold.nii*", "ses-*/func/*desc-preproc_bold.nii*")
    return any(
        next(subject.glob(pattern), None) is not None
        for subject in islice(_subject_folders(folder), PROBED)
        for pattern in patterns
    )


def _what_is_there(bids_dir: Path, derivatives: list[Path]) -> str:
    n_subjects = sum(1 for _ in _subject_folders(bids_dir))
    if n_subjects and derivatives:
        found = f"found {n_subjects} subject(s) and derivatives of {', '.join(d.name for d in derivatives)}"
    elif n_subjects:
        found = f"found {n_subjects} subject(s) without preprocessed BOLD and no derivatives folder"
    else:
        entries = sorted(entry.name for entry in bids_dir.iterdir())
        found = f"found {', '.join(entries[:5])}{', ...' if len(entries) > 5 else ''}" if entries else "it is empty"
    return f"{found}. Run fMRIPrep first, or give its output folder as BIDS_DIR or with --derivatives fmriprep=PATH"
