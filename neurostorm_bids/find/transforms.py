"""Find the transforms that lead from a template to each file of a run."""

from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.fmriprep import beside
from neurostorm_bids.find.folders import is_there
from neurostorm_bids.find.run import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp
from neurostorm_bids.settings.participant import FSL_SPACE, RAW_SPACE, STANDARD_SPACES

# What fMRIPrep calls a run's coregistration: 23.2 to 25.2; before; from 26
BOLD_TO_T1W = (
    "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    "from-boldref_to-T1w_mode-image_xfm.txt",
    "from-scanner_to-T1w_mode-image_xfm.txt",
    "from-run_to-T1w_mode-image_desc-coreg_xfm.txt",
)
LEVELS = (
    "session",
    "subject",
)  # from 26: a run is aligned with the mean of its session or subject, and that with the T1w
REFERENCES = ("T1w", "T2w")
INFANTS = ("NiBabies' data are of infants; the model was trained on none: judge its numbers with care",)


@dataclass(frozen=True)
class TransformChain:
    """The transforms from a template's space to a file of a run.

    Attributes
    ----------
    file : BoldFile
        Where the chain ends.
    steps : tuple of Path and TemplateWarp
        In the order in which points go through them.
    missing : tuple of str
        What is not there; a chain with anything missing cannot be used.
    notes : tuple of str
        What a user should know about it.
    """

    file: BoldFile
    steps: tuple[Path | TemplateWarp, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.file)

    @property
    def has_warp(self) -> bool:
        """Whether the warp between the templates is one of the steps."""
        return any(isinstance(step, TemplateWarp) for step in self.steps)


def find_chains(run: Run, dataset: Dataset, template: str, input_space: str | None = None) -> list[TransformChain]:
    """Find every chain from a template to a file of the run, the one with the fewest steps first.

    Parameters
    ----------
    template : str
        The space of the model's grid.
    input_space : str, optional
        Consider only files in this space.

    Raises
    ------
    NeurostormError
        If no file can be reached, with the reason for each.
    """
    files = [file for file in run.files if input_space in (None, file.space_name)]
    if not files:
        there = ", ".join(sorted({file.space_name for file in run.files}))
        raise NeurostormError(f"no file in --input-space {input_space}; there are: {there}")
    found = [chain for file in files for chain in _chains_to(file, run, dataset, template)]
    complete = [chain for chain in found if not chain.missing]
    if input_space is None and any(chain.file.raw is None for chain in complete):
        complete = [chain for chain in complete if chain.file.raw is None]  # what fMRIPrep resampled is taken as it is
    if not complete:
        reasons = "; ".join(f"{chain}: {' and '.join(chain.missing)}" for chain in found)
        raise NeurostormError(
            f"no transform from {template} to what is there ({reasons}). "
            f"Run fMRIPrep with --output-spaces {template}:res-2, or provide the missing files"
        )
    # The warp between templates is no subject's own: of two chains of the same length, the one without it goes first.
    return sorted(complete, key=lambda chain: (len(chain.steps), chain.has_warp, _resolution_order(chain.file)))


def _chains_to(file: BoldFile, run: Run, dataset: Dataset, template: str) -> list[TransformChain]:
    """Return the chains to one file: by the template's own transform of the T1w image, or by the other template."""
    other = next(space for space in STANDARD_SPACES if space != template)
    between = TemplateWarp(source=other, target=template)
    notes = INFANTS if dataset.input_type == "nibabies" else ()
    if file.warp is not None:
        return [_by_fsl(file, template, between)]
    if file.space == template:
        return [TransformChain(file, (), notes=notes)]
    if file.space == other:
        return [TransformChain(file, (between,), notes=notes)]
    reference = _reference(run, dataset)
    last, missing = _from_reference(file, run, dataset, reference)
    if file.space not in (*REFERENCES, RAW_SPACE, None) and missing:
        of_an_age = "+" in file.space or "Infant" in file.space
        what = "a template of an age cohort" if of_an_age else "no adult template that is known here"
        return [TransformChain(file, (), (f"{file.space} is {what}: there is no transform from it to {template}",))]
    chains = []
    for space, first in ((template, ()), (other, (between,))):
        path = to_anatomical(run, dataset, f"from-{reference}_to-{space}_mode-image_xfm.h5")
        if path is not None:
            chains.append(TransformChain(file, (*first, path, *last), missing, notes))
    if not chains:
        missing = (*missing, f"sub-{run.subject}_from-{reference}_to-{template}_mode-image_xfm.h5 is not there")
        chains.append(TransformChain(file, last, missing))
    return chains


