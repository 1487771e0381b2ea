"""The mean embedding of every run of a model, kept in one file so that only new and changed tables are read again."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import sidecar_of
from neurostorm_bids.derivatives.seen import SEEN, SEEN_COLUMN
from neurostorm_bids.derivatives.tables import CENSORED, CHANNEL, is_channel, read_windows
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.atomic import replacing, sweep
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.runtime.locks import Busy, hold

LOG = logging.getLogger("neurostorm")
CACHE = Path("group", "cache")  # in the output folder
MANY = 1000  # runs whose reading takes long enough to be announced

Stamp = list[int]  # size and modification time (ns) of a table and of its sidecar


@dataclass(frozen=True)
class RunMean:
    """What the group level keeps of one run.

    Attributes
    ----------
    settings_hash : str
        Of its sidecar.
    mean : (channels,) float32 array
        Over the windows that are not censored; zeros if there is none.
    columns : dict
        Its windows and quality, as in the table of runs.
    """

    settings_hash: str
    mean: np.ndarray
    columns: dict[str, Any]


def means_of(out_dir: Path, label: str, wanted: Sequence[Path], there: Sequence[Path]) -> dict[Path, RunMean | None]:
    """Return the means of runs, from the cache where their files are as they were; `None` for a run that is not finished.

    Parameters
    ----------
    label : str
        The model's.
    wanted : sequence of Path
        Tables of windows.
    there : sequence of Path
        All of the model's tables; what is known of the others stays in the cache.

    Raises
    ------
    NeurostormError
        If a table cannot be used.
    """
    cache = out_dir / CACHE / f"desc-{label}.npz"
    known = _load(cache)
    names = {path: path.relative_to(out_dir).as_posix() for path in there}
    kept = {names[path]: known[names[path]] for path in there if names[path] in known}
    stamps = {path: _stamp(path) for path in wanted}
    new = [path for path in wanted if names[path] not in kept or kept[names[path]][0] != stamps[path]]
    if len(new) >= MANY:
        LOG.info("reading %d tables of model '%s'; later calls read only what is new", len(new), label)
    found: dict[Path, RunMean | None] = {}
    try:
        for path in new:
            kept.pop(names[path], None)
            found[path] = run = _read(path)
            if run is not None and (stamp := stamps[path]) is not None:
                kept[names[path]] = (stamp, run)
    finally:  # where one cannot be used, the others need not be read again
        if kept.keys() != known.keys() or any(found.values()):
            _save(out_dir, cache, kept)
    return {path: found[path] if path in found else kept[names[path]][1] for path in wanted}


def _read(path: Path) -> RunMean | None:
    """Read one run's table, which is as its sidecar says; `None` if that does not vouch for it."""
    sidecar = read_json(sidecar_of(path))
    if not sidecar.get("SettingsHash"):
        return None
    names, table = read_windows(path)
    channels, censored = _places(names)
    values = table[:, channels].astype(np.float32)
    windows = sidecar.get("Windows")
    count = windows.get("Count") if isinstance(windows, dict) else None
    n_channels = len([name for name in sidecar if name.startswith(CHANNEL)])
    if values.shape != (count, n_channels):
        raise NeurostormError(
            f"{path} has {len(values)} windows of {len(channels)} channels, its sidecar says {count} of {n_channels}: it "
            "is cut short; remove it and run the participant level again"
        )
    if not np.isfinite(values).all():
        raise NeurostormError(f"{path} lacks numbers in its channels; remove it and run the participant level again")
    used = values if censored is None else values[table[:, censored] != 1]
    mean = used.mean(axis=0) if len(used) else np.zeros(len(channels), np.float32)
    columns = {"windows": len(used), "censored_windows": len(values) - len(used), **_quality(sidecar)}
    return RunMean(str(sidecar["SettingsHash"]), mean, columns)


@lru_cache(maxsize=16)
def _places(names: tuple[str, ...]) -> tuple[list[int], int | None]:
    """Return where the channels and the mark of censored windows are among columns."""
    channels = [i for i, name in enumerate(names) if is_channel(name)]
    return channels, names.index(CENSORED) if CENSORED in names else None


def _quality(sidecar: dict[str, Any]) -> dict[str, Any]:
    steps, motion = sidecar.get("Preprocessing") or {}, sidecar.get("FramewiseDisplacement") or {}
    return {
        "mean_fd": motion.get("Mean", np.nan),
        "max_fd": motion.get("Max", np.nan),
        "brain_voxels": steps.get("BrainVoxels", np.nan),
        "brain_in_template": steps.get("BrainInTemplate", np.nan),
        "brain_outside_grid": steps.get("BrainOutsideGrid", np.nan),
        **({SEEN_COLUMN: bool(sidecar[SEEN])} if SEEN in sidecar else {}),
    }


def _stamp(table: Path) -> Stamp | None:
    """Return what a change of a table or its sidecar is noticed by; `None` if one is missing."""
    try:
        first, second = table.stat(), sidecar_of(table).stat()
    except OSError:
        return None
    return [first.st_size, first.st_mtime_ns, second.st_size, second.st_mtime_ns]


def _load(cache: Path) -> dict[str, tuple[Stamp, RunMean]]:
    """Return what the cache holds, by table; nothing if it is missing, damaged or of another version."""
    try:
        with np.load(cache, allow_pickle=False) as file:  # the archive has checksums of its own
            about, means = json.loads(file["about"].tobytes()), file["means"]
        if about["version"] != __version__ or len(about["runs"]) != len(means):
            return {}
        return {
            name: (stamp, RunMean(settings_hash, mean, columns))
            for (name, stamp, settings_hash, columns), mean in zip(about["runs"], means, strict=True)
        }
    except FileNotFoundError:
        return {}
    except Exception as error:  # a damaged archive can set off any kind
        LOG.debug("%s is not used (%s)", cache, error)
        return {}


def _save(out_dir: Path, cache: Path, runs: dict[str, tuple[Stamp, RunMean]]) -> None:
    """Write the cache; leave it if the folder cannot be written to, or another process is writing one."""
    if len({len(run.mean) for _, run in runs.values()}) != 1:
        return
    rows = [(name, stamp, run.settings_hash, run.columns) for name, (stamp, run) in runs.items()]
    about = json.dumps({"version": __version__, "runs": rows}).encode()
    try:
        with hold(out_dir, "cache"):
            sweep(cache.parent, cache.name)
            with replacing(cache) as temporary, open(temporary, "wb") as file:
                means = np.stack([run.mean for _, run in runs.values()])
                np.savez(file, about=np.frombuffer(about, np.uint8), means=means)
    except (Busy, NeurostormError) as error:
        LOG.debug("%s is not written (%s)", cache, error)
