"""Fine-tune a model for --target, test it on subjects it has not seen, and keep it for the participant level."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.description import write_description
from neurostorm_bids.derivatives.models import MODELS, hyper_parameters_of, record_of_test, write_model
from neurostorm_bids.derivatives.seen import PEOPLE, people_of, was_seen, with_those_before
from neurostorm_bids.encode.sizes import check_precision
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.answers import (
    METRICS_COLUMNS,
    MOTION,
    Evaluations,
    metrics_table,
    predictions_columns,
    predictions_table,
    shown_table,
    verdict,
)
from neurostorm_bids.group.cohort import Cohort, read_cohort
from neurostorm_bids.group.evaluation import Design, Evaluation, evaluate, judge
from neurostorm_bids.group.figures import training_figure
from neurostorm_bids.group.labelled_runs import labelled_runs, training_data
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.model_card import TunedModel, model_card
from neurostorm_bids.group.prediction_figures import forest_figure, predictions_figure
from neurostorm_bids.group.reference_figures import reference_of_training
from neurostorm_bids.group.samples import samples_of
from neurostorm_bids.group.splits import FINAL, Split, cross_validation, split_from, split_table
from neurostorm_bids.group.study import LOG, Study, counted, some, word
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.group.training import Trainings, begin_model, begin_processes, plan_of, train_all
from neurostorm_bids.model.hyper_parameters import TEST
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import label_of_name, reference_to
from neurostorm_bids.model.task import Prediction
from neurostorm_bids.participant.level import log_adoption
from neurostorm_bids.participant.locks import lock_model
from neurostorm_bids.participant.one_run import grid_of
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.train import distributed
from neurostorm_bids.train.trainer import EpochRecord

FROZEN = "frozen embedding (probe)"
HOW_SURE = (
    "The permutation test trains nothing again; its distribution by chance is widened for what folds share. Whoever tries several tunings or rates and keeps the "
    "best by these tests has tested nothing: keep people aside for that (--split)."
)


def run(study: Study) -> list[GroupResult]:
    """Fine-tune the model; nothing in a process that trains with another, which writes the result."""
    settings = study.settings
    training = settings.training
    target = study.target()
    if target is None:
        raise NeurostormError("--group-task finetune needs --target COLUMN of participants.tsv or of --phenotype FILE")
    if len(settings.encoding.model) != 1:
        raise NeurostormError("--group-task finetune tunes one model; give one --model")
    if settings.group.covariates:
        raise NeurostormError(
            "--covariates cannot be taken out of a model that learns from images; --group-task probe says what the embedding "
            "adds to them"
        )
    is_first = begin_processes(study)
    model = load_model(study.model, distributed.own_device(settings.resources.device))
    check_precision([model], settings.encoding.precision)
    name = training.save_as or f"{model.label}-{word(target)}-{training.tuning}"
    begin_model(name, settings)
    settings = adopt([model], settings)
    study = replace(study, settings=settings)
    log_adoption([model], settings)
    grid = grid_of(model, settings)
    labelled = labelled_runs(study, grid, model)
    labels, splits = _splits_of(labelled.labels, study)
    _check_seen(model, labels, study)
    data = training_data(labelled, labels, grid, study)
    trainings = Trainings(name, model, labels, splits, labelled, data, plan_of(model, settings))
    if not is_first:
        train_all(trainings, settings)
        return []
    write_description(settings.out_dir, study.dataset, [], {})
    try:
        with lock_model(settings.out_dir, name):
            return [_train(trainings, grid, study)]
    except Stopped as stop:
        LOG.error("stopped by %s: add --resume to the same command to continue from there", stop.name)
        raise


def _check_seen(model: Model, labels: Labels, study: Study) -> None:
    """Refuse to test on people that the model was trained on before, unless --allow-seen says otherwise."""
    seen = [
        name for name in labels.names[SUBJECT].unique() if was_seen(model, study.dataset, name.removeprefix("sub-"))
    ]
    if seen and not study.settings.group.allow_seen:
        raise NeurostormError(
            f"model {model.name} was trained on {counted(len(seen), 'person')} of these ({some(seen)}): no test on them would tell "
            "what it makes of others. Leave them out with --participant-label, or add --allow-seen"
        )
    if seen:
        labels.notes.append(
            f"model {model.name} was trained on {some(seen)} before: this is no test of it (--allow-seen)"
        )
    elif "tuning" in model.hyper_parameters and not people_of(model):
        labels.notes.append(
            f"model {model.name} was itself tuned, and does not say on whom: people of that are not unseen here"
        )


def _splits_of(labels: Labels, study: Study) -> tuple[Labels, list[Split]]:
    """Return the samples that take part, and the trainings to make; the model of the last one is kept."""
    path, seed = study.settings.training.split, study.settings.conduct.random_seed
    if path is not None:
        labels, split = split_from(path, study.dataset, labels, seed)
        return labels, [split]
    return labels, cross_validation(labels, seed)


def _train(trainings: Trainings, grid: Grid, study: Study) -> GroupResult:
    """Train, test, and write the model's folder."""
    labels = trainings.labels
    _log_beginning(trainings)
    trained, predictions = train_all(trainings, study.settings)
    tuned = TunedModel(trainings, trained, grid, study.dataset)
    evaluations = {f"fine-tuned ({trainings.plan.tuning})": _tested(predictions, trainings, study)}
    others, notes = _frozen(tuned, study)
    evaluations |= others
    notes = [*labels.notes, *notes, *map(str, trainings.labelled.problems)]
    if falling := sum(one.best_epoch >= trainings.plan.epochs for one in trained):
        notes.append(
            f"the loss was still falling at the last epoch of {counted(falling, 'training')}: give more --epochs"
        )
    histories = {split.name: one.epochs for split, one in zip(trainings.splits, trained, strict=True)}
    card = model_card(
        tuned, metrics_table(evaluations, trainings.name), _answer(evaluations, labels), notes, study.settings
    )
    _write_model(tuned, histories, next(iter(evaluations.values())), card, study)
    return _result(tuned, evaluations, histories, notes, study)


