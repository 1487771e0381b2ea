"""The statistics, against scikit-learn's own loops and by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.statistics import COVERED, coverage
from neurostorm_bids.group.answers import MOTION, verdict
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.estimators import ALPHAS, N_INNER, Calibration, GroupedRidge
from neurostorm_bids.group.evaluation import Design, difference, evaluate, judge
from neurostorm_bids.group.folds import join_groups, make_folds, repeated_folds
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.scores import areas

N = 60


def planted(seed=0, n_groups=20, n=N):
    """Features that tell a score, and groups of three samples that share much of it."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{i}" for i in range(n_groups)], n // n_groups)
    score = np.repeat(rng.standard_normal(n_groups), n // n_groups) + 0.3 * rng.standard_normal(n)
    features = np.outer(score, rng.standard_normal(25)) + 2 * rng.standard_normal((n, 25))
    return features, score, groups


def search(groups, seed=0):
    """Return scikit-learn's choice of the penalty, with groups kept together."""
    inner = GroupKFold(N_INNER, shuffle=True, random_state=seed)
    return GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring="neg_mean_squared_error", cv=inner)


def out_of_fold(features, y, groups, folds):
    """Predict as scikit-learn does, fold by fold."""
    found = np.empty(len(y))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        scaler = StandardScaler().fit(features[train])
        model = search(groups).fit(scaler.transform(features[train]), y[train], groups=groups[train])
        found[test] = model.predict(scaler.transform(features[test]))
    return found


def fisher_mean(values, weights):
    return np.tanh(np.average(np.arctanh(values), weights=weights))


