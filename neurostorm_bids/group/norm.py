"""How far people are from a reference group. Knows no files and no tables."""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.delta import corrected_delta
from neurostorm_bids.group.estimators import GroupedRidge

MOST_COMPONENTS = 30
N_FOLDS = 10  # in which the people of the reference group are left out


@dataclass(frozen=True)
class Norm:
    """Distances from a reference group, (people,) arrays.

    Attributes
    ----------
    distance : array
        Mahalanobis; people of the reference group are left out of what they are compared with.
    percentile : array
        Share of the reference group that is nearer, %.
    p_value : array
        Share of the reference group at least as far away, the person counted.
    n_components : int
        Principal components in which distances are measured.
    """

    distance: np.ndarray
    percentile: np.ndarray
    p_value: np.ndarray
    n_components: int


def deviations(values: np.ndarray, is_reference: np.ndarray, covariates: Confounds, seed: int = 0) -> Norm:
    """Return how far people are from a reference group.

    Covariates are taken out as learnt in the reference group. Everybody is measured in a group of the same size: people
    of the reference group are compared with nine tenths of it, and so is everybody else.

    Parameters
    ----------
    values : (people, channels) array
    is_reference : (people,) bool array
    covariates : Confounds
    seed : int
        Of who is left out when.
    """
    reference, others = np.flatnonzero(is_reference), np.flatnonzero(~is_reference)
    distance, total, n = np.full(len(values), np.nan), np.zeros(len(others)), 0
    n_components = min(MOST_COMPONENTS, values.shape[1], len(reference) // 4)
    for train, left in KFold(min(N_FOLDS, len(reference)), shuffle=True, random_state=seed).split(reference):
        measured = np.concatenate([reference[left], others])
        found = _distances(values, covariates, reference[train], measured, n_components)
        distance[reference[left]] = found[: len(left)]
        total += found[len(left) :]
        n += 1
    distance[others] = total / n
    sorted_ones = np.sort(distance[reference])
    nearer = np.searchsorted(sorted_ones, distance, "left")
    at_least = len(reference) - nearer - is_reference  # without the person
    return Norm(
        distance, 100 * nearer / len(reference), (1 + at_least) / (1 + len(reference) - is_reference), n_components
    )


def target_z(values: np.ndarray, y: np.ndarray, is_reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return how unusual what the embedding predicts of each person is, given what was observed, as z-scores.

    Ridge regression learns the target in the reference group, whose people are left out in turn. Predicted minus observed,
    without what depends on the observed value, is measured in standard deviations of the reference group.

    Parameters
    ----------
    values : (people, channels) array
    y : (people,) array
        NaN where unknown: such people get NaN.
    is_reference : (people,) bool array
    seed : int
        Of who is left out when.
    """
    reference, others = np.flatnonzero(is_reference & np.isfinite(y)), np.flatnonzero(~is_reference & np.isfinite(y))
    predicted, folds = np.full(len(y), np.nan), np.full(len(y), -1)
    n_folds = min(N_FOLDS, len(reference))
    of_others = np.arange(len(others)) % n_folds  # each by one model, as those of the reference group
    for k, (train, left) in enumerate(KFold(n_folds, shuffle=True, random_state=seed).split(reference)):
        measured = np.concatenate([reference[left], others[of_others == k]])
        scaler = StandardScaler().fit(values[reference[train]])
        model = GroupedRidge(seed=seed).fit(scaler.transform(values[reference[train]]), y[reference[train]], train)
        predicted[measured] = model.predict(scaler.transform(values[measured]))[:, 0]
        folds[reference[left]] = k
    error = predicted - y
    line = np.polyfit(y[reference], error[reference], 1)
    delta = error - np.polyval(line, y)
    delta[reference] = corrected_delta(y, predicted, folds)[reference]
    return np.asarray((delta - np.nanmean(delta[reference])) / np.nanstd(delta[reference], ddof=1))


def _distances(
    values: np.ndarray, covariates: Confounds, reference: np.ndarray, measured: np.ndarray, n_components: int
) -> np.ndarray:
    """Return Mahalanobis distances of some people from others."""
    a, b = values[reference], values[measured]
    if len(covariates):
        known, new = covariates.columns_for(reference, measured)
        linear = LinearRegression().fit(known, a)
        a, b = a - linear.predict(known), b - linear.predict(new)
    scaler = StandardScaler().fit(a)
    pca = PCA(n_components, random_state=0).fit(scaler.transform(a))
    scores = pca.transform(scaler.transform(a))
    shrunk = LedoitWolf().fit(scores)
    return np.asarray(np.sqrt(shrunk.mahalanobis(pca.transform(scaler.transform(b)))))
