"""The participant level: find the runs, place each in the model's grid, encode it, write what came out."""

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Optional

import numpy as np
import torch

from neurostorm_bids.derivatives.call_logs import (
    account,
    log_folder,
    new_call_id,
    write_configuration,
    write_crash,
    write_outcome,
)
from neurostorm_bids.derivatives.description import is_ours_or_new, write_description
from neurostorm_bids.derivatives.names import GRIDS
from neurostorm_bids.derivatives.run import EncodedRun, collect_subject, hash_of, is_finished, withdraw, write_run
from neurostorm_bids.derivatives.sidecars import fingerprint
from neurostorm_bids.encode.windows import encode, motion_of, window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset, find_dataset
from neurostorm_bids.find.runs import Run, Selection, find_runs, read_filter_file
from neurostorm_bids.model.load import Model, load_model, with_label_scaling
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.model.task import interpret
from neurostorm_bids.participant.gridding import place_run, save_grid
from neurostorm_bids.participant.reporting import concerns, earlier_methods, subjects_of, write_citations, write_reports
from neurostorm_bids.participant.route import Route, choose_route, grid_of
from neurostorm_bids.report.run import draw_figures, figure_paths
from neurostorm_bids.resample.gridded import PlacedRun
from neurostorm_bids.runtime.locks import Busy, link_out, lock_run
from neurostorm_bids.runtime.outcome import Outcome, summary_table
from neurostorm_bids.runtime.pool import process
from neurostorm_bids.runtime.process import batch_size, check_memory, check_precision, prepare_process
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.settings import AS_WORDS, PLACING, Settings

LOG = logging.getLogger("neurostorm")


def participant(settings: Settings) -> int:
    """Run the participant level; returns the exit status, 0 only if all that was asked for succeeded.

    Raises
    ------
    NeurostormError
        If nothing can be begun: no such folder, no such model, no run.
    """
    prepare_process(settings)
    models = []
    if not settings.reports_only:
        models = load_models(settings)
        check_precision(models, settings)
        check_memory(models, settings)
    dataset = find_dataset(settings.bids_dir, dict(settings.derivatives))
    check_folders(settings, dataset)
    LOG.info("reading %s (written by %s)", dataset.path, dataset.generator)
    selection = selection_of(settings)
    runs, problems = find_runs(dataset, selection, settings.bids_database_dir)
    problems += dict.fromkeys(problem for run in runs if (problem := link_out(settings.out_dir, run)))
    found, runs = runs, [run for run in runs if link_out(settings.out_dir, run) is None]
    for problem in problems:
        LOG.error(problem)
    if settings.reports_only:
        problems += write_reports(
            runs, [], problems, dataset, earlier_methods(settings.out_dir), set(), selection, settings
        )
        print(f"The reports are in {settings.out_dir}")
        return 1 if problems else 0
    if kernels.library() is None and any(model.device.type == "cpu" for model in models):
        LOG.warning("installed without the compiled kernels (no compiler?): encoding on a CPU is about 3 times slower")
    for model in models:
        LOG.info("model %s on %s%s", model.name, model.device, f" ({model.warning})" if model.warning else "")
    for note in other_placing(models, settings):
        LOG.warning(note)
    methods = write_citations(runs, dataset, models, settings)
    if settings.boilerplate_only or settings.md_only_boilerplate:
        print(f"The methods text is in {settings.out_dir / 'logs'}")
        return 1 if problems else 0
    configuration = {"grid": settings.grid, **settings.deciding}
    configuration = {name: AS_WORDS.get(name) if value is None else value for name, value in configuration.items()}
    dataset, mixed = write_description(settings.out_dir, dataset, warnings_of(models), configuration)
    for note in mixed:
        LOG.warning(note)
    outcomes, call_id = [], new_call_id()
    try:
        runs = begin_logs(runs, call_id, problems, settings)
        for outcome in process_all(runs, dataset, settings):
            tell(outcome, call_id, settings)
            outcomes.append(outcome)
        outcomes.sort(key=lambda outcome: outcome.run)
        if any(outcome.status != "failed" for outcome in outcomes):
            write_description(settings.out_dir, dataset, warnings_of(models), configuration, results=True)
        problems += collect_subjects(runs, outcomes, models, settings)
        hashes = {hash_of(grid_of(model, settings), model, settings) for model in models}
        problems += write_reports(found, outcomes, problems, dataset, methods, hashes, selection, settings)
        end_logs(runs, outcomes, call_id, dataset, problems, settings)
    except Stopped as stop:
        done = f"{len(outcomes)} of {len(runs)} runs are done"
        LOG.error("stopped by %s: %s; give the same command again", stop.name, done)
        print(summary_table(sorted(outcomes, key=lambda outcome: outcome.run)))
        raise
    if len(outcomes) < len(runs):
        LOG.error("stopped at the first failure (--stop-on-first-crash); %d runs not done", len(runs) - len(outcomes))
    print(summary_table(outcomes))
    print(f"Results are in {settings.out_dir}")
    return 1 if problems or len(outcomes) < len(runs) or any(o.status == "failed" for o in outcomes) else 0


