"""What a probe writes: tables, figures, and the page of one target."""

from typing import Any

import numpy as np
import pandas as pd
import sklearn

from neurostorm_bids import __version__
from neurostorm_bids.find.participants import SESSION, SUBJECT, column
from neurostorm_bids.group.answers import (
    BEYOND_COVARIATES,
    BEYOND_MOTION,
    METRICS_COLUMNS,
    SIGNIFICANT,
    by_level,
    follows_size,
    level_columns,
    metrics_table,
    predictions_columns,
    predictions_table,
    shown_table,
    verdict,
)
from neurostorm_bids.group.cautions import SITES
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.covariates import covariates_of
from neurostorm_bids.group.delta import corrected_delta
from neurostorm_bids.group.evaluation import Evaluation
from neurostorm_bids.group.exchange import IN_WORDS
from neurostorm_bids.group.export import exporter_of
from neurostorm_bids.group.naming import name_of_analysis
from neurostorm_bids.group.prediction_figures import forest_figure, null_figure, predictions_figure
from neurostorm_bids.group.probing import EMBEDDING, Probe
from neurostorm_bids.group.relations import RELATIONS_COLUMNS, phenotype_columns, relations_of
from neurostorm_bids.group.reliability import reliability_in_words
from neurostorm_bids.group.several import by_false_discovery_rate, by_max_statistic
from neurostorm_bids.group.study import Study
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.runtime.boilerplate import filled_in

BY_LEVELS = ("sex", "gender", *SITES)  # columns whose levels are shown apart, beside those that options name
TARGETS_COLUMNS: dict[str, dict[str, Any]] = {
    "target": {"Description": "What is predicted"},
    **{name: METRICS_COLUMNS[name] for name in ("features", "metric", "value", "lower", "upper", "p_value", "n")},
    "p_max_statistic": {"Description": "p-value that holds for all targets together (Westfall and Young 1993)"},
    "q_value": {"Description": "p-value corrected for the false discovery rate (Benjamini and Hochberg 1995)"},
}


def result_of(found: Probe, study: Study) -> GroupResult:
    """Return the tables, figures and page of one target."""
    labels, evaluations = found.samples.labels, found.evaluations
    answer, metrics = verdict(evaluations, labels), metrics_table(evaluations, study.cohort.label)
    name = name_of_analysis(study.cohort.label, labels.target, study.settings)
    about = _about(found, study) | {"Verdict": answer, "Notes": found.notes}
    tables = {"_metrics": metrics, "_predictions": predictions_table(labels, evaluations)}
    columns = {"_metrics": METRICS_COLUMNS, "_predictions": predictions_columns(labels)}
    sections = _sections(found, study, answer, tables)
    columns |= {end: level_columns(table) for end, table in tables.items() if end.startswith("_by-")}
    if study.settings.group.delta and not labels.classes:
        sections.append(_of_delta(found, study, tables, columns))
    facts = [
        ("Model", study.cohort.label),
        ("Samples", _samples(found, study)),
        ("Covariates", ", ".join(found.samples.covariates.names) or "none"),
        ("Permutations", f"{about['Permutations']}; {about['Exchange']}"),
        *(
            [("Sites", f"how well the embedding tells '{found.sites.levels.name}': {found.sites.in_words}")]
            if found.sites
            else []
        ),
        ("Files", ", ".join(f"{name}{end}.tsv" for end in tables)),
    ]
    sections.append(Section("Methods", words=[about["Methods"]], facts=facts))
    levels = None if found.sites is None else found.sites.levels.astype(str).tolist()
    return GroupResult(
        name=name,
        title=f"Probe: {labels.target}",
        answer=answer,
        sections=sections,
        about=about,
        page=f"{name}_probe",
        tables=tables,
        columns=columns,
        figures={
            "_null": null_figure(evaluations),
            "_forest": forest_figure(evaluations),
            "_probe": predictions_figure(labels, evaluations[EMBEDDING], levels),
        },
        shown=shown_table(evaluations),
        write_more=exporter_of(found, study, answer, about["Methods"]),
    )


