"""Write more of each window than one vector as compressed arrays, whose axes their sidecars name."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neurostorm_bids.derivatives.names import RunOutputs, sidecar_of
from neurostorm_bids.derivatives.run import is_of, origin_of
from neurostorm_bids.derivatives.sidecars import PRIVACY, model_entry
from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.encode.parts import parts_of, token_centres
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import read_json, write_json
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import FRAME, TOKEN

DAMAGES = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)
AXES = {FRAME: ["window", "frame", "channel"], TOKEN: ["window", "x", "y", "z", "frame", "channel"]}
OF_WINDOWS = {"onset": ["window", "frame"], "censored": ["window"]}
OF_PLACES = {"world": ["x", "y", "z", "coordinate"]}
DESCRIPTIONS = {
    "embeddings": "Tokens of a stage of the network",
    "onset": "Start of the interval that a frame stands for, s after the start of the acquisition",
    "censored": "Whether the window is left out of means for head motion",
    "world": "Middles of the tokens in the space of the grid (RAS), mm",
}


def are_parts_there(source: RunSource, grid: Grid, model: Model, settings: Settings) -> bool:
    """Whether the arrays that are asked for were written with these settings from these files; sidecars are written last."""
    parts = parts_of(model, settings.encoding)
    if parts is None:
        return True
    outputs = RunOutputs(source.run, grid.template, model.label)
    try:
        origin = origin_of(source, grid, model, settings)
    except OSError:  # something is missing: reading the run will say what
        return False
    for level in _levels(settings):
        path = settings.out_dir / outputs.part(level, parts.stage)
        sidecar = read_json(sidecar_of(path))
        if not path.is_file() or sidecar.get("Bytes") != path.stat().st_size:
            return False
        if not is_of(sidecar, origin):
            return False
    return True


def write_parts(encoded: EncodedRun, settings: Settings) -> None:
    """Write the arrays that are asked for; some windows at a time are in memory."""
    parts, gridded, model = encoded.windows.parts, encoded.gridded, encoded.model
    if parts is None:
        return
    assert gridded.source is not None
    outputs = RunOutputs(gridded.source.run, gridded.grid.template, model.label)
    windows = encoded.windows.starts[:, None] + np.arange(encoded.windows.length)
    beside = {"onset": gridded.frame_onsets[windows], "censored": encoded.censored}
    n = len(windows)
    for level in _levels(settings):
        path, of_level, axes = settings.out_dir / outputs.part(level, parts.stage), beside, OF_WINDOWS
        sidecar_of(path).unlink(missing_ok=True)
        rows: Iterable[np.ndarray]
        if level == FRAME:
            rows, shape = parts.frames, parts.frames.shape
        else:
            assert parts.tokens is not None
            tokens = parts.tokens
            rows, shape = (tokens[i : i + 1] for i in range(n)), (n, *parts.shape)
            of_level = {**beside, "world": token_centres(model, gridded.grid, parts.stage)}
            axes = {**OF_WINDOWS, **OF_PLACES}
        _write_npz(path, rows, shape, of_level)
        about = {
            "Description": f"NeuroSTORM's tokens, stage {parts.stage}"
            + (", mean over space" if level == FRAME else ""),
            "Privacy": PRIVACY,
            "Model": model_entry(model),
            "Stage": parts.stage,
            "Axes": {"embeddings": AXES[level], **axes},
            "Arrays": {name: DESCRIPTIONS[name] for name in ("embeddings", *axes)},
            "Precision": encoded.windows.precision,
            "Bytes": path.stat().st_size,
        }
        write_json(sidecar_of(path), {**about, **origin_of(gridded.source, gridded.grid, model, settings)})


def _write_npz(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, ...], beside: dict[str, np.ndarray]) -> None:
    """Write ``embeddings`` row after row, and other arrays, as numpy's savez_compressed does."""

    arrays = {"embeddings": (rows, np.dtype(np.float32), shape)}
    arrays |= {name: (values, values.dtype, values.shape) for name, values in beside.items()}
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, (values, dtype, of) in arrays.items():
            # the time that zip files begin at: the same run gives the same bytes
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": of}
                np.lib.format.write_array_header_1_0(file, header)
                for row in values:
                    file.write(np.ascontiguousarray(row, dtype).tobytes())


def _levels(settings: Settings) -> list[str]:
    return [level for level in (FRAME, TOKEN) if level in settings.encoding.embedding_level]


@contextmanager
def _arrays_of(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open arrays that `write_parts` wrote; what goes wrong with them names the file."""
    try:
        with np.load(path) as arrays:
            yield arrays
    except DAMAGES as error:
        raise NeurostormError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the participant level again with --force"
        ) from None


def n_places(path: Path) -> int:
    """Return how many places an array of tokens has, without reading them.

    Raises
    ------
    NeurostormError
        If it is damaged.
    """
    with _arrays_of(path) as arrays:
        return int(np.prod(arrays["world"].shape[:3]))


def read_places(path: Path) -> np.ndarray:
    """Return the mean over frames and windows (but censored ones) of each place's tokens, (places, channels).

    Parameters
    ----------
    path : Path
        Of an array of tokens that `write_parts` wrote.

    Raises
    ------
    NeurostormError
        If it is damaged.
    """
    with _arrays_of(path) as arrays:
        tokens, censored = arrays["embeddings"], arrays["censored"]
        if not np.isfinite(tokens).all():
            raise ValueError("it holds values that are no numbers")
        kept = tokens if censored.all() else tokens[~censored]
        return np.asarray(kept.mean(axis=(0, 4), dtype=np.float64).reshape(-1, tokens.shape[5]))
