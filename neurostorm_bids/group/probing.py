"""Probe the embeddings of a study for one target: what predicts it, how well, and what it may rest on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.answers import BEYOND_COVARIATES, BEYOND_MOTION, MOTION, PLACES, Evaluations
from neurostorm_bids.group.baselines import baselines_of
from neurostorm_bids.group.cautions import (
    about_lines,
    about_sites,
    about_tasks,
    check_enough_is_known,
    check_no_covariate_is_the_target,
    check_no_person_is_there_twice,
)
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.features import Harmonisation
from neurostorm_bids.group.labels import labels_of
from neurostorm_bids.group.places import features_of_places
from neurostorm_bids.group.samples import Samples, design_of, samples_of
from neurostorm_bids.group.sites import Sites, combat_of, levels_of, told_apart
from neurostorm_bids.group.study import LOG, Study

EMBEDDING = "embedding"


@dataclass(frozen=True)
class Probe:
    """What was found of one target.

    Attributes
    ----------
    samples : Samples
    design : Design
    evaluations : dict
        The embedding first.
    sites : Sites or None
        Where the data are from, if a column says so.
    notes : list of str
    """

    samples: Samples
    design: Design
    evaluations: Evaluations
    sites: Sites | None
    notes: list[str]


def probe_of(study: Study, target: str) -> Probe:
    """Probe for one target.

    Raises
    ------
    NeurostormError
        If labels, covariates or sites cannot be used.
    """
    options, settings = study.settings.group, study.settings
    seed = settings.conduct.random_seed
    table, samples, notes = _samples_of(study, target)
    labels = samples.labels
    others, more = baselines_of(study.cohort, labels, settings.out_dir, settings.work)
    if options.pooling == "attention":
        if options.harmonise:
            raise NeurostormError("--pooling attention: the tokens of places are not harmonised; leave out --harmonise")
        others = {PLACES: features_of_places(study, labels), **others}
    left_out = levels_of(table, labels, options.leave_out, "--leave-out") if options.leave_out else None
    design = design_of(labels, options, seed, None if left_out is None else left_out.astype(str).to_numpy(str))
    harmonisation = combat_of(table, samples, design, options.harmonise) if options.harmonise else None
    evaluations = probe(samples, others, design, options.n_permutations, harmonisation)
    sites = told_apart(table, samples, options, seed)
    if others:
        LOG.info("comparing with: %s", ", ".join(others))
    about = (
        []
        if sites is None
        else about_sites(labels, sites.levels, sites.in_words, sites.is_kept, sites.levels.name == options.harmonise)
    )
    return Probe(samples, design, evaluations, sites, [*notes, *about, *more])


def _samples_of(study: Study, target: str) -> tuple[pd.DataFrame, Samples, list[str]]:
    """Return the table of runs, the samples, and notes on them."""
    options, table, coded = study.settings.group, study.table, study.phenotype.coded
    if target in (options.leave_out, options.group_by):
        raise NeurostormError(f"'{target}' cannot be the target and be kept together (--leave-out, --group-by)")
    if options.leave_out and options.group_by not in (None, options.leave_out):
        raise NeurostormError(f"--leave-out {options.leave_out} keeps its values together; leave out --group-by")
    by = options.leave_out or options.group_by
    labels = labels_of(table, target, options.target_type, by, of=options.samples, coded=coded)
    samples = samples_of(study.cohort, table, labels, options.covariates, coded)
    check_no_person_is_there_twice(samples.embeddings, labels)
    check_no_covariate_is_the_target(samples.covariates, labels)
    check_enough_is_known(samples.known, labels)
    notes = [*labels.notes, *samples.covariates.notes, *about_tasks(table, labels)]
    return table, samples, [*notes, *about_lines(labels, samples.covariates)]


def probe(
    samples: Samples,
    others: dict[str, np.ndarray],
    design: Design,
    n_permutations: int = 200,
    harmonisation: Harmonisation | None = None,
) -> Evaluations:
    """Evaluate the embedding and, in the same folds, head motion and covariates alone, and other features.

    Parameters
    ----------
    others : dict
        Name -> (samples, features) array, such as a connectome's, or (samples, places, features) array.
    harmonisation : Harmonisation, optional
        Of the embedding.

    Returns
    -------
    dict
        "embedding" first; then what it adds to the covariates, and to head motion and covariates; these alone; and the other
        features, alone and beyond these. With permutation tests for all.
    """
    known, covariates = samples.known, samples.covariates.confounds
    evaluations = {EMBEDDING: evaluate(samples.embeddings, design, None, n_permutations, harmonisation)}
    if len(covariates) and len(samples.motion):
        beyond = EMBEDDING + BEYOND_COVARIATES
        evaluations[beyond] = evaluate(samples.embeddings, design, covariates, n_permutations, harmonisation)
    beyond = BEYOND_MOTION if len(samples.motion) else BEYOND_COVARIATES
    if len(known):
        evaluations[EMBEDDING + beyond] = evaluate(samples.embeddings, design, known, n_permutations, harmonisation)
        evaluations[MOTION] = evaluate(known, design, None, n_permutations)
    for name, features in others.items():
        evaluations[name] = evaluate(features, design, None, n_permutations)
        if len(known):
            evaluations[name + beyond] = evaluate(features, design, known, n_permutations)
    return evaluations
