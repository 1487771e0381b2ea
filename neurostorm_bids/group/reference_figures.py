"""Keep what the data of a model that was trained here are like, so that it can tell whether later runs are like them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids.derivatives.fit_files import read_measures
from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.gridded_files import read_measures as measures_of_store
from neurostorm_bids.derivatives.names import GriddedOutputs, RunOutputs, data_fit_beside
from neurostorm_bids.derivatives.tables import kept_embeddings
from neurostorm_bids.encode.data_fit import Measures
from neurostorm_bids.encode.reference import FEWEST, make_reference, to_plain
from neurostorm_bids.encode.sizes import batch_size
from neurostorm_bids.encode.windows import encode, window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.study import LOG
from neurostorm_bids.group.training import Trainings
from neurostorm_bids.model.load import load_model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings

MOST_RUNS, MOST_WINDOWS = 60, 8  # that are embedded for it, evenly spaced

Known = tuple[Measures, np.ndarray]  # of a run, with the embeddings of its windows
Plain = dict[str, Any] | None  # the figures as a model's file keeps them


def reference_of_training(folder: Path, trainings: Trainings, grid: Grid, settings: Settings) -> Plain:
    """Return what the labelled runs are like that a model was trained on.

    Parameters
    ----------
    folder : Path
        Of the model.
    """
    labelled = trainings.labelled
    runs = [labelled.runs[i] for i in trainings.labels.rows]
    read = [run for run in runs if run.name in labelled.read]  # whose embeddings are those of the tuned model too
    tables = [settings.out_dir / RunOutputs(run, grid.template, trainings.model.label).embeddings for run in read]
    windows = [labelled.read[run.name].embeddings for run in read]
    stores = [settings.work / GriddedOutputs(run, grid).int8 for run in runs if run.name not in labelled.read]
    return _figures(folder.name, lambda: [*_of_tables(tables, windows), *_of_stores(folder, stores, settings)])


def reference_of_stores(folder: Path, stores: Sequence[Path], settings: Settings) -> Plain:
    """Embed runs in int8 stores, that a model was trained on, with it, and return what they are like."""
    return _figures(folder.name, lambda: list(_of_stores(folder, stores, settings)))


def reference_of_tables(folder: Path, tables: Sequence[Path]) -> Plain:
    """Return what runs are like that were embedded with the same encoder, by their tables."""
    return _figures(folder.name, lambda: list(_of_tables(tables, [kept_embeddings(path) for path in tables])))


def _of_tables(tables: Sequence[Path], embeddings: Sequence[np.ndarray]) -> Iterator[Known]:
    """Yield runs by what lies beside their tables; those of an earlier version have no measures."""
    for table, embedding in zip(tables, embeddings, strict=True):
        try:
            yield read_measures(data_fit_beside(table)), embedding
        except NeurostormError:
            continue


def _of_stores(folder: Path, stores: Sequence[Path], settings: Settings) -> Iterator[Known]:
    """Embed some of the runs in stores, and yield them."""
    if not stores:
        return
    model = load_model(folder, settings.resources.device)
    some = [stores[i] for i in np.unique(np.linspace(0, len(stores) - 1, MOST_RUNS).astype(int))]
    progress = Progress(f"model {model.name}", "reference")
    advance = progress.step(f"embedding {len(some)} runs for its reference figures", "run")
    batch = batch_size(model, settings.resources, settings.encoding.batch_size)
    for i, path in enumerate(some, 1):
        try:
            measures, run = measures_of_store(path), read_int8(path)
            starts = window_starts(run.shape[3], model.n_frames, model.n_frames)
            starts = starts[np.unique(np.linspace(0, len(starts) - 1, MOST_WINDOWS).astype(int))]
            if measures is not None:
                yield measures, encode(model, run, starts, batch)[0]
        except (NeurostormError, ValueError) as error:
            LOG.warning("%s is left out of the reference figures: %s", path, error)
        advance(i, len(some))
    progress.close()


def _figures(name: str, known: Callable[[], list[Known]]) -> Plain:
    """Return the figures; a model that is trained is not lost because they cannot be made."""
    try:
        found = [(measures, embedding) for measures, embedding in known() if np.isfinite(embedding).all()]
        if len(found) < FEWEST:
            LOG.info("%d runs make no reference figures for %s; %d are needed", len(found), name, FEWEST)
            return None
        return to_plain(make_reference([measures for measures, _ in found], [windows for _, windows in found]))
    except Exception as error:
        LOG.debug("%s", name, exc_info=True)
        LOG.warning("model %s has no reference figures: %s: %s", name, type(error).__name__, error)
        return None
