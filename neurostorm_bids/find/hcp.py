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
from neurostorm_bids.find.folders import folders_in, is_readable, is_there, may_be_folder
from neurostorm_bids.find.run import DENOISED, PREPROCESSED, BoldFile, MotionFile, Run, one_person

GENERATOR = "the HCP pipelines"
LAYOUT = "<subject>/MNINonLinear/Results/<run>/<run>.nii.gz"
SPACE = "MNI152NLin6Asym"
RESULTS = "MNINonLinear/Results"
TOGETHER = "fMRI_CONCAT"  # runs put together, which are there one by one too
# HCA6002236_V1_MR, and HCA6002236_V1_MR.long.T1 of the longitudinal pipelines
VISIT = re.compile(r"(?P<subject>.+?)_(?P<session>V\d+)(_[A-Za-z0-9]+)?(?P<long>\.long\..+)?")
# rfMRI_REST1_LR, tfMRI_WM_RL, tfMRI_MOVIE1_7T_AP
NAME = re.compile(r"[rt]?fMRI_(?P<task>.+?)(?P<run>\d+)?(_(?P<acq>[37]T))?(_(?P<dir>LR|RL|AP|PA))?")
OTHER_NAME = re.compile(r"(?P<task>.+?)(_(?P<dir>LR|RL|AP|PA))?")
NO_RUN = "no run"
CLEAN = ("_hp2000_clean.nii.gz", "_hp0_clean.nii.gz")


def is_subject(folder: Path) -> bool:
    """Whether a folder is one of a subject."""
    return may_be_folder(folder / "MNINonLinear")


def labels_of(name: str) -> tuple[str, str | None]:
    """Return the labels of subject and session that the name of a folder stands for.

    >>> labels_of("100307"), labels_of("HCA6002236_V1_MR"), labels_of("sub-01_ses-2")
    (('100307', None), ('HCA6002236', 'V1'), ('01', '2'))
    """
    subject, session = _parts(name)
    return letters_and_digits(subject), letters_and_digits(session) if session else None


def _parts(name: str) -> tuple[str, str | None]:
    """Return the parts of a folder's name that stand for subject and session."""
    entities = entities_of(name)
    if "sub" in entities:
        return entities["sub"], entities.get("ses")
    visit = VISIT.fullmatch(name)
    if visit:
        return visit["subject"], visit["session"] + ("long" if visit["long"] else "")
    return name, None


def entities_of_run(name: str) -> dict[str, str]:
    """Return the BIDS entities that the name of a run stands for.

    >>> entities_of_run("rfMRI_REST1_LR")
    {'task': 'rest', 'dir': 'LR', 'run': '1'}
    >>> entities_of_run("tfMRI_WM_RL")
    {'task': 'WM', 'dir': 'RL'}
    """
    if "task-" in name:  # pipelines that were run on a BIDS data set
        found = {key: letters_and_digits(label) for key, label in entities_of(name).items()}
        return {key: label for key, label in found.items() if key not in ("sub", "desc")}
    known = NAME.fullmatch(name) or OTHER_NAME.fullmatch(name)
    parts = known.groupdict() if known else {}
    task = letters_and_digits(parts.get("task") or name)
    if task == "REST" and name.startswith("rfMRI"):
        task = "rest"
    return {"task": task} | {key: parts[key] for key in ("acq", "dir", "run") if parts.get(key)}


def runs_in(label: str, folders: Collection[Path], series: str | None) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a subject.

    Parameters
    ----------
    series : {"preproc", "clean"} or None
        Which series of each run; `None` is the preprocessed one.
    """
    runs: dict[tuple[tuple[str, str], ...], Run] = {}
    folders, problems = one_person(label, folders, lambda folder: _parts(folder.name)[0])
    for folder in folders:
        _, session = labels_of(folder.name)
        if not is_readable(folder / RESULTS):
            problems.append(Problem(f"{folder / RESULTS} is not there or cannot be read", label))
            continue
        for results in folders_in(folder / RESULTS):
            if results.name.startswith(TOGETHER):
                continue
            named = entities_of_run(results.name.removeprefix(f"{folder.name}_"))
            entities = {"sub": label, **({"ses": session} if session else {}), **named}
            run = Run(tuple(entities.items()), (_file(results, folder, series),), _motion(results))
            if problem := _problem_of(run, results, series):
                problems += [Problem(problem, label, run.name)] if problem != NO_RUN else []
            elif run.entities in runs:
                other = runs[run.entities].files[0].path
                text = f"{run.files[0].path} would be called as {other} is: it is left out"
                problems.append(Problem(text, label, run.name))
            else:
                runs[run.entities] = run
    return list(runs.values()), problems


def _problem_of(run: Run, results: Path, series: str | None) -> str | None:
    """Say why a folder of results gives no run; `NO_RUN` if nothing says that it should."""
    if not is_readable(results):
        return f"{results} cannot be read: permission denied"
    path = run.files[0].path
    if is_there(path):
        return None
    other = "preproc" if series == "clean" else "clean"
    if is_there(_series(results, other)):
        return (
            f"there is no {path}; take the series that is there with --series {other}, or choose others with --task-id"
        )
    if run.motion is None and not is_there(run.files[0].mask):
        return NO_RUN  # maps of an analysis, or runs put together
    return f"there is no volume series {path} (surfaces are not read); fetch it, or choose others with --task-id"


def _series(results: Path, series: str | None) -> Path:
    """Return where a series is, or would be."""
    if series != "clean":
        return results / f"{results.name}.nii.gz"
    names = [results / f"{results.name}{ending}" for ending in CLEAN]
    return next((each for each in names if is_there(each)), names[0])


def _file(results: Path, subject: Path, series: str | None) -> BoldFile:
    """Return the series that is wanted, with what belongs to it."""
    masks = [results / f"brainmask_fs.{size}.nii.gz" for size in ("2", "2.0")]
    masks += sorted(results.glob("brainmask_fs.*.nii.gz"))  # of other voxel sizes, such as 1.60
    anatomical = subject / "MNINonLinear" / "brainmask_fs.nii.gz"
    reference, sidecar = (results / f"{results.name}{ending}" for ending in ("_SBRef.nii.gz", ".json"))
    return BoldFile(
        _series(results, series),
        SPACE,
        None,
        next((mask for mask in masks if is_there(mask)), masks[0]),
        (anatomical,) if is_there(anatomical) else (),
        (sidecar,) if is_there(sidecar) else (),
        reference if is_there(reference) else None,
        series=DENOISED if series == "clean" else PREPROCESSED,
    )


def _motion(results: Path) -> MotionFile | None:
    path = results / "Movement_Regressors.txt"
    return MotionFile(path, "hcp") if is_there(path) else None
