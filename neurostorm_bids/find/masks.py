"""Which brain mask a run is read with: its own, the subject's, or none but the template's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.run import BoldFile, Run
from neurostorm_bids.find.transforms import to_anatomical
from neurostorm_bids.settings.participant import STANDARD_SPACES

OWN, ANATOMICAL, T1W, TEMPLATE = "the run's", "the subject's, in the same space", "the subject's T1w", "the template's"


@dataclass(frozen=True)
class BrainMask:
    """A brain mask, and the way to it.

    Attributes
    ----------
    path : Path or None
        `None` is the template's brain.
    kind : str
        Whose it is.
    transforms : tuple of Path, or None
        Files from the template to it, in the order in which points go through them; `None` if it is in the run's space.
    """

    path: Path | None
    kind: str
    transforms: tuple[Path, ...] | None = None


def find_mask(
    run: Run, file: BoldFile, dataset: Dataset, transforms: Sequence[Path], registered: bool, fallback: str
) -> BrainMask:
    """Find the brain mask of a file of a run.

    Looked for in this order: the one beside the file; the subject's in the same space; that of the T1w image, by the
    subject's transform; the template's, if that is wanted.

    Parameters
    ----------
    transforms : sequence of Path
        Those that lead from the template to the file.
    registered : bool
        Whether a registration comes before them.
    fallback : {"run", "template"}
        Whether the template's brain may stand in.

    Raises
    ------
    NeurostormError
        If there is none.
    """
    if file.mask.exists() or file.mask.is_symlink():  # a link to what was not fetched is reported when it is read
        return BrainMask(file.mask, OWN)
    if file.anatomical_masks:
        return BrainMask(file.anatomical_masks[0], ANATOMICAL)
    t1w = to_anatomical(run, dataset, "desc-brain_mask.nii.gz")
    if t1w is not None and file.space == "T1w":
        return BrainMask(t1w, T1W)
    by_way_of = () if registered else _as_far_as_t1w(run, file, dataset, transforms)
    if t1w is not None and by_way_of is not None:
        return BrainMask(t1w, T1W, by_way_of)
    if fallback == "template":
        return BrainMask(None, TEMPLATE, ())
    raise NeurostormError(
        f"there is no brain mask: neither {file.mask} nor one of the subject that leads to it; copy it there, or give "
        "--mask template to take the template's brain"
    )


def _as_far_as_t1w(run: Run, file: BoldFile, dataset: Dataset, transforms: Sequence[Path]) -> tuple[Path, ...] | None:
    """Return the transforms from the template to the T1w image: the first of those to the file, or one more."""
    for i, path in enumerate(transforms):
        if "_from-T1w_to-" in path.name:
            return tuple(transforms[: i + 1])
    if file.space not in STANDARD_SPACES:
        return None
    last = to_anatomical(run, dataset, f"from-T1w_to-{file.space}_mode-image_xfm.h5")
    return (*transforms, last) if last else None
