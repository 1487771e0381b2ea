"""Predict --target from the frozen embeddings, in the same folds as what a reviewer asks for."""

from typing import Any

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.answers import ADDED, MOTION, Evaluations, metrics_table, predictions_table, verdict
from neurostorm_bids.group.baselines import baselines_of
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.figures import evaluations_figure
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.labels import Labels, labels_of
from neurostorm_bids.group.samples import Samples, samples_of, varying
from neurostorm_bids.group.study import LOG, Study, word
from neurostorm_bids.group.task import GroupResult, Section

EMBEDDING = "embedding"
SMALLEST_MOTION = 1e-3  # mm; head motion counts by its logarithm, whose distribution over people is nearly normal
EXCHANGES = {
    "free": "samples change places freely",
    "between": "whole subjects (or groups) of the same size change places",
    "within": "subjects change places within their group, or samples within their subject",
    "both": "subjects change places within their group, and whole groups of the same make-up",
}


def run(study: Study) -> GroupResult:
    """Probe the embeddings for a target."""
    options, settings = study.settings.group, study.settings
    if options.target is None:
        raise NeurostormError("--group-task probe needs --target COLUMN of participants.tsv or of --phenotype FILE")
    cohort, table = study.cohort, study.table
    labels = labels_of(table, options.target, options.target_type, options.group_by)
    samples = samples_of(cohort, table, labels, options.covariates)
    others, notes = baselines_of(cohort, labels, settings.out_dir, settings.work)
    notes = [*labels.notes, *notes]
    for note in notes:
        LOG.warning(note)
    evaluations = probe(samples, others, settings.conduct.random_seed, options.n_permutations, options.exchange)
    answer, metrics = verdict(evaluations, labels), metrics_table(evaluations)
    name = f"group_desc-{cohort.label}_target-{word(options.target)}"
    about = _about(study, labels, evaluations) | {"Verdict": answer, "Notes": notes}
    caption = "How well each set of features predicts, in the same folds; predictions of the embedding out of fold."
    section = Section(
        f"Probe: {options.target}",
        words=[answer],
        facts=[
            ("Model", cohort.label),
            ("Samples", _samples(labels, options.group_by)),
            ("Method", about["Method"]),
            ("Covariates", ", ".join(options.covariates) or "none"),
            ("Permutations", f"{about['Permutations']}, {about['Exchange']}"),
            ("Files", f"{name}_metrics.tsv, {name}_predictions.tsv"),
        ],
        table=metrics,
        figures=[("_probe", caption)],
        notes=notes,
    )
    return GroupResult(
        name=name,
        title=section.title,
        answer=answer,
        sections=[section],
        about=about,
        page=f"{name}_probe",
        tables={"_metrics": metrics, "_predictions": predictions_table(labels, evaluations)},
        figures={"_probe": evaluations_figure(labels.y, labels.classes, evaluations, options.target)},
        shown=metrics,
    )


def probe(
    samples: Samples,
    others: dict[str, np.ndarray],
    seed: int = 0,
    n_permutations: int = 200,
    exchange: str = "auto",
) -> Evaluations:
    """Evaluate the embedding and, in the same folds, head motion and covariates alone, and other features.

    Parameters
    ----------
    others : dict
        Name -> (samples, features) array, such as a connectome's.
    exchange : {"auto", "within", "between"}
        What permutations keep; see `exchange.exchange_of`.

    Returns
    -------
    dict
        "embedding" first; with permutation tests for it, for what it adds to head motion and covariates, and for these
        alone.
    """
    labels = samples.labels
    is_class = bool(labels.classes)
    folds = make_folds(labels.y, labels.groups, is_class, seed)
    subjects = labels.names[SUBJECT].to_numpy(str)
    design = Design(labels.y, labels.groups, folds, is_class, seed, subjects, exchange)
    evaluations = {EMBEDDING: evaluate(samples.embeddings, design, samples.covariates, n_permutations)}
    motion = varying(np.log(np.maximum(samples.motion, SMALLEST_MOTION)))
    alone = varying(np.column_stack([motion, samples.covariates]))
    if motion.shape[1] and n_permutations:
        evaluations[ADDED] = evaluate(samples.embeddings, design, alone, n_permutations)
    if alone.shape[1]:
        evaluations[MOTION] = evaluate(alone, design, None, n_permutations)
    for name, features in others.items():
        evaluations[name] = evaluate(features, design, samples.covariates)
    return evaluations


def _about(study: Study, labels: Labels, evaluations: Evaluations) -> dict[str, Any]:
    options = study.settings.group
    n_folds = len(np.unique(evaluations[EMBEDDING].folds))
    method = "logistic regression, weighted by class" if labels.classes else "ridge regression"
    return {
        "Description": f"{options.target} predicted from frozen NeuroSTORM embeddings, out of fold",
        "Method": f"{method}, {n_folds}-fold cross-validation, penalty chosen inside the training folds",
        "KeptTogether": options.group_by or SUBJECT,
        "Covariates": list(options.covariates),
        "Permutations": len(evaluations[EMBEDDING].null),
        "Exchange": EXCHANGES[evaluations[EMBEDDING].exchange],
        "Classes": labels.classes,
        "Samples": len(labels.y),
        "Sources": study.sources(),
    }


def _samples(labels: Labels, group_by: str | None) -> str:
    counts = f" ({labels.counts})" if labels.counts else ""
    groups = f"{len(np.unique(labels.groups))} {f'groups by {group_by}' if group_by else 'subjects'}"
    return f"{len(labels.y)}{counts} of {groups}"
