"""Test a model that predicts (published or fine-tuned) on labelled people that it never saw."""

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.answers import (
    METRICS_COLUMNS,
    Evaluations,
    metrics_table,
    predictions_columns,
    predictions_table,
    shown_table,
    verdict,
)
from neurostorm_bids.group.cautions import check_no_person_is_there_twice
from neurostorm_bids.group.evaluation import Design, Evaluation, judge
from neurostorm_bids.group.exchange import IN_WORDS
from neurostorm_bids.group.labels import Labels, labels_of
from neurostorm_bids.group.naming import name_of_analysis
from neurostorm_bids.group.prediction_figures import null_figure, predictions_figure
from neurostorm_bids.group.predictions import PROBABILITY, mean_of_samples, read_predictions, target_of
from neurostorm_bids.group.samples import embeddings_of
from neurostorm_bids.group.study import LOG, Study, some
from neurostorm_bids.group.task import GroupResult, Section

PREDICTION = "the model's prediction"
METHOD = (
    "The model is fixed: nothing is fitted to these people. Predictions of a person's runs are averaged, weighted by windows; "
    "intervals are from the bootstrap over people."
)


def run(study: Study) -> list[GroupResult]:
    """Score the predictions that the participant level wrote."""
    study.refuse_seen()
    predictions = read_predictions(study)
    if predictions is None:
        raise NeurostormError(
            f"model '{study.cohort.label}' has no head that predicts; --group-task probe asks what its embedding tells"
        )
    options = study.settings.group
    target = study.target() or target_of(study)
    classes = [str(name).removeprefix(PROBABILITY) for name in predictions if str(name).startswith(PROBABILITY)]
    kind = "classification" if classes else "regression"
    labels = labels_of(study.table, target, kind, options.group_by, of=options.samples, coded=study.phenotype.coded)
    check_no_person_is_there_twice(embeddings_of(study.cohort, labels), labels)
    of_head = target_of(study)
    if target != of_head:
        labels.notes.insert(
            0,
            f"the model predicts '{of_head}', which is compared with '{target}' here: R2 and MAE mean something only if these are the same",
        )
    if seen := study.seen():
        labels.notes.insert(
            0,
            f"{len(seen)} of {labels.n_subjects} people were in the model's training ({some(seen)}): this is no test of it (--allow-seen)",
        )
    for note in labels.notes:
        LOG.warning(note)
    weights = study.cohort.runs["windows"].to_numpy(float)
    values = mean_of_samples(predictions, labels.members, weights)
    evaluations = {PREDICTION: _judged(values, classes, labels, study)}
    return [_result(labels, evaluations, study)]


def _judged(values: np.ndarray, classes: list[str], labels: Labels, study: Study) -> Evaluation:
    """Compare predictions with labels."""
    seed, options = study.settings.conduct.random_seed, study.settings.group
    everybody = np.zeros(len(labels.y), int)
    subjects = labels.names[SUBJECT].to_numpy(str)
    design = Design(labels.y, labels.groups, everybody, bool(classes), seed, subjects, options.exchange)
    if not classes:
        return judge(values[:, 0], None, design, options.n_permutations)
    if unknown := sorted(set(labels.classes) - set(classes)):
        raise NeurostormError(
            f"'{labels.target}' has the class '{unknown[0]}', which model '{study.cohort.label}' does not know; it knows "
            f"{', '.join(classes)}"
        )
    columns = [classes.index(name) for name in labels.classes]
    probabilities = values[:, columns] / values[:, columns].sum(axis=1, keepdims=True)
    return judge(probabilities.argmax(axis=1), probabilities, design, options.n_permutations)


def _result(labels: Labels, evaluations: Evaluations, study: Study) -> GroupResult:
    answer = verdict(evaluations, labels, f"Model {study.cohort.label}")
    metrics: pd.DataFrame = metrics_table(evaluations, study.cohort.label)
    ours = evaluations[PREDICTION]
    name = f"{name_of_analysis(study.cohort.label, labels.target, study.settings)}_evaluate"
    counts = f" ({labels.counts})" if labels.counts else ""
    return GroupResult(
        name=name,
        title=f"Evaluation: {labels.target}",
        answer=answer,
        sections=[
            Section(
                f"Evaluation: {labels.target}",
                words=[answer, METHOD],
                facts=[
                    ("Model", study.cohort.label),
                    ("Samples", f"{len(labels.y)}{counts} of {labels.n_subjects} people"),
                ],
                table=shown_table(evaluations),
                figures=[("_null", "What was observed, and what chance gives."), ("", "Predictions.")],
                notes=labels.notes,
            )
        ],
        about={
            "Description": f"{labels.target} predicted by a model for people that it did not see",
            "Model": study.cohort.label,
            "Method": METHOD,
            "Permutations": len(ours.null),
            "Exchange": IN_WORDS[ours.exchange],
            "Verdict": answer,
            "Notes": labels.notes,
            "Sources": study.sources(),
        },
        page=name,
        tables={"_metrics": metrics, "_predictions": predictions_table(labels, evaluations)},
        columns={"_metrics": METRICS_COLUMNS, "_predictions": predictions_columns(labels)},
        figures={"_null": null_figure(evaluations), "": predictions_figure(labels, ours, axis="predicted")},
        shown=shown_table(evaluations),
    )
