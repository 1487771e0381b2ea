"""Many int8 stores as one: an index that is made once, so that a training opens no file but those it reads from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from neurostorm_bids.derivatives.gridded_files import StoredRun, read_int8
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import digest, read_json


@dataclass(frozen=True)
class StoreIndex:
    """Stores by number; a few bytes each, however long they are.

    Attributes
    ----------
    paths : (stores,) bytes array
    scale, background, repetition_time : (stores,) float arrays
        TR in seconds.
    shape : (stores, 4) int array
        (X, Y, Z, T).
    size, written : (stores,) int arrays
        Bytes, and when the file was last changed, ns.
    grid : (stores,) str array
        Digest of what a store says of its grid.
    dataset : (stores,) str array
        Name of the data set that it says it is of; empty where it does not.
    local : callable, optional
        Returns where a file is read instead: a copy on this machine.
    """

    paths: np.ndarray
    scale: np.ndarray
    background: np.ndarray
    repetition_time: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    written: np.ndarray
    grid: np.ndarray
    dataset: np.ndarray
    local: Callable[[Path], Path] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> StoredRun:
        shape = tuple(int(n) for n in self.shape[i])
        place = Path(self.paths[i].decode())
        return StoredRun(
            place, float(self.scale[i]), float(self.background[i]), shape, int(self.written[i]), self.local
        )

    @property
    def n_frames(self) -> np.ndarray:
        """Frames of each store, (stores,)."""
        return np.asarray(self.shape[:, 3])

    def keep(self, which: np.ndarray) -> "StoreIndex":
        """Return some of the stores, by number."""
        return replace(self, **{name: getattr(self, name)[which] for name in COLUMNS})

    def through(self, local: Callable[[Path], Path]) -> "StoreIndex":
        """Return the same stores, read from where this function says."""
        return replace(self, local=local)

    def save(self, path: Path) -> None:
        """Write the index."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in COLUMNS})


COLUMNS = tuple(each.name for each in fields(StoreIndex) if each.name != "local")
AT_A_TIME = 1000  # stores, as Python's objects; the others are numbers in arrays
SIZE, WRITTEN = COLUMNS.index("size"), COLUMNS.index("written")


def index_of(paths: Sequence[Path], file: Path) -> tuple[StoreIndex, list[Problem]]:
    """Return the index of some stores: as kept in a file, but for those whose size or time has changed, which are opened.

    Parameters
    ----------
    paths : sequence of Path
    file : Path
        Where the index is kept.

    Returns
    -------
    index : StoreIndex
        Of the stores that can be read.
    problems : list of Problem
        Of the others.
    """
    known = _kept(file)
    parts: list[StoreIndex] = []
    problems: list[Problem] = []
    n_opened = 0
    for start in range(0, len(paths), AT_A_TIME):
        rows = []
        for path in paths[start : start + AT_A_TIME]:
            row = _row_of(known, str(path).encode())
            try:
                now = path.stat()
                if row is None or (row[SIZE], row[WRITTEN]) != (now.st_size, now.st_mtime_ns):
                    row, n_opened = _row(path, now.st_size), n_opened + 1
            except (OSError, NeurostormError) as error:
                problems.append(Problem(str(error), run=path.stem))
                continue
            rows.append(row)
        if rows:
            parts.append(_columns(map(np.array, zip(*rows, strict=True))))
    if not parts:
        raise NeurostormError(
            f"none of {len(paths)} stores can be used{f': {problems[0]}' if problems else ''}; start again without them"
        )
    index = _columns(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS)
    if n_opened or known is None or len(index) != len(known):
        index.save(file)
    return index, problems


def only_grid(index: StoreIndex) -> None:
    """Refuse stores that no network can be trained on together.

    Raises
    ------
    NeurostormError
        If their grids or repetition times differ.
    """
    for what, values, remedy in (
        ("grids", index.grid, "give all of them the same --grid"),
        ("repetition times", np.round(index.repetition_time, 4), "give all of them the same --target-tr"),
    ):
        kinds, first = np.unique(values, return_index=True)
        if len(kinds) > 1:
            named = " and ".join(f"{Path(index.paths[i].decode())} ({values[i]})" for i in sorted(first)[:2])
            raise NeurostormError(f"runs of different {what} cannot be trained on together: {named}; {remedy}")


def _columns(columns: Iterable[np.ndarray]) -> StoreIndex:
    """Return an index of columns in their order."""
    named: Any = dict(zip(COLUMNS, columns, strict=True))
    return StoreIndex(**named)


def _kept(file: Path) -> StoreIndex | None:
    """Return an index that was kept, sorted by path; `None` if there is none, or one of another version."""
    try:
        with np.load(file) as kept:
            index = _columns(kept[name] for name in COLUMNS)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return index.keep(np.argsort(index.paths))


def _row_of(index: StoreIndex | None, path: bytes) -> tuple[Any, ...] | None:
    """Return what an index that is sorted by path says of a store; `None` if it says nothing."""
    if index is None:
        return None
    i = int(np.searchsorted(index.paths, path))
    if i == len(index) or index.paths[i] != path:
        return None
    return tuple(getattr(index, name)[i] for name in COLUMNS)


def _row(path: Path, size: int) -> tuple[Any, ...]:
    """Open a store, and return what the index says of it."""
    store, about = read_int8(path), read_json(path.with_suffix(".json"))
    grid = digest(about["Grid"]) if isinstance(about.get("Grid"), dict) else ""
    time = float(about.get("RepetitionTime") or np.nan)
    return (
        str(path).encode(),
        store.scale,
        store.background,
        time,
        store.shape,
        size,
        store.written,
        grid,
        str(about.get("Dataset") or ""),
    )
