"""The models of a probe's folds as linear heads on the embedding. Knows no files and no tables."""

import numpy as np
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.estimators import Calibration, GroupedRidge
from neurostorm_bids.group.evaluation import Design


def fold_heads(features: np.ndarray, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return the models of the first repeat's folds, as `evaluation.evaluate` makes them without confounds.

    Parameters
    ----------
    features : (samples, channels) array
        Without gaps.
    design : Design

    Returns
    -------
    weights : (folds, outputs, channels) array
        Outputs are values in the target's unit, one logit for two classes, or one for each class.
    bias : (folds, outputs) array
    """
    X, found = np.asarray(features, float), []
    first = Design(design.y, design.groups, design.folds[0], design.is_class, design.seed)
    for train, _ in first.splits():
        scaler = StandardScaler().fit(X[train])
        columns = design.columns[train]
        model = GroupedRidge(seed=design.seed, n_kept=columns.shape[1])
        model.fit(scaler.transform(X[train]), columns, design.groups[train])
        weights, bias = model.weights()
        weights = weights / scaler.scale_
        bias = bias - weights @ scaler.mean_
        if design.is_class:
            calibration = Calibration(model.inner_, design.y[train], design.n_classes)
            weights, bias = calibration.slopes @ weights, calibration.logits(bias[None])[0]
        found.append((weights, bias))
    return np.stack([w for w, _ in found]), np.stack([b for _, b in found])
