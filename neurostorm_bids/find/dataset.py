"""Find the data set that BIDS_DIR stands for: what fMRIPrep or NiBabies wrote, or a cohort's own folders."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find import hcp, ukb
from neurostorm_bids.find.entities import letters_and_digits
from neurostorm_bids.find.folders import folders_in
from neurostorm_bids.find.raw_dataset import find_raw_dataset
from neurostorm_bids.settings.participant import Selection

PROBED = 25  # subjects looked into before a folder without a description is said to hold no preprocessed BOLD
PROBED_OF_A_COHORT = 500  # folders looked into to tell a cohort's: quick, since nothing is listed
COHORTS: dict[str, Any] = {"hcp": hcp, "ukb": ukb}  # readers of folders that are not BIDS
RAW_LINK = "raw"  # what --derivatives calls the raw data set
PROGRAMS = {"fmriprep": "fMRIPrep", "nibabies": "NiBabies"}


@dataclass(frozen=True)
class Dataset:
    """A folder of preprocessed runs.

    Attributes
    ----------
    path : Path
    link : str
        Its name in BIDS URIs (``bids:<link>:sub-01/...``).
    description : dict
        Its dataset_description.json; empty if there is none.
    raw : Path or None
        The raw data set that it was made from.
    input_type : {"fmriprep", "nibabies", "hcp", "ukb"}
    raw_link : str
        The raw data set's name in BIDS URIs.
    raw_is : {"around", "given", "found"}
        How the raw data set is known: the derivatives were found in it; it was given for its series; it was looked for.
    """

    path: Path
    link: str
    description: dict[str, Any]
    raw: Path | None = None
    input_type: str = "fmriprep"
    raw_link: str = RAW_LINK
    raw_is: str = "around"

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the program that wrote it, such as (25, 2, 0); empty if it is not known."""
        made = _generated_by(self.description)
        numbers = re.match(r"\d+(\.\d+)*", str(made[0].get("Version", ""))) if made else None
        return tuple(int(each) for each in numbers[0].split(".")) if numbers else ()

    @property
    def generator(self) -> str:
        """The program that wrote it, such as "fMRIPrep 25.2.0"."""
        if not self.is_bids:
            return str(COHORTS[self.input_type].GENERATOR)
        made = _generated_by(self.description)
        return f"{made[0].get('Name', '?')} {made[0].get('Version', '')}".strip() if made else "an unnamed program"

    @property
    def citation(self) -> str | None:
        """The key of the program's paper in the bibliography."""
        if not self.is_bids:
            return self.input_type
        return "fmriprep" if "fmriprep" in self.generator.lower() else None

    @property
    def is_bids(self) -> bool:
        """Whether it is a BIDS derivative, and not a cohort's own folders."""
        return self.input_type not in COHORTS

    @property
    def name(self) -> str:
        """The name of the data: the raw data set's where it is known, since derivatives are named after programs."""
        described = self.description if self.raw is None or self.raw_is == "found" else read_description(self.raw)
        return str(described.get("Name") or self.path.name)

    def label_of(self, name: str) -> str:
        """Return the label of a subject that a lab calls by this name, such as that of its folder."""
        bare = name.removeprefix("sub-")
        return str(COHORTS[self.input_type].labels_of(bare)[0]) if not self.is_bids else letters_and_digits(bare)

    def subjects(self) -> list[str]:
        """Return the labels of its subjects, sorted."""
        if not self.is_bids:
            return sorted(self.subject_folders())
        return sorted(folder.name.removeprefix("sub-") for folder in _subject_folders(self.path))

    def subject_folders(self, only: Collection[str] = ()) -> dict[str, list[Path]]:
        """Return the folders of each subject of a cohort by its label; a subject has one for each visit.

        Parameters
        ----------
        only : collection of str
            Look at these subjects alone.
        """
        reader = COHORTS[self.input_type]
        found: dict[str, list[Path]] = {}
        for folder in folders_in(self.path):
            label = str(reader.labels_of(folder.name)[0])
            if label and (not only or label in only) and reader.is_subject(folder):
                found.setdefault(label, []).append(folder)
        return found

    def uri(self, path: Path) -> str:
        """Return a file as a BIDS URI if it is one of the data set or TemplateFlow's, else as a file URI."""
        roots = [(self.path, self.link), *([(self.raw, self.raw_link)] if self.raw is not None else [])]
        for root, name in sorted(roots, key=lambda pair: -len(pair[0].parts)):  # one may be inside the other
            if path.is_relative_to(root):
                return f"bids:{name}:{path.relative_to(root).as_posix()}"
        if path.name.startswith("tpl-"):
            return f"bids:templateflow:{path.parent.name}/{path.name}"
        return path.as_uri()


