"""Re-identify subjects: whether the nearest neighbour of a run is another run of the same subject."""

from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.baselines import features_of_runs
from neurostorm_bids.group.figures import identification_figure
from neurostorm_bids.group.identification import Identification, Neighbours, identify, normalised, rank_neighbours
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.group.task import GroupResult, Section

EMBEDDING = "embedding"
ALL_RUNS, OTHER_SESSIONS = "all runs", "other sessions only"
MOST_FOR_A_MATRIX = 200  # runs
N_WORST = 10  # people shown
PUBLISHED = (
    "The published Rank-1 looks for clips of the same run; here a run is found by other runs and sessions of its person, "
    "which is harder: the numbers cannot be compared."
)
CONTROLS = (
    "Whatever tells people apart counts: the shape of head and brain, the scanner, distortions, as well as brain activity. "
    "Where a mean image, or the encoder fed the run's temporal mean alone, finds people as surely as the embedding does, "
    "being found says nothing about activity. The run minus its mean lacks the picture of the brain, but keeps its outline "
    "and how strongly each place fluctuates."
)

Found = dict[str, dict[str, Identification]]  # name of a set of features -> among which runs -> how well


def run(study: Study) -> list[GroupResult]:
    """Re-identify subjects over repeated runs or sessions."""
    cohort, table, settings = study.cohort, study.table, study.settings
    subjects, seed = table[SUBJECT].to_numpy(str), settings.conduct.random_seed
    near = rank_neighbours(cohort.embeddings, subjects, seed)
    found: Found = {EMBEDDING: _among(near, table, seed)}
    others, notes = features_of_runs(cohort, settings.out_dir, settings.work)
    for name, features in others.items():
        found[name] = _among(rank_neighbours(features, subjects, seed), table, seed)
    for note in notes:
        LOG.warning(note)
    metrics, ours = metrics_table(found), found[EMBEDDING][ALL_RUNS]
    runs = runs_table(table, near, ours)
    answer = _answer(ours)
    name = f"group_desc-{cohort.label}_identify"
    curves = {features: among[ALL_RUNS].found_within() for features, among in found.items()}
    worst, about_worst = _worst(runs)
    result = GroupResult(
        name=name,
        title="Re-identification",
        answer=answer,
        sections=[
            Section(
                "Re-identification",
                words=[answer, PUBLISHED, CONTROLS],
                facts=[("Model", cohort.label), ("Files", f"{name}.tsv, {name}_runs.tsv")],
                table=metrics,
                figures=[("", "Similarity of runs within and between people, and how soon people are found.")],
                notes=notes,
            ),
            Section("People worst found", words=[about_worst], table=worst),
        ],
        about={
            "Description": "Whether the run nearest to a run (cosine of the embeddings) is of the same subject",
            "Runs": len(ours.queries),
            "SubjectsWithSeveralRuns": ours.n_subjects,
            "Notes": notes,
            "Sources": study.sources(),
        },
        page=name,
        tables={"": metrics, "_runs": runs},
        columns={"": COLUMNS, "_runs": RUNS_COLUMNS},
        figures={
            "": identification_figure(near.similarity, near.between, curves, _matrix(cohort.embeddings, subjects))
        },
        shown=metrics,
    )
    return [result]


COLUMNS: dict[str, dict[str, Any]] = {
    "features": {"Description": "What runs are compared by"},
    "among": {"Description": "Where the other runs of the person are looked for"},
    "metric": {
        "Description": "rank1, rank5: how often one of the nearest is of the same person; mAP: mean average precision"
    },
    "value": {"Description": "Mean over runs"},
    "lower": {"Description": "Lower end of the 95 % interval, from the bootstrap over people"},
    "upper": {"Description": "Upper end"},
    "chance": {"Description": "What guessing gives"},
}
RUNS_COLUMNS: dict[str, dict[str, Any]] = {
    "rank": {"Description": "Place of the nearest run of the same person among all others, from 1"},
    "nearest_run": {"Description": "The run that is nearest"},
}


def metrics_table(found: Found) -> pd.DataFrame:
    """Return a table with a row per set of features, runs that are searched, and metric."""
    return pd.DataFrame(
        [
            {
                "features": features,
                "among": among,
                "metric": name,
                "value": value,
                "lower": low,
                "upper": high,
                "chance": one.chance[name],
            }
            for features, comparisons in found.items()
            for among, one in comparisons.items()
            for name, (value, low, high) in one.metrics.items()
        ]
    )


def runs_table(table: pd.DataFrame, near: Neighbours, found: Identification) -> pd.DataFrame:
    """Return a row per run that could be found: at which rank another run of its person comes, and the nearest run."""
    names = table["run_name"].to_numpy(str)
    return pd.DataFrame(
        {
            SUBJECT: table[SUBJECT].to_numpy(str)[found.queries],
            "run_name": names[found.queries],
            "rank": found.first,
            "nearest_run": names[near.nearest[found.queries]],
        }
    )


def _among(near: Neighbours, table: pd.DataFrame, seed: int) -> dict[str, Identification]:
    """Return how well people are found among all runs and, where there are several sessions, among those of others."""
    subjects = table[SUBJECT].to_numpy(str)
    found = {ALL_RUNS: identify(near, subjects, seed)}
    if SESSION in table and (table.groupby(SUBJECT)[SESSION].nunique() > 1).any():
        found[OTHER_SESSIONS] = identify(near, subjects, seed, table[SESSION].fillna("").to_numpy(str))
    return found


def _answer(found: Identification) -> str:
    rank1, low, high = found.metrics["rank1"]
    return (
        f"The run nearest to a run is of the same subject in {rank1:.0%} of cases (95 % interval {low:.0%} to {high:.0%}; "
        f"guessing: {100 * found.chance['rank1']:.2g}%), for {len(found.queries)} runs of {found.n_subjects} subjects."
    )


def _worst(runs: pd.DataFrame) -> tuple[pd.DataFrame | None, str]:
    """Return the people whose runs are nearest to runs of others, worst first, and words on them."""
    missed = runs[runs["rank"] > 1]
    if missed.empty:
        return None, "Every run was nearest to another run of its own person."
    of_people = missed.sort_values("rank", ascending=False, kind="stable").drop_duplicates(SUBJECT).head(N_WORST)
    n = missed[SUBJECT].nunique()
    return of_people, (
        f"{len(missed)} runs of {n} people were nearer to a run of somebody else. Shown is the worst run of each, with the "
        "rank at which another run of the same person comes; look at its report, and whether two people were mixed up."
    )


def _matrix(embeddings: np.ndarray, subjects: np.ndarray) -> np.ndarray | None:
    """Return the similarity of all runs, sorted by subject; `None` where they are too many to be seen."""
    if len(subjects) > MOST_FOR_A_MATRIX:
        return None
    directions = normalised(embeddings[np.argsort(subjects, kind="stable")])
    return np.asarray(directions @ directions.T)