def _log_beginning(trainings: Trainings) -> None:
    """Say what is trained on what."""
    labels, n = trainings.labels, len(trainings.splits)
    for note in labels.notes:
        LOG.warning(note)
    how = "one training" if n == 1 else f"{n} trainings: {n - 1} folds to test it, and {FINAL}"
    counts = f" ({labels.counts})" if labels.counts else ""
    tuning, model = trainings.plan.tuning, trainings.model.name
    LOG.info("tuning %s (%s) for '%s' on %d samples%s", model, tuning, labels.target, len(labels.y), counts)
    LOG.info("the tuned model is called %s; %s", trainings.name, how)


def _tested(predictions: dict[int, Prediction], trainings: Trainings, study: Study) -> Evaluation:
    """Judge what the tuned model predicts of samples that it has not seen."""
    labels = trainings.labels
    predicted, probabilities = np.zeros(len(labels.y), dtype=labels.y.dtype), None
    if labels.classes:
        probabilities = np.zeros((len(labels.y), len(labels.classes)))
        for k, one in predictions.items():
            probabilities[k] = [one.probabilities[name] for name in labels.classes]
            predicted[k] = labels.classes.index(str(one.value))
    else:
        predicted[list(predictions)] = [float(one.value) for one in predictions.values()]
    return judge(predicted, probabilities, _design(trainings, study), study.settings.group.n_permutations)


def _design(trainings: Trainings, study: Study) -> Design:
    labels, seed = trainings.labels, study.settings.conduct.random_seed
    folds = np.full(len(labels.y), -1)
    for fold, split in enumerate(trainings.splits):
        folds[split.test] = fold
    subjects = labels.names[SUBJECT].to_numpy(str)
    exchange = study.settings.group.exchange
    return Design(labels.y, labels.groups, folds, bool(labels.classes), seed, subjects, exchange)


def _frozen(tuned: TunedModel, study: Study) -> tuple[Evaluations, list[str]]:
    """Return what the frozen embedding, and head motion alone, predict in the same folds; and notes."""
    trainings, labelled = tuned.trainings, tuned.trainings.labelled
    labels = trainings.labels
    try:
        cohort = read_cohort(study.settings.out_dir, label_of_name(study.model), tuned.grid.template)
        cohort, table = _matched(cohort, labelled.table, labels)
    except NeurostormError:
        return {}, [
            f"no frozen embedding and head motion beside it: not all runs have embeddings of model '{trainings.model.label}';"
            " the participant level makes them"
        ]
    samples = samples_of(cohort, table, labels)
    design = _design(trainings, study)
    found = {FROZEN: evaluate(samples.embeddings, design)}
    if len(samples.motion):
        found[MOTION] = evaluate(samples.motion, design)
    return found, []


