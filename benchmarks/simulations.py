"""Cohorts without any relation between embedding and target, as labs have them: what a test calls significant in 5 %."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

N_CHANNELS = 288


@dataclass(frozen=True)
class Cohort:
    """One simulated cohort.

    Attributes
    ----------
    features : (samples, channels) array
    y : (samples,) array
    subjects, groups : (samples,) arrays
    confounds : (samples, n) array
    is_class : bool
    """

    features: np.ndarray
    y: np.ndarray
    subjects: np.ndarray
    groups: np.ndarray
    confounds: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    is_class: bool = False


def embeddings(rng: np.random.Generator, n: int, channels: int = N_CHANNELS) -> np.ndarray:
    """Return correlated channels: a few directions carry most of the variance, as in real embeddings."""
    scale = 1 / np.sqrt(np.arange(1, channels + 1))
    return rng.standard_normal((n, channels)) * scale @ np.linalg.qr(rng.standard_normal((channels, channels)))[0]


def alone(n: int) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts of one sample a person."""

    def make(rng: np.random.Generator) -> Cohort:
        who = np.arange(n)
        return Cohort(embeddings(rng, n), rng.standard_normal(n), who, who)

    return make


def sessions(n: int, each: int) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts with sessions: embedding and target (age) change little between them."""

    def make(rng: np.random.Generator) -> Cohort:
        who = np.repeat(np.arange(n), each)
        features = embeddings(rng, n)[who] + 0.5 * embeddings(rng, n * each)
        y = np.repeat(rng.standard_normal(n), each) + 0.1 * np.tile(np.arange(each), n)
        return Cohort(features, y + 0.02 * rng.standard_normal(n * each), who, who)

    return make


def families(n: int, of_embedding: float, of_target: float) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of pairs with these intraclass correlations."""

    def make(rng: np.random.Generator) -> Cohort:
        family = np.repeat(np.arange(n), 2)
        features = np.sqrt(of_embedding) * embeddings(rng, n)[family]
        features += np.sqrt(1 - of_embedding) * embeddings(rng, 2 * n)
        y = np.sqrt(of_target) * rng.standard_normal(n)[family] + np.sqrt(1 - of_target) * rng.standard_normal(2 * n)
        return Cohort(features, y, np.arange(2 * n), family)

    return make


def sites(
    n: int, n_sites: int, of_embedding: float = 0.2, of_target: float = 0.2
) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts from sites of unequal size that shift embedding and target."""

    def make(rng: np.random.Generator) -> Cohort:
        share = rng.dirichlet(np.full(n_sites, 3.0))
        site = np.sort(np.concatenate([np.arange(n_sites), rng.choice(n_sites, n - n_sites, p=share)]))
        features = np.sqrt(of_embedding) * embeddings(rng, n_sites)[site]
        features += np.sqrt(1 - of_embedding) * embeddings(rng, n)
        y = np.sqrt(of_target) * rng.standard_normal(n_sites)[site] + np.sqrt(1 - of_target) * rng.standard_normal(n)
        return Cohort(features, y, np.arange(n), site)

    return make


def covariate(n: int, own: float = 0.0, is_class: bool = False) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts whose embedding and target follow a covariate linearly (r 0.7).

    Parameters
    ----------
    own : float
        Share of what the covariate leaves of the target that the embedding knows.
    """

    def make(rng: np.random.Generator) -> Cohort:
        known = rng.standard_normal(n)
        own_part = rng.standard_normal(n)
        features = embeddings(rng, n)
        features += 0.3 * np.outer(known, rng.standard_normal(features.shape[1]))
        features += 0.3 * np.outer(own_part, rng.standard_normal(features.shape[1])) * (own > 0)
        left = np.sqrt(own) * own_part + np.sqrt(1 - own) * rng.standard_normal(n)
        y = 0.7 * known + np.sqrt(1 - 0.49) * left
        who = np.arange(n)
        y = (y > 0).astype(int) if is_class else y
        return Cohort(features, y, who, who, known[:, None], is_class)

    return make


def one_changes(n: int) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of two sessions of two classes, where one person has another class in the second."""

    def make(rng: np.random.Generator) -> Cohort:
        who = np.repeat(np.arange(n), 2)
        y = np.repeat(rng.permutation(np.arange(n) % 2), 2)
        y[1] = 1 - y[0]
        return Cohort(embeddings(rng, n)[who] + 0.5 * embeddings(rng, 2 * n), y, who, who, is_class=True)

    return make


# Name -> maker; in all of them the embedding tells nothing (about what the covariates leave)
NULLS = {
    "one sample a person, n = 20": alone(20),
    "one sample a person, n = 60": alone(60),
    "one sample a person, n = 200": alone(200),
    "20 people x 3 sessions": sessions(20, 3),
    "60 people x 3 sessions": sessions(60, 3),
    "60 people x 2 sessions": sessions(60, 2),
    "30 families of two, ICC 0.5": families(30, 0.5, 0.5),
    "100 families of two, ICC 0.5": families(100, 0.5, 0.5),
    "30 pairs of twins, ICC 0.9 and 0.8": families(30, 0.9, 0.8),
    "200 people of 10 sites, kept together": sites(200, 10),
    "200 people of 20 sites, kept together": sites(200, 20),
    "covariate that both follow, n = 20": covariate(20),
    "covariate that both follow, n = 60": covariate(60),
    "covariate that both follow, n = 200": covariate(200),
}
EFFECTS = {
    "covariate and own information, n = 60": covariate(60, own=0.5),
    "covariate and own information, n = 200": covariate(200, own=0.5),
}
