"""Find the transforms that lead from a template to each file of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp

BOLD_SPACE = "bold"  # what --input-space calls the BOLD's own space, which has no space- entity
STANDARD_SPACES = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")
# fMRIPrep 25.2 and later; 23.2 to 25.1; before
BOLD_TO_T1W = (
    "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt",
    "from-boldref_to-T1w_mode-image_xfm.txt",
    "from-scanner_to-T1w_mode-image_xfm.txt",
)


@dataclass(frozen=True)
class Chain:
    """A way from a template's space to a file of a run.

    Attributes
    ----------
    file : BoldFile
        Where it ends.
    steps : tuple of Path and TemplateWarp
        In the order in which points go through them.
    missing : tuple of str
        What is not there; with anything missing, the chain cannot be gone.
    """

    file: BoldFile
    steps: tuple
    missing: tuple = ()

    def __str__(self) -> str:
        return str(self.file)


def chains(run: Run, dataset: Dataset, template: str, input_space: Optional[str] = None) -> "list[Chain]":
    """Every way from a template to a file of the run, the one with the fewest steps first.

    Parameters
    ----------
    template : str
        The space of the model's grid.
    input_space : str, optional
        Take files in this space alone.

    Raises
    ------
    NeurostormError
        If no file can be reached, saying why for each.
    """
    files = [file for file in run.files if input_space is None or (file.space or BOLD_SPACE) == input_space]
    if not files:
        there = ", ".join(sorted({file.space or BOLD_SPACE for file in run.files}))
        raise NeurostormError(f"not there in --input-space {input_space}; there are: {there}")
    found = [chain for file in files for chain in _to_file(file, run, dataset, template)]
    complete = [chain for chain in found if not chain.missing]
    if not complete:
        reasons = "; ".join(f"{chain}: {' and '.join(chain.missing)}" for chain in found)
        raise NeurostormError(
            f"no way from {template} to what is there ({reasons}). "
            f"Run fMRIPrep with --output-spaces {template}:res-2, or give the missing files"
        )
    return sorted(complete, key=lambda chain: (len(chain.steps), _has_warp(chain), _resolution_order(chain.file)))


def _to_file(file: BoldFile, run: Run, dataset: Dataset, template: str) -> "list[Chain]":
    """The chains to one file: through the template's own transform of the T1w, or through the other template."""
    other = next(space for space in STANDARD_SPACES if space != template)
    if file.space == template:
        return [Chain(file, ())]
    if file.space == other:
        return [Chain(file, (TemplateWarp(source=other, target=template),))]
    if file.space not in ("T1w", None):
        why = "a cohort of an age" if "+" in file.space or "Infant" in file.space else "no template of adults we know"
        return [Chain(file, (), (f"{file.space} is {why}: there is no transform from it to {template}",))]
    last, missing = (), ()
    if file.space is None:
        path = bold_to_t1w(file, run)
        last, missing = ((path,), ()) if path else ((), (f"{run.name}_{BOLD_TO_T1W[0]} is not there",))
    routes = []
    for space, before in ((template, ()), (other, (TemplateWarp(source=other, target=template),))):
        path = _t1w_to_template(run, dataset, space)
        if path is not None:
            routes.append(Chain(file, (*before, path, *last), missing))
    if not routes:
        missing = (*missing, f"sub-{run.subject}_from-T1w_to-{template}_mode-image_xfm.h5 is not there")
        routes.append(Chain(file, last, missing))
    return routes


def bold_to_t1w(file: BoldFile, run: Run) -> Optional[Path]:
    """The run's transform to the T1w image, by whichever name; `None` if there is none."""
    for ending in BOLD_TO_T1W:
        path = file.path.with_name(f"{run.name}_{ending}")
        if path.exists() or path.is_symlink():  # a link to what was not fetched is told when it is read
            return path
    return None


def preprocessed_t1w(run: Run, dataset: Dataset) -> "Optional[tuple[Path, Path]]":
    """The subject's preprocessed T1w image and its brain mask; `None` if they are not there."""
    images = [_anatomical(run, dataset, ending) for ending in ("desc-preproc_T1w.nii.gz", "desc-brain_mask.nii.gz")]
    return tuple(images) if all(images) else None


def _t1w_to_template(run: Run, dataset: Dataset, template: str) -> Optional[Path]:
    return _anatomical(run, dataset, f"from-T1w_to-{template}_mode-image_xfm.h5")


def _anatomical(run: Run, dataset: Dataset, ending: str) -> Optional[Path]:
    """The subject's own file: of the run's session, of all sessions, or of the only other one.

    Raises
    ------
    NeurostormError
        If several are there and none is the run's.
    """
    subject = dataset.path / f"sub-{run.subject}"
    folders = [[subject / f"ses-{run.session}" / "anat"]] if run.session else []
    for candidates in (*folders, [subject / "anat"], sorted(subject.glob("ses-*/anat"))):
        found = sorted({path for folder in candidates for path in folder.glob(f"sub-{run.subject}_*{ending}")})
        found = [path for path in found if "_space-" not in path.name]
        if len(found) > 1:
            raise NeurostormError(
                f"several files *_{ending} ({', '.join(path.name for path in found)}); "
                f"which one belongs to {run.name} cannot be told"
            )
        if found:
            return found[0]
    return None


def _has_warp(chain: Chain) -> bool:
    """The warp between templates is of no subject in particular: of two ways as long, the other one first."""
    return any(isinstance(step, TemplateWarp) for step in chain.steps)


def _resolution_order(file: BoldFile) -> tuple:
    """TemplateFlow's res-2 (2 mm) first, the BOLD's own voxel size next, then the others."""
    index = int(file.res) if file.res and file.res.isascii() and file.res.isdecimal() else file.res
    return (0 if index == 2 else 1 if index is None else 2, str(index))
