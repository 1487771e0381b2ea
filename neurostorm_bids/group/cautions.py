"""What a result may rest on beside what was asked: sites, tasks, lines where there are none, and the target itself.

`check_...` stop; the others return notes for the page.
"""

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, f_oneway
from scipy.stats import f as f_distribution
from sklearn.linear_model import LinearRegression

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.covariates import SAME, Covariates
from neurostorm_bids.group.labels import MIN_SUBJECTS, Labels

FEWEST_OF_A_CLASS = 2  # samples, where all covariates are known
CLEAR = 0.01  # p from which a relation is noted
SITES = ("site", "site_id", "scanner", "center", "centre", "acquisition_site")  # columns that name where data are from


def check_no_person_is_there_twice(embeddings: np.ndarray, labels: Labels) -> None:
    """Refuse samples of two subjects with identical embeddings: one person under two names, on both sides of a fold.

    Raises
    ------
    NeurostormError
        With the first two.
    """
    _, first, inverse = np.unique(embeddings, axis=0, return_index=True, return_inverse=True)
    subjects = labels.names[SUBJECT].to_numpy(str)
    original = first[inverse.ravel()]
    twice = np.flatnonzero(subjects != subjects[original])
    if len(twice):
        one, other = subjects[original[twice[0]]], subjects[twice[0]]
        raise NeurostormError(
            f"{one} and {other} have identical embeddings (and {len(twice) - 1} more such pairs): is one person there under two "
            "names? Leave one out with --participant-label"
        )


def check_no_covariate_is_the_target(covariates: Covariates, labels: Labels) -> None:
    """Refuse a covariate that is the target under another name.

    Raises
    ------
    NeurostormError
        With its name.
    """
    for name, values in zip(covariates.names, covariates.confounds.values.T, strict=True):
        known = ~np.isnan(values)
        if known.sum() < 3 or np.ptp(values[known]) == 0:
            continue
        if labels.classes:
            pairs = set(zip(values[known].tolist(), labels.y[known].tolist(), strict=True))
            same = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        else:
            same = abs(np.corrcoef(values[known], labels.y[known])[0, 1]) > SAME
        if same:
            raise NeurostormError(
                f"covariate '{name.partition(':')[0]}' is the target, '{labels.target}', or the same under another name: nothing is left to predict"
            )


def check_enough_is_known(confounds: Confounds, labels: Labels) -> None:
    """Refuse covariates and head motion that are all known in too few samples, or of one class.

    Raises
    ------
    NeurostormError
        With the number.
    """
    complete = confounds.complete
    counts = (
        np.bincount(labels.y[complete], minlength=len(labels.classes)) if labels.classes else np.array([complete.sum()])
    )
    if len(confounds) and (complete.sum() < MIN_SUBJECTS or counts.min() < FEWEST_OF_A_CLASS):
        of_class = f", {counts.min()} of class '{labels.classes[int(counts.argmin())]}'" if labels.classes else ""
        raise NeurostormError(
            f"covariates and head motion are all known in {int(complete.sum())} of {len(complete)} samples{of_class}: too few to ask "
            "what is left; leave out the covariate with most gaps"
        )


def about_tasks(table: pd.DataFrame, labels: Labels) -> list[str]:
    """Note where subjects with different labels did different tasks, or had different numbers of runs."""
    if "task" not in table:
        return []
    done = [" ".join(sorted(set(table["task"].iloc[rows].astype(str)))) for rows in labels.members]
    p = _relation(labels, np.array(done))
    if not p < CLEAR:
        return []
    return [
        f"which tasks a subject did is related to '{labels.target}' (p = {p:.2g}), and the mean over runs tells the tasks: "
        "compare runs of one task, with --task-id"
    ]


def about_sites(labels: Labels, sites: pd.Series, told_apart: str, is_kept: bool, is_harmonised: bool) -> list[str]:
    """Note where labels differ between sites, which an embedding tells apart.

    Parameters
    ----------
    sites : (samples,) Series
    told_apart : str
        How well the embedding tells them apart, in words.
    is_kept : bool
        Whether folds, covariates or harmonisation take care of them.
    is_harmonised : bool
        Whether the embedding was made alike over them.
    """
    known = sites.notna().to_numpy()
    p = _relation(labels.keep(known), sites[known].astype(str).to_numpy(str))
    if p < CLEAR and is_harmonised:
        return [
            f"'{labels.target}' differs between the values of '{sites.name}' (p = {p:.2g}): ComBat takes out what they share, of new people "
            "by the site they come from"
        ]
    if not p < CLEAR or is_kept:
        return []
    return [
        f"'{labels.target}' differs between the values of '{sites.name}' (p = {p:.2g}), and the embedding tells these "
        f"({told_apart}): see what is left with --covariates {sites.name}:categorical, --leave-out {sites.name} or --group-by "
        f"{sites.name}"
    ]


def about_lines(labels: Labels, covariates: Covariates) -> list[str]:
    """Note where the target does not follow a covariate in a line, so that taking out a line leaves something of it."""
    notes = []
    values, kinds = covariates.confounds.values, covariates.confounds.kinds
    for i, (name, kind) in enumerate(zip(covariates.names, kinds, strict=True)):
        known = ~np.isnan(values[:, i])
        if kind not in ("linear", "log") or len(np.unique(values[known, i])) < 10 or known.sum() < 30:
            continue
        column = values[known, i : i + 1]
        everyone = np.ones(known.sum(), bool)
        line, _ = Confounds(column, (kind,)).columns_for(everyone, everyone)
        curve, _ = Confounds(column, ("spline",)).columns_for(everyone, everyone)
        y = labels.y[known].astype(float)
        p = _p_of_more(line, np.hstack([line, curve[:, :-1]]), y)
        if p < CLEAR:
            notes.append(
                f"'{labels.target}' does not follow covariate '{name}' in a line (p = {p:.2g}), so that something of it is left: "
                f"give --covariates {name.partition(':')[0]}:spline"
            )
    return notes


def _relation(labels: Labels, levels: np.ndarray) -> float:
    """Return the p-value of a relation between the labels and a column of categories; 1 where there can be none."""
    names, codes = np.unique(levels, return_inverse=True)
    if len(names) < 2:
        return 1.0
    if labels.classes:
        counts = np.zeros((len(labels.classes), len(names)))
        np.add.at(counts, (labels.y, codes), 1)
        counts = counts[counts.sum(axis=1) > 0]
        return float(chi2_contingency(counts).pvalue) if len(counts) > 1 else 1.0
    parts = [labels.y[codes == k] for k in range(len(names)) if (codes == k).sum() > 1]
    return float(f_oneway(*parts).pvalue) if len(parts) > 1 else 1.0


def _p_of_more(few: np.ndarray, more: np.ndarray, y: np.ndarray) -> float:
    """Return the p-value of the F-test of whether more columns explain more."""
    squares = [((y - LinearRegression().fit(x, y).predict(x)) ** 2).sum() for x in (few, more)]
    gained, left = np.linalg.matrix_rank(more) - np.linalg.matrix_rank(few), len(y) - np.linalg.matrix_rank(more) - 1
    if gained < 1 or left < 1 or squares[1] <= 0:
        return 1.0
    return float(f_distribution.sf((squares[0] - squares[1]) / gained / (squares[1] / left), gained, left))
