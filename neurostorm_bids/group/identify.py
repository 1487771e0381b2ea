"""Re-identification: whether a run's embedding finds another run of the same subject among all runs."""

from dataclasses import dataclass

import numpy as np

from neurostorm_bids.errors import NeurostormError

BOOTSTRAP = 1000


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
        That could be asked for: subjects with at least two runs.
    """

    metrics: dict
    chance: dict
    similarity: np.ndarray
    n_runs: int
    n_subjects: int


def identify(
    embeddings: np.ndarray, subjects: np.ndarray, seed: int = 0, sessions: "np.ndarray | None" = None
) -> Identification:
    """Ask with every run of a subject that has several: which other run is nearest, by cosine (L2-normalised, as published)?

    Parameters
    ----------
    embeddings : (runs, channels) array
    subjects : (runs,) array
    sessions : (runs,) array, optional
        Search among the runs of other sessions only: what two runs of a session share besides the brain does not help.

    Raises
    ------
    NeurostormError
        If no subject has two runs, or there is one subject only.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0, norms, 1)
    similarity = unit @ unit.T
    asked, scores, chance = [], {"rank1": [], "rank5": [], "mAP": []}, {"rank1": [], "rank5": []}
    for i in range(len(subjects)):
        among = np.arange(len(subjects)) != i
        if sessions is not None:  # sessions of two subjects may have the same label
            among &= (subjects != subjects[i]) | (sessions != sessions[i])
        right = (subjects == subjects[i])[among]
        if not right.any() or right.all():
            continue
        asked.append(i)
        right_first = right[np.argsort(-similarity[i, among], kind="stable")]
        hits = np.flatnonzero(right_first)
        scores["rank1"].append(right_first[0])
        scores["rank5"].append(right_first[:5].any())
        scores["mAP"].append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))
        n, k = len(right), right.sum()
        chance["rank1"].append(k / n)
        chance["rank5"].append(1 - np.prod([max(0, n - k - j) / (n - j) for j in range(min(5, n))]))
    if not asked:
        raise NeurostormError("identify needs at least two subjects, and one with two runs or sessions")
    asked = np.array(asked)
    scores = {name: np.array(values, dtype=float) for name, values in scores.items()}
    rng = np.random.RandomState(seed)
    members = [np.flatnonzero(subjects[asked] == name) for name in np.unique(subjects[asked])]
    drawn = [
        np.concatenate([members[k] for k in rng.randint(len(members), size=len(members))]) for _ in range(BOOTSTRAP)
    ]
    metrics = {
        name: (
            float(values.mean()),
            *(float(v) for v in np.percentile([values[rows].mean() for rows in drawn], [2.5, 97.5])),
        )
        for name, values in scores.items()
    }
    chance = {name: float(np.mean(values)) for name, values in chance.items()}
    return Identification(metrics, chance, similarity, len(asked), len(members))
