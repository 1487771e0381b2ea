"""A ridge regression of many targets that knows groups, and what makes probabilities of its scores.

Knows no files and no tables.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

N_INNER = 3  # folds that choose the penalty
ALPHAS = np.logspace(-1, 6, 15)  # of ridge regression, for standardised features
WEAK_PENALTY = 1e4  # C of a calibration: its two or few weights need none, but must stay finite
SMALLEST_SHARE = 1e-9


class GroupedRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of one or several targets, each with its own penalty, chosen with groups kept together.

    The penalty is the one with the smallest mean squared error over inner folds, as scikit-learn's GridSearchCV would
    choose it for each target alone.

    Parameters
    ----------
    alphas : sequence of float
    n_inner : int
        Inner folds.
    seed : int
        Of the inner folds.
    n_kept : int
        Of how many of the first targets the predictions of the inner folds are kept.

    Attributes
    ----------
    alpha_ : (targets,) array
    errors_ : (targets,) array
        Mean squared errors of the inner folds with these penalties; 0 if there are too few groups for any.
    inner_ : (samples, n_kept) array
        What models of the inner folds predict of samples they have not seen; NaN if there are too few groups for any.
    """

    def __init__(self, alphas: Sequence[float] = tuple(ALPHAS), n_inner: int = N_INNER, seed: int = 0, n_kept: int = 0):
        self.alphas, self.n_inner, self.seed, self.n_kept = alphas, n_inner, seed, n_kept

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> "GroupedRidge":
        """Choose the penalties, then fit on all samples."""
        targets = y.reshape(len(y), -1)
        n = min(self.n_inner, len(np.unique(groups)))
        errors = np.zeros((len(self.alphas), targets.shape[1]))
        inner = np.full((len(self.alphas), len(targets), self.n_kept), np.nan)
        if n >= 2:
            for train, test in GroupKFold(n, shuffle=True, random_state=self.seed).split(X, groups=groups):
                path = _RidgePath(X[train], targets[train])
                along = path.along_axes(X[test])
                for i, alpha in enumerate(self.alphas):
                    found = path.predict_along(along, alpha)
                    inner[i, test] = found[:, : self.n_kept]
                    found -= targets[test]
                    errors[i] += np.einsum("nt,nt->t", found, found) / len(test) / n
        chosen = errors.argmin(axis=0)
        self.alpha_, self.errors_ = np.asarray(self.alphas)[chosen], errors.min(axis=0)
        self.inner_ = inner[chosen[: self.n_kept], :, np.arange(self.n_kept)].T
        self.path_ = _RidgePath(X, targets)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions, (samples, targets)."""
        return self.path_.predict_along(self.path_.along_axes(X), self.alpha_)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same as weights (targets, features) and values at zero (targets,)."""
        weights = (self.path_.axes @ (self.path_.along / (self.path_.squares[:, None] + self.alpha_))).T
        return weights, self.path_.means - weights @ self.path_.center


class RidgeOfPlaces:
    """Ridge regressions on the features of several places, each of which predicts; those count more that do so better.

    Their weights are those of pseudo-Bayesian model averaging (Yao et al. 2018, doi 10.1214/17-BA1091), by the errors of the inner
    folds; each target has its own. With one place it is that place's `GroupedRidge`.

    Parameters
    ----------
    seed, n_kept : int
        As of `GroupedRidge`.

    Attributes
    ----------
    shares_ : (places, targets) array
        Weights of the places; they sum to 1.
    inner_ : (samples, n_kept) array
        As of `GroupedRidge`.
    """

    def __init__(self, seed: int = 0, n_kept: int = 0):
        self.seed, self.n_kept = seed, n_kept

    def fit(self, places: Sequence[np.ndarray], y: np.ndarray, groups: np.ndarray) -> "RidgeOfPlaces":
        """Fit on the features of each place, (samples, features) arrays."""
        self.of_places_ = [GroupedRidge(seed=self.seed, n_kept=self.n_kept).fit(X, y, groups) for X in places]
        errors = np.maximum([each.errors_ for each in self.of_places_], np.finfo(float).tiny)
        n = len(np.unique(groups))  # samples of one group tell little that is new
        self.shares_ = softmax(-n / 2 * np.log(errors), axis=0)
        inner = [each.inner_ * share[: self.n_kept] for each, share in zip(self.of_places_, self.shares_, strict=True)]
        self.inner_ = np.sum(inner, axis=0)
        return self

    def predict(self, places: Sequence[np.ndarray]) -> np.ndarray:
        """Return predictions, (samples, targets)."""
        each = [model.predict(X) for model, X in zip(self.of_places_, places, strict=True)]
        return np.asarray(np.einsum("pst,pt->st", each, self.shares_))


