"""Read every run's embedding and quality from OUT_DIR."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.sidecars import read_json
from neurostorm_bids.derivatives.tables import CHANNEL, censored_in
from neurostorm_bids.errors import NeurostormError

NAMES = {"sub": "participant_id", "ses": "session_id"}  # as in participants.tsv and sessions.tsv
QUALITY = (
    "windows",
    "censored_windows",
    "mean_fd",
    "max_fd",
    "brain_voxels",
    "brain_in_template",
    "brain_outside_grid",
)


@dataclass(frozen=True)
class Cohort:
    """Runs of one model.

    Attributes
    ----------
    label : str
        The model's, as in ``desc-<label>``.
    template : str
        Space of the grid.
    runs : DataFrame
        A row per run: ``run`` (its name), entities, quality (`QUALITY`; framewise displacement in mm).
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
    files: list
    notes: list

    def keep(self, which: np.ndarray) -> "Cohort":
        """The runs of a (runs,) bool mask, or of an array of their numbers, in its order."""
        numbers = np.arange(len(self.runs))[which]
        runs = self.runs.iloc[numbers].reset_index(drop=True)
        return replace(self, runs=runs, embeddings=self.embeddings[numbers], files=[self.files[i] for i in numbers])


def gather(out_dir: Path, label: str, template: Optional[str] = None) -> Cohort:
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
    rows, means, files, notes, hashes = [], [], [], [], {}
    for path, space in _tables(out_dir, label):
        if template not in (None, space):
            continue
        sidecar = read_json(path.with_suffix(".json"))
        if not sidecar.get("SettingsHash"):
            notes.append(f"{path.name}: not finished, or changed since; left out")
            continue
        mean, windows = _mean_of(path)
        if not windows["windows"]:
            notes.append(f"{path.name}: every window is censored; left out")
            continue
        hashes.setdefault(sidecar["SettingsHash"], []).append(path)
        rows.append({"space": space, **entities_of(path.name), **windows, **_quality(sidecar)})
        means.append(mean)
        files.append(path)
    if not rows:
        there = sorted({name for name, _ in _labels(out_dir)})
        raise NeurostormError(
            f"{out_dir} holds no results of model '{label}'; "
            + (f"there are those of {', '.join(there)} (--model)" if there else "run the participant level first")
        )
    runs = pd.DataFrame(rows)
    spaces = sorted(runs["space"].unique())
    if len(spaces) > 1:
        raise NeurostormError(
            f"runs of model '{label}' are in several spaces ({', '.join(spaces)}); say which with --grid"
        )
    if len({len(mean) for mean in means}) > 1:
        raise NeurostormError(
            f"embeddings of model '{label}' have several lengths; are they of models of the same name?"
        )
    if len(hashes) > 1:
        fewest = min(hashes.values(), key=len)
        notes.append(
            f"the runs were made with {len(hashes)} different settings (such as {fewest[0].name}): their embeddings may "
            "not compare; see SettingsHash in the sidecars"
        )
    return Cohort(label, spaces[0], runs.drop(columns="space"), np.stack(means), files, notes)


def _tables(out_dir: Path, label: str) -> "Iterator[tuple[Path, str]]":
    pattern = f"*_space-*_desc-{label}_embeddings.tsv"
    for subject in sorted(out_dir.glob("sub-*")):
        for path in sorted([*subject.glob(f"func/{pattern}"), *subject.glob(f"ses-*/func/{pattern}")]):
            yield path, re.search("_space-([^_]+)_", path.name)[1]


def _labels(out_dir: Path) -> "Iterator[tuple[str, str]]":
    for path in out_dir.glob("sub-*/**/func/*_embeddings.tsv"):
        match = re.search("_space-([^_]+)_desc-([^_]+)_embeddings", path.name)
        if match:
            yield match[2], match[1]


def _mean_of(path: Path) -> "tuple[np.ndarray, dict]":
    """Mean embedding of a run, and how many windows made it."""
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
        channels = [name for name in table if name.startswith(CHANNEL) and name[len(CHANNEL) :].isdigit()]
        values, censored = table[channels].to_numpy(np.float32), censored_in(table)
    except (OSError, ValueError, KeyError) as error:
        raise NeurostormError(
            f"{path} cannot be read ({error}); remove it and run the participant level again"
        ) from None
    if not np.isfinite(values).all():
        raise NeurostormError(f"{path} lacks numbers in its channels; remove it and run the participant level again")
    used = values[~censored]
    mean = used.mean(axis=0) if len(used) else np.zeros(len(channels), np.float32)
    return mean, {"windows": len(used), "censored_windows": int(censored.sum())}


def entities_of(name: str) -> dict:
    """Name and entities of the run that a file is of, as columns."""
    run = name.split("_space-")[0]
    pairs = (part.partition("-")[::2] for part in run.split("_"))
    entities = {NAMES.get(key, key): f"{key}-{value}" if key in NAMES else value for key, value in pairs}
    return {"run_name": run, **entities}


def _quality(sidecar: dict) -> dict:
    steps, motion = sidecar.get("Preprocessing") or {}, sidecar.get("FramewiseDisplacement") or {}
    return {
        "mean_fd": motion.get("Mean", np.nan),
        "max_fd": motion.get("Max", np.nan),
        "brain_voxels": steps.get("BrainVoxels", np.nan),
        "brain_in_template": steps.get("BrainInTemplate", np.nan),
        "brain_outside_grid": steps.get("BrainOutsideGrid", np.nan),
    }
