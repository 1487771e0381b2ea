"""Choose the file that a run is read from, and the transforms that lead to it from the model's template."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.folders import is_there
from neurostorm_bids.find.masks import OWN, BrainMask, find_mask
from neurostorm_bids.find.orientation import affine_source
from neurostorm_bids.find.run import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp, find_warp
from neurostorm_bids.find.transforms import TransformChain, coregistration, find_chains, preprocessed_t1w
from neurostorm_bids.settings.participant import RAW_SPACE, Resampling

LOG = logging.getLogger("neurostorm")


@dataclass(frozen=True)
class RunSource:
    """What a run is read from.

    Attributes
    ----------
    run : Run
    file : BoldFile
        The series and what describes it.
    template : str
        The space of the model's grid.
    mask : BrainMask
    transforms : tuple of Path
        Files from the template to the file, in the order in which points go through them; without a registration that
        is still to be made.
    to_register : tuple of 2 Path, or None
        Image and brain mask to register to the template, which comes before all transforms.
    warp_skipped : bool
        Whether one template is taken for the other, without the warp between them.
    affine_of : Path or None
        Image whose orientation is taken for the series', whose header has none.
    mean : Path or None
        Image that is added to a series without its mean.
    notes : tuple of str
        What a user should know about the choice.
    events : Path or None
        Table of what happened, where windows are chosen by it.
    """

    run: Run
    file: BoldFile
    template: str
    mask: BrainMask
    transforms: tuple[Path, ...] = ()
    to_register: tuple[Path, Path] | None = None
    warp_skipped: bool = False
    affine_of: Path | None = None
    mean: Path | None = None
    notes: tuple[str, ...] = ()
    events: Path | None = None

    @property
    def inputs(self) -> list[Path]:
        """Every file that results are made from, the BOLD series first."""
        motion = [self.run.motion.path] if self.run.motion else []
        raw = self.file.raw.inputs if self.file.raw else ()
        optional = [path for path in (*self.file.sidecars, *motion) if path.is_file()]
        images = (*(self.to_register or ()), self.affine_of, self.mean, self.events)
        steps = (*self.transforms, *(self.mask.transforms or ()))
        paths = [self.file.path, self.mask.path, *optional, *steps, *raw, *images]
        return list(dict.fromkeys(path for path in paths if path is not None))


def choose_source(run: Run, dataset: Dataset, template: str, resampling: Resampling) -> RunSource:
    """Take the file with the fewest steps from the template whose transforms are all there, and what belongs to it.

    Raises
    ------
    NeurostormError
        If no file of the run can be reached, or it has no brain mask.
    """
    way = _choose_way(run, dataset, template, resampling)
    registered = way.to_register is not None
    mask = find_mask(run, way.file, dataset, way.transforms, registered, resampling.mask)
    notes = way.notes
    if mask.kind != OWN:
        notes = (*notes, f"there is no {way.file.mask.name}: the brain mask is {mask.kind}" + _named(mask.path))
    affine_of = affine_source(way.file.path, (way.file.reference, mask.path if mask.transforms is None else None))
    if affine_of is not None:
        ignored = "" if resampling.orientation is None else f" (--orientation {resampling.orientation} is not needed)"
        notes = (
            *notes,
            f"{way.file.path.name}: its header has no orientation; that of {affine_of.name} is used{ignored}",
        )
    if way.file.raw is not None and way.file.raw.fieldmap is None:
        notes = (*notes, f"distortion is not corrected: {way.file.raw.fieldmap_missing}")
    mean = _mean_of(run, resampling.mean_from) if resampling.mean_from else None
    if mean is not None:
        notes = (*notes, f"{mean.name} is added to every volume (--mean-from)")
    return RunSource(
        run, way.file, template, mask, way.transforms, way.to_register, way.warp_skipped, affine_of, mean, notes
    )


@dataclass(frozen=True)
class _Way:
    """A file of a run, and how points come to it from the template; as in `RunSource`."""

    file: BoldFile
    transforms: tuple[Path, ...] = ()
    to_register: tuple[Path, Path] | None = None
    warp_skipped: bool = False
    notes: tuple[str, ...] = ()


def _choose_way(run: Run, dataset: Dataset, template: str, resampling: Resampling) -> _Way:
    try:
        chains = find_chains(run, dataset, template, resampling.input_space)
    except NeurostormError as no_chain:
        if resampling.input_space not in (None, *(file.space_name for file in run.files)):
            raise
        if resampling.register is None:
            raise NeurostormError(f"{no_chain}; or use --register affine, a rough registration") from None
        return _to_be_registered(run, dataset, resampling)
    first_problem = None
    for chain in chains:
        try:
            way = _from_chain(chain, resampling)
        except NeurostormError as problem:
            if resampling.template_warp == "require":
                raise
            first_problem = first_problem or problem
            continue
        if first_problem:
            note = f"{chains[0]} would be nearer, but the warp between the templates is not there: {chain} is used"
            return replace(way, notes=(*way.notes, note))
        if len(run.files) > 1:
            others = ", ".join(str(file) for file in run.files if file != way.file)
            LOG.debug("%s: %s is used; also there: %s", run.name, way.file, others)
        return way
    assert first_problem is not None
    raise first_problem


def _from_chain(chain: TransformChain, resampling: Resampling) -> _Way:
    """Find the warp between the templates, or skip it where that is asked for."""
    transforms: list[Path] = []
    notes: tuple[str, ...] = ()
    for step in chain.steps:
        if not isinstance(step, TemplateWarp):
            transforms.append(step)
        elif resampling.template_warp == "skip":
            notes = (
                f"{chain.file}: {step.source} is taken for {step.target}, without the warp between the templates "
                "(--template-warp skip): anatomy is off by a few mm",
            )
        else:
            transforms.append(find_warp(step, fetch=resampling.template_warp == "auto"))
    return _Way(chain.file, tuple(transforms), warp_skipped=bool(notes), notes=(*chain.notes, *notes))


def _to_be_registered(run: Run, dataset: Dataset, resampling: Resampling) -> _Way:
    """Register the T1w image if the run leads to it, else the run's own mean."""
    by_space = {file.space: file for file in run.files if resampling.input_space in (None, file.space_name)}
    t1w = preprocessed_t1w(run, dataset)
    if t1w and "T1w" in by_space:
        return _Way(by_space["T1w"], to_register=t1w)
    own = None if None in by_space else RAW_SPACE
    to_bold = coregistration(run, dataset)
    if t1w and to_bold and own in by_space:
        return _Way(by_space[own], to_bold, to_register=t1w)
    file = by_space.get(own) or next(iter(by_space.values()))
    if file.raw is not None:  # distorted, and moved: what it is aligned with stands for it
        return _Way(file, to_register=(_undistorted(run, file), file.mask))
    if not is_there(file.mask):
        raise NeurostormError(f"--register needs a brain mask of the run or of its T1w image; there is no {file.mask}")
    return _Way(file, to_register=(file.path, file.mask))