def begin_logs(runs: "list[Run]", call_id: str, problems: "list[str]", settings: Settings) -> "list[Run]":
    """Leave in the logs of each subject what is asked for; returns the runs of those whose logs can be written."""
    for subject in sorted({run.subject for run in runs}):
        try:
            write_configuration(log_folder(settings.out_dir, subject, call_id), settings)
        except NeurostormError as error:
            problems.append(f"sub-{subject}: {error}")
            LOG.error(problems[-1])
            runs = [run for run in runs if run.subject != subject]
    return runs


def end_logs(
    runs: "list[Run]",
    outcomes: "list[Outcome]",
    call_id: str,
    dataset: Dataset,
    problems: "list[str]",
    settings: Settings,
) -> None:
    """Leave in the logs of each subject what became of it; last of all, since it vouches for tables and report too."""
    for subject in subjects_of(runs, problems, dataset):
        if link_out(settings.out_dir, subject=subject):
            continue
        of_subject = [outcome for outcome in outcomes if outcome.subject == subject]
        asked = sum(run.subject == subject for run in runs)
        whole = 0 < asked == len(of_subject) and not any(concerns(problem, subject) for problem in problems)
        try:
            write_outcome(log_folder(settings.out_dir, subject, call_id), settings, of_subject, whole)
        except NeurostormError as error:
            LOG.error("sub-%s: %s", subject, error)


def process_all(runs: "list[Run]", dataset: Dataset, settings: Settings) -> "Iterator[Outcome]":
    """Process every run; those that another process is at come last, to be found finished then."""
    busy = set()
    for outcome in process(runs, process_run, dataset, settings):
        if outcome.status == "busy":
            LOG.info("%s: another process is at it; it is looked at again in the end", outcome.run)
            busy.add(outcome.run)
        else:
            yield outcome
    again = [run for run in runs if run.name in busy]
    yield from process(again, partial(process_run, wait=True), dataset, settings)


def tell(outcome: Outcome, call_id: str, settings: Settings) -> None:
    """Say what went wrong with a run, and leave the account of it."""
    if not outcome.problems:
        return
    for problem in outcome.problems:
        LOG.error("%s: %s", outcome.run, problem)
    folder = log_folder(settings.out_dir, outcome.subject, call_id)
    try:
        path = write_crash(folder, outcome.run, outcome.account or "\n".join(outcome.problems) + "\n")
        LOG.info("  details are in %s", path)
    except NeurostormError as error:  # a full disk, say: the run's problem is told, the others go on
        LOG.error("%s: its account cannot be kept: %s", outcome.run, error)


def collect_subjects(
    runs: "list[Run]", outcomes: "list[Outcome]", models: "list[Model]", settings: Settings
) -> "list[str]":
    """Write the subjects' tables; returns what could not be written."""
    problems, failed = [], {outcome.run for outcome in outcomes if outcome.status == "failed"}
    for subject in sorted({run.subject for run in runs}):
        for model in models:
            try:
                notes = collect_subject(settings.out_dir, subject, grid_of(model, settings), model, settings, failed)
            except Exception as error:  # a damaged table of an earlier call must not hide what this one did
                LOG.debug("sub-%s", subject, exc_info=True)
                problems.append(f"sub-{subject}: its table cannot be written ({type(error).__name__}: {error})")
                LOG.error(problems[-1])
                continue
            for note in notes:
                LOG.warning(note)
    return problems