def find_selected(bids_dir: Path, selection: Selection) -> Dataset:
    """Find the preprocessed runs that ``bids_dir`` stands for, as the options say; see `find_dataset`."""
    return find_dataset(bids_dir, dict(selection.derivatives), selection.input_type)


def find_dataset(bids_dir: Path, derivatives: dict[str, Path] | None = None, input_type: str = "auto") -> Dataset:
    """Find the preprocessed runs that ``bids_dir`` stands for.

    Looked for in this order: a folder given in ``derivatives``; folders as the HCP pipelines or UK Biobank make them;
    ``bids_dir`` itself; ``derivatives/*fmriprep*`` or ``*fmriprep*`` in it (then the same for NiBabies); any other
    folder in ``derivatives`` with preprocessed BOLD.

    Parameters
    ----------
    input_type : {"auto", "fmriprep", "nibabies", "hcp", "ukb"}
        auto: told from what is there.

    Raises
    ------
    NeurostormError
        With what was found instead, and what to give.
    """
    derivatives = dict(derivatives or {})
    raw = derivatives.pop(RAW_LINK, None)
    named = [name for name in derivatives if name in COHORTS]
    if input_type == "auto" and named:
        input_type = named[0]
    if input_type in COHORTS:
        if raw is not None:
            raise NeurostormError(
                f"--derivatives {RAW_LINK}={raw} is for fMRIPrep's transforms, which {input_type} has none of; leave it out"
            )
        return _cohort(bids_dir, derivatives, input_type)
    if raw is not None and not raw.is_dir():
        raise NeurostormError(f"--derivatives {RAW_LINK}={raw}: there is no such folder")
    found = _preprocessed(bids_dir, derivatives, input_type)
    if raw is not None:
        return replace(found, raw=raw.resolve(), raw_is="given")
    if found.is_bids and found.raw is None:
        return replace(found, raw=find_raw_dataset(found.path, found.description), raw_is="found")
    return found


def _preprocessed(bids_dir: Path, derivatives: dict[str, Path], input_type: str) -> Dataset:
    """Return the preprocessed data: those that are given, a cohort's, or what is in ``bids_dir``."""
    if derivatives:
        return _given(bids_dir, derivatives, input_type)
    _check_folder(bids_dir)
    if input_type == "auto" and (kind := _kind_of(bids_dir)):
        return _cohort(bids_dir, {}, kind)
    if bids_dir.name.startswith("sub-"):
        label = bids_dir.name.removeprefix("sub-")
        raise NeurostormError(
            f"{bids_dir} is the folder of one subject; give its parent {bids_dir.parent} and --participant-label {label}"
        )
    return _derivatives(bids_dir, input_type)


def _derivatives(bids_dir: Path, input_type: str) -> Dataset:
    """Return what fMRIPrep or NiBabies wrote: the folder itself, or one below it."""
    description = read_description(bids_dir)
    itself = Dataset(bids_dir.resolve(), "fmriprep", description, input_type=_program_of(description, input_type))
    if _is_derivative(description) and next(_subject_folders(bids_dir), None):
        return itself
    for program in PROGRAMS if input_type == "auto" else (input_type,):
        below = [folder for folder in _named(bids_dir, program) if folder.is_dir()]
        if below:
            return _only(below, bids_dir, input_type)
    if _holds_bold(bids_dir):
        return itself
    others = [folder for folder in sorted(bids_dir.glob("derivatives/*")) if folder.is_dir()]
    holding = [folder for folder in others if _holds_bold(folder)]
    if holding:
        return _only(holding, bids_dir, input_type)
    raise NeurostormError(
        f"{bids_dir} holds no output of {PROGRAMS.get(input_type, 'fMRIPrep')}: {_what_is_there(bids_dir, others)}"
    )


def _named(bids_dir: Path, program: str) -> list[Path]:
    """Return the folders that are called after a program."""
    return sorted(
        folder for pattern in (f"derivatives/*{program}*", f"*{program}*") for folder in bids_dir.glob(pattern)
    )


