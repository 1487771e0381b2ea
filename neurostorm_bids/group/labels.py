"""What is to be predicted, and of whom: one label for each subject, or session."""

from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT, column, numbers

FEWEST_SUBJECTS = 10
FEW = 100  # subjects, below which the answer says how uncertain it is


@dataclass(frozen=True)
class Labels:
    """A target's value for every sample.

    Attributes
    ----------
    target : str
    names : DataFrame
        participant_id and, where the target changes between sessions, session_id; a row per sample.
    y : (samples,) array
        Values, or classes as 0, 1, ...
    classes : list of str
        Empty for a regression.
    groups : (samples,) array
        Samples of one group are never on both sides of a fold.
    members : list of int array
        Which rows of the table of runs make a sample.
    notes : list of str
    """

    target: str
    names: pd.DataFrame
    y: np.ndarray
    classes: list
    groups: np.ndarray
    members: list
    notes: list

    @property
    def chance(self) -> float:
        """What the first metric would be by guessing: balanced accuracy, or r."""
        return 1 / len(self.classes) if self.classes else 0.0

    @property
    def counts(self) -> str:
        """How many samples each class has, in words; empty for a regression."""
        return ", ".join(f"{(self.y == k).sum()} {name}" for k, name in enumerate(self.classes))

    def keep(self, which: np.ndarray) -> "Labels":
        """The samples of a bool mask."""
        numbers = np.flatnonzero(which)
        return replace(
            self, names=self.names.iloc[numbers].reset_index(drop=True), y=self.y[numbers], groups=self.groups[numbers],
            members=[self.members[k] for k in numbers],
        )  # fmt: skip

    def named(self, y: np.ndarray) -> list:
        """Values as they are written: the names of classes, or the numbers."""
        return [self.classes[k] for k in y] if self.classes else list(y)


def labels_of(table: pd.DataFrame, target: str, target_type: str = "auto", group_by: Optional[str] = None) -> Labels:
    """One label for each subject (for each session, where the target differs between them).

    Parameters
    ----------
    table : DataFrame
        Runs, joined with the phenotype.
    target_type : {"auto", "regression", "classification"}
        auto: text and numbers of two values are classes.
    group_by : str, optional
        Column of families or sites that are kept together; by default subjects.

    Raises
    ------
    NeurostormError
        If a column is missing or unusable, or too few are left.
    """
    labels = column(table, target)
    is_class = target_type == "classification" or (target_type == "auto" and _looks_like_classes(labels))
    labels = labels if is_class else numbers(labels)
    changes = SESSION in table and (table.groupby(SUBJECT)[target].nunique() > 1).any()
    keys = [SUBJECT, SESSION] if changes else [SUBJECT]
    if not changes and (labels.groupby(table[SUBJECT]).nunique() > 1).any():
        raise NeurostormError(f"'{target}' differs between runs of a subject; give a table with session_id")
    missing = table.loc[labels.isna(), SUBJECT].unique()
    notes = [f"{len(missing)} subjects have no '{target}': {_some(missing)}"] if len(missing) else []
    kept = table[labels.notna()]
    grouped = kept.groupby(keys, sort=True).indices
    members = [np.flatnonzero(labels.notna().to_numpy())[rows] for rows in grouped.values()]
    if len(members) < FEWEST_SUBJECTS:
        match = (
            ""
            if len(members)
            else f"; do the table's participant_id match those of the runs, such as {table[SUBJECT].iloc[0]}?"
        )
        raise NeurostormError(
            f"{len(members)} subjects with data have a '{target}', at least {FEWEST_SUBJECTS} are needed{match}"
        )
    first = [rows[0] for rows in members]
    classes, y = [], labels.iloc[first].to_numpy()
    if is_class:
        names = labels.iloc[first].map(lambda v: str(int(v)) if isinstance(v, float) and v.is_integer() else str(v))
        classes = sorted(names.unique())
        counts = names.value_counts()
        if len(classes) < 2:
            raise NeurostormError(f"every subject with results has the same '{target}': {classes[0]}")
        if counts.min() < 2:
            raise NeurostormError(f"'{target}' has a class of one subject ({counts.idxmin()}); it cannot be tested")
        y = np.array([classes.index(name) for name in names])
        if counts.max() > 3 * counts.min():
            notes.append(
                f"classes are unbalanced ({', '.join(f'{n} {c}' for c, n in counts.items())}); they are weighted"
            )
    elif np.std(y.astype(float)) == 0:
        raise NeurostormError(f"every subject with results has the same '{target}': {y[0]}")
    groups = table[SUBJECT].iloc[first].to_numpy(str)
    if group_by is not None:
        given = column(table, group_by).iloc[first]
        groups = kept_together(groups, given)
        if len(np.unique(groups)) < 3:
            raise NeurostormError(
                f"--group-by {group_by}: {len(np.unique(groups))} groups are too few to test on others"
            )
    if len(first) < FEW:
        notes.append(f"{len(first)} samples are few: look at the intervals before the values")
    names = table.iloc[first][keys].reset_index(drop=True)
    return Labels(target, names, y if is_class else y.astype(float), classes, groups, members, notes)


def kept_together(subjects: np.ndarray, given: pd.Series) -> np.ndarray:
    """A name for all samples that hang together by subject or by group, (samples,).

    Parameters
    ----------
    subjects : (samples,) array
    given : (samples,) Series
        Families or sites; samples without one hang together by subject alone.

    Examples
    --------
    >>> kept_together(np.array(["a", "a", "b", "c"]), pd.Series(["x", None, "x", "y"]))
    array(['x', 'x', 'x', 'y'], dtype=object)
    """
    names, of_subject = np.unique(subjects, return_inverse=True)
    codes, groups = pd.factorize(given.reset_index(drop=True))
    known = codes >= 0
    size = len(names) + len(groups)
    edges = csr_array((np.ones(known.sum()), (of_subject[known], len(names) + codes[known])), shape=(size, size))
    part = connected_components(edges, directed=False)[1][of_subject]
    first = [np.flatnonzero(part == one)[0] for one in part]
    return np.array([str(given.iloc[i]) if known[i] else subjects[i] for i in first], dtype=object)


def _looks_like_classes(labels: pd.Series) -> bool:
    known = labels.dropna()
    as_numbers = pd.to_numeric(known, errors="coerce")
    mostly_text = as_numbers.isna().mean() > 0.5
    return bool(mostly_text or (as_numbers.notna().all() and known.nunique() <= 2))


def _some(names, n: int = 5) -> str:
    return ", ".join(map(str, names[:n])) + (", ..." if len(names) > n else "")
