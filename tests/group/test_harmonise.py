"""ComBat in the training folds, against its library on the whole data."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from neuroCombat import neuroCombat

from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.harmonise import ComBat

N = 90
SITES = np.arange(N) % 3


def shifted(seed=0):
    """Return age and features that sites shift and stretch."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 10, N) + 5 * SITES
    features = rng.standard_normal((N, 20)) * (1 + 0.5 * SITES[:, None]) + 2 * SITES[:, None] + 0.05 * age[:, None]
    return age, features


def test_on_the_whole_data_it_is_the_library():
    age, features = shifted()
    everybody = np.ones(N, bool)
    ours, _ = ComBat(SITES, Confounds(age[:, None], ("linear",))).applied(features, everybody, everybody)
    table = pd.DataFrame({"site": SITES, "age": (age - age.mean()) / age.std()})
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = neuroCombat(features.T, table, "site", continuous_cols=["age"])["data"].T
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_new_people_are_made_alike_too_and_age_stays():
    age, features = shifted()
    train = np.arange(N) < 60
    kept = ComBat(SITES, Confounds(age[:, None], ("linear",)))
    _, new = kept.applied(features, train, ~train)
    means = [new[SITES[~train] == k].mean() for k in range(3)]
    before = [features[~train][SITES[~train] == k].mean() for k in range(3)]
    assert np.ptp(means) < 0.4 * np.ptp(before)
    assert np.corrcoef(new.mean(axis=1), age[~train])[0, 1] > 0.5


def test_nothing_is_learnt_from_those_who_are_tested():
    _age, features = shifted()
    train = np.arange(N) < 60
    kept = ComBat(SITES, Confounds.none(N))
    known, _ = kept.applied(features, train, ~train)
    features[~train] += 100
    again, _ = kept.applied(features, train, ~train)
    np.testing.assert_array_equal(known, again)


def test_a_site_never_seen_is_refused():
    _age, features = shifted()
    with pytest.raises(ValueError, match="site 2 is not among those"):
        ComBat(SITES, Confounds.none(N)).applied(features, SITES < 2, SITES == 2)


def test_harmonised_features_no_longer_tell_the_sites():
    _, features = shifted()
    y = (SITES == 0).astype(int)
    who = np.arange(N)
    design = Design(y, who, make_folds(y, who, True, 0), True)
    assert evaluate(features, design).metrics["AUROC"][0] > 0.9
    assert evaluate(features, design, harmonisation=ComBat(SITES, Confounds.none(N))).metrics["AUROC"][0] < 0.65