class _RidgePath:
    """Ridge regressions of many targets for any penalty, from one factorisation.

    Parameters
    ----------
    X : (samples, features) array
    targets : (samples, targets) array
    """

    def __init__(self, X: np.ndarray, targets: np.ndarray):
        self.center, self.means = X.mean(axis=0), targets.mean(axis=0)
        centred, about = X - self.center, targets - self.means
        if len(X) > 2 * X.shape[1]:  # of a tall matrix, the smaller problem of its features
            squares, self.axes = np.linalg.eigh(centred.T @ centred)
            self.squares = np.maximum(squares, 0)
            self.along = self.axes.T @ (centred.T @ about)
        else:
            left, singular, axes = np.linalg.svd(centred, full_matrices=False)
            self.squares, self.axes = singular**2, axes.T
            self.along = singular[:, None] * (left.T @ about)

    def along_axes(self, X: np.ndarray) -> np.ndarray:
        """Return samples in the axes of the factorisation, (samples, axes)."""
        return np.asarray((X - self.center) @ self.axes)

    def predict_along(self, along: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        """Return predictions (samples, targets) with one penalty, or with one for each target."""
        return np.asarray(along @ (self.along / (self.squares[:, None] + alpha)) + self.means)


class Calibration:
    """Class probabilities from scores, by a logistic regression on them (Platt 1999).

    Parameters
    ----------
    scores : (samples, columns) array
        Of samples that were not trained on: one column for two classes, else one for each class.
    y : (samples,) int array
        Classes as 0, 1, ...
    n_classes : int

    Attributes
    ----------
    shares : (classes,) array
        Of the classes among the samples.
    slopes, at_zero : (logits, columns) and (logits,) arrays
        One logit for two classes, else one for each class; slopes are 0 where scores tell nothing.
    """

    def __init__(self, scores: np.ndarray, y: np.ndarray, n_classes: int):
        self.shares = np.bincount(y, minlength=n_classes) / len(y)
        self.columns = [1] if n_classes == 2 else list(range(n_classes))
        n = len(self.columns)
        known = np.log(np.maximum(self.shares, SMALLEST_SHARE))
        self.slopes, self.at_zero = np.zeros((n, n)), known[1:] - known[:1] if n == 1 else known
        spread = scores.std()
        if not np.isfinite(scores).all() or spread == 0 or len(np.unique(y)) < 2:
            return
        fitted = LogisticRegression(C=WEAK_PENALTY, max_iter=500).fit(scores / spread, y)
        slopes, at_zero = fitted.coef_ / spread, fitted.intercept_
        if n > 1 and len(fitted.classes_) == 2:  # of several classes two are there: one line each, half as steep
            slopes, at_zero = np.vstack([-slopes, slopes]) / 2, np.concatenate([-at_zero, at_zero]) / 2
        rows = [0] if n == 1 else fitted.classes_
        if np.trace(slopes[:, rows]) <= 0:  # scores that point the wrong way
            return
        self.slopes[rows], self.at_zero[rows] = slopes, at_zero

    def logits(self, scores: np.ndarray) -> np.ndarray:
        """Return logits, (samples, logits)."""
        return np.asarray(scores @ self.slopes.T + self.at_zero)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, (samples, classes)."""
        logits = self.logits(scores)
        if len(self.columns) == 1:
            p = expit(logits[:, 0])
            return np.column_stack([1 - p, p])
        return np.asarray(softmax(logits, axis=1))
