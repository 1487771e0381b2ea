"""Which samples a model is trained on, which stop the training, and which it is tested on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.participants import SESSION, SUBJECT, column, read_phenotype
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.labels import Labels

PARTS = ("train", "validation", "test")
FINAL = "the model that is kept"


@dataclass(frozen=True)
class Split:
    """One training.

    Attributes
    ----------
    name : str
    train, validation, test : int arrays
        Numbers of samples; none to test for the model that is kept after cross-validation.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def folder(self) -> str:
        """Name of its folder of checkpoints."""
        return self.name.replace(" ", "-")


def cross_validation(labels: Labels, seed: int) -> list[Split]:
    """Return folds that test every sample once, and a last training on all samples."""
    folds = make_folds(labels.y, labels.groups, bool(labels.classes), seed)
    splits = []
    for fold in np.unique(folds):
        others = np.flatnonzero(folds != fold)
        splits.append(Split(f"fold {fold + 1}", *_set_aside(labels, others, seed), np.flatnonzero(folds == fold)))
    everyone = np.arange(len(labels.y))
    return [*splits, Split(FINAL, *_set_aside(labels, everyone, seed), np.empty(0, int))]


def split_from(path: Path, dataset: Dataset, labels: Labels, seed: int) -> tuple[Labels, Split]:
    """Read a split from a table with participant_id (and session_id) and split: train, validation, test.

    Without validation subjects some of those to train on are taken.

    Returns
    -------
    labels : Labels
        Of the samples that are in the table.
    split : Split

    Raises
    ------
    NeurostormError
        If the table is unusable, a part is empty, or a group is in several parts.
    """
    labels, part = _parts(path, dataset, labels)
    train, validation, test = (np.flatnonzero(part == name) for name in PARTS)
    for name, samples in (("train", train), ("test", test)):
        if not len(samples):
            raise NeurostormError(f"{path}: no subject with data and a '{labels.target}' is in '{name}'")
    sides = pd.DataFrame({"group": labels.groups, "part": part}).groupby("group")["part"].nunique()
    if (sides > 1).any():
        raise NeurostormError(
            f"{path}: {sides.index[sides > 1][0]} is in several parts; the model would be tested on what it was trained on"
        )
    if labels.classes and len(np.unique(labels.y[train])) < len(labels.classes):
        lacking = sorted(set(labels.classes) - {labels.classes[k] for k in labels.y[train]})
        raise NeurostormError(f"{path}: no subject to train on is of class '{lacking[0]}'")
    if not len(validation):
        train, validation = _set_aside(labels, train, seed)
    if labels.classes and len(np.unique(labels.y[test])) < 2:
        raise NeurostormError(f"{path}: all subjects to test on are of class '{labels.classes[labels.y[test[0]]]}'")
    return labels, Split("split", train, validation, test)


def _parts(path: Path, dataset: Dataset, labels: Labels) -> tuple[Labels, np.ndarray]:
    """Return the samples that are in a table of a split, and the part of each."""
    table = read_phenotype(dataset, path).table
    given = column(table, "split", str(path))
    if wrong := sorted(set(given.dropna().astype(str)) - set(PARTS)):
        raise NeurostormError(f"{path}: column split holds '{wrong[0]}'; it is one of {', '.join(PARTS)}")
    keys = [SUBJECT, SESSION] if SESSION in table and SESSION in labels.names else [SUBJECT]
    if table.duplicated(keys).any():
        raise NeurostormError(
            f"{path} has several rows for a subject, and '{labels.target}' one value for each: give one row"
        )
    part = labels.names.merge(table[[*keys, "split"]], on=keys, how="left")["split"].to_numpy()
    there = ~pd.isna(part)
    if there.all():
        return labels, part
    kept = labels.keep(there)
    kept.notes.append(f"{(~there).sum()} samples with data and a '{labels.target}' are not in {path}: left out")
    return kept, part[there]


def split_table(labels: Labels, splits: list[Split]) -> pd.DataFrame:
    """Return which part every sample was in, in every training."""
    table = labels.names.copy()
    for split in splits:
        part = np.full(len(table), "n/a", dtype=object)
        for name in PARTS:
            part[getattr(split, name)] = name
        table[split.folder] = part
    return table


def _set_aside(labels: Labels, samples: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples to train on, and a fifth for validation; groups undivided, classes spread evenly."""
    y, groups = labels.y[samples], labels.groups[samples]
    enough = len(np.unique(groups)) >= 2 and (not labels.classes or np.bincount(y)[np.unique(y)].min() >= 2)
    if not enough:
        raise NeurostormError(f"there are too few samples of '{labels.target}' to set some aside for validation")
    if labels.classes:
        y = np.unique(y, return_inverse=True)[1]
    aside = make_folds(y, groups, bool(labels.classes), seed + 1) == 0
    if labels.classes and (lacking := set(labels.y) - set(labels.y[samples[~aside]])):
        raise NeurostormError(
            f"some folds have no sample of class '{labels.classes[min(lacking)]}' to train on; give a --split, or another "
            "--group-by"
        )
    return samples[~aside], samples[aside]
