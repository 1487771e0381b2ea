"""Read UK Biobank's preprocessed fMRI where it was unpacked.

Bulk fields 20227 (rest) and 20249 (task) unpack to ``fMRI/`` in a folder that is called ``<eid>_<field>_<instance>_
<array>`` or like it. The series are in the space of the BOLD run; FSL's ``example_func2standard_warp`` leads to them
from MNI152NLin6Asym. Repetition times are in ``rfMRI.json`` and ``tfMRI.json``: many headers say 0. See
Alfaro-Almagro et al. (2018), NeuroImage 166:400-424, and UK Biobank's brain imaging documentation.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import Problem
from neurostorm_bids.find.entities import entities_of, letters_and_digits
from neurostorm_bids.find.folders import is_readable, is_there, may_be_folder
from neurostorm_bids.find.run import DENOISED, PREPROCESSED, BoldFile, MotionFile, Run, one_person

GENERATOR = "the UK Biobank pipeline"
LAYOUT = "<eid>_20227_2_0/fMRI/rfMRI.ica/..."
NAME = re.compile(r"(?P<eid>\d+)(_\d{5})?_(?P<instance>\d+)_(?P<array>\d+)")  # 1000001_20227_2_0, 1000001_2_0


@dataclass(frozen=True)
class _Kind:
    """What one kind of run is called: in BIDS, and in ``fMRI/``."""

    task: str
    folder: str
    sidecar: str
    default: str
    has_clean: bool = True


KINDS = (
    _Kind("rest", "rfMRI.ica", "rfMRI.json", "clean"),
    _Kind("hariri", "tfMRI.feat", "tfMRI.json", "preproc", has_clean=False),  # faces and shapes
)
SERIES = {"clean": "filtered_func_data_clean.nii.gz", "preproc": "filtered_func_data.nii.gz"}


def is_subject(folder: Path) -> bool:
    """Whether a folder is one of a subject and a visit."""
    return any(may_be_folder(folder / "fMRI" / kind.folder) for kind in KINDS)


def labels_of(name: str) -> tuple[str, str | None, str | None]:
    """Return the labels of subject, session and run that the name of a folder stands for.

    The session is UK Biobank's instance (2: the first imaging visit); a repeat within one visit (array 1) is run 2.

    >>> labels_of("1000001_20227_2_0"), labels_of("1000001_3_1"), labels_of("1000001")
    (('1000001', '2', None), ('1000001', '3', '2'), ('1000001', None, None))
    """
    found, entities = NAME.fullmatch(name), entities_of(name)
    if not found:
        session = letters_and_digits(entities.get("ses", ""))
        return letters_and_digits(entities.get("sub", name)), session or None, None
    array = int(found["array"])
    return found["eid"], found["instance"], str(array + 1) if array else None


def runs_in(label: str, folders: Collection[Path], series: str | None) -> tuple[list[Run], list[Problem]]:
    """Find the runs of a subject.

    Parameters
    ----------
    series : {"preproc", "clean"} or None
        Which series of rest; `None` is the denoised one. The task has the preprocessed one only.
    """
    runs: dict[tuple[tuple[str, str], ...], Run] = {}
    folders, problems = one_person(label, folders, lambda folder: _person(folder.name))
    for folder in folders:
        _, session, number = labels_of(folder.name)
        for kind in KINDS:
            results = folder / "fMRI" / kind.folder
            if not may_be_folder(results):
                continue
            named = {"sub": label, "ses": session, "task": kind.task, "run": number}
            entities = tuple((key, value) for key, value in named.items() if value)
            run = Run(entities, (_file(results, kind, series),), _motion(results))
            path = run.files[0].path
            if run.entities in runs:
                other = runs[run.entities].files[0].path
                problems.append(Problem(f"{path} would be called as {other} is: it is left out", label, run.name))
            elif not is_readable(results):
                problems.append(Problem(f"{results} cannot be read: permission denied", label, run.name))
            elif not is_there(path):
                there = [name for name, file in SERIES.items() if is_there(results / file)]
                remedy = f"take the series that is there with --series {there[0]}" if there else "unpack it again"
                problems.append(Problem(f"there is no {path}; {remedy}", label, run.name))
            else:
                runs[run.entities] = run
    return list(runs.values()), problems


def _person(name: str) -> str:
    """Return the part of a folder's name that stands for the subject."""
    found = NAME.fullmatch(name)
    return found["eid"] if found else entities_of(name).get("sub", name)


def _file(results: Path, kind: _Kind, series: str | None) -> BoldFile:
    """Return the series that is wanted, with what belongs to it."""
    wanted = series if series and kind.has_clean else kind.default
    sidecar = results.parent / kind.sidecar
    references = (results / "example_func.nii.gz", results / "reg" / "example_func.nii.gz")
    return BoldFile(
        results / SERIES[wanted],
        None,
        None,
        results / "mask.nii.gz",
        sidecars=(sidecar,) if is_there(sidecar) else (),
        reference=next((path for path in references if is_there(path)), None),
        warp=results / "reg" / "example_func2standard_warp.nii.gz",
        series=DENOISED if wanted == "clean" else PREPROCESSED,
    )


def _motion(results: Path) -> MotionFile | None:
    path = results / "mc" / "prefiltered_func_data_mcf.par"
    return MotionFile(path, "fsl") if is_there(path) else None
