"""Write what one model made of one run, and tell whether it is there already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.adoption import adoption_entry
from neurostorm_bids.derivatives.gridded_files import gridding_digest, made_from
from neurostorm_bids.derivatives.names import GriddedOutputs, RunOutputs, sidecar_of
from neurostorm_bids.derivatives.seen import SEEN, was_seen
from neurostorm_bids.derivatives.sidecars import PRIVACY, model_entry, software_versions
from neurostorm_bids.derivatives.tables import embeddings_table, predictions_table, write_table
from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.json_files import digest, fingerprint, read_json, write_json
from neurostorm_bids.settings import Settings


def settings_hash(grid: Grid, model: Model, settings: Settings) -> str:
    """Return a digest of everything that the numbers depend on, beside the input files."""
    return digest(
        {
            "version": __version__,
            "grid": grid.describe(),
            "weights": model.sha256,
            "task": repr(model.task),
            **settings.numbers,
        }
    )


def is_finished(source: RunSource, grid: Grid, model: Model, settings: Settings) -> bool:
    """Whether a run was written with these settings from these files.

    The sidecar of the embeddings is written last, so that it vouches for the other files.
    """
    out_dir = settings.out_dir
    outputs = RunOutputs(source.run, grid.template, model.label)
    sidecar = read_json(out_dir / sidecar_of(outputs.embeddings))
    figures = sidecar.get("Figures")
    if not isinstance(figures, list) or sidecar.get("SettingsHash") != settings_hash(grid, model, settings):
        return False
    files = [out_dir / outputs.embeddings, out_dir / outputs.data_fit, *(out_dir / str(name) for name in figures)]
    if model.task:
        files.append(out_dir / outputs.predictions)
    if settings.resampling.save_grid:
        saved = GriddedOutputs(source.run, grid)
        files += [out_dir / saved.nifti, out_dir / sidecar_of(saved.nifti), settings.work / saved.int8]
    try:
        unchanged = sidecar.get("InputFiles") == fingerprint(source.inputs)
        if settings.resampling.save_grid:
            made = gridding_digest(source, grid, settings.changing("gridded"))
            unchanged = unchanged and made_from(settings.work / saved.int8) == made
    except OSError:  # something is missing: reading the run will say what
        return False
    return (
        unchanged
        and all(file.is_file() and file.stat().st_size for file in files)
        and _is_complete(out_dir / outputs.embeddings, sidecar)
        and (model.task is None or _n_rows(out_dir / outputs.predictions) == 1)
    )


def origin_of(source: RunSource, grid: Grid, model: Model, settings: Settings) -> dict[str, Any]:
    """Return what the sidecars of all files of a run and a model say of settings and input files, by which `is_of` knows them."""
    return {"SettingsHash": settings_hash(grid, model, settings), "InputFiles": fingerprint(source.inputs)}


def is_of(sidecar: dict[str, Any], embeddings: dict[str, Any]) -> bool:
    """Whether a file beside a table of embeddings is of the run as it was embedded, by the sidecars of both."""
    return all(sidecar.get(key) == embeddings.get(key) is not None for key in ("SettingsHash", "InputFiles"))


def invalidate(out_dir: Path, run: Run, grid: Grid, model: Model) -> None:
    """Remove the sidecar that vouches for a run's tables and figures, before they change."""
    (out_dir / sidecar_of(RunOutputs(run, grid.template, model.label).embeddings)).unlink(missing_ok=True)


