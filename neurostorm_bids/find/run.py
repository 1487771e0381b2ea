"""A BOLD run: the same whichever program preprocessed it. The readers of each kind of data set make it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import Problem
from neurostorm_bids.find.entities import name_of
from neurostorm_bids.settings.participant import BOLD_SPACE

PREPROCESSED, DENOISED = "preprocessed", "denoised by ICA-FIX"


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
    mask : Path
        The run's own brain mask, in the same space; perhaps it is not there.
    anatomical_masks : tuple of Path
        Masks of the subject in the same space, for a run without its own; they are there.
    sidecars : tuple of Path
        JSON files that describe it; where two say something else, the one that comes first is right.
    reference : Path or None
        One volume on the same grid of voxels, such as fMRIPrep's boldref.
    warp : Path or None
        FSL's field from MNI152NLin6Asym to it, where that is how it was registered; perhaps it is not there.
    series : str
        What was done to it, where a pipeline writes several series.
    """

    path: Path
    space: str | None
    res: str | None
    mask: Path
    anatomical_masks: tuple[Path, ...] = ()
    sidecars: tuple[Path, ...] = ()
    reference: Path | None = None
    warp: Path | None = None
    series: str = PREPROCESSED

    @property
    def space_name(self) -> str:
        """What --input-space calls its space."""
        return self.space or BOLD_SPACE

    def __str__(self) -> str:
        return f"space-{self.space_name}" + (f"_res-{self.res}" if self.res else "")


@dataclass(frozen=True)
class MotionFile:
    """Where the head motion of a run is written.

    Attributes
    ----------
    path : Path
    layout : {"fmriprep", "hcp", "fsl"}
        How: fMRIPrep's table of confounds, the HCP pipelines' Movement_Regressors.txt, FSL's .par.
    """

    path: Path
    layout: str


@dataclass(frozen=True)
class Run:
    """One BOLD run.

    Attributes
    ----------
    entities : tuple of (str, str)
        Those of BIDS, in their order: sub, ses, task, ...; none of a space.
    files : tuple of BoldFile
    motion : MotionFile or None
    """

    entities: tuple[tuple[str, str], ...]
    files: tuple[BoldFile, ...]
    motion: MotionFile | None = None

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


def one_person(
    label: str, folders: Collection[Path], name_of_person: Callable[[Path], str]
) -> tuple[list[Path], list[Problem]]:
    """Return the folders of the first of several people whose names make the same label, and a problem for the others.

    Parameters
    ----------
    label : str
        Of the subject.
    name_of_person : callable
        Returns the part of a folder's name that stands for the subject.
    """
    first = name_of_person(next(iter(folders)))
    own = [folder for folder in folders if name_of_person(folder) == first]
    others = [folder for folder in folders if folder not in own]
    text = f"{others[0]} and {own[0]} would both be sub-{label}; only the latter is read" if others else ""
    return own, [Problem(text, label)] if others else []
