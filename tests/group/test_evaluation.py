"""The statistics, against scikit-learn's own loops."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.estimators import ALPHAS, N_INNER, GroupedRidge
from neurostorm_bids.group.evaluation import PENALTIES, Design, evaluate
from neurostorm_bids.group.folds import join_groups, make_folds

N = 60


def planted(seed=0, n_groups=20):
    """Features that tell a score, and groups of three samples that share much of it."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{i}" for i in range(n_groups)], N // n_groups)
    score = np.repeat(rng.standard_normal(n_groups), N // n_groups) + 0.3 * rng.standard_normal(N)
    features = np.outer(score, rng.standard_normal(25)) + 2 * rng.standard_normal((N, 25))
    return features, score, groups


def test_penalties_are_chosen_as_grid_search_chooses_them_for_each_target_alone():
    features, score, groups = planted()
    targets = np.column_stack([score, np.random.default_rng(1).standard_normal((N, 4))])
    ours = GroupedRidge(seed=3).fit(features, targets, groups)
    for k in range(targets.shape[1]):
        inner = GroupKFold(N_INNER, shuffle=True, random_state=3)
        search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring="neg_mean_squared_error", cv=inner)
        search.fit(features, targets[:, k], groups=groups)
        assert ours.alpha_[k] == search.best_params_["alpha"]
        np.testing.assert_allclose(ours.predict(features)[:, k], search.predict(features), rtol=1e-8, atol=1e-10)


def test_regression_is_that_of_scikit_learn():
    """The penalty is chosen in inner folds of whole groups, and everything is fitted in the training folds."""
    features, score, groups = planted()
    folds = make_folds(score, groups, False, 0)
    ours = evaluate(features, Design(score, groups, folds, False))
    theirs = np.empty(N)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        scaler = StandardScaler().fit(features[train])
        inner = GroupKFold(N_INNER, shuffle=True, random_state=0)
        search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, scoring="neg_mean_squared_error", cv=inner)
        search.fit(scaler.transform(features[train]), score[train], groups=groups[train])
        theirs[test] = search.predict(scaler.transform(features[test]))
    np.testing.assert_allclose(ours.predicted, theirs, rtol=1e-6, atol=1e-8)


def test_classification_is_that_of_scikit_learn():
    features, score, groups = planted(2)
    y = (score > 0).astype(int)
    folds = make_folds(y, groups, True, 0)
    ours = evaluate(features, Design(y, groups, folds, True))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        scaler = StandardScaler().fit(features[train])
        inner = StratifiedGroupKFold(N_INNER, shuffle=True, random_state=0)
        classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
        search = GridSearchCV(classifier, {"C": PENALTIES}, scoring="balanced_accuracy", cv=inner)
        search.fit(scaler.transform(features[train]), y[train], groups=groups[train])
        theirs = search.predict_proba(scaler.transform(features[test]))
        np.testing.assert_allclose(ours.probabilities[test], theirs, atol=1e-3)


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


@pytest.mark.parametrize("is_class", [False, True])
def test_no_fold_divides_a_group(is_class):
    _, score, groups = planted()
    y = (score > 0).astype(int) if is_class else score
    folds = make_folds(y, groups, is_class, 0)
    assert all(len(np.unique(folds[groups == name])) == 1 for name in np.unique(groups))


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
        model = make_pipeline(StandardScaler(), GroupedRidge(alphas=ALPHAS[5:6]))
        ours[test] = model.fit(features[train], score[train], groupedridge__groups=alone[train]).predict(
            features[test]
        )[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_families_that_share_a_subject_are_one_group():
    subjects = np.array(["a", "a", "b", "c", "d"])
    assert join_groups(subjects, ["x", "y", "y", None, float("nan")]).tolist() == ["x", "x", "x", "c", "d"]
