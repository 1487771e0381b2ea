"""Keep a gridded run: as NIfTI for people, and as the int8 store that training reads."""

import base64
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import GriddedOutputs, sidecar_of
from neurostorm_bids.derivatives.sidecars import PRIVACY
from neurostorm_bids.encode.data_fit import Measures, as_plain, from_plain
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.timing import TimeMap
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import digest, fingerprint, read_json, write_json

FRAMES = 16  # written at a time
FORMAT = 2  # of stores; the first one held whole volumes
LEVELS = 65000  # of the int16 numbers that a NIfTI's values are spread over


def write_nifti(path: Path, run: GriddedRun) -> None:
    """Write the z-scored run as NIfTI, int16 with a scale, with the grid's affine and its repetition time."""
    smallest, largest = run.background, (run.statistics.maximum - run.statistics.mean) / run.statistics.std
    slope = float(largest - smallest) / LEVELS
    intercept = float(largest + smallest) / 2
    header = nib.Nifti1Header()
    header.set_data_shape(run.shape)
    header.set_data_dtype(np.int16)
    header.set_sform(run.affine, code=4)  # 4: MNI space
    header.set_qform(run.affine, code=4)
    header.set_xyzt_units("mm", "sec")
    header.set_zooms((*run.grid.voxel_size, run.repetition_time))
    header.set_slope_inter(slope, intercept)
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as plain,
        # no file name and no time in the header: the same run gives the same bytes
        igzip.IGzipFile("", "wb", compresslevel=2, fileobj=plain, mtime=0) as file,
    ):
        # nibabel leaves slope and offset to the writer of the data, which is us
        header["vox_offset"] = header.single_vox_offset
        header["scl_slope"], header["scl_inter"] = slope, intercept
        file.write(header.binaryblock + bytes(header.single_vox_offset - len(header.binaryblock)))
        for start in range(0, run.shape[3], FRAMES):
            volumes = run.window(start, min(start + FRAMES, run.shape[3]))
            file.write(np.round((volumes - intercept) / slope).astype("<i2").tobytes(order="F"))


def write_int8(
    path: Path, run: GriddedRun, made_from: str, dataset: str = "", measures: Measures | None = None
) -> None:
    """Write the z-scored run as training reads it: int8, (T, brain voxels), scale = largest magnitude / 127.

    The published stores hold whole volumes, three quarters of which are background.

    Parameters
    ----------
    path : Path
        Ends in .npy; scale, brain, grid and times are in a JSON beside it, which is written last and vouches for it.
    made_from : str
        Digest of inputs and settings, by which a store that is out of date is noticed.
    dataset : str
        Name of the data set, by which people are known again.
    measures : Measures, optional
        Of the run, of which a model that is trained on it makes its reference figures.
    """
    path.with_suffix(".json").unlink(missing_ok=True)
    largest = max(abs(float(run.background)), abs((run.statistics.maximum - run.statistics.mean) / run.statistics.std))
    scale = largest / 127
    with replacing(path) as temporary, open(temporary, "wb") as file:
        n_frames = run.shape[3]
        header = {"descr": "|i1", "fortran_order": False, "shape": (n_frames, len(run.brain))}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n_frames, FRAMES):
            signal = run.signal(start, min(start + FRAMES, n_frames))
            file.write(np.round(signal / scale).astype(np.int8).tobytes())
    write_json(
        path.with_suffix(".json"),
        {
            "Format": FORMAT,
            "Scale": scale,
            "Shape": list(run.grid.shape),
            "Brain": _packed(run),
            "Background": float(run.background),
            "RepetitionTime": run.repetition_time,
            "FirstFrameOnset": float(run.frame_onsets[0]),
            "Grid": run.grid.describe(),
            "Displacement": _as_json(run.displacement),
            "FirstVolumes": run.time_map.lower.tolist(),
            "SharesOfNextVolumes": run.time_map.fraction.tolist(),
            "Dataset": dataset,
            "Measures": None if measures is None else as_plain(measures),
            "MadeFrom": made_from,
        },
    )


@dataclass(frozen=True)
class StoredRun:
    """A gridded run in an int8 store; frames are read when they are asked for, and nothing stays open in between.

    Attributes
    ----------
    path : Path
        Of the .npy file, (T, brain voxels) int8.
    scale : float
        Times a stored number gives a z-score.
    background : float
        z-score outside the brain.
    shape : tuple
        (X, Y, Z, T).
    written : int
        When the file was last changed, ns.
    local : callable, optional
        Returns where a file is read instead: a copy on this machine.
    """

    path: Path
    scale: float
    background: float
    shape: tuple[int, ...]
    written: int
    local: Callable[[Path], Path] | None = None

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return frames ``start`` to ``stop``, float32, (X, Y, Z, stop - start), as a `GriddedRun` does."""
        return np.moveaxis(self.stored(start, stop).astype(np.float32) * np.float32(self.scale), 0, -1)

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return frames as they are stored, int8, (stop - start, X, Y, Z)."""
        try:
            if self.path.stat().st_mtime_ns != self.written:
                raise NeurostormError(
                    f"{self.path} was replaced by another call, with other settings or data; start again"
                )
            frames = np.load(self.local(self.path) if self.local else self.path, mmap_mode="r")[start:stop]
            volumes = np.full(
                (len(frames), math.prod(self.shape[:3])), round(self.background / self.scale), dtype=np.int8
            )
            volumes[:, _brain(self.path, self.written)] = frames
            return volumes.reshape(-1, *self.shape[:3])
        except (OSError, ValueError, EOFError) as error:
            raise NeurostormError(
                f"{self.path} cannot be read ({error}); remove it, and it will be made again"
            ) from None


