"""Find the transforms that lead from a template to each file of a run."""

from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp
from neurostorm_bids.settings.participant import STANDARD_SPACES

# What fMRIPrep calls a run's coregistration: 25.2 and later; 23.2 to 25.1; before
BOLD_TO_T1W = (
    "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    "from-boldref_to-T1w_mode-image_xfm.txt",
    "from-scanner_to-T1w_mode-image_xfm.txt",
)


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
    """

    file: BoldFile
    steps: tuple[Path | TemplateWarp, ...]
    missing: tuple[str, ...] = ()

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
    if file.space == template:
        return [TransformChain(file, ())]
    if file.space == other:
        return [TransformChain(file, (between,))]
    if file.space not in ("T1w", None):
        of_an_age = "+" in file.space or "Infant" in file.space
        what = "a template of an age cohort" if of_an_age else "no adult template that is known here"
        return [TransformChain(file, (), (f"{file.space} is {what}: there is no transform from it to {template}",))]
    last: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    if file.space is None:
        path = bold_to_t1w(run)
        last, missing = ((path,), ()) if path else ((), (f"{run.name}_{BOLD_TO_T1W[0]} is not there",))
    chains = []
    for space, first in ((template, ()), (other, (between,))):
        path = _anatomical(run, dataset, f"from-T1w_to-{space}_mode-image_xfm.h5")
        if path is not None:
            chains.append(TransformChain(file, (*first, path, *last), missing))
    if not chains:
        missing = (*missing, f"sub-{run.subject}_from-T1w_to-{template}_mode-image_xfm.h5 is not there")
        chains.append(TransformChain(file, last, missing))
    return chains


def bold_to_t1w(run: Run) -> Path | None:
    """Find the run's coregistration with the T1w image, by whichever name; `None` if there is none."""
    return run.beside(*BOLD_TO_T1W)


def preprocessed_t1w(run: Run, dataset: Dataset) -> tuple[Path, Path] | None:
    """Find the subject's preprocessed T1w image and its brain mask; `None` if either is not there."""
    image, mask = (_anatomical(run, dataset, f"desc-{end}.nii.gz") for end in ("preproc_T1w", "brain_mask"))
    return (image, mask) if image and mask else None


def _anatomical(run: Run, dataset: Dataset, ending: str) -> Path | None:
    """Find the subject's own file: that of the run's session, of all sessions, or of the only other one.

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
        if len(found) > 1:
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
