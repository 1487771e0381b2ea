"""Permutations keep who resembles whom: against enumeration by hand, and in simulated cohorts without any effect."""

import itertools

import numpy as np
import pytest

from benchmarks.simulations import covariate, families, sessions
from benchmarks.statistics import p_values
from neurostorm_bids.group.evaluation import FEWEST_PERMUTATIONS, Design, judge
from neurostorm_bids.group.exchange import exchange_of

PAIRS = np.repeat(np.arange(4), 2)  # eight people of four families
EIGHT = np.arange(8)


def all_of(exchange):
    """Every permutation, the identity too, as a set of tuples."""
    found = exchange.permutations(10**6, np.random.RandomState(0))
    assert len({tuple(order) for order in found}) == len(found) == exchange.n_possible - 1
    return {tuple(order) for order in found} | {tuple(range(exchange.n))}


def keeps(order, groups):
    """Whether a permutation takes whole groups to whole groups."""
    return all(len({groups[order[i]] for i in np.flatnonzero(groups == g)}) == 1 for g in np.unique(groups))


def test_families_change_places_and_siblings_within():
    by_hand = {order for order in itertools.permutations(range(8)) if keeps(order, PAIRS)}
    exchange = exchange_of(EIGHT, PAIRS)
    assert exchange.mode == "both"
    assert len(by_hand) == 384
    assert all_of(exchange) == by_hand


def test_sessions_of_a_subject_stay_in_their_order():
    by_hand = {
        order for order in itertools.permutations(range(8))
        if keeps(order, PAIRS) and all(order[i] < order[i + 1] for i in (0, 2, 4, 6))
    }  # fmt: skip
    exchange = exchange_of(PAIRS, PAIRS)
    assert exchange.mode == "between"
    assert all_of(exchange) == by_hand


def test_people_of_a_site_change_places_and_sites_do_not():
    site = np.repeat([0, 1], [40, 30])
    exchange = exchange_of(np.arange(70), site)
    assert exchange.mode == "within"
    for order in exchange.permutations(20, np.random.RandomState(0)):
        assert np.array_equal(site[order], site)


def test_blocks_of_different_size_never_change_places():
    subjects = np.array([0, 0, 1, 1, 2, 2, 2, 3])
    sizes = np.bincount(subjects)[subjects]
    assert all_of(exchange_of(subjects, subjects)) == {tuple(range(8)), (2, 3, 0, 1, 4, 5, 6, 7)}
    for order in exchange_of(subjects, subjects).permutations(5, np.random.RandomState(0)):
        assert np.array_equal(sizes[order], sizes)


def test_who_knows_their_design_decides():
    assert all_of(exchange_of(PAIRS, PAIRS, "within")) == {
        order for order in itertools.permutations(range(8)) if all(PAIRS[order[i]] == PAIRS[i] for i in range(8))
    }
    assert exchange_of(EIGHT, EIGHT).n_possible == 40320
    assert exchange_of(EIGHT, EIGHT).mode == "free"


def test_the_p_value_is_that_of_enumeration_by_hand():
    rng = np.random.default_rng(3)
    y = rng.standard_normal(8)
    predicted = y + 1.5 * rng.standard_normal(8)
    folds = np.repeat([0, 1], 4)
    ours = judge(predicted, None, Design(y, PAIRS, folds, False, subjects=EIGHT), n_permutations=1000)

    def statistic(labels):
        z = [np.arctanh(np.corrcoef(labels[folds == k], predicted[folds == k])[0, 1]) for k in (0, 1)]
        return np.mean(z)

    observed = statistic(y)
    by_hand = np.array(
        [
            statistic(y[list(order)])
            for order in itertools.permutations(range(8))
            if keeps(order, PAIRS) and order != tuple(range(8))
        ]
    )
    assert len(ours.null) == len(by_hand) == 383
    # nothing is trained again, so that the null is stretched about its mean for what folds share
    stretched = by_hand.mean() + np.sqrt(2) * (by_hand - by_hand.mean())
    assert ours.p_value == pytest.approx((1 + (stretched >= observed - 1e-12).sum()) / 384)


def test_too_few_permutations_give_no_p_value():
    y, subjects = np.arange(6.0), np.repeat([0, 1, 2], 2)
    ours = judge(y, None, Design(y, subjects, np.repeat([0, 1, 2], 2), False), n_permutations=200)
    assert len(ours.null) == 5 < FEWEST_PERMUTATIONS
    assert np.isnan(ours.p_value)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "make",
    [sessions(20, 3), families(30, 0.5, 0.5), covariate(60, gaps=0.2)],
    ids=["sessions", "families", "covariate with gaps"],
)
def test_a_null_is_called_significant_as_often_as_stated(make):
    """Of 60 cohorts 3 should be, 8 is three standard errors more; free permutations give about 16 and 14, and 0."""
    p = p_values(make, 60)
    assert 1 <= (p <= 0.05).sum() <= 8


def test_what_a_covariate_leaves_is_found():
    p = p_values(covariate(120, own=0.6), 10)
    assert (p <= 0.05).sum() >= 6
