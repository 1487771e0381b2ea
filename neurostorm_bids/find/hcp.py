"""Read the output of the HCP's minimal preprocessing pipelines where it lies.

``<subject>/MNINonLinear/Results/<run>/<run>.nii.gz`` is in FSL's MNI152NLin6Asym, stored from right to left. Its
repetition time is in the header; head motion is in ``Movement_Regressors.txt``. See Glasser et al. (2013), NeuroImage
80:105-124, and the file lists of the HCP's release manuals.
"""

import re
from collections.abc import Collection
from pathlib import Path

from neurostorm_bids.errors import Problem
from neurostorm_bids.find.entities import entities_of, letters_and_digits
from neurostorm_bids.find.folders import folders_in
from neurostorm_bids.find.run import DENOISED, PREPROCESSED, BoldFile, MotionFile, Run

GENERATOR = "the HCP pipelines"
LAYOUT = "<subject>/MNINonLinear/Results/<run>/<run>.nii.gz"
SPACE = "MNI152NLin6Asym"
RESULTS = "MNINonLinear/Results"
VISIT = re.compile(r"(?P<subject>.+?)_(?P<session>V\d+)(_[A-Za-z0-9]+)?")  # HCA6002236_V1_MR
# rfMRI_REST1_LR, tfMRI_WM_RL, tfMRI_MOVIE1_7T_AP
NAME = re.compile(r"[rt]?fMRI_(?P<task>.+?)(?P<run>\d+)?(_(?P<acq>[37]T))?(_(?P<dir>LR|RL|AP|PA))?")
OTHER_NAME = re.compile(r"(?P<task>.+?)(_(?P<dir>LR|RL|AP|PA))?")
CLEAN = ("_hp2000_clean.nii.gz", "_hp0_clean.nii.gz")


def is_subject(folder: Path) -> bool:
    """Whether a folder is one of a subject."""
    return (folder / RESULTS).is_dir()


def subject_folders(path: Path, only: Collection[str] = ()) -> dict[str, list[Path]]:
    """Return the folders of each subject by its label; a subject has one for each visit.

    Parameters
    ----------
    only : collection of str
        Look at these subjects alone.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders_in(path):
        label, _ = labels_of(folder.name)
        if label and (not only or label in only) and is_subject(folder):
            found.setdefault(label, []).append(folder)
    return found


def labels_of(name: str) -> tuple[str, str | None]:
    """Return the labels of subject and session that the name of a folder stands for.

    >>> labels_of("100307"), labels_of("HCA6002236_V1_MR"), labels_of("sub-01_ses-2")
    (('100307', None), ('HCA6002236', 'V1'), ('01', '2'))
    """
    entities = entities_of(name)
    if "sub" in entities:
        return entities["sub"], entities.get("ses")
    visit = VISIT.fullmatch(name)
    if visit:
        return letters_and_digits(visit["subject"]), visit["session"]
    return letters_and_digits(name), None


def entities_of_run(name: str) -> dict[str, str]:
    """Return the BIDS entities that the name of a run stands for.

    >>> entities_of_run("rfMRI_REST1_LR")
    {'task': 'rest', 'dir': 'LR', 'run': '1'}
    >>> entities_of_run("tfMRI_WM_RL")
    {'task': 'WM', 'dir': 'RL'}
    """
    if "task-" in name:  # pipelines that were run on a BIDS data set
        return {key: label for key, label in entities_of(name).items() if key not in ("sub", "desc")}
    known = NAME.fullmatch(name)
    parts = (known or OTHER_NAME.fullmatch(name) or {}).groupdict() if name else {}  # type: ignore[union-attr]
    task = letters_and_digits(parts.get("task") or name)
    if known and task == "REST":
        task = "rest"
    found = {"task": task, "acq": parts.get("acq"), "dir": parts.get("dir"), "run": parts.get("run")}
    return {key: label for key, label in found.items() if label}


def runs_in(label: str, folders: Collection[Path], series: str | None) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a subject.

    Parameters
    ----------
    series : {"preproc", "clean"} or None
        Which series of each run; `None` is the preprocessed one.
    """
    runs: dict[tuple[tuple[str, str], ...], Run] = {}
    problems = []
    for folder in folders:
        _, session = labels_of(folder.name)
        for results in folders_in(folder / RESULTS):
            whole_name = results.name.removeprefix(f"{folder.name}_")
            path = results / f"{results.name}.nii.gz"
            if not path.is_file() and not path.is_symlink():
                continue  # surfaces only, or runs put together
            named = entities_of_run(whole_name)
            entities = {"sub": label, **({"ses": session} if session else {}), **named}
            run = Run(tuple(entities.items()), (_file(path, folder, series),), _motion(results))
            if run.entities in runs:
                other = runs[run.entities].files[0].path
                problems.append(Problem(f"{path} would be called as {other} is: it is left out", label, run.name))
                continue
            if not run.files[0].path.exists() and not run.files[0].path.is_symlink():
                text = f"there is no {run.files[0].path}; take the series that is there with --series preproc"
                problems.append(Problem(text, label, run.name))
                continue
            runs[run.entities] = run
    return list(runs.values()), problems


def _file(path: Path, subject: Path, series: str | None) -> BoldFile:
    """Return the series that is wanted, with what belongs to it."""
    results, name = path.parent, path.name.removesuffix(".nii.gz")
    masks = [results / f"brainmask_fs.{size}.nii.gz" for size in ("2", "2.0")]
    masks += sorted(results.glob("brainmask_fs.*.nii.gz"))  # of other voxel sizes, such as 1.60
    anatomical = subject / "MNINonLinear" / "brainmask_fs.nii.gz"
    reference = results / f"{name}_SBRef.nii.gz"
    if series == "clean":
        names = [results / f"{name}{ending}" for ending in CLEAN]
        path = next((each for each in names if each.exists() or each.is_symlink()), names[0])
    return BoldFile(
        path,
        SPACE,
        None,
        next((mask for mask in masks if mask.is_file()), masks[0]),
        (anatomical,) if anatomical.is_file() else (),
        tuple(side for side in (results / f"{name}.json",) if side.is_file()),
        reference if reference.is_file() else None,
        series=DENOISED if series == "clean" else PREPROCESSED,
    )


def _motion(results: Path) -> MotionFile | None:
    path = results / "Movement_Regressors.txt"
    return MotionFile(path, "hcp") if path.is_file() else None
