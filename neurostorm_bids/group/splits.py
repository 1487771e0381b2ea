"""Which samples are learnt from, watched, and tested."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.participants import SESSION, SUBJECT, column, read_phenotype
from neurostorm_bids.group.evaluation import make_folds
from neurostorm_bids.group.labels import Labels

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One training.

    Attributes
    ----------
    name : str
    train, validation, test : int arrays
        Numbers of samples; none to test where the model is trained that is kept.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def folder(self) -> str:
        """Name of its folder of checkpoints."""
        return self.name.replace(" ", "-")


KEPT = "the model that is kept"


def cross_validation(labels: Labels, seed: int) -> "list[Split]":
    """Folds that test every sample once, and a last training on all samples."""
    folds = make_folds(labels.y, labels.groups, bool(labels.classes), seed)
    splits = []
    for fold in np.unique(folds):
        learn = np.flatnonzero(folds != fold)
        splits.append(Split(f"fold {fold + 1}", *_parted(labels, learn, seed), np.flatnonzero(folds == fold)))
    everyone = np.arange(len(labels.y))
    return [*splits, Split(KEPT, *_parted(labels, everyone, seed), np.empty(0, int))]


def split_from(path: Path, dataset: Dataset, labels: Labels, seed: int) -> "tuple[Labels, Split]":
    """The samples of a split, and the split, from a table with participant_id (and session_id) and split: train, validation, test.

    Without validation subjects some of those to train on are taken.

    Raises
    ------
    NeurostormError
        If the table is unusable, a part is empty, or a group stands on two sides.
    """
    table, _ = read_phenotype(dataset, path)
    said = column(table, "split", str(path))
    if wrong := sorted(set(said.dropna().astype(str)) - set(PARTS)):
        raise NeurostormError(f"{path}: column split holds '{wrong[0]}'; it is one of {', '.join(PARTS)}")
    keys = [SUBJECT, SESSION] if SESSION in table and SESSION in labels.names else [SUBJECT]
    if table.duplicated(keys).any():
        raise NeurostormError(f"{path} has several rows for a subject, and '{labels.target}' one for each: give one")
    part = labels.names.merge(table[[*keys, "split"]], on=keys, how="left")["split"].to_numpy()
    if n_left := pd.isna(part).sum():
        labels = labels.keep(~pd.isna(part))
        labels.notes.append(f"{n_left} samples with data and a '{labels.target}' are not in {path}: left out")
        part = part[~pd.isna(part)]
    for name in ("train", "test"):
        if not (part == name).any():
            raise NeurostormError(f"{path}: no subject with data and a '{labels.target}' is in '{name}'")
    sides = pd.DataFrame({"group": labels.groups, "part": part}).dropna().groupby("group")["part"].nunique()
    if (sides > 1).any():
        raise NeurostormError(
            f"{path}: {sides.index[sides > 1][0]} is in several parts; what is tested would be learnt"
        )
    train, validation = np.flatnonzero(part == "train"), np.flatnonzero(part == "validation")
    if labels.classes and len(np.unique(labels.y[train])) < len(labels.classes):
        lacking = sorted(set(labels.classes) - {labels.classes[k] for k in labels.y[train]})
        raise NeurostormError(f"{path}: no subject to train on is of class '{lacking[0]}'")
    if not len(validation):
        train, validation = _parted(labels, train, seed)
    test = np.flatnonzero(part == "test")
    if labels.classes and len(np.unique(labels.y[test])) < 2:
        raise NeurostormError(f"{path}: all subjects to test on are of class '{labels.classes[labels.y[test[0]]]}'")
    return labels, Split("split", train, validation, test)


def split_table(labels: Labels, splits: "list[Split]") -> pd.DataFrame:
    """Which part every sample was in, in every training."""
    table = labels.names.copy()
    for split in splits:
        part = np.full(len(table), "n/a", dtype=object)
        for name in PARTS:
            part[getattr(split, name)] = name
        table[split.folder] = part
    return table


def _parted(labels: Labels, learn: np.ndarray, seed: int) -> "tuple[np.ndarray, np.ndarray]":
    """Samples to train on, and a fifth to watch; groups stay whole, classes are spread evenly."""
    y, groups = labels.y[learn], labels.groups[learn]
    enough = len(np.unique(groups)) >= 2 and (not labels.classes or np.bincount(y)[np.unique(y)].min() >= 2)
    if not enough:
        raise NeurostormError(f"there are too few samples of '{labels.target}' to set some aside for validation")
    if labels.classes:
        y = np.unique(y, return_inverse=True)[1]
    watched = make_folds(y, groups, bool(labels.classes), seed + 1) == 0
    if labels.classes and (lacking := set(labels.y) - set(labels.y[learn[~watched]])):
        raise NeurostormError(
            f"some folds have no sample of class '{labels.classes[min(lacking)]}' to train on; give a --split, or another --group-by"
        )
    return learn[~watched], learn[watched]
