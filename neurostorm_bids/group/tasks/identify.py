"""Re-identify subjects: whether the nearest neighbour of a run is another run of the same subject."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.figures import similarity_figure
from neurostorm_bids.group.study import Study
from neurostorm_bids.group.task import GroupResult, Section

N_BOOTSTRAP = 1000


def run(study: Study) -> list[GroupResult]:
    """Re-identify subjects over repeated runs or sessions."""
    cohort, table, seed = study.cohort, study.table, study.settings.conduct.random_seed
    subjects = table[SUBJECT].to_numpy(str)
    embeddings = cohort.embeddings.astype(float)
    found = identify(embeddings, subjects, seed)
    comparisons = {"all runs": found}
    if SESSION in table and (table.groupby(SUBJECT)[SESSION].nunique() > 1).any():
        sessions = table[SESSION].fillna("").to_numpy(str)
        comparisons["other sessions only"] = identify(embeddings, subjects, seed, sessions)
    metrics = pd.DataFrame(
        [
            {
                "among": among,
                "metric": name,
                "value": value,
                "lower": low,
                "upper": high,
                "chance": one.chance.get(name),
            }
            for among, one in comparisons.items()
            for name, (value, low, high) in one.metrics.items()
        ]
    )
    rank1, low, high = found.metrics["rank1"]
    answer = (
        f"The run nearest to a run is of the same subject in {rank1:.0%} of cases (95 % interval {low:.0%} to {high:.0%}; "
        f"guessing: {found.chance['rank1']:.0%}), for {found.n_runs} runs of {found.n_subjects} subjects."
    )
    name = f"group_desc-{cohort.label}_identify"
    caption = "Runs of one subject form blocks on the diagonal."
    result = GroupResult(
        name=name,
        title="Re-identification",
        answer=answer,
        sections=[Section("Re-identification", words=[answer], table=metrics, figures=[("", caption)])],
        about={
            "Description": "Whether the run nearest to a run (cosine of the embeddings) is of the same subject",
            "Runs": found.n_runs,
            "SubjectsWithSeveralRuns": found.n_subjects,
            "Sources": study.sources(),
        },
        page=name,
        tables={"": metrics},
        figures={"": similarity_figure(found.similarity, subjects)},
    )
    return [result]


@dataclass(frozen=True)
class Identification:
    """How well runs find their subjects.

    Attributes
    ----------
    metrics : dict
        rank1, rank5, mAP -> (value, lower, upper), with 95 % intervals from the bootstrap over subjects.
    chance : dict
        What guessing would give for rank1 and rank5.
    similarity : (runs, runs) array
        Cosine.
    n_runs, n_subjects : int
        Of subjects with at least two runs.
    """

    metrics: dict[str, tuple[float, float, float]]
    chance: dict[str, float]
    similarity: np.ndarray
    n_runs: int
    n_subjects: int


def identify(
    embeddings: np.ndarray, subjects: np.ndarray, seed: int = 0, sessions: np.ndarray | None = None
) -> Identification:
    """Find the run nearest by cosine (as published) to every run of a subject with several.

    Parameters
    ----------
    embeddings : (runs, channels) array
    subjects : (runs,) array
    seed : int
        Of the bootstrap.
    sessions : (runs,) array, optional
        Search only among the runs of other sessions: what two runs of a session share beside the brain does not help.

    Raises
    ------
    NeurostormError
        If no subject has two runs, or there is one subject only.
    """
    similarity = cosine_similarity(embeddings)
    queries: list[int] = []
    scores: dict[str, list[float]] = {"rank1": [], "rank5": [], "mAP": []}
    chance: dict[str, list[float]] = {"rank1": [], "rank5": []}
    for i in range(len(subjects)):
        among = np.arange(len(subjects)) != i
        if sessions is not None:  # sessions of two subjects may have the same label
            among &= (subjects != subjects[i]) | (sessions != sessions[i])
        right = (subjects == subjects[i])[among]
        if not right.any() or right.all():
            continue
        queries.append(i)
        ranked = right[np.argsort(-similarity[i, among], kind="stable")]
        hits = np.flatnonzero(ranked)
        scores["rank1"].append(float(ranked[0]))
        scores["rank5"].append(float(ranked[:5].any()))
        scores["mAP"].append(float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1))))
        n, k = len(right), right.sum()
        chance["rank1"].append(k / n)
        chance["rank5"].append(1 - np.prod([max(0, n - k - j) / (n - j) for j in range(min(5, n))]))
    if not queries:
        raise NeurostormError("identify needs at least two subjects, and one with two runs or sessions")
    metrics, n_subjects = _with_intervals(scores, subjects[queries], seed)
    expected = {name: float(np.mean(values)) for name, values in chance.items()}
    return Identification(metrics, expected, similarity, len(queries), n_subjects)


def _with_intervals(
    scores: dict[str, list[float]], subjects: np.ndarray, seed: int
) -> tuple[dict[str, tuple[float, float, float]], int]:
    """Return means with intervals from the bootstrap over subjects, and the number of subjects."""
    rng = np.random.RandomState(seed)
    members = [np.flatnonzero(subjects == name) for name in np.unique(subjects)]
    n = len(members)
    drawn = [np.concatenate([members[k] for k in rng.randint(n, size=n)]) for _ in range(N_BOOTSTRAP)]
    metrics = {}
    for name, values in scores.items():
        each = np.array(values)
        low, high = np.percentile([each[rows].mean() for rows in drawn], [2.5, 97.5])
        metrics[name] = (float(each.mean()), float(low), float(high))
    return metrics, n
