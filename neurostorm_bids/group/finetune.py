"""Fine-tune a model for a target, test it on subjects it has not seen, and keep it for the participant level."""

import json
import logging
import re
import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import torch

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.gridded_files import made_from, read_int8
from neurostorm_bids.derivatives.models import MODELS, check_free, hyper_parameters_of, write_model
from neurostorm_bids.derivatives.names import GridOutputs
from neurostorm_bids.derivatives.sidecars import read_json, software_versions, write_sidecar
from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset, read_description
from neurostorm_bids.find.participants import SUBJECT, column, join
from neurostorm_bids.find.runs import Run, Selection, find_runs, read_filter_file
from neurostorm_bids.group import figures as page
from neurostorm_bids.group import probe
from neurostorm_bids.group.cohort import entities_of, gather
from neurostorm_bids.group.evaluation import Evaluation, evaluate, judge
from neurostorm_bids.group.figures import Section
from neurostorm_bids.group.labels import Labels, labels_of
from neurostorm_bids.group.splits import KEPT, Split, cross_validation, split_from, split_table
from neurostorm_bids.model.load import Model, label_of_name, load_model, reference_to
from neurostorm_bids.model.task import Prediction, interpret
from neurostorm_bids.participant.gridding import keep_run
from neurostorm_bids.participant.route import grid_of
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.locks import lock_folder, lock_model
from neurostorm_bids.runtime.pool import process
from neurostorm_bids.runtime.process import batch_size, check_precision
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.settings import PLACING, Settings, digest
from neurostorm_bids.train import distributed as ranks
from neurostorm_bids.train.distributed import is_main
from neurostorm_bids.train.fit import Fitted, Material, embed_all, fit, outputs_of
from neurostorm_bids.train.trainer import Plan, default_plan

LOG = logging.getLogger("neurostorm")
FROZEN = "frozen embedding (probe)"
TRAININGS = "neurostorm-training"  # folder of checkpoints in the work folder
BATCH, BATCH_OF_EMBEDDINGS = 4, 256  # windows in a step


@dataclass(frozen=True)
class Tuned:
    """All that is written of a fine-tuning."""

    name: str
    model: Model
    grid: Grid
    dataset: Dataset
    plan: Plan
    labels: Labels
    splits: "list[Split]"
    fitted: "list[Fitted]"
    evaluations: "dict[str, Evaluation]"
    table: pd.DataFrame

    @property
    def trained_on(self) -> str:
        """The name of the data set: the raw one's, where it is there, since preprocessed ones are named after programs."""
        described = self.dataset.description if self.dataset.raw is None else read_description(self.dataset.raw)
        return str(described.get("Name") or self.dataset.path.name)

    @property
    def kept(self) -> Fitted:
        """The training whose model is kept."""
        return self.fitted[-1]

    @property
    def how(self) -> str:
        """How it was tested, in words."""
        tests = [split for split in self.splits if len(split.test)]
        if len(self.splits) == 1:
            return f"Tested on the {len(tests[0].test)} samples that --split set aside; the model that is kept did not see them."
        return (
            f"Tested in {len(tests)}-fold cross-validation, {len(self.labels.y)} samples, each by a model that did not see it. "
            "The model that is kept was then trained on all of them, and is itself not tested."
        )


def finetune(dataset: Dataset, phenotype: pd.DataFrame, settings: Settings) -> int:
    """Fine-tune one model; returns the exit status, 0 if every run that was asked for took part.

    Raises
    ------
    NeurostormError
        If it cannot be begun, or the training fails.
    """
    try:
        status = _finetune(dataset, phenotype, settings)
    except Stopped as stop:
        LOG.error(
            "stopped by %s: give the same command again with --resume to go on from the last whole epoch", stop.name
        )
        ranks.leave(stop.status)
        raise
    except NeurostormError as error:
        if settings.devices * settings.nodes > 1:
            LOG.error(str(error))
        ranks.leave(1)
        raise
    except Exception as error:
        if settings.devices * settings.nodes > 1:
            LOG.error("unexpected %s: %s (a bug)", type(error).__name__, error)
            LOG.debug("its origin", exc_info=True)
        ranks.leave(1)
        raise
    ranks.leave(status)
    return status


