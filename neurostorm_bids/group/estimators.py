"""A ridge regression of many targets that knows groups, and what makes probabilities of its scores.

Knows no files and no tables.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

N_INNER = 3  # folds that choose the penalty
ALPHAS = np.logspace(-1, 6, 15)  # of ridge regression, for standardised features


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
        self.alpha_ = np.asarray(self.alphas)[chosen]
        self.inner_ = inner[chosen[: self.n_kept], :, np.arange(self.n_kept)].T
        self.path_ = _RidgePath(X, targets)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions, (samples, targets)."""
        return self.path_.predict_along(self.path_.along_axes(X), self.alpha_)


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
    """Class probabilities from scores, one class against the others (Platt 1999), and their sum made 1.

    Parameters
    ----------
    scores : (samples, columns) array
        Of samples that were not trained on: one column for two classes, else one for each class.
    y : (samples,) int array
        Classes as 0, 1, ...
    n_classes : int
    """

    def __init__(self, scores: np.ndarray, y: np.ndarray, n_classes: int):
        self.shares = np.bincount(y, minlength=n_classes) / len(y)
        self.columns = [1] if n_classes == 2 else list(range(n_classes))
        self.lines = [_line(score, y == k) for k, score in zip(self.columns, scores.T, strict=True)]

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, (samples, classes)."""
        found = [expit(slope * s + at_zero) for (slope, at_zero), s in zip(self.lines, scores.T, strict=True)]
        if len(self.shares) == 2:
            return np.column_stack([1 - found[0], found[0]])
        stacked = np.column_stack(found)
        return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))


def _line(scores: np.ndarray, is_class: np.ndarray) -> tuple[float, float]:
    """Return slope and value at zero of a logistic regression; without a slope where the score tells nothing."""
    share = np.clip(is_class.mean(), 1e-6, 1 - 1e-6)
    nothing = 0.0, float(np.log(share / (1 - share)))
    if not np.isfinite(scores).all() or np.ptp(scores) == 0 or len(set(is_class.tolist())) < 2:
        return nothing
    scale = scores.std()
    fitted = LogisticRegression(C=np.inf).fit(scores[:, None] / scale, is_class)
    slope = float(fitted.coef_[0, 0] / scale)
    return (slope, float(fitted.intercept_[0])) if slope > 0 else nothing
