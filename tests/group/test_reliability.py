"""Reliability against published numbers, and by hand."""

import numpy as np
import pytest

from neurostorm_bids.group.reliability import balanced, discriminability, icc

# Shrout and Fleiss (1979), table 2: six targets, four judges
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def test_intraclass_correlations_are_those_of_the_paper():
    found = icc(RATINGS[:, :, None])
    assert found.agreement[0, 0] == pytest.approx(0.29, abs=0.005)
    assert found.consistency[0, 0] == pytest.approx(0.71, abs=0.005)


def test_intervals_are_those_of_pingouin():
    """Version 0.7.0 gives these for the same ratings: ICC(A,1) and ICC(C,1)."""
    found = icc(RATINGS[:, :, None])
    np.testing.assert_allclose(found.agreement[:, 0], [0.289764, 0.02, 0.76], atol=0.005)
    np.testing.assert_allclose(found.consistency[:, 0], [0.714841, 0.34, 0.95], atol=0.005)


def test_as_many_repeats_are_taken_as_keep_most_measurements():
    subjects = np.repeat(["a", "b", "c", "d"], [2, 3, 2, 1])
    values = np.arange(8.0)[:, None]
    assert balanced(values, subjects)[:, :, 0].tolist() == [[0, 1], [2, 3], [5, 6]]


def test_discriminability_by_counting():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(6), 3)
    values = rng.standard_normal((6, 4))[subjects] + rng.standard_normal((18, 4))
    found, right, n = discriminability(values, subjects), 0.0, 0
    for i in range(18):
        for k in range(18):
            if i != k and subjects[i] == subjects[k]:
                own = np.linalg.norm(values[i] - values[k])
                others = np.linalg.norm(values[i] - values[subjects != subjects[i]], axis=1)
                right, n = right + (own < others).mean(), n + 1
    assert found.mean() == pytest.approx(right / n)


def test_what_does_not_vary_has_no_correlation_and_perfect_agreement_is_one():
    people = np.arange(6.0)[:, None, None]
    constant = np.full((6, 2, 1), 0.1) + 1e-17 * np.random.default_rng(0).standard_normal((6, 2, 1))
    found = icc(np.concatenate([constant, np.repeat(people, 2, axis=1)], axis=2))
    assert np.isnan(found.agreement[:, 0]).all()
    assert np.isnan(found.consistency[:, 0]).all()
    np.testing.assert_allclose(found.agreement[:, 1], 1, atol=1e-6)
    np.testing.assert_allclose(found.consistency[:, 1], 1, atol=1e-6)
