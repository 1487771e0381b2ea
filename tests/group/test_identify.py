"""Identification of subjects, against counting by hand."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers import Results

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group import identification
from neurostorm_bids.group.identification import identify, rank_neighbours


def found(embeddings, subjects, sessions=None):
    return identify(rank_neighbours(embeddings, subjects), subjects, sessions=sessions)


def by_hand(embeddings, subjects, sessions=None):
    """Rank-1, Rank-5 and average precision of every query, from a sorted list of the other runs."""
    scores = []
    for i in range(len(subjects)):
        others = [
            k
            for k in range(len(subjects))
            if k != i and (sessions is None or subjects[k] != subjects[i] or sessions[k] != sessions[i])
        ]
        cosine = {
            k: embeddings[i] @ embeddings[k] / np.linalg.norm(embeddings[i]) / np.linalg.norm(embeddings[k])
            for k in others
        }
        right = [subjects[k] == subjects[i] for k in sorted(others, key=lambda k: (-round(cosine[k], 12), k))]
        if any(right) and not all(right):
            hits = [place for place, one in enumerate(right, 1) if one]
            precision = [n / place for n, place in enumerate(hits, 1)]
            scores.append((right[0], any(right[:5]), sum(precision) / len(precision)))
    return np.mean(scores, axis=0)


@pytest.mark.parametrize("over_sessions", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_identification_against_counting_by_hand(over_sessions, ties, monkeypatch):
    """People of one to several runs, in blocks of a few rows."""
    monkeypatch.setattr(identification, "BLOCK", 1000)
    rng = np.random.default_rng(0)
    who = rng.integers(0, 40, 130)
    subjects, sessions = np.array([f"s{i}" for i in who]), np.array(list("abc"))[rng.integers(0, 3, 130)]
    embeddings = rng.standard_normal((40, 8))[who] + rng.standard_normal((130, 8))
    if ties:  # unit vectors along axes: cosines are -1, 0 and 1
        embeddings = np.eye(8)[rng.integers(0, 8, 130)] * rng.choice([-2.0, 1.0], (130, 1))
    chosen = sessions if over_sessions else None
    metrics = found(embeddings, subjects, chosen).metrics
    assert [metrics[name][0] for name in ("rank1", "rank5", "mAP")] == pytest.approx(
        list(by_hand(embeddings, subjects, chosen))
    )


def test_intervals_hold_what_is_found():
    rng = np.random.RandomState(0)
    subjects = np.repeat([f"s{i}" for i in range(20)], 3)
    traits = np.repeat(rng.standard_normal((20, 30)), 3, axis=0)
    clear = found(traits + 0.1 * rng.standard_normal((60, 30)), subjects)
    assert clear.metrics["rank1"] == (1.0, 1.0, 1.0)
    assert clear.metrics["mAP"][0] == 1.0
    value, low, high = found(traits + 2.0 * rng.standard_normal((60, 30)), subjects).metrics["rank1"]
    assert low < value < high


def test_chance_is_the_mean_over_all_orders():
    subjects = np.array([*"aaaa", *"bbbbb"])  # a run of a has three right ones among eight, one of b four
    chance, expected = found(np.random.default_rng(0).standard_normal((9, 3)), subjects).chance, []
    for n_queries, n_right in ((4, 3), (5, 4)):
        orders = list(combinations(range(1, 9), n_right))  # the places of the right ones
        precision = [np.mean([i / place for i, place in enumerate(places, 1)]) for places in orders]
        first = np.array([places[0] for places in orders])
        expected += n_queries * [(np.mean(first == 1), np.mean(first <= 5), np.mean(precision))]
    assert [chance[name] for name in ("rank1", "rank5", "mAP")] == pytest.approx(list(np.mean(expected, axis=0)))


def test_the_curve_begins_at_rank_1_and_ends_when_all_are_found():
    rng = np.random.default_rng(1)
    subjects = np.repeat([f"s{i}" for i in range(30)], 2)
    one = found(rng.standard_normal((60, 4)), subjects)
    curve = one.found_within()
    assert curve[0] == one.metrics["rank1"][0]
    assert curve[4] == one.metrics["rank5"][0]
    assert curve[-1] == 1.0


def test_identification_over_sessions_is_not_helped_by_what_a_session_shares():
    """Runs of a session share a strong offset: it finds the runs of the session, not those of the other."""
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"sub-{i}" for i in range(15)], 4)
    sessions = np.tile(["ses-a", "ses-a", "ses-b", "ses-b"], 15)
    offsets = np.repeat(rng.standard_normal((30, 20)), 2, axis=0)
    embeddings = 3 * offsets + 0.3 * rng.standard_normal((60, 20))
    assert found(embeddings, subjects).metrics["rank1"][0] > 0.95
    over = found(embeddings, subjects, sessions)
    assert over.metrics["rank1"][1] < 0.15
    assert over.chance["rank1"] == pytest.approx(2 / 58)


@pytest.mark.parametrize("subjects", [["a", "b", "c"], ["a", "a", "a"]])
def test_nobody_to_be_found_or_told_apart(subjects):
    with pytest.raises(NeurostormError, match="at least two subjects, and one with two runs"):
        found(np.random.default_rng(0).standard_normal((3, 4)), np.array(subjects))


# ---- the task


def test_the_page_compares_with_random_weights_and_names_who_is_mixed_up(tmp_path, neurostorm):
    """Two people whose second sessions were exchanged; random weights know nobody."""
    results = Results(tmp_path)
    traits = results.rng.standard_normal((20, results.CHANNELS))
    for i in range(20):
        for session, who in (("a", i), ("b", {3: 7, 7: 3}.get(i, i))):
            name = f"sub-{i:02d}_ses-{session}_task-rest"
            results.add(name, traits[who] + 0.01 * results.rng.standard_normal((8, results.CHANNELS)))
            results.add(name, label="baseRandom")
            results.add(name, np.tile(traits[who], (8, 1)), label="baseMean")
    status, printed, said = neurostorm(results.raw, results.out, "group", "--model", "base", "--group-task", "identify")
    assert status == 0, said
    assert "same subject in 90% of cases" in printed
    assert "--save-grid" in said
    stem = results.out / "group_desc-base_identify"
    metrics = pd.read_csv(f"{stem}.tsv", sep="\t").set_index(["features", "among", "metric"])["value"]
    assert metrics["embedding", "other sessions only", "rank1"] == pytest.approx(0.9)
    assert metrics["the same encoder with random weights", "all runs", "rank1"] < 0.4
    assert metrics["the same encoder, fed the run's temporal mean alone", "all runs", "rank1"] == pytest.approx(0.9)
    assert "run the participant level with --model base@fluctuation" in said
    runs = pd.read_csv(f"{stem}_runs.tsv", sep="\t").set_index("run_name")
    assert runs.loc["sub-03_ses-a_task-rest", "nearest_run"] == "sub-07_ses-b_task-rest"
    assert runs["rank"].eq(1).sum() == 36
    page = stem.with_suffix(".html").read_text()
    assert "4 runs of 2 people were nearer to a run of somebody else" in page
    assert "The published Rank-1 looks for clips of the same run" in page
    assert (results.out / "group" / "figures" / "group_desc-base_identify.png").is_file()
