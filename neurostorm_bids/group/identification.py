"""Find the other runs of a person by the cosine of embeddings, block by block: no matrix of all pairs is in memory."""

from dataclasses import dataclass

import numpy as np

from neurostorm_bids.errors import NeurostormError

N_BOOTSTRAP = 1000
BLOCK = 2**25  # similarities in memory at a time: 268 MB
MOST_PAIRS = 200_000  # of two people, whose similarities are shown
RANKS = (1, 5)


@dataclass(frozen=True)
class Neighbours:
    """How near the runs of one person are among all runs.

    Attributes
    ----------
    query, other : (pairs,) int array
        Two runs of one person, as numbers of runs; every pair is there in both orders.
    similarity : (pairs,) array
        Cosine.
    better : (pairs,) int array
        How many other runs are nearer to the query; of equally near ones, the earlier counts as nearer.
    nearest : (runs,) int array
        The nearest run.
    between : (pairs,) array
        Cosines of runs of two people; of many pairs, some drawn at random.
    """

    query: np.ndarray
    other: np.ndarray
    similarity: np.ndarray
    better: np.ndarray
    nearest: np.ndarray
    between: np.ndarray


def rank_neighbours(embeddings: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Neighbours:
    """Rank all other runs for every run.

    Parameters
    ----------
    embeddings : (runs, channels) array
    subjects : (runs,) array
    seed : int
        Of the pairs that are drawn.
    """
    directions = normalised(embeddings)
    n = len(directions)
    persons = np.unique(subjects, return_inverse=True)[1]
    members = np.split(np.argsort(persons, kind="stable"), np.cumsum(np.bincount(persons))[:-1])
    nearest, pairs = np.zeros(n, int), []
    block = np.empty((min(n, max(1, BLOCK // n)), n))
    for start in range(0, n, len(block)):
        queries = directions[start : start + len(block)]
        for i, row in enumerate(np.matmul(queries, directions.T, out=block[: len(queries)]), start):
            row[i] = -np.inf  # not its own neighbour
            nearest[i] = row.argmax()
            others = members[persons[i]]
            others = others[others != i]
            nearer = [np.count_nonzero(row > row[k]) + np.count_nonzero(row[:k] == row[k]) for k in others]
            pairs.append((np.full(len(others), i), others, row[others], np.array(nearer, int)))
    query, other, similarity, better = map(np.concatenate, zip(*pairs, strict=True))
    return Neighbours(query, other, similarity, better, nearest, _between(directions, persons, seed))


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings of length 1, whose products are cosines; zeros stay zeros."""
    values = np.array(embeddings, float)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths > 0, lengths, 1)
    return values


def _between(directions: np.ndarray, persons: np.ndarray, seed: int) -> np.ndarray:
    """Return cosines of runs of two people: all, or some drawn at random."""
    n = len(persons)
    if n * (n - 1) // 2 <= MOST_PAIRS:
        first, second = np.triu_indices(n, 1)
    else:
        first, second = np.random.RandomState(seed).randint(n, size=(2, MOST_PAIRS))
    differ = persons[first] != persons[second]
    first, second = first[differ], second[differ]
    at_a_time = 10_000
    parts = [
        np.einsum("ij,ij->i", directions[first[k : k + at_a_time]], directions[second[k : k + at_a_time]])
        for k in range(0, len(first), at_a_time)
    ]
    return np.concatenate([*parts, np.empty(0)])


@dataclass(frozen=True)
class Identification:
    """How well runs find their subjects.

    Attributes
    ----------
    metrics : dict
        rank1, rank5, mAP -> (value, lower, upper), with 95 % intervals from the bootstrap over subjects.
    chance : dict
        What guessing would give for each.
    queries : (queries,) int array
        Runs of subjects with others to be found among others to be told from.
    first : (queries,) int array
        Rank of the nearest run of the same subject, from 1.
    n_subjects : int
        With queries.
    """

    metrics: dict[str, tuple[float, float, float]]
    chance: dict[str, float]
    queries: np.ndarray
    first: np.ndarray
    n_subjects: int

    def found_within(self) -> np.ndarray:
        """Return the share of queries whose subject is found among the k nearest runs, for k from 1 (CMC curve)."""
        return np.cumsum(np.bincount(self.first)[1:]) / len(self.first)


def identify(
    near: Neighbours, subjects: np.ndarray, seed: int = 0, sessions: np.ndarray | None = None
) -> Identification:
    """Tell how often the runs nearest by cosine (as published) are of the same subject.

    Parameters
    ----------
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
    n = len(subjects)
    order = np.lexsort((near.better, near.query))
    query, other, rank = near.query[order], near.other[order], near.better[order]
    left_out = np.zeros(len(query), bool) if sessions is None else sessions[query] == sessions[other]
    before = np.cumsum(left_out) - left_out  # pairs left out up to here, and up to the query's first
    rank = rank - (before - before[np.searchsorted(query, query)]) if len(query) else rank
    among = n - 1 - np.bincount(query[left_out], minlength=n)
    query, rank = query[~left_out], rank[~left_out]
    right = np.bincount(query, minlength=n)
    queries = np.flatnonzero((right > 0) & (right < among))
    if not len(queries):
        raise NeurostormError("identify needs at least two subjects, and one with two runs or sessions")
    starts = np.searchsorted(query, np.arange(n))
    precision = (np.arange(len(query)) - starts[query] + 1) / (rank + 1)
    first = rank[starts[queries]] + 1
    scores = {f"rank{k}": (first <= k).astype(float) for k in RANKS}
    scores["mAP"] = (np.bincount(query, precision, minlength=n) / np.maximum(right, 1))[queries]
    metrics, n_subjects = _with_intervals(scores, subjects[queries], seed)
    return Identification(metrics, _chance(right[queries], among[queries]), queries, first, n_subjects)


def _with_intervals(
    scores: dict[str, np.ndarray], subjects: np.ndarray, seed: int
) -> tuple[dict[str, tuple[float, float, float]], int]:
    """Return means with intervals from the bootstrap over subjects, and the number of subjects."""
    rng = np.random.RandomState(seed)
    persons = np.unique(subjects, return_inverse=True)[1]
    counts = np.bincount(persons)
    sums = np.stack([np.bincount(persons, values) for values in scores.values()])
    n = len(counts)
    means = np.empty((N_BOOTSTRAP, len(sums)))
    for i in range(N_BOOTSTRAP):
        drawn = rng.randint(n, size=n)
        means[i] = sums[:, drawn].sum(axis=1) / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return {
        name: (float(values.mean()), float(low[k]), float(high[k])) for k, (name, values) in enumerate(scores.items())
    }, n


def _chance(right: np.ndarray, among: np.ndarray) -> dict[str, float]:
    """Return what guessing gives on average, for queries with so many right runs among so many."""
    cases, times = np.unique(np.stack([right, among]), axis=1, return_counts=True)
    expected = np.array([_guessing(k, n) for k, n in cases.T.tolist()])
    means = np.average(expected, axis=0, weights=times).tolist()
    return dict(zip((*(f"rank{k}" for k in RANKS), "mAP"), means, strict=True))


def _guessing(k: int, n: int) -> list[float]:
    """Return rank1, rank5 and mAP to be expected of a random order of n runs, k of which are right."""
    missed = [float(np.prod([max(0, n - k - j) / (n - j) for j in range(min(most, n))])) for most in RANKS]
    ranks = np.arange(1, n + 1)  # a right run at a rank has, before it, its share of the other right ones
    return [*(1 - m for m in missed), float(np.mean((1 + (ranks - 1) * (k - 1) / max(n - 1, 1)) / ranks))]