def _finetune(dataset: Dataset, phenotype: pd.DataFrame, settings: Settings) -> int:
    if settings.target is None:
        raise NeurostormError("--group-task finetune needs --target COLUMN of participants.tsv or of --phenotype FILE")
    if len(settings.model) != 1:
        raise NeurostormError("--group-task finetune tunes one model; give one --model")
    if settings.devices > 1:  # processes share the processors
        torch.set_num_threads(max(1, settings.threads // settings.devices))
    model = load_model(settings.model[0], ranks.own_device(settings.device))
    check_precision([model], settings)
    grid = grid_of(model, settings)
    name = settings.save_as or f"{model.label}-{_word(settings.target)}-{settings.tuning}"
    folder = settings.out_dir / MODELS / name
    if not is_main():
        ranks.be_quiet(settings.work / TRAININGS / f"{name}.process-{ranks.number()}.txt")
    check_free(folder, overwrite=settings.force or settings.resume or not is_main())

    runs, table, labels, problems = labelled_runs(dataset, phenotype, model, grid, settings)
    labels, splits = splits_of(dataset, labels, settings)
    if "tuning" in model.hyper_parameters:
        labels.notes.append(
            f"model {model.name} was itself tuned: of subjects that were in that training, what is tested here is not unseen"
        )
    plan = plan_of(model, settings)
    if not is_main():
        train_all(model, material_of(runs, labels, grid, settings), labels, splits, plan, name, settings)
        return 0  # the main process writes
    write_description(settings.out_dir, dataset, [], {})
    with lock_model(settings.out_dir, name):
        tell_beginning(labels, splits, model, name, settings)
        material = material_of(runs, labels, grid, settings)
        fitted, predictions = train_all(model, material, labels, splits, plan, name, settings)
        evaluations, notes = evaluate_all(predictions, labels, splits, table, model, settings)
        tuned = Tuned(name, model, grid, dataset, plan, labels, splits, fitted, evaluations, table)
        with lock_folder(settings.out_dir):
            write_results(tuned, [*labels.notes, *notes, *problems], settings)
    return 1 if problems else 0


def labelled_runs(
    dataset: Dataset, phenotype: pd.DataFrame, model: Model, grid: Grid, settings: Settings
) -> "tuple[list[Run], pd.DataFrame, Labels, list[str]]":
    """Runs whose subjects have a label and which are placed, now if need be; and what went wrong with others."""
    filters = read_filter_file(settings.bids_filter_file) if settings.bids_filter_file else None
    selection = Selection(
        settings.participant_label, settings.session_label, settings.task_id, settings.run_label, filters
    )
    runs, problems = find_runs(dataset, selection, settings.bids_database_dir)
    if not runs:
        raise NeurostormError(f"{dataset.path} has no BOLD run that was asked for")

    def labelled(runs: "list[Run]") -> "tuple[pd.DataFrame, Labels]":
        table = join(pd.DataFrame([entities_of(run.name) for run in runs]), phenotype)
        return table, labels_of(table, settings.target, settings.target_type, settings.group_by)

    table, labels = labelled(runs)
    for name in settings.covariates:
        column(table, name)
    used = {i for rows in labels.members for i in rows}
    candidates = [run for i, run in enumerate(runs) if i in used]
    failed = set()
    for outcome in process(candidates, partial(keep_run, grid=grid), dataset, settings):
        if outcome.status == "failed":
            failed.add(outcome.run)
            problems += [f"{outcome.run}: {problem}" for problem in outcome.problems]
            if settings.stop_on_first_crash:
                raise NeurostormError(problems[-1])
    for run in candidates:
        if run.name not in failed:
            n_frames = read_int8(settings.work / GridOutputs(run, grid).int8).shape[3]
            if n_frames < model.n_frames:
                failed.add(run.name)
                problems.append(f"{run.name}: {n_frames} frames are fewer than one window of {model.n_frames}")
    for problem in problems:
        LOG.error(problem)
    runs = [run for run in runs if run.name not in failed]
    if not runs:
        raise NeurostormError(f"no run is left to train on: all {len(failed)} have problems, told above")
    return (runs, *labelled(runs), problems)


def splits_of(dataset: Dataset, labels: Labels, settings: Settings) -> "tuple[Labels, list[Split]]":
    """The samples that take part, and the trainings to make; the last one's model is kept."""
    if settings.split:
        labels, split = split_from(settings.split, dataset, labels, settings.random_seed)
        return labels, [split]
    return labels, cross_validation(labels, settings.random_seed)


def plan_of(model: Model, settings: Settings) -> Plan:
    """How to train, as the settings say."""
    return default_plan(
        settings.tuning,
        settings.learning_rate,
        epochs=settings.epochs,
        patience=settings.patience,
        batch_size=settings.batch_size or (BATCH_OF_EMBEDDINGS if settings.tuning == "linear" else BATCH),
        precision=settings.precision,
        device=model.device,
        devices=settings.devices,
        nodes=settings.nodes,
        workers=min(8, settings.threads - 1) if model.device.type == "cuda" and settings.tuning != "linear" else 0,
        seed=settings.random_seed,
    )


def material_of(runs: "list[Run]", labels: Labels, grid: Grid, settings: Settings) -> Material:
    """The placed runs, each with its sample's label."""
    y = np.full(len(runs), -1, dtype=labels.y.dtype)
    for value, rows in zip(labels.y, labels.members, strict=True):
        y[rows] = value
    used = {i for rows in labels.members for i in rows}
    stores = [
        read_int8(settings.work / GridOutputs(run, grid).int8) if i in used else None for i, run in enumerate(runs)
    ]
    return Material(stores, y)


def train_all(
    model: Model,
    material: Material,
    labels: Labels,
    splits: "list[Split]",
    plan: Plan,
    name: str,
    settings: Settings,
) -> "tuple[list[Fitted], dict[int, Prediction]]":
    """Make all trainings; returns them, and what they predict of the samples that they are tested on."""
    folder = settings.work / TRAININGS / name
    stamp = begin(folder, model, material, labels, splits, plan, settings)
    batch = batch_size(model, replace(settings, batch_size=None))
    if plan.tuning == "linear":
        used = sorted(i for rows in labels.members for i in rows)
        progress = Progress(f"model {name}", "embed")
        some = embed_all(
            model, [material.runs[i] for i in used], plan, batch, folder / f"embeddings-{stamp}.npz", settings.resume,
            progress.step(f"encoding {len(used)} runs once", "run"),
        )  # fmt: skip
        progress.close()
        embeddings = [None] * len(material.runs)
        for i, rows in zip(used, some, strict=True):
            embeddings[i] = rows
        material = replace(material, embeddings=embeddings)

    def runs_of(samples: np.ndarray) -> np.ndarray:
        return np.array(sorted(i for k in samples for i in labels.members[k]), int)

    fitted, predictions = [], {}
    for number, split in enumerate(splits, start=1):
        progress = Progress(f"model {name}, {split.name}", f"{number}/{len(splits)}")
        advance = progress.step(f"training on {len(split.train)} samples, watching {len(split.validation)}", "step")

        def tell(epoch: dict, title: str = progress.title) -> None:
            LOG.info(
                "%s: %s", title, ", ".join(f"{key.replace('_', ' ')} {_figure(value)}" for key, value in epoch.items())
            )

        one = fit(
            model, material, labels.classes, runs_of(split.train), runs_of(split.validation), plan,
            folder / split.folder, settings.resume, settings.prompt_length, settings.lora_rank,
            not settings.no_augmentation, tell, advance,
        )  # fmt: skip
        if len(split.test):
            advance = progress.step(f"predicting {len(split.test)} samples it has not seen", "run")
            outputs = outputs_of(model, one, material, runs_of(split.test), batch, plan.precision, advance)
            task = one.objective.task(labels.target, None)
            for k in split.test:
                predictions[k] = interpret(task, np.concatenate([outputs[i] for i in labels.members[k]]))
        progress.close()
        fitted.append(one)
    return fitted, predictions


def begin(
    folder: Path,
    model: Model,
    material: Material,
    labels: Labels,
    splits: "list[Split]",
    plan: Plan,
    settings: Settings,
) -> str:
    """Make the folder of checkpoints; refuse to go on with a training of other settings. Returns the digest of these.

    Raises
    ------
    NeurostormError
        If it was begun with other settings, or there is nothing to go on with.
    """
    asked = {
        "version": __version__,
        "model": model.sha256,
        "labels": [*labels.y.tolist(), *labels.names.to_numpy().tolist(), *labels.classes],
        "splits": [[part.tolist() for part in (one.train, one.validation, one.test)] for one in splits],
        "plan": {key: str(value) for key, value in asdict(plan).items() if key not in ("device", "workers")},
        "tuning": [settings.prompt_length, settings.lora_rank, settings.no_augmentation, settings.grid],
        "runs": [(run.path.name, made_from(run.path)) for run in material.runs if run is not None],
    }
    asked = json.loads(json.dumps(asked))
    note = folder / "begun.json"
    if settings.resume:
        begun = read_json(note).get("Digest")
        if begun is None:
            raise NeurostormError(f"--resume: there is no training to go on with in {folder}")
        if begun != digest(asked):
            raise NeurostormError(
                f"--resume: the training in {folder} was begun with other settings or data; give those, or leave out --resume"
            )
    elif is_main():
        shutil.rmtree(folder, ignore_errors=True)  # nothing of an earlier training is ever gone on with
        write_sidecar(note, {"Digest": digest(asked), "Command": settings.as_command()})
    return digest(asked)


def evaluate_all(
    predictions: "dict[int, Prediction]",
    labels: Labels,
    splits: "list[Split]",
    table: pd.DataFrame,
    model: Model,
    settings: Settings,
) -> "tuple[dict[str, Evaluation], list[str]]":
    """The tuned model on samples it has not seen; beside it, in the same folds, the frozen embedding and head motion."""
    folds = np.full(len(labels.y), -1)
    predicted, probabilities = np.zeros(len(labels.y), dtype=labels.y.dtype), None
    for fold, split in enumerate(splits):
        folds[split.test] = fold
    if labels.classes:
        probabilities = np.zeros((len(labels.y), len(labels.classes)))
        for k, one in predictions.items():
            probabilities[k] = [one.probabilities[name] for name in labels.classes]
        predicted = probabilities.argmax(axis=1)
    else:
        predicted[list(predictions)] = [one.value for one in predictions.values()]
    first = f"fine-tuned ({settings.tuning})"
    evaluations = {
        first: judge(
            labels.y, predicted, probabilities, labels.groups, folds, settings.random_seed, settings.n_permutations
        )
    }
    try:
        cohort = gather(settings.out_dir, label_of_name(settings.model[0]), grid_of(model, settings).template)
    except NeurostormError:
        cohort = None
    where = {} if cohort is None else {run: i for i, run in enumerate(cohort.runs["run_name"])}
    used = sorted(i for rows in labels.members for i in rows)
    if not all(table["run_name"].iloc[i] in where for i in used):
        return evaluations, [
            f"no frozen embedding and head motion beside it: not all runs have embeddings of model '{model.label}'; the "
            "participant level makes them"
        ]
    order = np.array([where.get(run, 0) for run in table["run_name"]])  # runs without a label stand for nothing
    cohort = cohort.keep(order)
    measured = [name for name in cohort.runs if name in table]  # before columns of the phenotype of the same name
    joined = pd.concat([table.reset_index(drop=True).drop(columns=measured), cohort.runs], axis=1)
    samples = probe.samples_of(cohort, joined, labels, settings.covariates)
    is_class, seed = bool(labels.classes), settings.random_seed
    features = {FROZEN: samples.embeddings, probe.MOTION: np.column_stack([samples.motion, samples.covariates])}
    for who, columns in features.items():
        columns = columns[:, np.std(columns, axis=0) > 0]
        covariates = samples.covariates if who == FROZEN else None
        if columns.shape[1]:
            evaluations[who] = evaluate(columns, labels.y, labels.groups, folds, is_class, covariates, seed)
    return evaluations, []


def write_results(tuned: Tuned, notes: "list[str]", settings: Settings) -> None:
    """The model's folder, the predictions of unseen samples, the metrics, and a page."""
    labels, kept, out = tuned.labels, tuned.kept, settings.out_dir
    folder = out / MODELS / tuned.name
    said = probe.verdict(tuned.evaluations, labels, "The fine-tuned model")
    metrics = probe.metrics_table(tuned.evaluations)
    histories = {split.name: one.epochs for split, one in zip(tuned.splits, tuned.fitted, strict=True)}
    history = pd.concat([pd.DataFrame(epochs).assign(training=name) for name, epochs in histories.items()])
    task = kept.objective.task(labels.target, tuned.trained_on)
    placing = {key: getattr(settings, key) for key in PLACING}
    hyper_parameters = hyper_parameters_of(
        tuned.model, reference_to(settings.model[0]), task, settings.tuning, tuned.grid.name, placing
    )
    whole = hyper_parameters["backbone"] is None
    parts = kept.network.state_dict() if whole else kept.parts
    card = card_of(tuned, metrics, said, notes, whole, settings)
    write_model(folder, parts, hyper_parameters, card, split_table(labels, tuned.splits), history)

    stem = f"group_desc-{label_of_name(folder)}_finetune"
    ours = next(iter(tuned.evaluations.values()))
    tested = ours.folds >= 0
    table = labels.names[tested].assign(
        target=[value for value, is_in in zip(labels.named(labels.y), tested, strict=True) if is_in],
        predicted=[value for value, is_in in zip(labels.named(ours.predicted), tested, strict=True) if is_in],
        fold=ours.folds[tested] + 1,
    )
    for k, name in enumerate(labels.classes):
        table[f"probability_{name}"] = ours.probabilities[tested, k]
    write_table(out / f"{stem}_predictions.tsv", table)
    write_table(out / f"{stem}_metrics.tsv", metrics)
    about = {
        "Description": f"{labels.target} predicted by a fine-tuned model for samples that it did not see",
        "Model": f"bids::{MODELS}/{tuned.name}",
        "Method": tuned.how,
        "Classes": labels.classes,
        "KeptTogether": settings.group_by or SUBJECT,
        "Permutations": settings.n_permutations,
        "Verdict": said,
        "Notes": notes,
        "RandomSeed": settings.random_seed,
        "SoftwareVersions": software_versions(),
    }
    for ending in ("predictions", "metrics"):
        write_sidecar(out / f"{stem}_{ending}.json", about)
    figures = Path("group") / "figures"
    page.draw_curves(histories, out / figures / f"{stem}_curves.png")
    page.draw_probe(labels.y, labels.classes, tuned.evaluations, labels.target, out / figures / f"{stem}.png")
    n_tuned = sum(part.numel() for part in kept.parts.values())
    sections = [
        Section(
            f"Fine-tuning: {labels.target}",
            words=[said, tuned.how],
            facts=[
                ("Model", f"{tuned.name}, from {tuned.model.name}"),
                ("Tuned", f"{settings.tuning}, {n_tuned:,} weights"),
                ("Samples", f"{len(labels.y)}{f' ({labels.counts})' if labels.counts else ''}"),
                ("Use it", f"neurostorm BIDS_DIR OUT_DIR participant --model {folder}"),
                ("Files", f"{MODELS}/{tuned.name}/, {stem}_metrics.tsv, {stem}_predictions.tsv"),
            ],
            table=metrics,
            figures=[((figures / f"{stem}.png").as_posix(), "What each tells, on the same unseen samples; predictions of the fine-tuned model.")],
            notes=notes,
        ),
        Section(
            "Training",
            words=["Training stops when the loss on the validation subjects no longer falls; the weights of the best epoch are kept."],
            figures=[((figures / f"{stem}_curves.png").as_posix(), "Every training, epoch by epoch.")],
        ),
    ]  # fmt: skip
    page.write_page(out / f"{stem}.html", f"Fine-tuning: {labels.target}", sections, settings.as_command())
    print(said)
    print(metrics.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""))
    print(f"The model is in {folder}; use it with --model {folder}")
    print(f"Open {out / f'{stem}.html'}")


def card_of(tuned: Tuned, metrics: pd.DataFrame, said: str, notes: "list[str]", whole: bool, settings: Settings) -> str:
    """The model card, Markdown."""
    labels, kept = tuned.labels, tuned.kept
    template = files("neurostorm_bids.boilerplate").joinpath("model_card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not a page)
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    used = sorted(i for rows in labels.members for i in rows)
    tasks = tuned.table.get("task", pd.Series(dtype=str)).iloc[used] if "task" in tuned.table else pd.Series(dtype=str)
    said_of_placing = ", ".join(
        f"{key.replace('_', '-')} {value}" for key in PLACING if (value := getattr(settings, key)) is not None
    )
    return environment.from_string(template).render(
        name=tuned.name, version=__version__, folder=f"OUT_DIR/{MODELS}/{tuned.name}", labels=labels,
        dataset=tuned.trained_on, n_subjects=labels.names[SUBJECT].nunique(), n_runs=len(used),
        tasks=sorted(tasks.dropna().unique()), grid=f"{tuned.grid.name} ({tuned.grid.template})", placing=said_of_placing,
        backbone=f"{tuned.model.name} (SHA-256 {tuned.model.sha256})", tuning=settings.tuning,
        n_tuned=f"{sum(part.numel() for part in kept.parts.values()):,}",
        n_weights=f"{sum(p.numel() for p in kept.network.parameters()):,}",
        n_frames=tuned.model.n_frames, augmented=not settings.no_augmentation and settings.tuning != "linear",
        learning_rate=tuned.plan.learning_rate, batch=tuned.plan.batch_size * tuned.plan.devices * tuned.plan.nodes,
        precision=tuned.plan.precision, seed=tuned.plan.seed, epochs=tuned.plan.epochs, best_epoch=kept.best_epoch,
        n_validation=len(tuned.splits[-1].validation), how=tuned.how, verdict=said, metrics=metrics,
        notes=[f"- {note}" for note in notes], whole=whole,
    )  # fmt: skip


def tell_beginning(labels: Labels, splits: "list[Split]", model: Model, name: str, settings: Settings) -> None:
    """Say what is trained on what."""
    for note in labels.notes:
        LOG.warning(note)
    n = len(splits)
    how = "once" if n == 1 else f"{n} times: {n - 1} folds to test it, and {KEPT}"
    counts = f" ({labels.counts})" if labels.counts else ""
    LOG.info(
        "tuning %s of %s for '%s' on %d samples%s, as %s; trained %s",
        settings.tuning, model.name, labels.target, len(labels.y), counts, name, how,
    )  # fmt: skip


def _word(text: str) -> str:
    return re.sub("[^A-Za-z0-9]", "", text) or "target"


def _figure(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
