"""BIDS inheritance: a JSON file further up describes every file below it whose name has all of its entities."""

import os
from functools import lru_cache
from pathlib import Path

from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.entities import OF_THE_SPACE, entities_of, stem_of


def sidecars_of(path: Path, dataset: Dataset) -> list[Path]:
    """Return the JSON files that describe a BOLD file, the nearest first.

    Its own comes first, whether it is there or not; then those of its folder, its session, its subject and its data
    set; then those of the raw data set, if that is known.
    """
    found = [path.with_name(stem_of(path) + ".json")]
    entities = entities_of(path)
    found += [each for each in _of(path.parent, dataset.path, entities) if each not in found]
    if dataset.raw is not None:
        there = dataset.raw / path.parent.relative_to(dataset.path)
        of_raw = _of(there, dataset.raw, {key: label for key, label in entities.items() if key not in OF_THE_SPACE})
        # a raw data set that nobody named may be incomplete
        found += [each for each in of_raw if dataset.raw_is != "found" or each.is_file()]
    return found


def raw_sidecars_of(path: Path, raw: Path) -> list[Path]:
    """Return the JSON files that describe a raw series, the nearest first, whether its own is there or not."""
    own = path.with_name(stem_of(path) + ".json")
    return [own, *(each for each in _of(path.parent, raw, entities_of(path)) if each != own)]


def _of(folder: Path, root: Path, entities: dict[str, str]) -> list[Path]:
    """Return the JSON files that describe a file with these entities, from its folder up to the root."""
    found = []
    while True:
        fitting = [
            each for each in _bold_json(folder, _changed(folder)) if entities_of(each).items() <= entities.items()
        ]
        # of several in one folder, the one with more entities is the nearer one
        found += sorted(fitting, key=lambda each: -len(entities_of(each)))
        if folder == root or folder == folder.parent:
            return found
        folder = folder.parent


@lru_cache(maxsize=1024)
def _bold_json(folder: Path, _changed: int) -> tuple[Path, ...]:
    """Return the JSON files of BOLD series in a folder."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ()
    return tuple(folder / name for name in names if name == "bold.json" or name.endswith("_bold.json"))


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
