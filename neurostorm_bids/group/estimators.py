"""Estimators with scikit-learn's interface that it lacks: confounds out of features, and a ridge that knows groups.

Knows no files and no tables.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold

N_INNER = 3  # folds that choose the penalty
ALPHAS = np.logspace(-1, 6, 15)  # of ridge regression, for standardised features
MANY_SAMPLES = 5000  # above, ridge regression is solved by its features


class ConfoundRegressor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Regress the last columns out of the others, and drop them.

    Parameters
    ----------
    n_confounds : int
        How many columns are confounds.
    """

    def __init__(self, n_confounds: int = 0):
        self.n_confounds = n_confounds

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> "ConfoundRegressor":
        """Fit a linear model of the features on the confounds."""
        if self.n_confounds:
            features, confounds = self._split(X)
            self.model_ = LinearRegression().fit(confounds, features)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return the features without what the confounds explain."""
        if not self.n_confounds:
            return X
        features, confounds = self._split(X)
        return np.asarray(features - self.model_.predict(confounds))

    def _split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X[:, : -self.n_confounds], X[:, -self.n_confounds :]


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
    """

    def __init__(self, alphas: Sequence[float] = tuple(ALPHAS), n_inner: int = N_INNER, seed: int = 0):
        self.alphas, self.n_inner, self.seed = alphas, n_inner, seed

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> "GroupedRidge":
        """Choose the penalties, then fit on all samples."""
        targets = y.reshape(len(y), -1)
        n = min(self.n_inner, len(np.unique(groups)))
        errors = np.zeros((len(self.alphas), targets.shape[1]))
        if n >= 2:
            for train, test in GroupKFold(n, shuffle=True, random_state=self.seed).split(X, groups=groups):
                path = _RidgePath(X[train], targets[train])
                for i, alpha in enumerate(self.alphas):
                    errors[i] += ((path.predict(X[test], alpha) - targets[test]) ** 2).mean(axis=0) / n
        self.alpha_ = np.asarray(self.alphas)[errors.argmin(axis=0)]
        self.path_ = _RidgePath(X, targets)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return predictions, (samples, targets)."""
        return self.path_.predict(X, self.alpha_)


class _RidgePath:
    """Ridge regressions of many targets for any penalty, from one singular value decomposition.

    Parameters
    ----------
    X : (samples, features) array
    targets : (samples, targets) array
    """

    def __init__(self, X: np.ndarray, targets: np.ndarray):
        self.center, self.means = X.mean(axis=0), targets.mean(axis=0)
        centred, about = X - self.center, targets - self.means
        if len(X) > MANY_SAMPLES:  # of a tall matrix, the smaller problem of its features
            self.squares, self.axes = np.linalg.eigh(centred.T @ centred)
            self.squares = np.maximum(self.squares, 0)
            self.along = self.axes.T @ (centred.T @ about)
        else:
            left, singular, axes = np.linalg.svd(centred, full_matrices=False)
            self.squares, self.axes = singular**2, axes.T
            self.along = singular[:, None] * (left.T @ about)

    def predict(self, X: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        """Return predictions (samples, targets) with one penalty, or with one for each target."""
        shrunk = self.along / (self.squares[:, None] + alpha)
        return np.asarray((X - self.center) @ self.axes @ shrunk + self.means)