def process_run(run: Run, where: str, dataset: Dataset, settings: Settings, wait: bool = False) -> Outcome:
    """One run through all models; a problem ends this run and no other.

    Parameters
    ----------
    where : str
        The run's place among the others, such as 2/5.
    wait : bool
        Wait for another process that is at this run.
    """
    started = time.monotonic()
    progress = Progress(run.name, where)
    n_windows, problems, accounts, inputs = 0, [], [], []

    def failed(problem: str, error: BaseException) -> None:
        problems.append(problem)
        accounts.append(account(run, progress.doing, inputs, error))

    try:
        by_grid = {}
        for model in load_models(settings):
            by_grid.setdefault(grid_of(model, settings), []).append(model)
        with lock_run(settings.out_dir, run, wait):
            for grid, models in by_grid.items():
                route = choose_route(run, dataset, grid, settings)
                inputs = route.inputs(run)
                todo = [
                    model for model in models
                    if settings.force or not is_finished(settings.out_dir, run, inputs, grid, model, settings)
                ]  # fmt: skip
                if not todo:
                    continue
                before = fingerprint(path for path in inputs if path.is_file())
                placed, displacement = place_run(run, route, grid, settings, progress)
                if fingerprint(inputs) != before:
                    raise NeurostormError("its input changed while it was read; is it still being written? Run again")
                if settings.save_grid:
                    save_grid(run, route, placed, settings, progress)
                encoded = {}  # by encoder: models that differ in their heads share one pass
                for model in todo:
                    try:
                        if model.encoder not in encoded:
                            encoded[model.encoder] = encode_run(placed, model, settings, progress)
                        n_windows += predict_and_write(
                            run,
                            route,
                            placed,
                            displacement,
                            model,
                            *encoded[model.encoder],
                            dataset,
                            settings,
                            progress,
                        )
                    except NeurostormError as error:
                        failed(f"model {model.name}: {error}", error)
    except Busy:
        return Outcome(run.name, "busy")
    except NeurostormError as error:
        failed(str(error), error)
    except MemoryError as error:
        failed("there is not enough memory for this run; use a smaller --batch-size or a machine with more", error)
    except Exception as error:  # a bug of ours must not stop the other runs
        LOG.debug("%s", run.name, exc_info=True)
        failed(f"unexpected {type(error).__name__}: {error} (a bug; its origin is in the file named below)", error)
    finally:
        progress.close()
    status = "failed" if problems else "done" if n_windows else "skipped"
    return Outcome(run.name, status, n_windows, time.monotonic() - started, tuple(problems), "\n".join(accounts))


def encode_run(
    placed: PlacedRun, model: Model, settings: Settings, progress: Progress
) -> "tuple[np.ndarray, np.ndarray, str]":
    """Encode a placed run; returns the first frames of its windows, their embeddings, and the precision."""
    starts = window_starts(len(placed.time_map), model.n_frames, settings.window_stride or model.n_frames)
    embeddings, precision = encode(
        model,
        placed,
        starts,
        batch_size(model, settings),
        progress.step(f"encoding {len(starts)} windows with model {model.name}", "window"),
        settings.precision,
    )
    if not np.isfinite(embeddings).all():
        raise NeurostormError("the embeddings are not finite; the weights are damaged or do not fit this model")
    return starts, embeddings, precision