def made_from(path: Path) -> str | None:
    """Return the digest of what a store was made from; `None` if there is no complete store."""
    return read_json(path.with_suffix(".json")).get("MadeFrom") if path.is_file() else None


def is_complete(path: Path) -> bool:
    """Whether a store can be opened, has the length that its header says, and holds head motion as far as it is known."""
    try:
        return len(read_motion(path).time_map) == read_int8(path).shape[3]
    except NeurostormError:
        return False


def read_int8(path: Path) -> StoredRun:
    """Open a store that `write_int8` wrote.

    Raises
    ------
    NeurostormError
        If it is not one, or damaged.
    """
    about = read_json(path.with_suffix(".json"))
    try:
        written = path.stat().st_mtime_ns
        stored = np.load(path, mmap_mode="r")
        if about.get("Format") != FORMAT:
            raise ValueError("another version of neurostorm_bids wrote it")
        scale, background, shape = float(about["Scale"]), float(about["Background"]), tuple(map(int, about["Shape"]))
        if stored.dtype != np.int8 or stored.ndim != 2 or not (0 < scale < np.inf and np.isfinite(background)):
            raise ValueError("no int8 store")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise NeurostormError(
            f"{path} cannot be read ({type(error).__name__}: {error}); remove it and its .json, and it will be made again"
        ) from None
    return StoredRun(path, scale, background, (*shape, len(stored)), written)


def _packed(run: GriddedRun) -> str:
    """Return which voxels of a run's grid are brain, as text."""
    inside = np.zeros(math.prod(run.grid.shape), bool)
    inside[run.brain] = True
    return base64.b64encode(zlib.compress(np.packbits(inside).tobytes())).decode()


@lru_cache(maxsize=16)
def _brain(path: Path, _written: int) -> np.ndarray:
    """Return the brain voxels of a store, as indices into the flattened grid."""
    try:
        about = read_json(path.with_suffix(".json"))
        bits = np.frombuffer(zlib.decompress(base64.b64decode(about["Brain"])), np.uint8)
        return np.flatnonzero(np.unpackbits(bits)).astype(np.int32)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"its .json does not say which voxels it holds: {error}") from None


def read_measures(path: Path) -> Measures | None:
    """Read what was measured of the run in a store; `None` if nothing was."""
    plain = read_json(path.with_suffix(".json")).get("Measures")
    return None if plain is None else from_plain(plain)


@dataclass(frozen=True)
class StoredMotion:
    """Head motion during a run in an int8 store.

    Attributes
    ----------
    time_map : TimeMap
        Which volumes each frame was mixed from.
    displacement : (volumes,) array or None
        As of a `GriddedRun`.
    """

    time_map: TimeMap
    displacement: np.ndarray | None


def read_motion(path: Path) -> StoredMotion:
    """Read the head motion beside a store that `write_int8` wrote.

    Raises
    ------
    NeurostormError
        If it is not there.
    """
    about = read_json(path.with_suffix(".json"))
    try:
        displacement = None if about["Displacement"] is None else np.array(about["Displacement"], float)
        lower, fraction = np.array(about["FirstVolumes"], int), np.array(about["SharesOfNextVolumes"], float)
        return StoredMotion(TimeMap(lower, fraction, float(about["RepetitionTime"])), displacement)
    except (ValueError, KeyError, TypeError) as error:
        raise NeurostormError(
            f"{path} has no head motion beside it ({type(error).__name__}: {error}); remove it and its .json, and it will be "
            "made again"
        ) from None


def _as_json(values: np.ndarray | None) -> list[float | None] | None:
    """Return numbers as JSON has them, which knows no NaN."""
    return None if values is None else [None if np.isnan(value) else float(value) for value in values]


def gridding_digest(source: RunSource, grid: Grid, options: dict[str, Any]) -> str:
    """Return a digest of everything that a gridded run depends on: inputs, grid, options.

    Parameters
    ----------
    options : dict
        Those that change the gridded run.
    """
    return digest({"version": __version__, "grid": grid.describe(), "inputs": fingerprint(source.inputs), **options})


def save_gridded(out_dir: Path, work: Path, run: GriddedRun, made_from: str, dataset: str, measures: Measures) -> None:
    """Keep a gridded run, as NIfTI in the output folder and as int8 in the work folder.

    Parameters
    ----------
    made_from : str
        From `gridding_digest`.
    dataset : str
        Name of the data set.
    measures : Measures
        Of the run.
    """
    assert run.source is not None
    outputs = GriddedOutputs(run.source.run, run.grid)
    (work / outputs.int8).with_suffix(".json").unlink(missing_ok=True)  # it vouches for the NIfTI too
    write_nifti(out_dir / outputs.nifti, run)
    write_json(
        out_dir / sidecar_of(outputs.nifti),
        {
            "Description": "The run in the grid of the model, as the model sees it",
            "RepetitionTime": run.repetition_time,
            "TaskName": dict(run.source.run.entities).get("task", "n/a"),
            "SkullStripped": True,
            "Resolution": f"2 mm, grid {run.grid.name}",
            "Units": "z-score",
            "Privacy": PRIVACY,
            "Preprocessing": run.steps,
        },
    )
    write_int8(work / outputs.int8, run, made_from, dataset, measures)
