"""Read participants.tsv, sessions.tsv or a table of the user's, and join it to the runs."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.runtime.json_files import read_json

KEYS = SUBJECT, SESSION = "participant_id", "session_id"
LARGEST = 1e100  # of a number whose square can be computed
MOST_TEXT = 0.1  # share of entries that may be text in a column of numbers
MISSING = ["n/a", "N/A", "", "NA", "nan", "NaN"]


@dataclass(frozen=True)
class Phenotype:
    """A table of subjects, or of subjects and sessions.

    Attributes
    ----------
    table : DataFrame
        With ``participant_id`` (sub-...), perhaps ``session_id`` (ses-...); empty if there is no table.
    files : list of Path
        The files it was read from.
    notes : list of str
        What was read otherwise than it stands there.
    coded : frozenset of str
        Columns whose values are codes of categories: those with Levels in a table's sidecar.
    """

    table: pd.DataFrame
    files: list[Path]
    notes: list[str] = field(default_factory=list)
    coded: frozenset[str] = frozenset()


def read_phenotype(dataset: Dataset, file: Path | None) -> Phenotype:
    """Read what is known of the subjects.

    Parameters
    ----------
    file : Path, optional
        In place of the data set's participants.tsv and sessions.tsv: a .tsv or .csv with ``participant_id``.

    Raises
    ------
    NeurostormError
        If a table lacks participant_id or holds a subject (and session) twice.
    """
    table, files = _tables(dataset, file)
    table, matched = match_subjects(table, [f"sub-{label}" for label in dataset.subjects()], dataset.label_of)
    table, left_out = _without_text_among_numbers(table)
    return Phenotype(table, files, [*matched, *left_out], _with_levels(files, table))


def read_people(path: Path) -> pd.DataFrame:
    """Read a table of subjects, or of subjects and sessions, a .tsv or .csv.

    Raises
    ------
    NeurostormError
        If it lacks participant_id or holds a subject (and session) twice.
    """
    return _checked(_read(path), path)


def _with_levels(files: list[Path], table: pd.DataFrame) -> frozenset[str]:
    """Return the columns that have Levels in the sidecars of tables, which name all their values."""
    sidecars = {path.with_suffix(".json") for path in files}
    sidecars |= {path.parent.parent / "sessions.json" for path in files if path.name.endswith("_sessions.tsv")}
    described = [about for path in sidecars if path.is_file() for about in read_json(path).items()]
    levels = {name: about["Levels"] for name, about in described if isinstance(about, dict) and about.get("Levels")}
    return frozenset(
        name
        for name, names in levels.items()
        if isinstance(names, dict) and name in table and set(table[name].dropna().map(as_written)) <= set(names)
    )


def as_written(value: object) -> str:
    """Return a value as a table shows it: 1, where pandas reads 1.0 because others of the column are missing."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tables(dataset: Dataset, file: Path | None) -> tuple[pd.DataFrame, list[Path]]:
    """Read the user's table, or the data set's; and return the files they were read from."""
    if file is not None:
        return _checked(_read(file), file), [file]
    roots = [root for root in (dataset.raw, dataset.path) if root is not None]
    if dataset.raw_is == "found":  # what the user named comes first
        roots.reverse()
    path = next((root / "participants.tsv" for root in roots if (root / "participants.tsv").is_file()), None)
    if path is None:
        return pd.DataFrame({SUBJECT: []}), []
    table, files = _checked(_read(path), path), [path]
    sessions = sorted(path.parent.glob("sub-*/sub-*_sessions.tsv"))
    if sessions:
        parts = []
        for each in sessions:
            part = _read(each)
            part[SUBJECT] = each.parent.name
            parts.append(_checked(part, each))
        of_sessions = pd.concat(parts)
        table = table.merge(of_sessions, on=SUBJECT, how="outer", suffixes=("", "_session"))
        files += sessions
    return table, files


