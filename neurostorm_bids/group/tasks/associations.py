"""Ask of every column of the phenotype whether the embedding predicts it; corrected for how many were asked."""

from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import KEYS
from neurostorm_bids.group.answers import METRICS_COLUMNS, SIGNIFICANT
from neurostorm_bids.group.cautions import check_enough_is_known, check_no_person_is_there_twice
from neurostorm_bids.group.evaluation import Evaluation, evaluate
from neurostorm_bids.group.naming import name_of_analysis
from neurostorm_bids.group.prediction_figures import targets_figure
from neurostorm_bids.group.samples import design_of, samples_of
from neurostorm_bids.group.several import by_false_discovery_rate, by_max_statistic
from neurostorm_bids.group.study import LOG, Study, counted
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.runtime.progress import Progress

MOST_CLASSES = 10  # of a column that is asked about unless it is named
COLUMNS: dict[str, dict[str, Any]] = {
    "column": {"Description": "Column of the phenotype that is predicted"},
    **{name: METRICS_COLUMNS[name] for name in ("metric", "value", "lower", "upper", "p_value", "n")},
    "q_value": {
        "Description": "p-value corrected for the false discovery rate over all columns (Benjamini and Hochberg 1995)"
    },
    "p_max_statistic": {"Description": "p-value that holds for all columns together (Westfall and Young 1993)"},
}


def run(study: Study) -> list[GroupResult]:
    """Probe all columns, or those that --target names."""
    options, seed = study.settings.group, study.settings.conduct.random_seed
    known = {name.partition(":")[0] for name in options.covariates}
    wanted = options.target or [str(name) for name in study.phenotype.table if name not in KEYS and name not in known]
    found: dict[str, Evaluation] = {}
    left_out = []
    progress = Progress(f"model {study.cohort.label}", "associations")
    advance = progress.step(f"probing {counted(len(wanted), 'column')}", "column")
    for i, target in enumerate(wanted):
        try:
            labels = study.labels(target)
            samples = samples_of(study.cohort, study.table, labels, options.covariates, study.phenotype.coded)
            check_enough_is_known(samples.covariates.confounds, labels)
        except NeurostormError as error:
            if target in options.target:
                raise
            left_out.append(f"{target} ({error})")
            continue
        if len(labels.classes) > MOST_CLASSES and target not in options.target:
            left_out.append(f"{target} ({len(labels.classes)} classes)")
            continue
        if not found:
            check_no_person_is_there_twice(samples.embeddings, labels)
        design = design_of(labels, options, seed)
        found[target] = evaluate(samples.embeddings, design, samples.covariates.confounds, options.n_permutations)
        advance(i + 1, len(wanted))
    progress.close()
    if not found:
        raise NeurostormError(
            f"no column of the phenotype can be predicted: {'; '.join(left_out[:3]) or 'there is none'}"
        )
    notes = [f"left out: {each}" for each in left_out]
    smallest = 1 / (1 + max((len(each.null) for each in found.values()), default=0))
    if options.n_permutations and smallest * len(found) > SIGNIFICANT:
        notes.insert(
            0,
            f"with {options.n_permutations} permutations p is at least {smallest:.3f}, so that one column alone among {len(found)} cannot reach a "
            f"false discovery rate of {SIGNIFICANT:.0%}: give --n-permutations {int(len(found) / SIGNIFICANT) + 1} or more",
        )
    for note in notes:
        LOG.warning(note)
    evaluations = list(found.values())
    rows = [
        [target, next(iter(each.metrics)), *each.first, each.p_value, int((each.folds >= 0).sum())]
        for target, each in found.items()
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS)[:7])
    table["q_value"], table["p_max_statistic"] = by_false_discovery_rate(evaluations), by_max_statistic(evaluations)
    table = table.sort_values(["p_value", "column"], ignore_index=True)
    return [_result(table, notes, study)]


def _result(table: pd.DataFrame, notes: list[str], study: Study) -> GroupResult:
    options = study.settings.group
    left = table.loc[table["q_value"] <= SIGNIFICANT, "column"].tolist()
    answer = (
        f"Of {len(table)} columns of the phenotype the embedding predicts {len(left)} at a false discovery rate of "
        f"{SIGNIFICANT:.0%}{': ' + ', '.join(left) if left else ''}."
    )
    name = name_of_analysis(study.cohort.label, "associations", study.settings)
    beyond = f"What it adds to {', '.join(options.covariates)}. " if options.covariates else ""
    words = (
        f"{beyond}Each column by ridge regression, of classes on their indicators, in folds that keep a person's samples together, drawn anew "
        f"several times; p-values from {options.n_permutations} permutations that keep the structure of the data (Winkler et al. 2015), q-values "
        "by Benjamini and Hochberg (1995), p for all columns together by the max-statistic (Westfall and Young 1993)."
    )
    n = int(np.nanmax(table["n"]))
    return GroupResult(
        name=name,
        title="Associations",
        answer=answer,
        sections=[
            Section("Associations", words=[answer, words], table=table, figures=[("", "Every column.")], notes=notes)
        ],
        about={
            "Description": "Every column of the phenotype predicted from frozen NeuroSTORM embeddings",
            "Model": study.cohort.label,
            "Covariates": list(options.covariates),
            "Permutations": options.n_permutations,
            "Samples": n,
            "Notes": notes,
            "Sources": study.sources(),
        },
        page=name,
        tables={"": table},
        columns={"": COLUMNS},
        figures={"": targets_figure(table)},
        shown=table,
    )
