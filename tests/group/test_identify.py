"""Identification of subjects, against counting by hand."""

import numpy as np
import pytest

from neurostorm_bids.group.tasks.identify import identify


def test_identification_against_counting_by_hand():
    rng = np.random.RandomState(0)
    subjects = np.repeat([f"s{i}" for i in range(20)], 3)
    traits = np.repeat(rng.standard_normal((20, 30)), 3, axis=0)
    clear = identify(traits + 0.1 * rng.standard_normal((60, 30)), subjects)
    assert clear.metrics["rank1"] == (1.0, 1.0, 1.0)
    assert clear.metrics["mAP"][0] == 1.0
    mixed = traits + 2.0 * rng.standard_normal((60, 30))
    found, hits = identify(mixed, subjects), 0
    for i in range(60):
        cosines = [
            -2 if i == k else mixed[i] @ mixed[k] / np.linalg.norm(mixed[i]) / np.linalg.norm(mixed[k])
            for k in range(60)
        ]
        hits += subjects[int(np.argmax(cosines))] == subjects[i]
    assert found.metrics["rank1"][0] == pytest.approx(hits / 60)
    assert found.metrics["rank1"][1] < hits / 60 < found.metrics["rank1"][2]
    assert found.chance["rank1"] == pytest.approx(2 / 59)
    nothing = identify(rng.standard_normal((60, 30)), subjects)
    assert nothing.metrics["rank1"][1] < nothing.chance["rank1"] + 0.1


def test_identification_over_sessions_is_not_helped_by_what_a_session_shares():
    """Runs of a session share a strong offset: it finds the runs of the session, not those of the other."""
    rng = np.random.default_rng(0)
    subjects = np.repeat([f"sub-{i}" for i in range(15)], 4)
    sessions = np.tile(["ses-a", "ses-a", "ses-b", "ses-b"], 15)
    offsets = np.repeat(rng.standard_normal((30, 20)), 2, axis=0)
    embeddings = 3 * offsets + 0.3 * rng.standard_normal((60, 20))
    assert identify(embeddings, subjects).metrics["rank1"][0] > 0.95
    over = identify(embeddings, subjects, sessions=sessions)
    assert over.metrics["rank1"][1] < 0.15
    assert over.chance["rank1"] == pytest.approx(2 / 58)