def _without_text_among_numbers(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the few entries of a column of numbers that are none, such as 89+, and name them."""
    notes = []
    for name in table:
        if name in KEYS or pd.api.types.is_numeric_dtype(table[name]):
            continue
        as_numbers = pd.to_numeric(table[name], errors="coerce")
        text = table[name][table[name].notna() & as_numbers.isna()]
        if not 0 < len(text) <= MOST_TEXT * table[name].notna().sum():
            continue
        shown = ", ".join(f"'{each}'" for each in dict.fromkeys(text.astype(str)[:3]))
        notes.append(
            f"column '{name}': {len(text)} of {len(table)} entries are no numbers ({shown}); they are left out"
        )
        table = table.assign(**{str(name): as_numbers})
    return table, notes


def join(runs: pd.DataFrame, phenotype: pd.DataFrame, reserved: Collection[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns of a phenotype to the table of runs; by session too where the phenotype has sessions.

    A column of the phenotype that has the name of one of the runs' own (an entity, such as task, or a measure, such as
    mean_fd) is called ``phenotype_<name>``.

    Parameters
    ----------
    reserved : collection of str
        Names of columns that the runs will get later.

    Returns
    -------
    table : DataFrame
    notes : list of str
        Which columns were renamed.
    """
    if phenotype.empty:
        return runs, []
    has_sessions = SESSION in phenotype and phenotype[SESSION].notna().any()
    keys = [SUBJECT, SESSION] if SESSION in runs and has_sessions else [SUBJECT]
    if keys == [SUBJECT] and has_sessions:
        phenotype = phenotype.drop(columns=SESSION).drop_duplicates(SUBJECT)
    taken = [name for name in phenotype if (name in runs or name in reserved) and name not in KEYS]
    if SESSION in phenotype and SESSION not in keys:  # of subjects without sessions: it says nothing
        phenotype = phenotype.drop(columns=SESSION)
    renamed = {name: _free(f"phenotype_{name}", [*phenotype, *runs, *reserved]) for name in taken}
    notes = [
        f"column '{name}' of the phenotype is called {new} here: the runs have a column of that name"
        for name, new in renamed.items()
    ]
    return runs.merge(phenotype.rename(columns=renamed), on=keys, how="left"), notes


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name that no other column has."""
    while name in taken:
        name += "_"
    return name


def column(table: pd.DataFrame, name: str, where: str = "the phenotype table") -> pd.Series:
    """Return a column of the joined table.

    Raises
    ------
    NeurostormError
        If it is not there; with the columns that are.
    """
    if name not in table:
        hint = f" ({name} is of windows: --group-task decode predicts it)" if name in ("trial_type", "trial") else ""
        there = ", ".join(map(str, table.columns))
        raise NeurostormError(f"{where} has no column '{name}'{hint}; there are: {there}")
    return table[name]


def numbers(values: pd.Series) -> pd.Series:
    """Return a column as numbers.

    Raises
    ------
    NeurostormError
        If there is text in it; with the first such entry.
    """
    as_numbers = pd.to_numeric(values, errors="coerce")
    text = values[values.notna() & as_numbers.isna()]
    if len(text):
        raise NeurostormError(f"column '{values.name}' holds text where numbers are needed, such as '{text.iloc[0]}'")
    if (as_numbers.astype(float).abs() > LARGEST).any() and not np.isinf(as_numbers.astype(float)).any():
        raise NeurostormError(
            f"column '{values.name}' holds {as_numbers.abs().max():.3g}, which is no measure of a person"
        )
    if np.isinf(as_numbers.astype(float)).any():
        raise NeurostormError(f"column '{values.name}' holds an infinite number; write n/a where it is not known")
    return as_numbers.astype(float)


def match_subjects(
    table: pd.DataFrame, subjects: Collection[str], label_of: Callable[[str], str] = str
) -> tuple[pd.DataFrame, list[str]]:
    """Match ids that are written otherwise than in the data (1 for sub-01), where exactly one subject fits.

    Parameters
    ----------
    table : DataFrame
        With ``participant_id``.
    subjects : collection of str
        Ids of the data, such as sub-01.
    label_of : callable
        Returns the label of a subject that is called by a name.

    Returns
    -------
    table : DataFrame
        With the data's ids.
    notes : list of str
        Which were matched.
    """
    if SUBJECT not in table or not len(table):
        return table, []
    known = set(subjects)
    by_number: dict[str, list[str]] = {}
    for subject in sorted(known):
        by_number.setdefault(_without_zeros(subject), []).append(subject)
    ids = set(table[SUBJECT])
    meant: dict[str, list[str]] = {}
    for each in sorted(ids - known):
        fitting = by_number.get(_without_zeros(label_of(each)), [])
        if len(fitting) == 1 and fitting[0] not in ids:
            meant.setdefault(fitting[0], []).append(each)
    renamed = {theirs[0]: ours for ours, theirs in meant.items() if len(theirs) == 1}
    if not renamed:
        return table, []
    first = next(iter(renamed))
    note = f"ids of the phenotype that are written otherwise in the data: {len(renamed)}, such as {first} for {renamed[first]}"
    return table.assign(**{SUBJECT: table[SUBJECT].replace(renamed)}), [note]


def _without_zeros(subject: str) -> str:
    return subject.removeprefix("sub-").lstrip("0")


def _read(path: Path) -> pd.DataFrame:
    separator = "," if path.suffix == ".csv" else "\t"
    try:
        labels = {SUBJECT: str, SESSION: str}  # 01 is a label, not the number 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                na_values=MISSING,
                keep_default_na=False,
                encoding="utf-8-sig",
                dtype=labels,
                index_col=False,
            )
        with open(path, encoding="utf-8-sig") as file:
            names = [name.strip() for name in file.readline().rstrip("\n").split(separator)]
    except UnicodeDecodeError:
        raise NeurostormError(
            f"{path} is not UTF-8 text (it may be Latin-1 or UTF-16, as spreadsheets save it, or no text): save it as UTF-8"
        ) from None
    except pd.errors.ParserWarning:
        raise NeurostormError(f"{path}: its rows have more fields than its header") from None
    except (OSError, ValueError) as error:
        raise NeurostormError(f"{path} cannot be read as a table ({error})") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise NeurostormError(
            f"{path} has the column '{twice[0]}' {names.count(twice[0])} times; give each another name"
        )
    other = {",": ";", "\t": ","}[separator]
    if len(table.columns) == 1 and other in str(table.columns[0]):
        raise NeurostormError(
            f"{path}: its columns are separated by '{other}'; "
            + ("a .tsv needs tabs (or call it .csv)" if separator == "\t" else "a .csv needs commas")
        )
    return table.rename(columns=lambda name: str(name).strip())


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if SUBJECT not in table:
        raise NeurostormError(f"{path} has no column participant_id; there are: {', '.join(map(str, table.columns))}")
    table = table.assign(**{SUBJECT: _prefixed(table[SUBJECT], "sub-")})
    keys = [SUBJECT]
    if SESSION in table:
        table = table.assign(**{SESSION: _prefixed(table[SESSION], "ses-")})
        keys.append(SESSION)
    twice = table[table.duplicated(keys)]
    if len(twice):
        raise NeurostormError(f"{path} holds {' '.join(map(str, twice.iloc[0][keys]))} more than once")
    return table


def _prefixed(labels: pd.Series, prefix: str) -> pd.Series:
    text = labels.astype(str)
    return text.where(text.str.startswith(prefix), prefix + text)
