"""The road of one run: find its files, resample it, encode it, write what came out. Read this first."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from neurostorm_bids.derivatives.attribution_files import (
    invalidate_map,
    is_explained,
    mean_of_others,
    seed_of,
    write_explanation,
)
from neurostorm_bids.derivatives.call_logs import crash_account
from neurostorm_bids.derivatives.fit_files import write_data_fit
from neurostorm_bids.derivatives.gridded_files import gridding_digest, save_gridded
from neurostorm_bids.derivatives.parcel_files import are_series_there, write_series
from neurostorm_bids.derivatives.part_files import are_parts_there, write_parts
from neurostorm_bids.derivatives.run import invalidate, is_finished, write_run
from neurostorm_bids.derivatives.seen import was_seen
from neurostorm_bids.encode.data_fit import Measures, measure
from neurostorm_bids.encode.encoded import EncodedRun, Windows, complete, embed_windows
from neurostorm_bids.encode.sizes import batch_size
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.explain.baseline import Baseline
from neurostorm_bids.explain.run import explain, red_words
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.events import find_events
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import RunSource, choose_source
from neurostorm_bids.model.load import load_models
from neurostorm_bids.model.model import Model
from neurostorm_bids.participant.locks import lock_run
from neurostorm_bids.report.run import draw_explanation, draw_model, draw_run
from neurostorm_bids.resample.grid import Grid, get_grid
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.parcels import parcels_of
from neurostorm_bids.resample.resample import resample_run
from neurostorm_bids.runtime.json_files import fingerprint
from neurostorm_bids.runtime.locks import Busy
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.process import is_out_of_memory
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.explaining import GROUP_MEAN

LOG = logging.getLogger("neurostorm")
OUT_OF_MEMORY = "there is not enough memory for this run; use a smaller --batch-size or a machine with more"


@dataclass(frozen=True)
class Job:
    """What the runs of a call have in common.

    Attributes
    ----------
    dataset : Dataset
    settings : Settings
    """

    dataset: Dataset
    settings: Settings

    def models(self) -> list[Model]:
        """Return the models, which each process loads once."""
        encoding = self.settings.encoding
        device = self.settings.resources.device
        return load_models(encoding.model, device, encoding.label_mean, encoding.label_std)


def process_run(run: Run, position: str, job: Job, wait: bool = False) -> Outcome:
    """Take one run through all models; a problem ends this run and no other.

    Parameters
    ----------
    position : str
        Which of the runs it is, such as 2/5.
    wait : bool
        Wait for another process that works on this run.
    """
    attempt = _Attempt(run, Progress(run.name, position))
    try:
        models = job.models()
        attempt.unfinished = [model.label for model in models]
        with lock_run(job.settings.out_dir, run, wait):
            for grid, of_grid in by_grid(models, job.settings).items():
                _process(run, grid, of_grid, job, attempt)
    except Busy:
        return Outcome(run.name, run.subject, "busy")
    except Exception as error:  # a bug of ours must not stop the other runs
        attempt.fail(error, attempt.unfinished)
    finally:
        attempt.progress.close()
    return attempt.outcome()


def _process(run: Run, grid: Grid, models: Sequence[Model], job: Job, attempt: "_Attempt") -> None:
    """Take one run through the models of one grid."""
    settings = job.settings
    source = source_of(run, job.dataset, grid, settings)
    attempt.inputs = source.inputs
    todo = [model for model in models if settings.conduct.force or not is_done(source, grid, model, settings)]
    attempt.finish(model for model in models if model not in todo)
    if not todo:
        return
    gridded, measures = _resample(source, grid, settings, attempt.progress, job.dataset.name)
    figures: list[Path] = []  # of the run; drawn once there is something to go with them
    windows: dict[str, Windows] = {}  # by encoder: models that differ in their heads share one pass
    for model in todo:
        try:
            if model.encoder not in windows:
                windows[model.encoder] = _embed(gridded, model, settings, attempt.progress)
            encoded = complete(gridded, model, windows[model.encoder], settings.censoring)
            if encoded.censored.any():
                n, of = encoded.censored.sum(), len(encoded.censored)
                LOG.warning("%s: %d of %d windows are censored for head motion", run.name, n, of)
            attempt.progress.say("drawing the figures")
            invalidate(settings.out_dir, run, grid, model)  # what is replaced stays valid until here
            figures = figures or draw_run(settings.out_dir, gridded)
            own = draw_model(settings.out_dir, encoded, settings.censoring.fd_threshold)
            measures = measures or measure(gridded)
            for each in write_data_fit(encoded, measures, settings.out_dir):
                if each.words:
                    LOG.warning("%s: model %s: the run %s", run.name, model.name, each.words)
            write_parts(encoded, settings)
            write_run(encoded, [*figures, *own], job.dataset, settings)
            attempt.n_windows += len(encoded.onsets)
            attempt.finish([model])
            if was_seen(model, job.dataset, run.subject):
                LOG.warning("%s: model %s was trained on this person", run.name, model.name)
            if settings.explaining.attribution:
                try:
                    _explain(encoded, settings, attempt.progress)
                except NeurostormError as error:  # the run keeps its tables and its place in those of the subject
                    attempt.fail(error, [], f"model {model.name}: ")
        except NeurostormError as error:
            attempt.fail(error, [model.label], f"model {model.name}: ")


def source_of(run: Run, dataset: Dataset, grid: Grid, settings: Settings) -> RunSource:
    """Return what a run is read from, with its table of events where windows are chosen by it.

    Raises
    ------
    NeurostormError
        If it cannot be read, or has no events.
    """
    source = choose_source(run, dataset, grid.template, settings.resampling)
    return replace(source, events=_events_of(run, dataset)) if settings.conditions.conditions else source


def _events_of(run: Run, dataset: Dataset) -> Path:
    """Return the table of events of a run.

    Raises
    ------
    NeurostormError
        If there is none.
    """
    path = find_events(dataset, run.name)
    if path is None:
        where = (
            "the raw data set is not known; give it as -d raw=PATH" if dataset.raw is None else f"none in {dataset.raw}"
        )
        raise NeurostormError(
            f"--conditions: there is no events.tsv ({where}); --task-id takes only the task that has events"
        )
    return path


def is_done(source: RunSource, grid: Grid, model: Model, settings: Settings) -> bool:
    """Whether everything that is asked for of a run and a model is there."""
    baselines = settings.explaining.attribution_baseline if settings.explaining.attribution else ()
    are_explained = all(is_explained(source, grid, model, baseline, settings) for baseline in baselines)
    are_there = are_series_there(source, grid, settings) and are_parts_there(source, grid, model, settings)
    return are_explained and are_there and is_finished(source, grid, model, settings)


def _explain(encoded: EncodedRun, settings: Settings, progress: Progress) -> None:
    """Map where in the brain a prediction comes from.

    Raises
    ------
    NeurostormError
        If the model has no head, or what it is compared with is not there.
    """
    gridded, options = encoded.gridded, settings.explaining
    assert gridded.source is not None
    run, parcels = gridded.source.run, parcels_of(gridded.grid, options.attribution_parcels)
    for name in options.attribution_baseline:
        if is_explained(gridded.source, gridded.grid, encoded.model, name, settings) and not settings.conduct.force:
            continue
        invalidate_map(gridded.source, gridded.grid, encoded.model, name, settings)
        is_mean = name == GROUP_MEAN
        baseline = mean_of_others(settings.work, gridded.grid, run.subject) if is_mean else Baseline(name)
        found = explain(encoded, options, parcels, baseline, seed_of(run.subject, settings), progress)
        for words in red_words(found):
            LOG.warning("%s: model %s: the map from %s fails a check: %s", run.name, encoded.model.name, name, words)
        write_explanation(found, draw_explanation(settings.out_dir, found), settings)


def _resample(
    source: RunSource, grid: Grid, settings: Settings, progress: Progress, dataset: str
) -> tuple[GriddedRun, Measures | None]:
    """Resample a run to a grid, and keep it where that is wanted; then what is measured of it, too.

    Raises
    ------
    NeurostormError
        If it cannot be resampled, or changed while it was read.
    """
    before = fingerprint(path for path in source.inputs if path.is_file())
    work_dir = settings.resources.work_dir or settings.out_dir
    gridded = resample_run(source, grid, settings.resampling, settings.conduct.random_seed, work_dir, progress)
    if fingerprint(source.inputs) != before:
        raise NeurostormError("its input changed while it was read; is it still being written? Run again")
    measures = None
    if settings.resampling.save_grid:
        progress.say("saving the resampled run")
        measures = measure(gridded)
        made_from = gridding_digest(source, grid, settings.changing("gridded"))
        save_gridded(settings.out_dir, settings.work, gridded, made_from, dataset, measures)
    if settings.parcellation.timeseries:
        progress.say("averaging over parcels")
        write_series(gridded, settings)
    return gridded, measures


def _embed(gridded: GriddedRun, model: Model, settings: Settings, progress: Progress) -> Windows:
    encoding = settings.encoding
    n = batch_size(model, settings.resources, encoding.batch_size)
    work_dir = settings.resources.work_dir or settings.out_dir
    return embed_windows(gridded, model, encoding, settings.conditions, n, progress, work_dir=work_dir)


def by_grid(models: Sequence[Model], settings: Settings) -> dict[Grid, list[Model]]:
    """Group models by the grid that they are fed in."""
    groups: dict[Grid, list[Model]] = {}
    for model in models:
        groups.setdefault(grid_of(model, settings), []).append(model)
    return groups


def grid_of(model: Model, settings: Settings) -> Grid:
    """Return the grid that a model is fed in."""
    return model.grid if settings.resampling.grid == "auto" else get_grid(settings.resampling.grid)


@dataclass
class _Attempt:
    """One run on its way: what was done, and what went wrong."""

    run: Run
    progress: Progress
    started: float = field(default_factory=time.monotonic)
    inputs: list[Path] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    n_windows: int = 0
    problems: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    failed_models: list[str] = field(default_factory=list)

    def finish(self, models: Iterable[Model]) -> None:
        """Take models off the list of those without a result."""
        finished = {model.label for model in models}
        self.unfinished = [label for label in self.unfinished if label not in finished]

    def fail(self, error: BaseException, labels: Sequence[str], about: str = "") -> None:
        """Note what went wrong, and for which models."""
        if isinstance(error, NeurostormError):
            problem = f"{about}{error}"
        elif is_out_of_memory(error):
            problem = OUT_OF_MEMORY
        else:
            LOG.debug("%s", self.run.name, exc_info=error)
            problem = f"unexpected {type(error).__name__}: {error} (a bug; its origin is in the file named below)"
        self.problems.append(problem)
        self.accounts.append(crash_account(self.run.name, self.progress.doing, self.inputs, error))
        self.failed_models += labels

    def outcome(self) -> Outcome:
        """Return what became of the run."""
        status = "failed" if self.problems else "done" if self.n_windows else "skipped"
        return Outcome(
            self.run.name,
            self.run.subject,
            status,
            self.n_windows,
            time.monotonic() - self.started,
            tuple(self.problems),
            "\n".join(self.accounts),
            tuple(dict.fromkeys(self.failed_models)),
        )