def test_penalties_are_chosen_as_grid_search_chooses_them_for_each_target_alone():
    features, score, groups = planted()
    targets = np.column_stack([score, np.random.default_rng(1).standard_normal((N, 4))])
    ours = GroupedRidge(seed=3).fit(features, targets, groups)
    for k in range(targets.shape[1]):
        theirs = search(groups, 3).fit(features, targets[:, k], groups=groups)
        assert ours.alpha_[k] == theirs.best_params_["alpha"]
        np.testing.assert_allclose(ours.predict(features)[:, k], theirs.predict(features), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n_features", [25, 200])
def test_the_path_is_scikit_learns_ridge_whichever_way_it_is_factorised(n_features):
    rng = np.random.default_rng(0)
    features, y = rng.standard_normal((N, n_features)), rng.standard_normal(N)
    ours = GroupedRidge(alphas=ALPHAS[4:5]).fit(features, y, np.arange(N)).predict(features)[:, 0]
    np.testing.assert_allclose(ours, Ridge(ALPHAS[4]).fit(features, y).predict(features), rtol=1e-8, atol=1e-10)


def test_inner_predictions_are_of_models_that_did_not_see_the_sample():
    features, score, groups = planted()
    ours = GroupedRidge(alphas=ALPHAS[4:5], n_kept=1).fit(features, score, groups).inner_[:, 0]
    inner = GroupKFold(N_INNER, shuffle=True, random_state=0)
    theirs = cross_val_predict(Ridge(ALPHAS[4]), features, score, groups=groups, cv=inner)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("n_more", [0, 300])
def test_regression_is_that_of_scikit_learn(n_more):
    """The penalty is chosen in inner folds of whole groups, and everything is fitted in the training folds."""
    features, score, groups = planted()
    features = np.hstack([features, np.random.default_rng(9).standard_normal((N, n_more))])  # more than samples
    folds = repeated_folds(score, groups, False, 0, 2)
    ours = evaluate(features, Design(score, groups, folds, False))
    theirs = np.array([out_of_fold(features, score, groups, one) for one in folds])
    np.testing.assert_allclose(ours.predicted, theirs.mean(axis=0), rtol=1e-6, atol=1e-8)
    r, weights, squares, of_mean = [], [], 0.0, 0.0
    for one, predicted in zip(folds, theirs, strict=True):
        for fold in np.unique(one):
            test = one == fold
            r.append(np.corrcoef(score[test], predicted[test])[0, 1])
            weights.append(test.sum() - 3)
            squares += ((score - predicted)[test] ** 2).sum()
            of_mean += ((score[test] - score[~test].mean()) ** 2).sum()
    assert ours.metrics["r"][0] == pytest.approx(fisher_mean(r, weights))
    assert ours.metrics["R2"][0] == pytest.approx(1 - squares / of_mean)


def test_what_features_add_is_that_of_residuals_in_the_training_folds():
    features, score, groups = planted()
    rng = np.random.default_rng(5)
    known = score[:, None] + rng.standard_normal((N, 1))
    y = score + 0.5 * rng.standard_normal(N)
    folds = make_folds(y, groups, False, 0)
    ours = evaluate(features, Design(y, groups, folds, False), Confounds(known, ("linear",)))
    r, weights, squares, alone, of_mean = [], [], 0.0, 0.0, 0.0
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        of_y, of_x = (
            LinearRegression().fit(known[train], y[train]),
            LinearRegression().fit(known[train], features[train]),
        )
        a, b = features[train] - of_x.predict(known[train]), features[test] - of_x.predict(known[test])
        scaler = StandardScaler().fit(a)
        model = search(groups).fit(scaler.transform(a), y[train] - of_y.predict(known[train]), groups=groups[train])
        predicted, expected = model.predict(scaler.transform(b)), of_y.predict(known[test])
        r.append(np.corrcoef(y[test] - expected, predicted)[0, 1])
        weights.append(test.sum() - 3)
        squares += ((y[test] - expected - predicted) ** 2).sum()
        alone += ((y[test] - expected) ** 2).sum()
        of_mean += ((y[test] - y[train].mean()) ** 2).sum()
    assert ours.metrics["partial_r"][0] == pytest.approx(fisher_mean(r, weights))
    assert ours.metrics["delta_R2"][0] == pytest.approx((alone - squares) / of_mean)


def test_classes_are_told_by_ridge_on_their_indicators():
    features, score, groups = planted(2)
    y = (score > 0).astype(int)
    folds = make_folds(y, groups, True, 0)
    ours = evaluate(features, Design(y, groups, folds, True))
    scores = out_of_fold(features, y.astype(float), groups, folds)
    each = [roc_auc_score(y[folds == k], scores[folds == k]) for k in np.unique(folds)]
    assert ours.metrics["AUROC"][0] == pytest.approx(np.average(each, weights=np.bincount(folds)))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_probabilities_are_calibrated_to_the_prevalence(share):
    rng = np.random.default_rng(0)
    n = 2000
    y = (rng.random(n) < share).astype(int)
    features = rng.standard_normal((n, 10)) + 0.5 * y[:, None]
    found = evaluate(features, Design(y, np.arange(n), make_folds(y, np.arange(n), True, 0), True))
    assert found.probabilities is not None
    observed, given = calibration_curve(y, found.probabilities[:, 1], n_bins=5, strategy="quantile")
    np.testing.assert_allclose(given, observed, atol=0.07)
    theirs = LogisticRegression(C=np.inf).fit(features, y)
    assert found.metrics["AUROC"][0] > roc_auc_score(y, theirs.predict_proba(features)[:, 1]) - 0.02
    assert found.metrics["balanced_accuracy"][0] > 0.7  # a class of 10 % is decided on too


def test_areas_are_those_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    is_class, scores = rng.random((50, 3)) < 0.4, np.round(rng.random((50, 3)), 1)
    theirs = [roc_auc_score(is_class[:, k], scores[:, k]) for k in range(3)]
    np.testing.assert_allclose(areas(is_class, scores), theirs)
    assert np.isnan(areas(np.ones((5, 1), bool), rng.random((5, 1)))[0])


def test_several_classes_are_each_told_from_the_others():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    features = rng.standard_normal((90, 6)) + 2 * np.eye(3)[y].repeat(2, axis=1)
    found = evaluate(features, Design(y, np.arange(90), make_folds(y, np.arange(90), True, 0), True), n_permutations=19)
    assert found.metrics["AUROC"][0] > 0.8
    assert found.p_value == 1 / 20
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_missing_values_become_the_mean_of_the_training_folds():
    """A value far out in the test fold must not move what a missing value of the training folds becomes."""
    features, score, groups = planted()
    folds = make_folds(score, groups, False, 0)
    design = Design(score, groups, folds, False)
    features[folds == 0, 0] += 1e6
    first = np.flatnonzero(folds == 1)[0]
    features[first, 0] = np.nan
    ours = evaluate(features, design)
    mean = features[(folds != 0), 0][~np.isnan(features[folds != 0, 0])].mean()
    features[first, 0] = mean  # as the training folds of fold 0 see it
    same = evaluate(features, design)
    np.testing.assert_allclose(ours.predicted[folds == 0], same.predicted[folds == 0], rtol=1e-6)


def test_a_fixed_model_is_judged_on_new_people_with_the_bootstrap():
    _, score, groups = planted()
    predicted = score + np.random.default_rng(1).standard_normal(N)
    folds = np.where(np.arange(N) < 30, -1, 0)
    found = judge(predicted, None, Design(score, groups, folds, False), n_permutations=99)
    value, low, high = found.metrics["r"]
    assert value == pytest.approx(np.corrcoef(score[30:], predicted[30:])[0, 1])
    assert low < value < high
    assert found.metrics["R2"][0] == pytest.approx(
        1 - ((score - predicted)[30:] ** 2).sum() / ((score[30:] - score[:30].mean()) ** 2).sum()
    )
    assert found.p_value <= 0.05


def test_a_difference_is_of_the_same_folds():
    features, score, groups = planted()
    design = Design(score, groups, repeated_folds(score, groups, False, 0, 5), False)
    good, bad = evaluate(features, design), evaluate(np.random.default_rng(0).standard_normal((N, 25)), design)
    value, low, high = difference(good, bad)
    assert low < value < high
    assert value == pytest.approx(-difference(bad, good)[0])
    assert low > 0


@pytest.mark.parametrize("is_class", [False, True])
def test_no_fold_divides_a_group(is_class):
    _, score, groups = planted()
    y = (score > 0).astype(int) if is_class else score
    for folds in repeated_folds(y, groups, is_class, 0, 3):
        assert all(len(np.unique(folds[groups == name])) == 1 for name in np.unique(groups))


def test_folds_that_can_be_drawn_in_one_way_only_are_drawn_once():
    _, score, _ = planted()
    assert len(repeated_folds(score, np.repeat(["a", "b"], N // 2), False, 0, 10)) == 1


def test_a_permuted_test_keeps_its_level_when_a_covariate_is_categorical():
    """A site that shifts both is no finding once it is taken out as categories."""
    rng = np.random.default_rng(1)
    site = np.arange(N) % 3
    features = rng.standard_normal((N, 10)) + np.array([0, 3, -2.0])[site][:, None]
    y = np.array([0, 5, -1.0])[site] + rng.standard_normal(N)
    design = Design(y, np.arange(N), make_folds(y, np.arange(N), False, 0), False)
    assert evaluate(features, design, n_permutations=99).p_value == 0.01
    categories = Confounds(site[:, None].astype(float), ("categorical",))
    assert evaluate(features, design, categories, 99).p_value > 0.05


def test_covariates_are_learnt_in_the_training_folds():
    values = np.array([[1.0], [2.0], [np.nan], [100.0]])
    train, test = np.array([True, True, True, False]), np.array([False, False, False, True])
    known, new = Confounds(values, ("linear",)).columns_for(train, test)
    assert known[2, 0] == pytest.approx(0)  # the mean of the two that are known
    assert new[0, 0] > 100
    categories = Confounds(np.array([[0.0], [1.0], [0.0], [2.0]]), ("categorical",))
    known, new = categories.columns_for(train, test)
    assert known[:, 0].tolist() == [0, 1, 0]
    assert new.tolist() == [[0]]  # a category never seen is none of those that were


@pytest.mark.heavy
def test_intervals_cover_what_such_models_achieve():
    """Of 25 cohorts without effect 24 should be covered; the bootstrap of pooled predictions covered 60 %."""
    covers, *_ = coverage(COVERED["no effect, n = 60"], 25, repeats=5)
    assert covers >= 0.84


def test_families_that_share_a_subject_are_one_group():
    subjects = np.array(["a", "a", "b", "c", "d"])
    assert join_groups(subjects, ["x", "y", "y", None, float("nan")]).tolist() == ["x", "x", "x", "c", "d"]


def test_cross_validated_scores_of_one_sample_a_group_are_those_of_predefined_folds():
    """Without groups the outer loop is scikit-learn's cross_val_predict, with the penalty fixed in both."""
    features, score, _ = planted()
    alone = np.arange(N)
    folds = make_folds(score, alone, False, 0)
    theirs = cross_val_predict(
        make_pipeline(StandardScaler(), Ridge(ALPHAS[5])), features, score, cv=PredefinedSplit(folds)
    )
    ours = np.empty(N)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        scaler = StandardScaler().fit(features[train])
        model = GroupedRidge(alphas=ALPHAS[5:6]).fit(scaler.transform(features[train]), score[train], alone[train])
        ours[test] = model.predict(scaler.transform(features[test]))[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_designs_of_one_and_of_several_draws_are_alike():
    _, score, groups = planted()
    one = Design(score, groups, make_folds(score, groups, False, 0), False)
    assert one.folds.shape == (1, N)
    assert replace(one, folds=one.folds[0]).n_folds == one.n_folds


def test_samples_without_a_covariate_take_no_part_beyond_it():
    features, score, groups = planted()
    known = np.random.default_rng(0).standard_normal((N, 1))
    known[:6] = np.nan
    design = Design(score, groups, make_folds(score, groups, False, 0), False)
    found = evaluate(features, design, Confounds(known, ("linear",)), 19)
    complete = np.arange(N) >= 6
    alone = evaluate(features[complete], design.only(complete), Confounds(known[complete], ("linear",)), 19)
    assert found.metrics == alone.metrics
    assert (found.folds >= 0).tolist() == complete.tolist()
    assert np.isnan(found.predicted[:6]).all()


def test_of_three_classes_two_may_be_there_in_training():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2 * 2  # classes 0 and 2 of three
    scores = np.column_stack([y == 0, np.zeros(60), y == 2]) + 0.3 * rng.standard_normal((60, 3))
    found = Calibration(scores, y, 3).probabilities(scores)
    assert (found[:, [0, 2]].argmax(axis=1) * 2 == y).mean() > 0.9
    assert found[:, 1].max() < 1e-3
    wrong = Calibration(-scores, y, 3).probabilities(-scores)
    np.testing.assert_allclose(wrong[:, 0], 0.5, atol=1e-6)


def test_a_null_of_models_that_are_not_trained_again_is_as_wide_as_that_of_those_that_are():
    rng = np.random.default_rng(0)
    shares = []
    for seed in range(60):
        features, y = rng.standard_normal((60, 30)), rng.standard_normal(60)
        folds = make_folds(y, np.arange(60), False, seed)
        design = Design(y, np.arange(60), folds, False, seed)
        predicted = evaluate(features, design).predicted
        shares.append(judge(predicted, None, design, 99).p_value <= 0.05)
    assert sum(shares) <= 8  # 3 are right; without widening about 7, and 15 have been seen


def labels_for(y):
    names = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(len(y))]})
    return Labels("score", names, y, [], np.arange(len(y)), [np.array([i]) for i in range(len(y))], [])


def test_what_is_not_better_than_motion_is_not_called_better():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(N)
    design = Design(y, np.arange(N), repeated_folds(y, np.arange(N), False, 0, 3), False)
    weak, strong = y[:, None] + 1.2 * rng.standard_normal((N, 1)), y[:, None] + 0.3 * rng.standard_normal((N, 1))
    found = {"tuned": evaluate(weak, design, None, 99), MOTION: evaluate(strong, design, None, 99)}
    words = verdict(found, labels_for(y), "The model")
    assert "It is not clearly better than: head motion and covariates alone" in words
    assert "what it was compared with" not in words
