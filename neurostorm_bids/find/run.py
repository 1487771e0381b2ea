"""A BOLD run: the same whichever program preprocessed it. The readers of each kind of data set make it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import Problem
from neurostorm_bids.find.entities import name_of
from neurostorm_bids.settings.participant import BOLD_SPACE

PREPROCESSED, DENOISED, RAW = "preprocessed", "denoised by ICA-FIX", "raw"


@dataclass(frozen=True)
class Fieldmap:
    """What fMRIPrep found out about the magnetic field of a run.

    Attributes
    ----------
    identifier : str
        Such as auto00000, of file names.
    coefficients : tuple of Path
        Images of cubic B-spline coefficients, Hz; they add up.
    reference : Path or None
        The image whose field of view is the fieldmap's.
    transform : Path
        ``from-boldref_to-<identifier>``, which maps points of the fieldmap to the BOLD reference.
    is_pepolar : bool or None
        Whether it was made from images of opposite phase encoding; `None` if nothing says so.
    """

    identifier: str
    coefficients: tuple[Path, ...]
    reference: Path | None
    transform: Path
    is_pepolar: bool | None


@dataclass(frozen=True)
class RawParts:
    """What leads from the BOLD reference of a run to its raw series.

    Attributes
    ----------
    head_motion : Path
        One rigid transform a volume.
    reference : Path
        The BOLD reference that volumes were aligned with; perhaps it is not there.
    fieldmap : Fieldmap or None
        `None`: distortion is not corrected.
    fieldmap_missing : str
        Why there is no fieldmap, or what is missing of it.
    slice_timing : bool
        Whether fMRIPrep did not leave slice timing alone.
    slice_time_ref : float or None
        Where in the acquisition of a volume fMRIPrep shifted slices to, 0 to 1, if it says.
    jacobian_of_all : bool
        Whether this version of fMRIPrep scaled intensities for every kind of fieldmap.
    jacobian : bool or None
        What fMRIPrep was told of it; `None` if nothing.
    evidence : tuple of Path
        Files that decide any of this.
    """

    head_motion: Path
    reference: Path
    fieldmap: Fieldmap | None = None
    fieldmap_missing: str = ""
    slice_timing: bool = True
    slice_time_ref: float | None = None
    jacobian_of_all: bool = False
    jacobian: bool | None = None
    evidence: tuple[Path, ...] = ()

    def scales_intensities(self, asked: str) -> bool:
        """Whether intensities are scaled by how far the field stretches them; ``asked`` is auto, on or off."""
        is_pepolar = self.fieldmap is not None and bool(self.fieldmap.is_pepolar)
        if asked != "auto":
            return asked == "on"
        return (self.jacobian_of_all or is_pepolar) if self.jacobian is None else self.jacobian

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Every file that it names and that is there."""
        field = self.fieldmap
        of_field = (*field.coefficients, field.reference, field.transform) if field else ()
        return (
            self.head_motion,
            *(path for path in (self.reference, *of_field, *self.evidence) if path and path.exists()),
        )


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
    raw : RawParts or None
        Of a raw series: what leads to it from the BOLD reference.
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
    raw: RawParts | None = None

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
    layout : {"fmriprep", "hcp", "fsl", "itk"}
        How: fMRIPrep's table of confounds, the HCP pipelines' Movement_Regressors.txt, FSL's .par, one transform a volume.
    reference : Path or None
        Of transforms: the image that volumes were aligned with.
    """

    path: Path
    layout: str
    reference: Path | None = None


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
