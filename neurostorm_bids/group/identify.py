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


def identify(embeddings: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Identification:
    """Ask with every run of a subject that has several: which other run is nearest, by cosine (L2-normalised, as published)?

    Parameters
    ----------
    embeddings : (runs, channels) array
    subjects : (runs,) array

    Raises
    ------
    NeurostormError
        If no subject has two runs, or there is one subject only.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0, norms, 1)
    similarity = unit @ unit.T
    names, index, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    asked = np.flatnonzero(counts[index] > 1)
    if not len(asked) or len(names) < 2:
        raise NeurostormError("identify needs at least two subjects, and one with two runs or sessions")
    scores = {"rank1": [], "rank5": [], "mAP": []}
    for i in asked:
        order = np.argsort(-np.delete(similarity[i], i), kind="stable")
        right = np.delete(subjects == subjects[i], i)[order]
        scores["rank1"].append(right[0])
        scores["rank5"].append(right[:5].any())
        hits = np.flatnonzero(right)
        scores["mAP"].append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))
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
    others = counts[index][asked] - 1  # right answers among n - 1 runs
    n = len(subjects) - 1
    miss5 = [np.prod([(n - k - j) / (n - j) for j in range(min(5, n))]) for k in others]
    chance = {"rank1": float(np.mean(others / n)), "rank5": float(1 - np.mean(miss5))}
    return Identification(metrics, chance, similarity, len(asked), len(members))
