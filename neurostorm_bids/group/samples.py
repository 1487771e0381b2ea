"""What a target is predicted from: the embedding of each sample, its head motion, and covariates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.cohort import Cohort, weighted_means
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.covariates import Covariates, covariates_of
from neurostorm_bids.group.evaluation import Design
from neurostorm_bids.group.folds import folds_of, n_repeats, repeated_folds
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.settings.group import GroupAnalysis

MOTION_COLUMNS = ["mean_fd", "max_fd"]


@dataclass(frozen=True)
class Samples:
    """What is predicted, for whom, and from what.

    Attributes
    ----------
    labels : Labels
    embeddings : (samples, channels) array
        Mean over a sample's runs, weighted by windows.
    motion : Confounds
        Mean and largest framewise displacement, as logarithms, whose distribution over people is nearly normal.
    covariates : Covariates
    """

    labels: Labels
    embeddings: np.ndarray
    motion: Confounds
    covariates: Covariates

    @property
    def known(self) -> Confounds:
        """Head motion and covariates."""
        return self.motion.and_also(self.covariates.confounds).that_vary()


def samples_of(
    cohort: Cohort,
    table: pd.DataFrame,
    labels: Labels,
    covariates: tuple[str, ...] = (),
    coded: frozenset[str] = frozenset(),
) -> Samples:
    """Return the features of labelled samples.

    Parameters
    ----------
    table : DataFrame
        The cohort's runs, joined with the phenotype.
    coded : frozenset of str
        Columns whose numbers are codes of categories.

    Raises
    ------
    NeurostormError
        If a covariate cannot be used.
    """
    motion = of_samples(table[MOTION_COLUMNS].to_numpy(float), labels)
    return Samples(
        labels,
        embeddings_of(cohort, labels),
        Confounds(motion, ("log",) * motion.shape[1]).that_vary(),
        covariates_of(table, labels.members, covariates, coded),
    )


def embeddings_of(cohort: Cohort, labels: Labels) -> np.ndarray:
    """Return the mean embedding of each sample, weighted by windows, (samples, channels)."""
    weights = cohort.runs["windows"].to_numpy(float)
    if all(len(rows) == 1 for rows in labels.members):
        return np.asarray(cohort.embeddings[[int(rows[0]) for rows in labels.members]], float)
    return weighted_means(cohort.embeddings, labels.members, weights)


def of_samples(values: np.ndarray, labels: Labels) -> np.ndarray:
    """Return the mean of what is known over the runs of each sample, (samples, columns); NaN without any."""
    known = np.isfinite(values)
    sums = [np.where(known[rows], values[rows], 0).sum(axis=0) for rows in labels.members]
    counts = np.array([known[rows].sum(axis=0) for rows in labels.members])
    return np.where(counts > 0, np.array(sums) / np.maximum(counts, 1), np.nan)


def design_of(labels: Labels, options: GroupAnalysis, seed: int, sites: np.ndarray | None = None) -> Design:
    """Return how a target is tested: in repeated folds, or with each site left out in turn.

    Parameters
    ----------
    sites : (samples,) array, optional
        What is left out together.
    """
    is_class = bool(labels.classes)
    if sites is None:
        repeats = options.cv_repeats or n_repeats(len(labels.y))
        folds = repeated_folds(labels.y, labels.groups, is_class, seed, repeats)
    else:
        folds = folds_of(sites)
    subjects = labels.names[SUBJECT].to_numpy(str)
    return Design(labels.y, labels.groups, folds, is_class, seed, subjects, options.exchange)
