"""The group level: gather what participants wrote, then do the task that was asked for."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.sidecars import software_versions, write_sidecar
from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset, find_dataset
from neurostorm_bids.find.participants import SESSION, SUBJECT, join, read_phenotype
from neurostorm_bids.find.runs import Selection
from neurostorm_bids.group import collect, decode, identify, probe
from neurostorm_bids.group import figures as page
from neurostorm_bids.group.baselines import baselines_of
from neurostorm_bids.group.cohort import Cohort, gather
from neurostorm_bids.group.figures import Section
from neurostorm_bids.group.labels import labels_of
from neurostorm_bids.model.load import label_of_name
from neurostorm_bids.participant.level import check_folders
from neurostorm_bids.resample.grid import get_grid
from neurostorm_bids.runtime.atomic import sweep
from neurostorm_bids.runtime.locks import lock_folder
from neurostorm_bids.runtime.process import prepare_process
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")


def group(settings: Settings) -> int:
    """Run the group level; returns the exit status, 0 if all that was asked for was done.

    Raises
    ------
    NeurostormError
        If there are no results, or what was asked for cannot be done with them.
    """
    prepare_process(settings)
    dataset = find_dataset(settings.bids_dir, dict(settings.derivatives))
    if settings.group_task == "finetune":
        from neurostorm_bids.group.finetune import finetune  # Lightning takes seconds to import
        from neurostorm_bids.train import distributed as ranks

        ranks.join(settings.devices * settings.nodes, settings.nodes)
        check_folders(settings if ranks.is_main() else replace(settings, clean_workdir=False), dataset)
        return finetune(dataset, read_phenotype(dataset, settings.phenotype)[0], settings)
    if not settings.out_dir.is_dir():
        raise NeurostormError(f"there is no folder {settings.out_dir}; run the participant level first")
    phenotype, files = read_phenotype(dataset, settings.phenotype)
    task = {"collect": run_collect, "probe": run_probe, "decode": run_decode, "identify": run_identify}[
        settings.group_task
    ]
    for name in dict.fromkeys(settings.model):
        template = None if settings.grid == "auto" else get_grid(settings.grid).template
        cohort = selected(gather(settings.out_dir, label_of_name(name), template), settings)
        for note in cohort.notes:
            LOG.warning(note)
        missing = subjects_without(cohort, dataset, settings)
        if missing:
            LOG.warning("%d subjects have no results of model '%s': %s", len(missing), cohort.label, _some(missing))
        table = join(cohort.runs, phenotype)
        unknown = sorted(set(cohort.runs[SUBJECT]) - set(phenotype[SUBJECT]))
        if len(phenotype) and unknown:
            LOG.warning("%d subjects with results are not in %s: %s", len(unknown), files[0], _some(unknown))
        with lock_folder(settings.out_dir):
            sweep(settings.out_dir, "group")
            task(cohort, table, missing, dataset, settings)
    print(f"Results are in {settings.out_dir}")
    return 0


def run_collect(
    cohort: Cohort, table: pd.DataFrame, missing: "list[str]", dataset: Dataset, settings: Settings
) -> None:
    """One table of all runs, and group.html."""
    out = settings.out_dir
    paths = collect.write_collection(out, cohort, table)
    about = {name: collect.ABOUT[name] for name in table if name in collect.ABOUT}
    write_sidecar(
        paths[0].with_suffix(".json"),
        {
            "Description": "NeuroSTORM embeddings, one row per run; mean over its windows",
            "Model": cohort.label,
            "SubjectsWithoutResults": missing,
            "Notes": cohort.notes,
            "Sources": [f"bids::{path.relative_to(out).as_posix()}" for path in cohort.files],
            "SoftwareVersions": software_versions(),
            **about,
        },
    )
    overview = collect.overview_of(cohort, settings.random_seed)
    figure = Path("group") / "figures" / f"group_desc-{cohort.label}_map.png"
    collect.draw_maps(table, overview, collect.columns_to_show(table), out / figure)
    outliers = overview.outliers(table["run_name"])
    motion = "too few runs with known head motion to say"
    if overview.motion is not None:
        r, low, high = overview.motion.metrics["r"]
        motion = f"r = {r:.2f} (95 % interval {low:.2f} to {high:.2f}) between mean framewise displacement and what the embedding predicts of it, out of fold"
    sections = [
        Section(
            "Cohort",
            facts=[
                ("Model", cohort.label),
                ("Runs", f"{len(table)} of {table[SUBJECT].nunique()} subjects, in {cohort.template}"),
                ("Subjects without results", _some(missing) or "none"),
                ("Table", f"{paths[0].name}, {paths[1].name}"),
            ],
            notes=cohort.notes,
        ),
        Section(
            "Map",
            words=[
                "Each dot is a run; runs with similar embeddings lie near each other. Colours are columns of the "
                "phenotype, head motion first: where a colour forms a cluster, the embedding knows of it.",
                *([] if overview.umap is not None else ["For a map by UMAP too: pip install umap-learn."]),
            ],
            figures=[(figure.as_posix(), "Maps of the cohort.")],
        ),
        Section(
            "Outliers",
            words=[f"Runs more than {collect.FAR:g} robust standard deviations from the middle: {_some(outliers, 20) or 'none'}."],
        ),
        Section("Head motion", words=[f"How much the embedding tells of head motion: {motion}."]),
    ]  # fmt: skip
    page.write_page(out / "group.html", "Group", sections, settings.as_command())
    print(f"{len(table)} runs of {table[SUBJECT].nunique()} subjects; open {out / 'group.html'}")


def run_probe(cohort: Cohort, table: pd.DataFrame, missing: "list[str]", dataset: Dataset, settings: Settings) -> None:
    """Probe the embeddings for a target, beside baselines."""
    if settings.target is None:
        raise NeurostormError("--group-task probe needs --target COLUMN of participants.tsv or of --phenotype FILE")
    out, target = settings.out_dir, settings.target
    labels = labels_of(table, target, settings.target_type, settings.group_by)
    samples = probe.samples_of(cohort, table, labels, settings.covariates)
    others, notes = baselines_of(cohort, labels.members, out, settings.work)
    notes = [*labels.notes, *notes]
    for note in notes:
        LOG.warning(note)
    evaluations = probe.probe(samples, others, settings.random_seed, settings.n_permutations)
    ours, said = evaluations["embedding"], probe.verdict(evaluations, labels)
    stem = f"group_desc-{cohort.label}_target-{re.sub('[^A-Za-z0-9]', '', target) or 'target'}"
    metrics = probe.metrics_table(evaluations)
    write_table(out / f"{stem}_metrics.tsv", metrics)
    predictions = labels.names.assign(
        target=labels.named(labels.y), predicted=labels.named(ours.predicted), fold=ours.folds + 1
    )
    for k, name in enumerate(labels.classes):
        predictions[f"probability_{name}"] = ours.probabilities[:, k]
    write_table(out / f"{stem}_predictions.tsv", predictions)
    n_folds = len(np.unique(ours.folds))
    how = {
        "Description": f"{target} predicted from frozen NeuroSTORM embeddings, out of fold",
        "Method": ("logistic regression, weighted by class" if labels.classes else "ridge regression")
        + f", {n_folds}-fold cross-validation, penalty chosen inside the training folds",
        "KeptTogether": settings.group_by or SUBJECT,
        "Covariates": list(settings.covariates),
        "Permutations": settings.n_permutations,
        "Classes": labels.classes,
        "Samples": len(labels.y),
        "Verdict": said,
        "Notes": notes,
        "RandomSeed": settings.random_seed,
        "Sources": [f"bids::{path.relative_to(out).as_posix()}" for path in cohort.files],
        "SoftwareVersions": software_versions(),
    }
    for ending in ("metrics", "predictions"):
        write_sidecar(out / f"{stem}_{ending}.json", how)
    figure = Path("group") / "figures" / f"{stem}_probe.png"
    page.draw_probe(labels.y, labels.classes, evaluations, target, out / figure)
    counts = labels.counts
    sections = [
        Section(
            f"Probe: {target}",
            words=[said],
            facts=[
                ("Model", cohort.label),
                ("Samples", f"{len(labels.y)}{f' ({counts})' if counts else ''} of {len(np.unique(labels.groups))} {settings.group_by or 'subjects'}"),
                ("Method", how["Method"]),
                ("Covariates", ", ".join(settings.covariates) or "none"),
                ("Files", f"{stem}_metrics.tsv, {stem}_predictions.tsv"),
            ],
            table=metrics,
            figures=[(figure.as_posix(), "What each set of features tells, in the same folds; predictions of the embedding out of fold.")],
            notes=notes,
        )
    ]  # fmt: skip
    page.write_page(out / f"{stem}_probe.html", f"Probe: {target}", sections, settings.as_command())
    print(said)
    print(metrics.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""))
    print(f"Open {out / f'{stem}_probe.html'}")


def run_decode(cohort: Cohort, table: pd.DataFrame, missing: "list[str]", dataset: Dataset, settings: Settings) -> None:
    """Decode the state of every window."""
    out = settings.out_dir
    states = decode.states_of(cohort, table, dataset, settings.target, settings.group_by)
    for note in states.notes:
        LOG.warning(note)
    evaluations = decode.decode(states, settings.random_seed)
    ours, metrics = evaluations[decode.WINDOWS], probe.metrics_table(evaluations)
    stem = f"group_desc-{cohort.label}_target-{re.sub('[^A-Za-z0-9]', '', states.target) or 'target'}_decode"
    names = np.array(states.classes)
    predictions = states.windows.assign(
        target=names[states.y], predicted=names[ours.predicted], fold=ours.folds + 1,
        **{f"probability_{name}": ours.probabilities[:, k] for k, name in enumerate(states.classes)},
    )  # fmt: skip
    write_table(out / f"{stem}_predictions.tsv", predictions)
    write_table(out / f"{stem}_metrics.tsv", metrics)
    value, low, high = ours.metrics["balanced_accuracy"]
    n_subjects, n_folds = len(np.unique(states.windows[SUBJECT])), len(np.unique(ours.folds))
    said = (
        f"A window's {states.target} is told with a balanced accuracy of {value:.0%} (95 % interval {low:.0%} to {high:.0%}; "
        f"guessing: {1 / len(states.classes):.0%}), in {len(states.y)} windows of {n_subjects} subjects."
    )
    method = f"logistic regression, weighted by class, {n_folds}-fold cross-validation, penalty chosen inside the training folds"
    how = {
        "Description": f"{states.target} of every window, decoded from its NeuroSTORM embedding, out of fold",
        "Method": method,
        "KeptTogether": settings.group_by or SUBJECT,
        "Classes": states.classes,
        "Lag": {"Value": decode.LAG, "Units": "s", "Description": "added to the onsets of events"},
        "Verdict": said,
        "Notes": states.notes,
        "RandomSeed": settings.random_seed,
        "Sources": [f"bids::{path.relative_to(out).as_posix()}" for path in cohort.files],
        "SoftwareVersions": software_versions(),
    }
    for ending in ("metrics", "predictions"):
        write_sidecar(out / f"{stem}_{ending}.json", how)
    figures = Path("group") / "figures"
    page.draw_probe(states.y, states.classes, evaluations, states.target, out / figures / f"{stem}.png")
    page.draw_states(
        states.windows, states.y, states.classes, ours, states.events, out / figures / f"{stem}_course.png"
    )
    lag = f" Events are drawn when they happened; a window is named by events {decode.LAG:g} s before it, for the lag of the BOLD response."
    sections = [
        Section(
            f"Decoding: {states.target}",
            words=[said],
            facts=[
                ("Model", cohort.label),
                ("Windows", ", ".join(f"{(states.y == k).sum()} {name}" for k, name in enumerate(states.classes))),
                ("Method", method),
                ("Files", f"{stem}_metrics.tsv, {stem}_predictions.tsv"),
            ],
            table=metrics,
            figures=[((figures / f"{stem}.png").as_posix(), "In the same folds; single windows at the right.")],
            notes=states.notes,
        ),
        Section(
            "Over time",
            words=["Probabilities of every state, from models that did not see the subject." + (lag if states.events else " No events.tsv is known.")],
            figures=[((figures / f"{stem}_course.png").as_posix(), "Some runs; events above.")],
        ),
    ]  # fmt: skip
    page.write_page(out / f"{stem}.html", f"Decoding: {states.target}", sections, settings.as_command())
    print(said)
    print(f"Open {out / f'{stem}.html'}")


def run_identify(
    cohort: Cohort, table: pd.DataFrame, missing: "list[str]", dataset: Dataset, settings: Settings
) -> None:
    """Re-identification of subjects over repeated runs or sessions."""
    out = settings.out_dir
    subjects = table[SUBJECT].to_numpy(str)
    embeddings = cohort.embeddings.astype(float)
    found = identify.identify(embeddings, subjects, settings.random_seed)
    comparisons = {"all runs": found}
    if SESSION in table and (table.groupby(SUBJECT)[SESSION].nunique() > 1).any():
        sessions = table[SESSION].fillna("").to_numpy(str)
        comparisons["other sessions only"] = identify.identify(embeddings, subjects, settings.random_seed, sessions)
    rows = [
        {
            "among": among,
            "metric": name,
            "value": value,
            "lower": low,
            "upper": high,
            "chance": one.chance.get(name, np.nan),
        }
        for among, one in comparisons.items()
        for name, (value, low, high) in one.metrics.items()
    ]
    metrics = pd.DataFrame(rows)
    stem = f"group_desc-{cohort.label}_identify"
    write_table(out / f"{stem}.tsv", metrics)
    write_sidecar(
        out / f"{stem}.json",
        {
            "Description": "Whether the run nearest to a run (cosine of L2-normalised embeddings) is of the same subject",
            "Runs": found.n_runs,
            "SubjectsWithSeveralRuns": found.n_subjects,
            "RandomSeed": settings.random_seed,
            "SoftwareVersions": software_versions(),
        },
    )
    figure = Path("group") / "figures" / f"{stem}.png"
    page.draw_confusion(found.similarity, subjects, out / figure)
    rank1, low, high = found.metrics["rank1"]
    said = (
        f"The run nearest to a run is of the same subject in {rank1:.0%} of cases (95 % interval {low:.0%} to {high:.0%}; "
        f"guessing: {found.chance['rank1']:.0%}), asked with {found.n_runs} runs of {found.n_subjects} subjects."
    )
    section = Section(
        "Re-identification", words=[said], table=metrics, figures=[(figure.as_posix(), "Runs of one subject form blocks on the diagonal.")]
    )  # fmt: skip
    page.write_page(out / f"{stem}.html", "Re-identification", [section], settings.as_command())
    print(said)
    print(f"Open {out / f'{stem}.html'}")


def selected(cohort: Cohort, settings: Settings) -> Cohort:
    """The runs that the settings ask for."""
    wanted = {
        "participant_id": [f"sub-{label}" for label in settings.participant_label],
        "session_id": [f"ses-{label}" for label in settings.session_label],
        "task": list(settings.task_id),
        "run": list(settings.run_label),
    }
    mask = np.ones(len(cohort.runs), bool)
    for column, labels in wanted.items():
        if labels:
            there = cohort.runs[column] if column in cohort.runs else pd.Series([None] * len(cohort.runs))
            mask &= there.isin(labels).to_numpy()
    if not mask.any():
        raise NeurostormError(f"no run with results of model '{cohort.label}' is one that was asked for")
    return cohort.keep(mask)


def subjects_without(cohort: Cohort, dataset: Dataset, settings: Settings) -> "list[str]":
    """Subjects of the input that have no results."""
    wanted = Selection(settings.participant_label).subjects or dataset.subjects()
    return sorted({f"sub-{label}" for label in wanted} - set(cohort.runs[SUBJECT]))


def _some(names, n: int = 5) -> str:
    return ", ".join(map(str, names[:n])) + (f" and {len(names) - n} more" if len(names) > n else "")
