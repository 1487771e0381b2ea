"""Cohorts without any relation between embedding and target, as labs have them: what a test calls significant in 5 %."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neurostorm_bids.group.confounds import Confounds

N_CHANNELS = 288


@dataclass(frozen=True)
class Cohort:
    """One simulated cohort.

    Attributes
    ----------
    features : (samples, channels) array
    y : (samples,) array
    subjects, groups : (samples,) arrays
    confounds : Confounds
    is_class : bool
    """

    features: np.ndarray
    y: np.ndarray
    subjects: np.ndarray
    groups: np.ndarray
    confounds: Confounds | None = None
    is_class: bool = False


def embeddings(rng: np.random.Generator, n: int, channels: int = N_CHANNELS) -> np.ndarray:
    """Return correlated channels: a few directions carry most of the variance, as in real embeddings."""
    scale = 1 / np.sqrt(np.arange(1, channels + 1))
    return rng.standard_normal((n, channels)) * scale @ np.linalg.qr(rng.standard_normal((channels, channels)))[0]


Curve = Callable[[np.ndarray], np.ndarray]


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


def covariate(
    n: int,
    own: float = 0.0,
    is_class: bool = False,
    follows: Curve = np.asarray,
    kind: str = "linear",
    gaps: float = 0.0,
) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts whose embedding and target follow a covariate (r 0.7).

    Parameters
    ----------
    own : float
        Share of what the covariate leaves of the target that the embedding knows.
    follows : callable
        How they follow it.
    kind : str
        How it is taken out.
    gaps : float
        Share of the people in whom it is not known.
    """

    def make(rng: np.random.Generator) -> Cohort:
        measured = rng.standard_normal(n)
        known = follows(measured)
        known = (known - known.mean()) / known.std()
        own_part = rng.standard_normal(n)
        features = embeddings(rng, n)
        features += 0.3 * np.outer(known, rng.standard_normal(features.shape[1]))
        features += 0.3 * np.outer(own_part, rng.standard_normal(features.shape[1])) * (own > 0)
        left = np.sqrt(own) * own_part + np.sqrt(1 - own) * rng.standard_normal(n)
        y = 0.7 * known + np.sqrt(1 - 0.49) * left
        who = np.arange(n)
        y = (y > 0).astype(int) if is_class else y
        measured[rng.random(n) < gaps] = np.nan
        return Cohort(features, y, who, who, Confounds(measured[:, None], (kind,)), is_class)

    return make


def classes(n: int, share: float) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts of two classes, one of which is this share."""

    def make(rng: np.random.Generator) -> Cohort:
        who = np.arange(n)
        y = rng.permutation((who < share * n).astype(int))
        return Cohort(embeddings(rng, n), y, who, who, is_class=True)

    return make


def effect(
    n: int, explained: float, n_new: int = 0, each: int = 1, is_class: bool = False
) -> Callable[[np.random.Generator], Cohort]:
    """Return a maker of cohorts whose embedding explains this share of the target's variance.

    Parameters
    ----------
    n_new : int
        People that follow, of the same population, for what fold models achieve on new people.
    each : int
        Sessions of a person; the target changes little between them.
    is_class : bool
        Whether the target is above or below its median.
    """

    def make(rng: np.random.Generator) -> Cohort:
        who = np.repeat(np.arange(n + n_new), each)
        of_people = rng.standard_normal((n + n_new, N_CHANNELS))
        hidden = of_people[who]
        if each > 1:
            hidden = (hidden + 0.5 * rng.standard_normal(hidden.shape)) / np.sqrt(1.25)
        scale = 1 / np.sqrt(np.arange(1, N_CHANNELS + 1))
        features = hidden * scale @ np.linalg.qr(rng.standard_normal((N_CHANNELS, N_CHANNELS)))[0]
        along = np.zeros(N_CHANNELS)
        along[:20] = rng.standard_normal(20)  # of the directions that carry most variance
        known = of_people @ (along / np.linalg.norm(along))
        y = (np.sqrt(explained) * known + np.sqrt(1 - explained) * rng.standard_normal(n + n_new))[who]
        if each > 1:
            y = y + 0.1 * np.tile(np.arange(each), n + n_new)
        y = (y > 0).astype(int) if is_class else y
        return Cohort(features, y, who, who, is_class=is_class)

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
    "covariate that both follow, unknown in 20 %, n = 60": covariate(60, gaps=0.2),
    "covariate that both follow, unknown in 20 %, n = 200": covariate(200, gaps=0.2),
    "classes and a covariate that both follow, n = 60": covariate(60, is_class=True),
    "classes and a covariate that both follow, n = 200": covariate(200, is_class=True),
    "square of a covariate, taken out by a spline, n = 60": covariate(60, follows=np.square, kind="spline"),
    "square of a covariate, taken out by a spline, n = 200": covariate(200, follows=np.square, kind="spline"),
    "exponential of a covariate, taken out by a spline, n = 200": covariate(200, follows=np.exp, kind="spline"),
    "two classes, 12 of 60": classes(60, 0.2),
    "two classes, 100 of 200": classes(200, 0.5),
    "one of 40 people has another class in its second session": one_changes(40),
}
EFFECTS = {
    "30 % of the variance, n = 60": effect(60, 0.3),
    "10 % of the variance, n = 200": effect(200, 0.1),
    "covariate and own information (20 %), n = 60": covariate(60, own=0.2),
    "covariate and own information (20 %), n = 200": covariate(200, own=0.2),
}