def _cohort(bids_dir: Path, derivatives: dict[str, Path], input_type: str) -> Dataset:
    """Return a cohort's folders.

    Raises
    ------
    NeurostormError
        If they are not there; with what to give instead.
    """
    _check_folder(bids_dir)
    if derivatives and input_type not in derivatives:
        raise NeurostormError(
            f"--input-type {input_type} with --derivatives {next(iter(derivatives))}: give one of them"
        )
    path, reader = Path(derivatives.get(input_type, bids_dir)), COHORTS[input_type]
    if not path.is_dir():
        raise NeurostormError(f"--derivatives {input_type}={path}: there is no such folder")
    if reader.is_subject(path):
        label = reader.labels_of(path.resolve().name)[0]
        raise NeurostormError(
            f"{path} is the folder of one subject; give its parent {path.resolve().parent} and "
            f"--participant-label {label}"
        )
    if not any(reader.is_subject(folder) for folder in folders_in(path)):
        there = ", ".join(folder.name for folder in folders_in(path)[:5]) or "no folder"
        raise NeurostormError(f"{path} holds no subject of {reader.GENERATOR} ({reader.LAYOUT}); found {there}")
    return Dataset(path.resolve(), input_type, read_description(path), None, input_type)


def _kind_of(bids_dir: Path) -> str | None:
    """Tell whether a folder is a cohort's, by its first folders; `None` if it is not."""
    folders = [bids_dir, *folders_in(bids_dir)[:PROBED_OF_A_COHORT]]
    return next((kind for kind, reader in COHORTS.items() if any(map(reader.is_subject, folders))), None)


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


def _given(bids_dir: Path, derivatives: dict[str, Path], input_type: str) -> Dataset:
    """Return the data set that --derivatives names."""
    names = [name for name in derivatives if name.lower().startswith(tuple(PROGRAMS))] or list(derivatives)
    if len(names) > 1:
        raise NeurostormError(
            f"--derivatives: which of {', '.join(names)} is fMRIPrep's? Give that one as fmriprep=PATH"
        )
    path = Path(derivatives[names[0]])
    _check_folder(bids_dir)
    if not path.is_dir():
        raise NeurostormError(f"--derivatives {names[0]}={path}: there is no such folder")
    description = read_description(path)
    named = "nibabies" if names[0].lower().startswith("nibabies") else input_type
    is_raw = not _is_derivative(read_description(bids_dir)) and bids_dir.resolve() != path.resolve()
    program = _program_of(description, named)
    return Dataset(path.resolve(), _link(names[0]), description, bids_dir if is_raw else None, program)


def _only(folders: list[Path], bids_dir: Path, input_type: str) -> Dataset:
    exact = [folder for folder in folders if folder.name in PROGRAMS]
    folders = exact or folders
    if len(folders) > 1:
        raise NeurostormError(
            f"{bids_dir} holds several fMRIPrep outputs ({', '.join(folder.name for folder in folders)}); "
            f"say which: --derivatives fmriprep={folders[-1]}"
        )
    folder = folders[0]
    if not next(_subject_folders(folder), None) and (
        inner := [each for each in folders_in(folder) if _holds_bold(each)]
    ):
        raise NeurostormError(
            f"{folder} holds no subject, but {inner[0].name} in it does; give --derivatives fmriprep={inner[0]}"
        )
    description = read_description(folder)
    return Dataset(
        folder.resolve(), _link(folder.name), description, bids_dir, _program_of(description, input_type, folder.name)
    )


def _program_of(description: dict[str, Any], input_type: str, name: str = "") -> str:
    """Return which program wrote derivatives, as its description or else its folder's name says."""
    if input_type != "auto":
        return input_type
    names = [str(made.get("Name")) for made in _generated_by(description)] or [name]
    return "nibabies" if any("nibabies" in each.lower() for each in names) else "fmriprep"


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
    names = [str(made.get("Name")).lower() for made in _generated_by(description)]
    return any(program in name for program in PROGRAMS for name in names)


def _subject_folders(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.glob("sub-*") if entry.is_dir())


def holds_resampled(folder: Path) -> bool:
    """Whether the first subjects of a folder of derivatives have preprocessed BOLD series, and not transforms alone."""
    return _holds(folder, "desc-preproc_bold.nii*")


def _holds_bold(folder: Path) -> bool:
    of_minimal = ("_desc-hmc_xfm.txt", "_from-scanner_to-boldref_mode-image_xfm.txt")
    return _holds(folder, "desc-preproc_bold.nii*", *of_minimal)


def _holds(folder: Path, *endings: str) -> bool:
    patterns = [f"{folder}/*{ending}" for ending in endings for folder in ("func", "ses-*/func")]
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
    zipped = next(bids_dir.glob("*_202[24]*_*.zip"), None)  # UK Biobank's bulk fields 20227 and 20249
    if zipped is not None:
        return f"{found}. {zipped.name} looks like UK Biobank's: unpack it into a folder of its name"
    return (
        f"{found}. Run fMRIPrep first, or give its output folder as BIDS_DIR or with --derivatives fmriprep=PATH (of HCP or "
        "UK Biobank, give the folder of the subjects' folders, with --input-type)"
    )
