"""What is to be predicted, and for whom: one label for each subject, or session."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT, as_written, column, numbers
from neurostorm_bids.group.cohort import QUALITY
from neurostorm_bids.group.covariates import CATEGORIES, looks_coded
from neurostorm_bids.group.folds import join_groups

MIN_SUBJECTS = 10
FEW_SAMPLES = 100  # below, the answer says how uncertain it is
UNBALANCED = 3  # largest class over the smallest, from which the answer says so
MIN_GROUPS = 2
MANY_CLASSES, FEWEST_OF_A_CLASS = 10, 8  # from how many classes on so many samples of each are asked for
FEWEST_FOR_VERDICT = 20  # subjects; of fewer no verdict is given


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
    classes: list[str]
    groups: np.ndarray
    members: list[np.ndarray]
    notes: list[str]

    @property
    def chance(self) -> float:
        """What guessing would give for the first metric: an area under a ROC curve, or r."""
        return 0.5 if self.classes else 0.0

    @property
    def n_subjects(self) -> int:
        """Number of people."""
        return int(self.names[SUBJECT].nunique())

    @property
    def counts(self) -> str:
        """How many samples each class has, in words; empty for a regression."""
        return ", ".join(f"{(self.y == k).sum()} {name}" for k, name in enumerate(self.classes))

    @property
    def rows(self) -> list[int]:
        """Rows of the table of runs that make any sample, sorted."""
        return sorted(int(i) for rows in self.members for i in rows)

    @property
    def members_among_rows(self) -> list[list[int]]:
        """Which of `rows`, by their place among these, make a sample."""
        place = {row: i for i, row in enumerate(self.rows)}
        return [[place[int(row)] for row in sample] for sample in self.members]

    def keep(self, which: np.ndarray) -> "Labels":
        """Return the samples of a bool mask."""
        chosen = np.flatnonzero(which)
        return replace(
            self,
            names=self.names.iloc[chosen].reset_index(drop=True),
            y=self.y[chosen],
            groups=self.groups[chosen],
            members=[self.members[k] for k in chosen],
        )

    def named(self, y: np.ndarray) -> np.ndarray:
        """Return values as they are written: the names of classes, or the numbers."""
        return np.array(self.classes)[y] if self.classes else y


def labels_of(
    table: pd.DataFrame,
    target: str,
    target_type: str = "auto",
    group_by: str | None = None,
    *,
    of: str = "auto",
    coded: Collection[str] = (),
) -> Labels:
    """Return one label for each subject, or for each session where the target differs between a subject's sessions.

    Parameters
    ----------
    table : DataFrame
        Runs, joined with the phenotype.
    target_type : {"auto", "regression", "classification"}
        auto: text, and numbers with two values, are classes.
    group_by : str, optional
        Column of families or sites that are kept together; by default subjects.
    of : {"auto", "subject", "session"}
        What a label is of; auto: sessions only where the target differs between them.
    coded : collection of str
        Columns whose numbers are codes of categories.

    Raises
    ------
    NeurostormError
        If a column is missing or unusable, or too few subjects are left.
    """
    values = column(table, target)
    if target in QUALITY:
        raise NeurostormError(
            f"--target {target} is a measure of the scan that the embedding is made from, not of the person; "
            "--group-task collect says how much the embedding tells of head motion"
        )
    decided = target_type == "auto"
    is_class = target_type == "classification" or (
        decided
        and (target in coded or (target.lower() in CATEGORIES and looks_coded(values)) or _looks_like_classes(values))
    )
    values = values if is_class else numbers(values)
    keys, notes = _sample_keys(table, values, target, of)
    if decided and not is_class and looks_coded(values):
        notes.append(
            f"'{target}' is taken as a quantity; if its {values.nunique()} values are codes give --target-type "
            "classification"
        )
    usable = values.notna() & table[keys].notna().all(axis=1)
    missing = table.loc[values.isna(), SUBJECT].unique()
    if len(missing):
        notes.insert(0, f"{len(missing)} subjects have no '{target}': {_some(missing)}")
    grouped = table[usable].groupby(keys, sort=True).indices
    members = [np.flatnonzero(usable.to_numpy())[rows] for rows in grouped.values()]
    _check_number(len(members), target, table)
    first = [int(rows[0]) for rows in members]
    if is_class:
        y, classes, about = _as_classes(values.iloc[first], target)
        notes += about
    else:
        y, classes = values.iloc[first].to_numpy().astype(float), []
        if np.std(y) == 0:
            raise NeurostormError(f"every subject with results has the same '{target}': {y[0]}")
    groups = table[SUBJECT].iloc[first].to_numpy(str)
    if group_by is not None:
        given = column(table, group_by).iloc[first]
        if unknown := int(given.isna().sum()):
            notes.append(f"{unknown} samples have no '{group_by}': each subject of these is a group of its own")
        groups = join_groups(groups, given.tolist())
        if (n := len(np.unique(groups))) < MIN_GROUPS:
            raise NeurostormError(f"--group-by {group_by}: {n} group is too few to test on others")
    _check_classes(target, classes, y, groups, group_by)
    if len(first) < FEW_SAMPLES:
        notes.append(f"{len(first)} samples are few: look at the intervals before the values")
    return Labels(target, table.iloc[first][keys].reset_index(drop=True), y, classes, groups, members, notes)


def _check_classes(target: str, classes: list[str], y: np.ndarray, groups: np.ndarray, group_by: str | None) -> None:
    """Refuse classes that are too many, or all in one group.

    Raises
    ------
    NeurostormError
        With the class.
    """
    if len(classes) > max(MANY_CLASSES, len(y) // FEWEST_OF_A_CLASS):
        raise NeurostormError(
            f"'{target}' has {len(classes)} classes in {len(y)} samples: too few of each to be told apart (is it a name? numbers with a "
            "decimal comma are text)"
        )
    for k, name in enumerate(classes):
        inside = np.unique(groups[y == k])
        if len(inside) < 2 and group_by is None:
            raise NeurostormError(f"'{target}' has a class of one subject ({name}: {inside[0]}); it cannot be tested")
        if len(inside) < 2:
            raise NeurostormError(
                f"--group-by {group_by}: all {(y == k).sum()} of class '{name}' are in one group ({inside[0]}), so that no "
                "model of the other groups can know it; leave out --group-by, or take another target"
            )


def _sample_keys(table: pd.DataFrame, values: pd.Series, target: str, of: str) -> tuple[list[str], list[str]]:
    """Return the columns that make a sample, subject or subject and session, and notes.

    Raises
    ------
    NeurostormError
        If the runs of a sample have different labels.
    """
    if differing := _differs(values, table[SUBJECT]):
        if of == "subject":
            raise NeurostormError(f"--samples subject: '{target}' differs between the sessions of {differing[0]}")
        if SESSION not in table:
            raise NeurostormError(f"'{target}' differs between runs of a subject; give a table with session_id")
    elif of != "session":
        return [SUBJECT], []
    elif SESSION not in table:
        raise NeurostormError("--samples session: no run has a session")
    with_session = table[SESSION].notna()
    session = table[SUBJECT].astype(str) + " " + table[SESSION].astype(str)
    if differing := _differs(values[with_session], session[with_session]):
        raise NeurostormError(
            f"'{target}' differs between runs of a session ({differing[0]}): a probe predicts one value for each subject "
            "or session; for what differs between runs use --group-task decode"
        )
    without = sorted(table.loc[~with_session & values.notna(), SUBJECT].unique())
    n_runs = int((~with_session & values.notna()).sum())
    if not n_runs:
        return [SUBJECT, SESSION], []
    note = f"{n_runs} runs without a session are left out, since '{target}' differs between sessions: {_some(without)}"
    return [SUBJECT, SESSION], [note]


def _differs(values: pd.Series, groups: pd.Series) -> list[str]:
    """Return the groups in which there are several values."""
    counts = values.groupby(groups).nunique()
    return list(map(str, counts.index[counts > 1]))


def _check_number(n: int, target: str, table: pd.DataFrame) -> None:
    if n >= MIN_SUBJECTS:
        return
    hint = (
        ""
        if n
        else f"; do the table's participant_id{' and session_id' if SESSION in table else ''} match those of the runs, such as "
    )
    hint += "" if n else " ".join(str(table[name].iloc[0]) for name in (SUBJECT, SESSION) if name in table) + "?"
    raise NeurostormError(
        f"only {n} subjects have both results and a value of '{target}'; at least {MIN_SUBJECTS} are needed{hint}"
    )


def _as_classes(values: pd.Series, target: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return classes as 0, 1, ..., their names, and a note if they are unbalanced."""
    names = values.map(as_written)
    classes = sorted(names.unique())
    counts = names.value_counts()
    if len(classes) < 2:
        raise NeurostormError(f"every subject with results has the same '{target}': {classes[0]}")
    if counts.min() < 2:
        raise NeurostormError(f"'{target}' has a class of one subject ({counts.idxmin()}); it cannot be tested")
    notes = []
    if counts.max() > UNBALANCED * counts.min():
        shares = ", ".join(f"{n} {name}" for name, n in counts.items())
        notes.append(f"classes are unbalanced ({shares}); they are weighted")
    return np.array([classes.index(name) for name in names]), classes, notes


def _looks_like_classes(values: pd.Series) -> bool:
    known = values.dropna()
    as_numbers = pd.to_numeric(known, errors="coerce")
    mostly_text = as_numbers.isna().mean() > 0.5
    return bool(mostly_text or (as_numbers.notna().all() and known.nunique() <= 2))


def _some(names: object, n: int = 5) -> str:
    listed = list(names)  # type: ignore[call-overload]
    return ", ".join(map(str, listed[:n])) + (", ..." if len(listed) > n else "")
