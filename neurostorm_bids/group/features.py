"""What is made of features in the training fold and applied to the test fold. Knows no files and no tables."""

from typing import Protocol

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.confounds import Confounds

SMALLEST_SQUARE = 1e-10  # of a direction's variance, relative to the largest, that is not rounding


class Harmonisation(Protocol):
    """What makes the features of sites alike."""

    def applied(self, features: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of two parts of the samples, harmonised as learnt from the first."""

    def only(self, which: np.ndarray) -> "Harmonisation":
        """Return that of some samples."""


def parts_of(
    features: "np.ndarray | Confounds", train: np.ndarray, test: np.ndarray, harmonisation: Harmonisation | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the features of both folds, of each place."""
    if isinstance(features, Confounds):
        return [features.columns_for(train, test)]
    if features.ndim == 3:
        return [(of_place[train], of_place[test]) for of_place in features.transpose(1, 0, 2)]
    if harmonisation is not None:
        return [harmonisation.applied(features, train, test)]
    return [(features[train], features[test])]


def explained(known: tuple[np.ndarray, np.ndarray], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what confounds say of targets, in the training and in the test fold; 0 without confounds."""
    if not known[0].shape[1]:
        return np.zeros_like(targets), np.zeros((len(known[1]), targets.shape[1]))
    linear = LinearRegression().fit(known[0], targets)
    return np.asarray(linear.predict(known[0])), np.asarray(linear.predict(known[1]))


def prepared(
    parts: tuple[np.ndarray, np.ndarray], known: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of both folds: complete, without what confounds explain, scaled; as learnt in the first."""
    imputer = SimpleImputer(keep_empty_features=True).fit(parts[0])
    train, test = imputer.transform(parts[0]), imputer.transform(parts[1])
    of_train, of_test = explained(known, train)
    train, test = train - of_train, test - of_test
    scaler = StandardScaler().fit(train)
    return _rotated(scaler.transform(train), scaler.transform(test))


def _rotated(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features in the space that the training samples span, where ridge regression is the same and many features are few."""
    if train.shape[1] <= 2 * len(train):
        return train, test
    squares, vectors = np.linalg.eigh(train @ train.T)
    kept = squares > SMALLEST_SQUARE * squares[-1]
    axes = train.T @ (vectors[:, kept] / np.sqrt(squares[kept]))
    return train @ axes, test @ axes