def _sections(found: Probe, study: Study, answer: str, tables: dict[str, pd.DataFrame]) -> list[Section]:
    """Return the parts of the page that every target has; those of sites and sexes add their tables."""
    return [
        Section(
            f"Probe: {found.samples.labels.target}",
            words=[answer],
            figures=[("_null", "What was observed, and what chance gives.")],
            notes=found.notes,
        ),
        Section(
            "What it adds",
            words=[
                "All sets of features in the same folds. 'Beyond' is what a set of features tells of what head motion and "
                "covariates leave of the target."
            ],
            table=shown_table(found.evaluations),
            figures=[("_forest", "Every set of features.")],
        ),
        Section(
            "Predictions",
            words=["Of samples that the model did not see, mean over the repeats of the folds."],
            figures=[("_probe", "Predictions of the embedding.")],
        ),
        *_of_levels(found, study, tables),
    ]


def _about(found: Probe, study: Study) -> dict[str, Any]:
    options, labels, ours = study.settings.group, found.samples.labels, found.evaluations[EMBEDDING]
    per_fold = np.bincount(ours.folds[ours.folds >= 0])
    return {
        "Description": f"{labels.target} predicted from frozen NeuroSTORM embeddings, out of fold",
        "Model": study.cohort.label,
        "Methods": _methods(found, study),
        "KeptTogether": options.group_by or options.leave_out or SUBJECT,
        "Groups": len(np.unique(labels.groups)),
        "Folds": {"Repeats": len(found.design.folds), "Samples": per_fold.tolist()},
        "Covariates": list(found.samples.covariates.names),
        "Harmonised": options.harmonise,
        "Permutations": len(ours.null),
        "SitesTold": None if found.sites is None else f"{found.sites.levels.name}: {found.sites.in_words}",
        "Exchange": IN_WORDS[ours.exchange],
        "Classes": labels.classes,
        "Samples": len(labels.y),
        "Sources": study.sources(),
    }


def _methods(found: Probe, study: Study) -> str:
    """Return a paragraph for a paper."""
    options, labels, ours = study.settings.group, found.samples.labels, found.evaluations[EMBEDDING]
    motion = ["the logarithm of framewise displacement"] if len(found.samples.motion) else []
    written = filled_in(
        "probe.md",
        target=labels.target,
        model=study.cohort.label,
        classes=labels.classes,
        counts=labels.counts,
        n_samples=len(labels.y),
        n_subjects=labels.n_subjects,
        left_out=options.leave_out,
        group_by=options.group_by,
        n_folds=found.design.n_folds,
        n_repeats=len(found.design.folds),
        harmonised=options.harmonise,
        known=[*motion, *found.samples.covariates.names],
        n_permutations=len(ours.null),
        exchange=IN_WORDS[ours.exchange],
        version=__version__,
        sklearn=sklearn.__version__,
    )
    return " ".join(written.split())


def _of_levels(found: Probe, study: Study, tables: dict[str, pd.DataFrame]) -> list[Section]:
    """Return how well sites and sexes are predicted, each with a table."""
    labels, options, table = found.samples.labels, study.settings.group, study.table
    given = [name for name in (options.leave_out, options.group_by, options.harmonise) if name]
    first = [int(rows[0]) for rows in labels.members]
    sections = []
    for name in dict.fromkeys([*given, *(each for each in map(str, table) if each.lower() in BY_LEVELS)]):
        if name == labels.target:
            continue
        levels = column(table, name).iloc[first].reset_index(drop=True)
        rows = by_level(labels, found.evaluations[EMBEDDING], levels)
        if rows is None:
            continue
        end = f"_by-{''.join(filter(str.isalnum, name))}"
        tables[end] = rows
        words = [f"Within each value of '{name}', from the same out-of-fold predictions."]
        if name in given and (size := follows_size(rows)):
            words.append(size)
        sections.append(Section(f"By {name}", words=words, table=rows))
    return sections


