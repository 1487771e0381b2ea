"""Find runs and take one through a model, in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neurostorm_bids.api.options import settings_from
from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.tables import embeddings_table
from neurostorm_bids.encode.encoded import complete, embed_windows
from neurostorm_bids.encode.sizes import batch_size
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find import runs as finding
from neurostorm_bids.find.dataset import Dataset, find_selected
from neurostorm_bids.find.run import Run
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.model import Model
from neurostorm_bids.participant.one_run import grid_of, source_of
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.resample import resample_run
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings

# Options of the command that say what is kept or which runs are taken
IDLE = frozenset(
    {
        "embedding_level",
        "stage",
        "save_grid",
        "attribution",
        "timeseries",
        "participant_label",
        "session_label",
        "task_id",
        "run_label",
    }
)


@dataclass(frozen=True)
class FoundRun:
    """A BOLD run of a data set.

    Attributes
    ----------
    run : Run
        Its entities and files.
    dataset : Dataset
    options : dict
        With which it was looked for.
    """

    run: Run
    dataset: Dataset
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Such as sub-01_ses-1_task-rest_run-1."""
        return self.run.name

    @property
    def entities(self) -> dict[str, str]:
        """Those of BIDS, such as {"sub": "01", "task": "rest"}."""
        return dict(self.run.entities)

    def __repr__(self) -> str:
        return f"<{self.name} in {self.dataset.path}>"


def find_runs(bids_dir: str | Path, **options: Any) -> list[FoundRun]:
    """Find the preprocessed BOLD runs of a data set.

    Parameters
    ----------
    bids_dir : path
        fMRIPrep's output, the raw data set that has it in derivatives, or a folder of HCP or UK Biobank.
    **options
        Those of the command, such as ``participant_label=["01"]``, ``task_id="rest"``, ``input_type="hcp"``, ``derivatives={"raw": path}``.

    Returns
    -------
    list of FoundRun
        Sorted by name.

    Raises
    ------
    NeurostormError
        If nothing is found, or not all that was asked for.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neurostorm_bids.demo.dataset import write_dataset
    >>> folder = TemporaryDirectory()
    >>> data = Path(folder.name)
    >>> write_dataset(data, n_volumes=3)
    >>> [run.name for run in find_runs(data, participant_label="02")]
    ['sub-02_ses-1_task-rest', 'sub-02_ses-2_task-rest']
    >>> folder.cleanup()
    """
    settings = settings_from(bids_dir, bids_dir, "participant", options)
    selection = settings.selection
    dataset = find_selected(settings.bids_dir, selection)
    found, problems = finding.find_runs(dataset, selection, raw=settings.resampling.of_raw)
    if problems:
        raise NeurostormError("; ".join(map(str, problems)))
    return [FoundRun(run, dataset, options) for run in found]


def embed_run(run: FoundRun, model: Model | str | Path, **options: Any) -> pd.DataFrame:
    """Embed the windows of a run; what the command writes as ``_embeddings.tsv``.

    Parameters
    ----------
    run : FoundRun
        From `find_runs`.
    model : Model or str
        From `load_model`, or what it takes.
    **options
        Those of the command, such as ``window_stride=10``, ``denoise="simple"``, ``fd_threshold=0.5``, ``target_tr=None``.

    Returns
    -------
    DataFrame
        A row per window: onset and duration (s), framewise displacement (mm), channel000, channel001, ...

    Raises
    ------
    NeurostormError
        If the run cannot be read or is too short.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neurostorm_bids.demo.dataset import write_dataset
    >>> folder = TemporaryDirectory()
    >>> data = Path(folder.name)
    >>> write_dataset(data, n_volumes=20)
    >>> windows = embed_run(find_runs(data)[0], "demo", window_stride=10)
    >>> windows[["onset", "duration", "mean_framewise_displacement"]].round(2).head(2)
       onset  duration  mean_framewise_displacement
    0    0.0      16.0                         0.05
    1    8.0      16.0                         0.05
    >>> folder.cleanup()
    """
    model, settings = _model_and_settings(run, model, options)
    gridded = _gridded(run, model, settings)
    n = batch_size(model, settings.resources, settings.encoding.batch_size)
    progress = Progress(run.name, "1/1")
    try:
        windows = embed_windows(gridded, model, settings.encoding, settings.conditions, n, progress)
    finally:
        progress.close()
    return embeddings_table(complete(gridded, model, windows, settings.censoring))[0]


def grid_run(run: FoundRun, model: Model | str | Path, **options: Any) -> GriddedRun:
    """Bring a run into the grid of a model, as the command does: the file with the fewest steps, through its transforms.

    Parameters
    ----------
    run : FoundRun
        From `find_runs`.
    model : Model or str
        From `load_model`, or what it takes.
    **options
        Those of the command, as of `embed_run`.

    Returns
    -------
    GriddedRun
        Array-like (X, Y, Z, T), z-scored, with ``affine`` and ``frame_times`` (s).

    Raises
    ------
    NeurostormError
        If the run cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neurostorm_bids.demo.dataset import write_dataset
    >>> folder = TemporaryDirectory()
    >>> data = Path(folder.name)
    >>> write_dataset(data, n_volumes=20)
    >>> gridded = grid_run(find_runs(data)[0], "demo")
    >>> gridded.grid.name, gridded.shape
    ('fsl', (96, 96, 96, 50))
    >>> folder.cleanup()
    """
    model, settings = _model_and_settings(run, model, options)
    return _gridded(run, model, settings)


def _model_and_settings(run: FoundRun, model: Model | str | Path, options: dict[str, Any]) -> tuple[Model, Settings]:
    if not isinstance(run, FoundRun):
        raise NeurostormError(f"a run is one of those that find_runs returns, not {type(run).__name__}")
    if idle := sorted(IDLE & options.keys()):
        raise NeurostormError(f"{idle[0]} means nothing for one run in memory; leave it out, or use the command")
    loaded = model if isinstance(model, Model) else load_model(model, options.get("device", "auto"))
    path = run.dataset.path
    return loaded, adopt([loaded], settings_from(path, path, "participant", {**run.options, **options}))


def _gridded(run: FoundRun, model: Model, settings: Settings) -> GriddedRun:
    grid = grid_of(model, settings)
    source = source_of(run.run, run.dataset, grid, settings)
    progress = Progress(run.name, "1/1")
    try:
        return resample_run(source, grid, settings.resampling, settings.conduct.random_seed, None, progress)
    finally:
        progress.close()
