"""Choose the file of a run that is placed, and the way from the model's grid to it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import BoldFile, Run
from neurostorm_bids.find.templateflow import TemplateWarp, find_template, find_warp
from neurostorm_bids.find.transforms import BOLD_SPACE, Chain, bold_to_t1w, chains, preprocessed_t1w
from neurostorm_bids.model.load import Model
from neurostorm_bids.resample.grid import Grid, get_grid
from neurostorm_bids.resample.nifti import Bold, open_image
from neurostorm_bids.resample.resample import Space
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")
MEAN_OF = 50  # volumes that make the reference of a registration


@dataclass(frozen=True)
class Route:
    """A file of a run and the way to it.

    Attributes
    ----------
    file : BoldFile
    space : Space
        The way from the grid, without a registration that is still to be made.
    moving : tuple of Path, or None
        Image and brain mask to register to the template, first of all; `None` if nothing is to be registered.
    notes : tuple of str
    """

    file: BoldFile
    space: Space
    moving: "tuple[Path, Path] | None" = None
    notes: tuple = ()

    def inputs(self, run: Run) -> "list[Path]":
        """Every file that the placed run is made from, the BOLD first."""
        optional = [path for path in (self.file.sidecar, run.confounds) if path is not None and path.is_file()]
        others = [path for path in self.moving or () if path not in (self.file.path, self.file.mask)]
        return [self.file.path, self.file.mask, *optional, *self.space.transforms, *others]


def grid_of(model: Model, settings: Settings) -> Grid:
    """The grid that a model is fed in."""
    return model.grid if settings.grid == "auto" else get_grid(settings.grid)


def choose_route(run: Run, dataset: Dataset, grid: Grid, settings: Settings) -> Route:
    """Take the file with the fewest steps to the grid whose way is complete.

    Raises
    ------
    NeurostormError
        If there is no way to any file of the run.
    """
    try:
        possible = chains(run, dataset, grid.template, settings.input_space)
    except NeurostormError as no_way:
        if settings.register is None:
            raise NeurostormError(f"{no_way}; or --register affine, a rough registration of our own") from None
        return _to_be_registered(run, dataset, settings, no_way)
    first_problem = None
    for chain in possible:
        try:
            route = _along(chain, settings)
        except NeurostormError as problem:
            if settings.template_warp == "require":
                raise
            first_problem = first_problem or problem
            continue
        if first_problem:
            note = f"{possible[0]} would be nearer, but the warp between the templates is not there: {chain} is taken"
            return Route(route.file, route.space, notes=(*route.notes, note))
        if len(run.files) > 1:
            others = ", ".join(str(file) for file in run.files if file != route.file)
            LOG.debug("%s: %s is taken; also there: %s", run.name, route.file, others)
        return route
    raise first_problem


def _along(chain: Chain, settings: Settings) -> Route:
    """The route of a chain, with the warp between the templates found, or left out where that is asked for."""
    steps, notes = [], ()
    for step in chain.steps:
        if isinstance(step, TemplateWarp) and settings.template_warp == "skip":
            notes = (
                f"{chain.file}: {step.source} is taken for {step.target}, without the warp between the templates "
                "(--template-warp skip): anatomy is off by a few mm",
            )
        elif isinstance(step, TemplateWarp):
            steps.append(find_warp(step, fetch=settings.template_warp == "auto"))
        else:
            steps.append(step)
    return Route(chain.file, Space(chain.file.space or BOLD_SPACE, tuple(steps)), notes=notes)


def _to_be_registered(run: Run, dataset: Dataset, settings: Settings, no_way: NeurostormError) -> Route:
    """Register the T1w image if the run leads to it, else the run's own mean."""
    by_space = {file.space: file for file in run.files if settings.input_space in (None, file.space or BOLD_SPACE)}
    if not by_space:
        raise no_way
    t1w = preprocessed_t1w(run, dataset)
    if t1w and "T1w" in by_space:
        return Route(by_space["T1w"], Space("T1w"), moving=t1w)
    if None in by_space:
        path = bold_to_t1w(by_space[None], run)
        if t1w and path:
            return Route(by_space[None], Space(BOLD_SPACE, (path,)), moving=t1w)
    file = by_space.get(None) or next(iter(by_space.values()))
    return Route(file, Space(file.space or BOLD_SPACE), moving=(file.path, file.mask))


def register(route: Route, grid: Grid, seed: int) -> "tuple[Space, dict]":
    """Do the registration that a route calls for.

    Returns
    -------
    space : Space
        The whole way.
    record : dict
        For sidecars.
    """
    from neurostorm_bids.resample.registration import register_affine

    image, mask = route.moving
    template = find_template(grid.template, None, "T1w"), find_template(grid.template, "brain", "mask")
    moving = _mean_of(image) if image == route.file.path else open_image(image)[0]
    result = register_affine(
        moving, open_image(mask)[0], nib.load(template[0]), nib.load(template[1]), image.name, seed
    )
    record = {
        "Method": "12-parameter affine, mutual information",
        "Moving": image.name,
        "Fixed": template[0].name,
        "BrainOverlapDice": result.overlap,
        "MutualInformation": result.mutual_information,
        "Affine": result.map.matrix.tolist(),
    }
    return Space(route.space.name, (result.map, *route.space.steps)), {"Registration": record}


def _mean_of(path: Path) -> nib.Nifti1Image:
    bold = Bold(path)
    total, n = np.zeros(int(np.prod(bold.shape)), dtype=np.float64), 0
    for block in bold.blocks(0):
        total += block.sum(axis=1)
        n += block.shape[1]
        if n >= MEAN_OF:
            break
    return nib.Nifti1Image((total / n).reshape(bold.shape, order="F").astype(np.float32), bold.affine)