def _matched(cohort: Cohort, table: pd.DataFrame, labels: Labels) -> tuple[Cohort, pd.DataFrame]:
    """Return a cohort in the order of a table of runs, and the table with the cohort's measures.

    Raises
    ------
    NeurostormError
        If a run with a label is not in the cohort.
    """
    where = {name: i for i, name in enumerate(cohort.runs["run_name"])}
    if not all(table["run_name"].iloc[i] in where for i in labels.rows):
        raise NeurostormError("not all runs have embeddings")
    # runs without a label take no part; the first run stands for them
    cohort = cohort.keep(np.array([where.get(name, 0) for name in table["run_name"]]))
    measured = [name for name in cohort.runs if name not in table]
    return cohort, pd.concat([table.reset_index(drop=True), cohort.runs[measured]], axis=1)


def _write_model(
    tuned: TunedModel, histories: dict[str, list[EpochRecord]], tested: Evaluation, card: str, study: Study
) -> None:
    """Write the model's folder."""
    trainings, kept, settings = tuned.trainings, tuned.kept, study.settings
    task = kept.objective.task(trainings.labels.target, tuned.dataset.name)
    gridding = settings.changing("gridded")
    backbone = reference_to(study.model)
    hyper_parameters = hyper_parameters_of(
        trainings.model, backbone, task, trainings.plan.tuning, tuned.grid.name, gridding
    )
    subjects = [name.removeprefix("sub-") for name in trainings.labels.names[SUBJECT].unique()]
    hyper_parameters[PEOPLE] = with_those_before(trainings.model, study.dataset, subjects)
    hyper_parameters[TEST] = record_of_test(tested.metrics, tested.p_value)
    if trainings.plan.tuning == "lora":
        hyper_parameters["lora_scale"] = trainings.plan.lora_scale
    parts = kept.network.state_dict() if hyper_parameters["backbone"] is None else kept.parts
    history = pd.concat([pd.DataFrame(epochs).assign(training=name) for name, epochs in histories.items()])
    folder = settings.out_dir / MODELS / trainings.name
    split = split_table(trainings.labels, trainings.splits)
    reference = partial(reference_of_training, trainings=trainings, grid=tuned.grid, settings=settings)
    write_model(folder, parts, hyper_parameters, card, split, history, reference=reference)


def _result(
    tuned: TunedModel, evaluations: Evaluations, histories: dict[str, list[EpochRecord]], notes: list[str], study: Study
) -> GroupResult:
    trainings, settings = tuned.trainings, study.settings
    labels, options = trainings.labels, study.settings.group
    answer, metrics = _answer(evaluations, labels), metrics_table(evaluations, trainings.name)
    folder = settings.out_dir / MODELS / trainings.name
    name = f"group_desc-{label_of_name(folder)}_finetune"
    title = f"Fine-tuning: {labels.target}"
    facts = [
        ("Model", f"{trainings.name}, from {trainings.model.name}"),
        ("Tuned", f"{trainings.plan.tuning}, {tuned.kept.n_tuned:,} weights"),
        ("Samples", tuned.counts),
        ("Use it", f"neurostorm BIDS_DIR OUT_DIR participant --model {folder}"),
        ("Files", f"{MODELS}/{trainings.name}/, {name}_metrics.tsv, {name}_predictions.tsv"),
    ]
    captions = [
        ("_forest", "How well each predicts, on the same unseen samples."),
        ("", "What the fine-tuned model predicts."),
    ]
    about_training = "Training stops when the loss on the validation subjects no longer falls; the weights of the best epoch are kept."
    return GroupResult(
        name=name,
        title=title,
        answer=f"{answer}\nThe model is in {folder}; use it with --model {folder}",
        sections=[
            Section(title, [answer, tuned.how_tested, HOW_SURE], facts, shown_table(evaluations), captions, notes),
            Section("Training", [about_training], figures=[("_curves", "Every training, epoch by epoch.")]),
        ],
        about={
            "Description": f"{labels.target} predicted by a fine-tuned model for samples that it did not see",
            "Model": f"bids::{MODELS}/{trainings.name}",
            "Method": tuned.how_tested,
            "Classes": labels.classes,
            "KeptTogether": options.group_by or SUBJECT,
            "Permutations": options.n_permutations,
            "Verdict": answer,
            "Notes": notes,
        },
        page=name,
        tables={"_metrics": metrics, "_predictions": predictions_table(labels, evaluations)},
        figures={
            "": predictions_figure(labels, next(iter(evaluations.values()))),
            "_forest": forest_figure(evaluations),
            "_curves": training_figure(histories),
        },
        columns={"_metrics": METRICS_COLUMNS, "_predictions": predictions_columns(labels)},
        shown=shown_table(evaluations),
        problems=trainings.labelled.problems,
    )


def _answer(evaluations: Evaluations, labels: Labels) -> str:
    return verdict(evaluations, labels, "The fine-tuned model")