def _of_delta(
    found: Probe, study: Study, tables: dict[str, pd.DataFrame], columns: dict[str, dict[str, dict[str, Any]]]
) -> Section:
    """Return each person's predicted minus observed value, and what it is related to."""
    labels, ours = found.samples.labels, found.evaluations[EMBEDDING]
    delta = corrected_delta(labels.y, ours.predicted, ours.folds)
    predictions = tables["_predictions"]
    tested = ours.folds >= 0
    tables["_predictions"] = predictions.assign(error=(ours.predicted - labels.y)[tested], delta=delta[tested])
    columns["_predictions"] |= {
        "error": {"Description": "Predicted minus observed"},
        "delta": {"Description": "The same without what depends on the observed value, as learnt from the other folds"},
    }
    subjects = labels.names[SUBJECT].to_numpy(str)
    groups = labels.groups if study.settings.group.group_by or study.settings.group.leave_out else None
    related = relations_of(delta, *_others(found, study), subjects, groups)
    tables["_delta"] = related
    columns["_delta"] = RELATIONS_COLUMNS
    words = [
        f"Predicted minus observed {labels.target}, corrected for the mean that predictions fall back to: standard deviation "
        f"{np.nanstd(delta):.3g}. Its relation to the other columns, with {labels.target} and sex taken out of both; q is "
        "corrected for the number of columns (false discovery rate)."
    ]
    if SESSION in labels.names:
        words.append(f"Over sessions: {reliability_in_words(delta, labels.names[SUBJECT].to_numpy(str))}.")
    return Section(f"{labels.target} gap", words=words, table=related)


def _others(found: Probe, study: Study) -> tuple[dict[str, np.ndarray], Confounds]:
    """Return the other columns of the phenotype, and what is taken out of them: the target and sex."""
    labels, table = found.samples.labels, study.table
    first = table.iloc[[int(rows[0]) for rows in labels.members]].reset_index(drop=True)
    sex = next((str(name) for name in first if str(name).lower() in ("sex", "gender")), None)
    own = Confounds(labels.y[:, None].astype(float), ("linear",))
    if sex is not None:
        own = own.and_also(covariates_of(table, labels.members, [f"{sex}:categorical"]).confounds)
    columns = phenotype_columns(first, study.phenotype.table, {labels.target, sex or ""})
    return {name: values for name, values in columns.items() if not name.startswith(f"{sex} (")}, own


def summary_of(probes: list[Probe], study: Study) -> GroupResult:
    """Return one table of all targets, with p-values corrected for their number."""
    ours = [_asked(each) for each in probes]
    table = pd.DataFrame(
        [
            [
                each.samples.labels.target,
                name,
                next(iter(found.metrics)),
                *found.first,
                found.p_value,
                len(each.design.y),
            ]
            for each, (name, found) in zip(probes, ours, strict=True)
        ],
        columns=["target", "features", "metric", "value", "lower", "upper", "p_value", "n"],
    )
    evaluations = [found for _, found in ours]
    table["p_max_statistic"], table["q_value"] = by_max_statistic(evaluations), by_false_discovery_rate(evaluations)
    left = [
        each.samples.labels.target for each, p in zip(probes, table["p_max_statistic"], strict=True) if p <= SIGNIFICANT
    ]
    answer = f"Of {len(probes)} targets, {len(left)} are predicted when p is corrected for their number (max-statistic)"
    answer += f": {', '.join(left)}." if left else "."
    name = name_of_analysis(study.cohort.label, "several", study.settings)
    pages = [
        (
            f"{name_of_analysis(study.cohort.label, target, study.settings)}_probe.html",
            target,
            verdict(each.evaluations, each.samples.labels),
        )
        for target, each in zip(table["target"], probes, strict=True)
    ]
    words = (
        "One row for each target; p-values of the question that its page answers, corrected for the number of targets."
    )
    return GroupResult(
        name=name,
        title="Several targets",
        answer=answer,
        sections=[
            Section("Several targets", words=[answer, words], table=table, links=pages, notes=probes[0].notes),
            Section("Methods", words=[f"For {table['target'][0]}: {_methods(probes[0], study)}"]),
        ],
        about={"Description": "Several targets probed in one call", "Model": study.cohort.label},
        page=f"{name}_probe",
        tables={"_targets": table},
        columns={"_targets": TARGETS_COLUMNS},
        shown=table,
    )


def _asked(found: Probe) -> tuple[str, Evaluation]:
    """Return the evaluation that the answer is built on: beyond motion and covariates, if these are known."""
    beyond = (EMBEDDING + BEYOND_MOTION, EMBEDDING + BEYOND_COVARIATES, EMBEDDING)
    return next((name, found.evaluations[name]) for name in beyond if name in found.evaluations)


def _samples(found: Probe, study: Study) -> str:
    labels, by = found.samples.labels, study.settings.group.group_by or study.settings.group.leave_out
    counts = f" ({labels.counts})" if labels.counts else ""
    groups = f"{len(np.unique(labels.groups))} {f'groups by {by}' if by else 'subjects'}"
    return f"{len(labels.y)}{counts} of {groups}"