def write_run(encoded: EncodedRun, figures: Sequence[Path], dataset: Dataset, settings: Settings) -> None:
    """Write the tables and sidecars of one run and one model, after `invalidate`.

    Parameters
    ----------
    figures : sequence of Path
        The figures that belong to it, relative to the output folder.
    """
    source, grid, model, out_dir = encoded.gridded.source, encoded.gridded.grid, encoded.model, settings.out_dir
    assert source is not None
    outputs = RunOutputs(source.run, grid.template, model.label)
    provenance = _provenance(encoded, source, dataset, settings)
    if encoded.prediction is None:
        for path in (outputs.predictions, sidecar_of(outputs.predictions)):
            (out_dir / path).unlink(missing_ok=True)
    else:
        table, columns = predictions_table(encoded, provenance.get(SEEN))
        write_table(out_dir / outputs.predictions, table)
        about = {"Description": "NeuroSTORM prediction of the run", "Task": _task_entry(model)}
        write_json(out_dir / sidecar_of(outputs.predictions), {**provenance, **about, **columns})
    table, columns = embeddings_table(encoded)
    write_table(out_dir / outputs.embeddings, table)
    finished = {
        **origin_of(source, grid, model, settings),
        "Figures": [path.as_posix() for path in figures],
    }
    write_json(out_dir / sidecar_of(outputs.embeddings), {**provenance, **finished, **columns})


def _provenance(encoded: EncodedRun, source: RunSource, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Return how a run was made, for its sidecars."""
    gridded, model, windows = encoded.gridded, encoded.model, encoded.windows
    seen = was_seen(model, dataset, source.run.subject)
    return {
        "Description": f"NeuroSTORM embeddings, one row per window of {windows.length} frames",
        "Privacy": PRIVACY,
        "Model": model_entry(model),
        **({} if seen is None else {SEEN: seen}),
        "Grid": gridded.grid.describe(),
        "Preprocessing": gridded.steps,
        "ResamplingOfModel": adoption_entry(model, settings),
        "Precision": windows.precision,
        "Windows": {
            "Frames": windows.length,
            "Stride": windows.stride,
            "Count": len(windows.starts),
            **({"Conditions": list(dict.fromkeys(windows.trial_type))} if windows.trial_type else {}),
            "FramesNotUsed": int(gridded.shape[3] - windows.starts[-1] - windows.length),
            "Censored": int(encoded.censored.sum()),
            "FramewiseDisplacementThreshold": settings.censoring.fd_threshold,
            "MaxCensoredFraction": settings.censoring.max_censored,
        },
        "FramewiseDisplacement": _displacement_entry(gridded.displacement),
        "Notes": gridded.notes,
        "Sources": [dataset.uri(path) for path in source.inputs],
        "SoftwareVersions": software_versions(),
        "RandomSeed": settings.conduct.random_seed,
    }


def _task_entry(model: Model) -> dict[str, Any]:
    assert model.task is not None
    return {
        "Kind": model.task.kind,
        "LabelMean": model.task.label_mean,
        "LabelStd": model.task.label_std,
        "LabelRange": model.task.label_range,
        "TrainedOn": model.task.trained_on,
        "ClassShares": dict(zip(model.task.classes, model.task.class_shares, strict=False)) or None,
    }


def _displacement_entry(displacement: np.ndarray | None) -> dict[str, Any] | None:
    """Return the framewise displacement over all kept volumes, mm; `None` if it is not known."""
    known = displacement[~np.isnan(displacement)] if displacement is not None else np.empty(0)
    return {"Mean": float(known.mean()), "Max": float(known.max()), "Units": "mm"} if len(known) else None


def _n_rows(table: Path) -> int:
    with open(table, "rb") as file:
        return max(0, sum(1 for _ in file) - 1)


def _is_complete(table: Path, sidecar: dict[str, Any]) -> bool:
    """Whether a table of windows has the rows and columns that its sidecar lists."""
    with open(table, encoding="utf-8", errors="replace") as file:
        columns = file.readline().rstrip("\n").split("\t")
        n_rows = sum(1 for _ in file)
    channels = [name for name in sidecar if name.startswith("channel")]
    count = sidecar.get("Windows", {}).get("Count") if isinstance(sidecar.get("Windows"), dict) else None
    return n_rows == count and columns[-1] in (*channels[-1:], "weights") and set(channels) <= set(columns)