def _reference(run: Run, dataset: Dataset) -> str:
    """Return which anatomical image the transforms lead by: T1w, or T2w in young infants."""
    of_t2w = to_anatomical(run, dataset, "from-T2w_to-*_mode-image_xfm.h5", several=True)
    of_t1w = to_anatomical(run, dataset, "from-T1w_to-*_mode-image_xfm.h5", several=True)
    return "T2w" if of_t2w and not of_t1w else "T1w"


def _from_reference(
    file: BoldFile, run: Run, dataset: Dataset, reference: str
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the transforms from the anatomical image to a file, and what is missing of them."""
    if file.space == reference:
        return (), ()
    if file.space in (None, RAW_SPACE):
        paths = coregistration(run, dataset, reference)
        return (paths, ()) if paths else ((), (f"{run.name}_{BOLD_TO_T1W[0]} is not there",))
    name = f"from-{file.space}_to-{reference}_mode-image_xfm.h5"
    path = to_anatomical(run, dataset, name)
    return ((path,), ()) if path else ((), (f"sub-{run.subject}_{name} is not there",))


def _by_fsl(file: BoldFile, template: str, between: TemplateWarp) -> TransformChain:
    """Return the chain by FSL's field, which leads from MNI152NLin6Asym to the file."""
    assert file.warp is not None
    if not file.warp.exists() and not file.warp.is_symlink():
        return TransformChain(file, (), (f"{file.warp} is not there",))
    return TransformChain(file, (file.warp,) if template == FSL_SPACE else (between, file.warp))


def coregistration(run: Run, dataset: Dataset, reference: str = "T1w") -> tuple[Path, ...]:
    """Find the transforms from the anatomical image to the run's BOLD reference, by whichever names; empty if there are none."""
    functional = dataset.path / run.folder
    for own in [name.replace("T1w", to) for to in (reference, "anat") for name in BOLD_TO_T1W]:
        if direct := beside(run, functional, own):
            return (direct,)
    for level in LEVELS:
        to_mean = beside(run, functional, f"from-run_to-{level}_mode-image_desc-coreg_xfm.txt")
        from_mean = _of_level(run, dataset, level, reference)
        if to_mean and from_mean:
            return (from_mean, to_mean)
    return ()


def _of_level(run: Run, dataset: Dataset, level: str, reference: str) -> Path | None:
    """Find the transform from the anatomical image to the mean of a session or subject."""
    subject = dataset.path / f"sub-{run.subject}"
    whose = subject / f"ses-{run.session}" if level == "session" and run.session else subject
    name = f"sub-{run.subject}" + (f"_ses-{run.session}" if whose != subject else "")
    for folder in (whose / "func", whose / "anat"):
        for to in (reference, "anat"):
            path = folder / f"{name}_from-{level}_to-{to}_mode-image_desc-coreg_xfm.txt"
            if is_there(path):
                return path
    return None


def preprocessed_t1w(run: Run, dataset: Dataset) -> tuple[Path, Path] | None:
    """Find the subject's preprocessed T1w image and its brain mask; `None` if either is not there."""
    image, mask = (to_anatomical(run, dataset, f"desc-{end}.nii.gz") for end in ("preproc_T1w", "brain_mask"))
    return (image, mask) if image and mask else None


def to_anatomical(run: Run, dataset: Dataset, ending: str, several: bool = False) -> Path | None:
    """Find the subject's own file: that of the run's session, of all sessions, or of the only other one.

    Parameters
    ----------
    several : bool
        Whether any of several will do.

    Raises
    ------
    NeurostormError
        If there are several and none is of the run's session.
    """
    subject = dataset.path / f"sub-{run.subject}"
    own = [[subject / f"ses-{run.session}" / "anat"]] if run.session else []
    for folders in (*own, [subject / "anat"], sorted(subject.glob("ses-*/anat"))):
        found = sorted({path for folder in folders for path in folder.glob(f"sub-{run.subject}_*{ending}")})
        found = [path for path in found if "_space-" not in path.name]
        if len(found) > 1 and not several:
            raise NeurostormError(
                f"several files *_{ending} ({', '.join(path.name for path in found)}); "
                f"it is not clear which one belongs to {run.name}"
            )
        if found:
            return found[0]
    return None


def _resolution_order(file: BoldFile) -> tuple[int, str]:
    """Sort TemplateFlow's res-2 (2 mm) first, the BOLD series' own voxel size next, then the others."""
    index = int(file.res) if file.res and file.res.isascii() and file.res.isdecimal() else file.res
    return (0 if index == 2 else 1 if index is None else 2, str(index))
