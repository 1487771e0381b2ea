"""The participant level: find the runs, take each through all rooms, write tables, methods text and reports."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from neurostorm_bids.derivatives.adoption import adopt, adopted_in_words, notes_of
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.names import LOGS, RunOutputs, sidecar_of
from neurostorm_bids.derivatives.run import settings_hash
from neurostorm_bids.encode.parts import parts_of
from neurostorm_bids.encode.sizes import check_memory, check_precision
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.explain.run import check_model
from neurostorm_bids.find.dataset import find_selected
from neurostorm_bids.find.metadata import acquisition_times
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.model.load import load_models
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.participant.checks import check_conduct, prepare_folders, warnings_of
from neurostorm_bids.participant.dry_run import dry_run
from neurostorm_bids.participant.one_run import Job, by_grid, grid_of, process_run
from neurostorm_bids.participant.subjects import Subjects
from neurostorm_bids.report.methods import Gridding, methods_html, methods_text, read_methods, write_methods
from neurostorm_bids.report.subject import Call
from neurostorm_bids.resample.parcels import parcels_of
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.runtime.outcome import Outcome, summary_table
from neurostorm_bids.runtime.pool import Workers, process
from neurostorm_bids.runtime.process import prepare_process
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")


def participant_level(settings: Settings) -> int:
    """Run the participant level; returns the exit status, 0 only if all that was asked for succeeded.

    Raises
    ------
    NeurostormError
        If nothing can be begun: no such folder, no such model, no run.
    """
    check_conduct(settings)
    prepare(settings)()
    warn_of_idle_options(settings)
    models = [] if settings.conduct.reports_only else _checked_models(settings)
    settings = adopt(models, settings)
    dataset = find_selected(settings.bids_dir, settings.selection)
    if not settings.conduct.dry_run:
        prepare_folders(settings, dataset)
    LOG.info("reading %s (written by %s; --input-type %s)", dataset.path, dataset.generator, dataset.input_type)
    subjects = Subjects.find(dataset, settings)
    if settings.conduct.dry_run:
        _log_models(models, settings)
        return 1 if dry_run(subjects, models) or subjects.problems else 0
    if settings.conduct.reports_only:
        subjects.write_reports(Call(settings.as_command(), read_methods(settings.out_dir)))
        print(f"The reports are in {settings.out_dir}")
    elif settings.conduct.boilerplate_only or settings.conduct.md_only_boilerplate:
        text = methods_text(settings, dataset, models, _planned(subjects, models))
        write_methods(settings.out_dir, text, settings.conduct.md_only_boilerplate)
        print(f"The methods text is in {settings.out_dir / LOGS}")
    else:
        _process_all(subjects, models)
        return 1 if subjects.failed else 0
    return 1 if subjects.problems else 0


def prepare(settings: Settings) -> Callable[[], None]:
    """Return what prepares a process of a call: threads, seeds, logging."""
    resources, conduct = settings.resources, settings.conduct
    verbose = -1 if conduct.quiet else conduct.verbose
    return partial(prepare_process, resources.threads, conduct.random_seed, verbose, bars=resources.nprocs == 1)


def warn_of_idle_options(settings: Settings) -> None:
    """Say which of the options that were given mean nothing to this call."""
    for option in settings.without_effect():
        LOG.warning("%s has no effect at the %s level here", option, settings.analysis_level)


def workers(settings: Settings) -> Workers:
    """Return the processes that share the runs of a call."""
    return Workers(settings.resources.nprocs, prepare(settings), settings.conduct.stop_on_first_crash)


def _checked_models(settings: Settings) -> list[Model]:
    """Load the models, and check that this machine can run them as asked."""
    encoding = settings.encoding
    models = load_models(encoding.model, settings.resources.device, encoding.label_mean, encoding.label_std)
    check_precision(models, encoding.precision)
    check_memory(models, settings.resources)
    for model in models:
        parts_of(model, settings.encoding)
    if settings.explaining.attribution:
        for model in models:
            check_model(model, settings.explaining)
            parcels_of(grid_of(model, settings), settings.explaining.attribution_parcels)
    return models


def _process_all(subjects: Subjects, models: Sequence[Model]) -> None:
    """Process every run, then write what concerns several of them."""
    settings, out_dir = subjects.settings, subjects.settings.out_dir
    _log_models(models, settings)
    configuration = settings.in_words({"grid": settings.resampling.grid, **settings.numbers})
    warnings = warnings_of(models)
    subjects.dataset, mixed = write_description(out_dir, subjects.dataset, warnings, configuration)
    for note in mixed:
        LOG.warning(note)
    try:
        subjects.begin_logs()
        for outcome in _outcomes(subjects):
            subjects.add(outcome)
        subjects.outcomes.sort(key=lambda outcome: outcome.run)
        if not all(outcome.failed for outcome in subjects.outcomes):
            write_description(out_dir, subjects.dataset, warnings, configuration, results=True)
        subjects.write_tables(models)
        subjects.write_reports(_call(subjects, models))
        subjects.end_logs()
    except Stopped as stop:
        done = f"{len(subjects.outcomes)} of {len(subjects.runs)} runs are done"
        LOG.error("stopped by %s: %s; give the same command again", stop.name, done)
        print(summary_table(sorted(subjects.outcomes, key=lambda outcome: outcome.run)))
        raise
    if n := len(subjects.runs) - len(subjects.outcomes):
        LOG.error("stopped at the first failure (--stop-on-first-crash); %d runs not done", n)
    print(summary_table(subjects.outcomes))
    for problem in subjects.problems:  # said before, above the log of every run
        print(f"not done: {problem}")
    print(f"Results are in {out_dir}")


def _log_models(models: Sequence[Model], settings: Settings) -> None:
    if kernels.library() is None and any(model.device.type == "cpu" for model in models):
        LOG.warning("installed without the compiled kernels (no compiler?): encoding on a CPU is 2 to 3 times slower")
    for model in models:
        LOG.info("model %s on %s%s", model.name, model.device, f" ({model.warning})" if model.warning else "")
    log_adoption(models, settings)


def log_adoption(models: Sequence[Model], settings: Settings) -> None:
    """Say what of the resampling was taken over from the models, and what is not as in their training."""
    if words := adopted_in_words(settings):
        LOG.info("runs are resampled as in the training of model %s: %s", models[0].name, words)
    for note in notes_of(models, settings):
        LOG.warning(note)


def _outcomes(subjects: Subjects) -> Iterator[Outcome]:
    """Process every run; those that another process works on come last, to be found finished then."""
    work = partial(process_run, job=Job(subjects.dataset, subjects.settings))
    busy = set()
    for outcome in process(subjects.runs, work, workers(subjects.settings)):
        if outcome.status == "busy":
            LOG.info("%s: another process is working on it; it is checked again at the end", outcome.run)
            busy.add(outcome.run)
        else:
            yield outcome
    again = [run for run in subjects.runs if run.name in busy]
    yield from process(again, partial(work, wait=True), workers(subjects.settings))


def _call(subjects: Subjects, models: Sequence[Model]) -> Call:
    """Write the methods text of what was done; returns what the reports say about this call."""
    settings = subjects.settings
    if done := list(_done(subjects, models)):
        text = methods_text(settings, subjects.dataset, models, done)
        methods = methods_html(text)
        try:
            write_methods(settings.out_dir, text)
        except NeurostormError as error:  # results are written: the reports still come
            subjects.report(Problem(f"the methods text cannot be written: {error}"))
    else:  # nothing new to describe
        methods = read_methods(settings.out_dir)
    hashes = frozenset(settings_hash(grid_of(model, settings), model, settings) for model in models)
    return Call(settings.as_command(), methods, hashes, frozenset(model.label for model in models))


def _done(subjects: Subjects, models: Sequence[Model]) -> Iterator[Gridding]:
    """Yield how the runs of this call came to their grids, from their sidecars."""
    settings = subjects.settings
    for run in subjects.runs:
        for model in models:
            grid = grid_of(model, settings)
            path = sidecar_of(RunOutputs(run, grid.template, model.label).embeddings)
            sidecar = read_json(settings.out_dir / path)
            if sidecar.get("SettingsHash") == settings_hash(grid, model, settings):
                yield Gridding.from_sidecar(sidecar)


def _planned(subjects: Subjects, models: Sequence[Model]) -> Iterator[Gridding]:
    """Yield how the runs would come to their grids; processing those that cannot will say why."""
    resampling = subjects.settings.resampling
    for grid in by_grid(models, subjects.settings):
        for run in subjects.runs:
            try:
                source = choose_source(run, subjects.dataset, grid.template, resampling)
                times = acquisition_times(source.file.sidecars, resampling.repetition_time)
            except NeurostormError:
                continue
            yield Gridding.planned(source, grid, times.repetition_time, resampling)
