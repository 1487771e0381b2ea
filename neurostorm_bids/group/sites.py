"""Where data are from: sites that are left out in turn, made alike, or told apart."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT, column
from neurostorm_bids.group.answers import estimate_in_words
from neurostorm_bids.group.cautions import SITES
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.harmonise import FEWEST, ComBat
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.samples import Samples
from neurostorm_bids.settings.group import GroupAnalysis

MOST_SITES = 200
FEWEST_LEFT_OUT = 5  # samples of a value that is tested on a model of the others


@dataclass(frozen=True)
class Sites:
    """Where samples are from, and how well the embedding tells that.

    Attributes
    ----------
    levels : (samples,) Series
        Named as its column.
    in_words : str
        How well they are told apart.
    is_kept : bool
        Whether folds, covariates or harmonisation take care of them.
    """

    levels: pd.Series
    in_words: str
    is_kept: bool


def levels_of(table: pd.DataFrame, labels: Labels, name: str, option: str) -> pd.Series:
    """Return the site of each sample.

    Raises
    ------
    NeurostormError
        If there are not two, or a sample has none.
    """
    levels = _levels(table, labels, name)
    if unknown := int(levels.isna().sum()):
        raise NeurostormError(
            f"{option} {name}: {unknown} samples have no '{name}'; take them out of the table, or complete it"
        )
    values, subjects = column(table, name), labels.names[SUBJECT].to_numpy(str)
    for rows, subject in zip(labels.members, subjects, strict=True):
        if values.iloc[rows].nunique() > 1:
            raise NeurostormError(
                f"{option} {name}: {subject} was scanned at several values of '{name}'; leave such people out with --participant-label"
            )
    of_subjects = levels.astype(str).groupby(subjects).nunique()
    if (of_subjects > 1).any():
        raise NeurostormError(
            f"{option} {name}: {of_subjects.index[of_subjects > 1][0]} has sessions at several values of '{name}', and would be "
            "tested on a model that has seen them; leave such people out with --participant-label"
        )
    counts = levels.astype(str).value_counts()
    if option == "--leave-out" and counts.min() < FEWEST_LEFT_OUT:
        raise NeurostormError(
            f"--leave-out {name}: {counts.min()} of {len(levels)} samples are of '{counts.idxmin()}'; a test needs {FEWEST_LEFT_OUT} of each "
            "value (is it a column of sites?)"
        )
    if levels.nunique() < 2:
        raise NeurostormError(f"{option} {name}: all samples are of one '{name}' ({levels.iloc[0]})")
    return levels


def combat_of(table: pd.DataFrame, samples: Samples, design: Design, name: str) -> ComBat:
    """Return the harmonisation over sites.

    Raises
    ------
    NeurostormError
        If a site has too few samples in some training fold, or none: of a site never seen nothing can be taken out.
    """
    if name == samples.labels.target:
        raise NeurostormError(f"--harmonise {name}: it is the target; what is made alike cannot be told apart")
    levels = levels_of(table, samples.labels, name, "--harmonise")
    names, codes = np.unique(levels.astype(str).to_numpy(str), return_inverse=True)
    for train, test in design.splits():
        known, _ = samples.covariates.confounds.columns_for(train, train)
        indicators = np.eye(len(names))[codes[train]][:, np.unique(codes[train])]
        if np.linalg.matrix_rank(np.hstack([indicators, known])) < indicators.shape[1] + known.shape[1]:
            raise NeurostormError(
                f"--harmonise {name}: a covariate ({', '.join(samples.covariates.names)}) is the same within each '{name}', so that "
                "ComBat cannot tell what is whose; leave that covariate out"
            )
        counts = np.bincount(codes[train], minlength=len(names))
        for k in np.unique(codes):
            if counts[k] == 0 and k in codes[test]:
                raise NeurostormError(
                    f"--harmonise {name}: '{names[k]}' is tested on models that have not seen it, and ComBat cannot make alike what "
                    f"it has not seen; leave out --group-by or --leave-out {name}, or --harmonise"
                )
            if 0 < counts[k] < FEWEST:
                raise NeurostormError(
                    f"--harmonise {name}: only {counts[k]} samples of '{names[k]}' are in a training fold; ComBat needs {FEWEST}"
                )
    return ComBat(codes, samples.covariates.confounds)


def told_apart(table: pd.DataFrame, samples: Samples, options: GroupAnalysis, seed: int) -> Sites | None:
    """Return how well the embedding tells sites apart; `None` where no column says where data are from."""
    labels = samples.labels
    given = [options.harmonise, options.leave_out, options.group_by]
    named = {name.partition(":")[0] for name in samples.covariates.names}
    for name in dict.fromkeys([*(each for each in given if each), *(each for each in SITES if each in table)]):
        levels = _levels(table, labels, name)
        counts = levels.value_counts()
        counts = counts[counts >= 5]
        if not 2 <= len(counts) <= MOST_SITES:
            continue
        known = levels.isin(counts.index).to_numpy()
        y = np.unique(levels[known].astype(str).to_numpy(str), return_inverse=True)[1]
        subjects = labels.names[SUBJECT].to_numpy(str)[known]
        folds = make_folds(y, subjects, True, seed)
        found = evaluate(samples.embeddings[known], Design(y, subjects, folds, True, seed))
        words = (
            f"balanced accuracy {estimate_in_words(found.metrics['balanced_accuracy'])}; guessing gives "
            f"{1 / len(counts):.2f}"
        )
        return Sites(levels, words, name in given or name in named)
    return None


def _levels(table: pd.DataFrame, labels: Labels, name: str) -> pd.Series:
    first = [int(rows[0]) for rows in labels.members]
    return column(table, name).iloc[first].reset_index(drop=True)