def predict_and_write(
    run: Run,
    route: Route,
    placed: PlacedRun,
    displacement: Optional[np.ndarray],
    model: Model,
    starts: np.ndarray,
    embeddings: np.ndarray,
    precision: str,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> int:
    """Predict from a run's embeddings with one model and write its tables; returns the number of windows."""
    motion = motion_of(placed, displacement, starts, model.n_frames, settings.fd_threshold)
    outputs = None if model.task is None else model.predict_from(torch.from_numpy(embeddings)).cpu().numpy()
    if outputs is not None and not np.isfinite(outputs).all():
        raise NeurostormError("the outputs of the head are not finite; its weights are damaged")
    censored = motion.censored(settings.max_censored)
    if censored.any():
        LOG.warning("%s: %d of %d windows are censored for head motion", run.name, censored.sum(), len(starts))
    result = EncodedRun(
        run=run,
        inputs=tuple(route.inputs(run)),
        placed=placed,
        displacement=displacement,
        model=model,
        starts=starts,
        embeddings=embeddings,
        motion=motion,
        censored=censored,
        prediction=interpret(model.task, outputs[~censored]) if outputs is not None else None,
        precision=precision,
    )
    progress.say("drawing the figures")
    withdraw(settings.out_dir, run, placed.grid, model)
    draw_figures(settings.out_dir, result, settings.fd_threshold)
    write_run(settings.out_dir, result, dataset, settings, figure_paths(result))
    return len(starts)


def load_models(settings: Settings) -> "list[Model]":
    """Load the models asked for, once a process."""
    if len(settings.model) > 1 and (settings.label_mean, settings.label_std) != (None, None):
        raise NeurostormError("--label-mean and --label-std are for one model; give one --model")
    models = [
        with_label_scaling(_load_model(name, settings.device), settings.label_mean, settings.label_std)
        for name in dict.fromkeys(settings.model)
    ]
    if not models:
        raise NeurostormError("no model is given; give --model NAME, such as base")
    labels = [model.label for model in models]
    for label in labels:
        if labels.count(label) > 1:
            raise NeurostormError(f"two models would both be written as desc-{label}; rename one of the files")
    return models


_load_model = lru_cache(maxsize=None)(load_model)


def selection_of(settings: Settings) -> Selection:
    """Which runs the settings ask for."""
    filters = read_filter_file(settings.bids_filter_file) if settings.bids_filter_file else None
    return Selection(settings.participant_label, settings.session_label, settings.task_id, settings.run_label, filters)


def check_folders(settings: Settings, dataset: Dataset) -> None:
    """Make the output and work folders; the input is never written to."""
    ours = {
        "OUT_DIR": settings.out_dir,
        "--work-dir": settings.work_dir,
        "--bids-database-dir": settings.bids_database_dir,
    }
    for option, folder in ours.items():
        if folder is None:
            continue
        inputs = [dataset.path]
        if not folder.is_relative_to(settings.out_dir):  # results may go to BIDS_DIR/derivatives/neurostorm
            inputs.append(settings.bids_dir)
        if folder == settings.bids_dir or any(folder.is_relative_to(path) for path in inputs):
            raise NeurostormError(
                f"{option} {folder} is inside the input, which is never written to; give another folder"
            )
        if folder.is_relative_to(settings.bids_dir) and any(
            part.startswith("sub-") for part in folder.relative_to(settings.bids_dir).parts
        ):
            raise NeurostormError(f"{option} {folder} is a subject's folder of the input; give another")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise NeurostormError(f"{option} {folder} cannot be written to: {error.strerror}") from None
    if problem := link_out(settings.out_dir):
        raise NeurostormError(problem)
    if not is_ours_or_new(settings.out_dir):
        raise NeurostormError(
            f"OUT_DIR {settings.out_dir} holds a data set of another program; give a folder of its own"
        )
    if settings.clean_workdir:
        shutil.rmtree(settings.work / GRIDS, ignore_errors=True)


def other_placing(models: "list[Model]", settings: Settings) -> "list[str]":
    """Where this call places runs otherwise than those that a fine-tuned model was trained on."""
    notes = []
    for model in models:
        trained = model.hyper_parameters.get("placing")
        for name in PLACING if isinstance(trained, dict) else ():
            theirs, ours = (
                AS_WORDS.get(name, "none") if v is None else v for v in (trained.get(name), getattr(settings, name))
            )
            if theirs != ours:
                option = name.replace("_", "-")
                notes.append(
                    f"model {model.name} was trained on runs placed with --{option} {theirs}, this call has {ours}"
                )
    return notes


def warnings_of(models: "list[Model]") -> "list[str]":
    """Warnings on the models' weights, such as that they are untrained."""
    return [f"model {model.name}: {model.warning}" for model in models if model.warning]