def _undistorted(run: Run, file: BoldFile) -> Path:
    """Return the BOLD reference of a raw series after correction of distortion, which is registered in its place."""
    assert file.raw is not None
    folder = file.raw.head_motion.parent
    names = [f"{run.name}_desc-coreg_boldref.nii.gz", f"{run.name}_space-run_boldref.nii.gz"]
    paths = [*(folder / name for name in names), *([file.raw.reference] if file.raw.fieldmap is None else [])]
    found = next((path for path in paths if is_there(path)), None)
    if found is None or not is_there(file.mask):
        missing = paths[0] if found is None else file.mask
        raise NeurostormError(f"--register needs the run's BOLD reference and its brain mask; there is no {missing}")
    return found


def _named(path: Path | None) -> str:
    return f" ({path.name})" if path else ""


def _mean_of(run: Run, pattern: str) -> Path:
    """Return the mean image of a run: a path in which {run}, {sub}, {ses}, {task}, ... stand for the run's own.

    Raises
    ------
    NeurostormError
        If it is not there.
    """
    try:
        path = Path(pattern.format(**{**dict(run.entities), "run": run.name})).expanduser()
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise NeurostormError(
            f"--mean-from {pattern}: {error} is none of the run's own; {{run}}, {{sub}}, {{task}} and the like are"
        ) from None
    if not path.is_file():
        raise NeurostormError(f"--mean-from: there is no {path}, the mean image of this run")
    return path
