"""Read every run's embedding and quality from the output folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.names import run_tables, sidecar_of
from neurostorm_bids.derivatives.seen import SEEN_COLUMN
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.entities import entities_of
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.run_means import means_of

NAMES = {"sub": SUBJECT, "ses": SESSION}  # as in participants.tsv and sessions.tsv
IDENTITY = {
    "run_name": {"Description": "The run, by its entities"},
    SUBJECT: {"Description": "The person"},
    SESSION: {"Description": "The session"},
    "task": {"Description": "Task of the run"},
    SEEN_COLUMN: {"Description": "Whether the model was trained on this person"},
}
QUALITY = {
    "windows": {"Description": "Windows averaged"},
    "censored_windows": {"Description": "Windows left out for head motion"},
    "mean_fd": {"Description": "Mean framewise displacement of the run", "Units": "mm"},
    "max_fd": {"Description": "Largest framewise displacement of the run", "Units": "mm"},
    "brain_voxels": {"Description": "Voxels of the run's brain in the model's grid"},
    "brain_in_template": {"Description": "Share of these that lie in the template's brain"},
    "brain_outside_grid": {"Description": "Share of the brain that lies outside the grid"},
}


@dataclass(frozen=True)
class Cohort:
    """The runs of one model.

    Attributes
    ----------
    label : str
        The model's, as in ``desc-<label>``.
    template : str
        Space of the grid.
    runs : DataFrame
        A row per run: ``run_name``, entities, quality (`QUALITY`).
    embeddings : (runs, channels) float32 array
        Mean over the windows that were used.
    files : list of Path
        The tables they were read from.
    notes : list of str
        What was left out or is mixed.
    """

    label: str
    template: str
    runs: pd.DataFrame
    embeddings: np.ndarray
    files: list[Path]
    notes: list[str]

    def keep(self, which: np.ndarray) -> "Cohort":
        """Return the runs of a (runs,) bool mask, or of an array of their numbers, in its order."""
        numbers = np.arange(len(self.runs))[which]
        runs = self.runs.iloc[numbers].reset_index(drop=True)
        return replace(self, runs=runs, embeddings=self.embeddings[numbers], files=[self.files[i] for i in numbers])


def read_cohort(out_dir: Path, label: str, template: str | None = None) -> Cohort:
    """Read the runs of one model.

    Parameters
    ----------
    label : str
        The model's, as in ``desc-<label>``.
    template : str, optional
        Only runs in this space.

    Raises
    ------
    NeurostormError
        If there are none, or they are in several spaces and none is given.
    """
    rows: list[dict[str, Any]] = []
    means, files, notes = [], [], []
    hashes: dict[str, list[Path]] = {}
    tables = list(_tables(out_dir, label))
    wanted = {path: space for path, space in tables if template in (None, space)}
    for path, run in means_of(out_dir, label, list(wanted), [path for path, _ in tables]).items():
        if run is None:
            notes.append(f"{path.name}: not finished, or changed since; left out")
            continue
        if not run.columns["windows"]:
            notes.append(f"{path.name}: every window is censored; left out")
            continue
        hashes.setdefault(run.settings_hash, []).append(path)
        rows.append({"space": wanted[path], **run_columns(path.name), **run.columns})
        means.append(run.mean)
        files.append(path)
    if not rows:
        if not notes and tables:
            notes = [f"they are in another space than {template} (--grid)"]
        why = f"of {len(notes)} tables none can be used, such as {notes[0]}" if notes else _what_there_is(out_dir)
        raise NeurostormError(f"{out_dir} holds no results of model '{label}'; {why}")
    runs = pd.DataFrame(rows)
    spaces = sorted(runs["space"].unique())
    if len(spaces) > 1:
        raise NeurostormError(
            f"runs of model '{label}' are in several spaces ({', '.join(spaces)}); say which with --grid"
        )
    if len({len(mean) for mean in means}) > 1:
        raise NeurostormError(
            f"embeddings of model '{label}' have several lengths; are they of different models with the same name?"
        )
    gone = _without_table(out_dir, label, [path for path, _ in tables])
    notes += [f"{name}: its table is missing; run the participant level again" for name in gone]
    if len(hashes) > 1:
        fewest = min(hashes.values(), key=len)
        notes.append(
            f"the runs were made with {len(hashes)} different settings (such as {fewest[0].name}): their embeddings may "
            "not be comparable; see SettingsHash in the sidecars"
        )
    return Cohort(label, spaces[0], runs.drop(columns="space"), np.stack(means), files, notes)


def run_columns(name: str) -> dict[str, str]:
    """Return the name and entities of the run that a file belongs to, as columns.

    >>> run_columns("sub-01_task-rest_space-MNI152NLin6Asym_desc-base_embeddings.tsv")
    {'run_name': 'sub-01_task-rest', 'participant_id': 'sub-01', 'task': 'rest'}
    """
    run = name.split("_space-")[0]
    entities = {
        NAMES.get(key, key): f"{key}-{value}" if key in NAMES else value for key, value in entities_of(run).items()
    }
    return {"run_name": run, **entities}


def _without_table(out_dir: Path, label: str, there: list[Path]) -> list[str]:
    """Return the sidecars whose tables are gone."""
    known = {sidecar_of(path) for path in there}
    pattern = f"*_space-*_desc-{label}_embeddings.json"
    found = (path for subject in sorted(out_dir.glob("sub-*")) for path in run_tables(subject, pattern))
    return [path.name for path in found if path not in known]


def _tables(out_dir: Path, label: str) -> Iterator[tuple[Path, str]]:
    for subject in sorted(out_dir.glob("sub-*")):
        for path in run_tables(subject, f"*_space-*_desc-{label}_embeddings.tsv"):
            yield path, entities_of(path)["space"]


def labels_in(out_dir: Path) -> list[str]:
    """Return the labels of the models that have results in an output folder."""
    subjects = out_dir.glob("sub-*")
    paths = (path for subject in subjects for path in run_tables(subject, "*_desc-*_embeddings.tsv"))
    return sorted({entities_of(path)["desc"] for path in paths})


def _what_there_is(out_dir: Path) -> str:
    labels = labels_in(out_dir)
    return f"there are those of {', '.join(labels)} (--model)" if labels else "run the participant level first"


def weighted_means(values: np.ndarray, members: Sequence[Any], weights: np.ndarray) -> np.ndarray:
    """Return the mean of each sample over its runs, (runs, columns) -> (samples, columns).

    Parameters
    ----------
    members : sequence of int arrays or lists
        Numbers of the runs of each sample.
    weights : (runs,) array
        Such as the windows of each run.
    """
    return np.stack([np.average(values[rows], axis=0, weights=weights[rows]) for rows in members])
