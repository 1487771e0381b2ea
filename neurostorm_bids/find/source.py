"""Choose the file that a run is read from, and the transforms that lead to it from the model's template."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp, find_warp
from neurostorm_bids.find.transforms import TransformChain, bold_to_t1w, find_chains, preprocessed_t1w
from neurostorm_bids.settings.participant import Resampling

LOG = logging.getLogger("neurostorm")


@dataclass(frozen=True)
class RunSource:
    """What a run is read from.

    Attributes
    ----------
    run : Run
    file : BoldFile
        The series, its brain mask and its sidecar.
    template : str
        The space of the model's grid.
    transforms : tuple of Path
        ITK files from the template to the file, in the order in which points go through them; without a registration
        that is still to be made.
    to_register : tuple of 2 Path, or None
        Image and brain mask to register to the template, which comes before all transforms.
    warp_skipped : bool
        Whether one template is taken for the other, without the warp between them.
    notes : tuple of str
        What a user should know about the choice.
    """

    run: Run
    file: BoldFile
    template: str
    transforms: tuple[Path, ...] = ()
    to_register: tuple[Path, Path] | None = None
    warp_skipped: bool = False
    notes: tuple[str, ...] = ()

    @property
    def inputs(self) -> list[Path]:
        """Every file that the gridded run is made from, the BOLD series first."""
        optional = [path for path in (self.file.sidecar, self.run.confounds) if path is not None and path.is_file()]
        images = [path for path in self.to_register or () if path not in (self.file.path, self.file.mask)]
        return [self.file.path, self.file.mask, *optional, *self.transforms, *images]


def choose_source(run: Run, dataset: Dataset, template: str, resampling: Resampling) -> RunSource:
    """Take the file with the fewest steps from the template whose transforms are all there.

    Raises
    ------
    NeurostormError
        If no file of the run can be reached.
    """
    try:
        chains = find_chains(run, dataset, template, resampling.input_space)
    except NeurostormError as no_chain:
        if resampling.register is None:
            raise NeurostormError(f"{no_chain}; or use --register affine, a rough registration") from None
        return _to_be_registered(run, dataset, template, resampling, no_chain)
    first_problem = None
    for chain in chains:
        try:
            source = _from_chain(chain, run, template, resampling)
        except NeurostormError as problem:
            if resampling.template_warp == "require":
                raise
            first_problem = first_problem or problem
            continue
        if first_problem:
            note = f"{chains[0]} would be nearer, but the warp between the templates is not there: {chain} is used"
            return replace(source, notes=(*source.notes, note))
        if len(run.files) > 1:
            others = ", ".join(str(file) for file in run.files if file != source.file)
            LOG.debug("%s: %s is used; also there: %s", run.name, source.file, others)
        return source
    assert first_problem is not None
    raise first_problem


def _from_chain(chain: TransformChain, run: Run, template: str, resampling: Resampling) -> RunSource:
    """Turn a chain into a source: the warp between the templates is found, or skipped where that is asked for."""
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
    return RunSource(run, chain.file, template, tuple(transforms), warp_skipped=bool(notes), notes=notes)


def _to_be_registered(
    run: Run, dataset: Dataset, template: str, resampling: Resampling, no_chain: NeurostormError
) -> RunSource:
    """Register the T1w image if the run leads to it, else the run's own mean."""
    by_space = {file.space: file for file in run.files if resampling.input_space in (None, file.space_name)}
    if not by_space:
        raise no_chain
    t1w = preprocessed_t1w(run, dataset)
    if t1w and "T1w" in by_space:
        return RunSource(run, by_space["T1w"], template, to_register=t1w)
    coregistration = bold_to_t1w(run)
    if t1w and coregistration and None in by_space:
        return RunSource(run, by_space[None], template, (coregistration,), to_register=t1w)
    file = by_space.get(None) or next(iter(by_space.values()))
    return RunSource(run, file, template, to_register=(file.path, file.mask))
