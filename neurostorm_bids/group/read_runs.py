"""The embeddings of runs that the participant level would write now, where it has written them."""

from dataclasses import dataclass

import numpy as np

from neurostorm_bids.derivatives.gridded_files import gridding_digest
from neurostorm_bids.derivatives.names import RunOutputs, sidecar_of
from neurostorm_bids.derivatives.run import is_finished
from neurostorm_bids.derivatives.tables import censored_in, channels_of, read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.group.study import Study
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.json_files import read_json


@dataclass(frozen=True)
class ReadRun:
    """A run whose embeddings were read.

    Attributes
    ----------
    embeddings : (windows, channels) float32 array
        Without censored windows.
    made_from : str
        Digest of what the run in the model's grid is made from.
    """

    embeddings: np.ndarray
    made_from: str


def read_run(run: Run, model: Model, grid: Grid, study: Study) -> ReadRun | None:
    """Read the embeddings of a run; `None` if it has none of the same weights, settings and files, end to end."""
    settings = study.settings
    tables_alone = settings.replacing(save_grid=False)  # whether the gridded run was kept does not matter here
    try:
        source = choose_source(run, study.dataset, grid.template, settings.resampling)
        if not is_finished(source, grid, model, tables_alone):
            return None
        path = settings.out_dir / RunOutputs(run, grid.template, model.label).embeddings
        windows = read_json(sidecar_of(path)).get("Windows", {})
        table = read_table(path)
        embeddings, used = channels_of(table).astype(np.float32), ~censored_in(table)
    except NeurostormError:  # resampling it will say what is wrong
        return None
    end_to_end = windows.get("Stride") == windows.get("Frames") == model.n_frames
    if not end_to_end or not np.isfinite(embeddings).all():
        return None
    return ReadRun(embeddings[used], gridding_digest(source, grid, settings.changing("gridded")))
