"""The models of a probe's folds as linear heads on the embedding. Knows no files and no tables."""

from dataclasses import replace

import numpy as np
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.estimators import Calibration, GroupedRidge
from neurostorm_bids.group.evaluation import Design

N_PERMUTED = 10  # heads for permuted labels


def fold_heads(features: np.ndarray, design: Design, calibrated: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the models of the first repeat's folds, as `evaluation.evaluate` makes them without confounds.

    Parameters
    ----------
    features : (samples, channels) array
        Without gaps.
    design : Design
    calibrated : bool
        Whether outputs for classes are made logits, which sets those to 0 that tell nothing.

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
        if design.is_class and calibrated:
            calibration = Calibration(model.inner_, design.y[train], design.n_classes)
            weights, bias = calibration.slopes @ weights, calibration.logits(bias[None])[0]
        found.append((weights, bias))
    return np.stack([w for w, _ in found]), np.stack([b for _, b in found])


def permuted_heads(features: np.ndarray, design: Design) -> np.ndarray | None:
    """Return what the models of the folds say on average where labels have changed places, (permutations, outputs, channels).

    What a map of them shows has nothing to do with the labels (Adebayo et al. 2018, arXiv 1810.03292). They are not calibrated,
    which would set most of them to 0: maps are compared by their ranks. `None` if no permutation keeps the structure of the data.
    """
    orders = design.permutations(N_PERMUTED, np.random.RandomState(design.seed))
    found = [fold_heads(features, replace(design, y=design.y[order]), False)[0].mean(axis=0) for order in orders]
    return np.stack(found) if found else None
