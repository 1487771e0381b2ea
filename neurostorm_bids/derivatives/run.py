"""Write what a run and a subject came to, and tell whether it is there already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import GridOutputs, RunOutputs, sidecar_of, subject_embeddings
from neurostorm_bids.derivatives.sidecars import (
    fingerprint,
    model_entry,
    read_json,
    software_versions,
    write_sidecar,
)
from neurostorm_bids.derivatives.tables import (
    embeddings_table,
    predictions_table,
    read_table,
    stamped,
    subject_table,
    write_table,
)
from neurostorm_bids.encode.windows import WindowMotion
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.runs import Run
from neurostorm_bids.model.load import Model
from neurostorm_bids.model.task import Prediction
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import PlacedRun
from neurostorm_bids.runtime.atomic import sweep
from neurostorm_bids.runtime.locks import lock_folder
from neurostorm_bids.settings import Settings, digest


def hash_of(grid: Grid, model: Model, settings: Settings) -> str:
    """Digest of all settings that the numbers depend on."""
    return digest(
        {
            "version": __version__,
            "grid": grid.describe(),
            "weights": model.sha256,
            "task": repr(model.task),
            **settings.deciding,
        }
    )


def is_finished(out_dir: Path, run: Run, inputs: "list[Path]", grid: Grid, model: Model, settings: Settings) -> bool:
    """Whether a run was written with these settings from these files.

    The sidecar of the embeddings is written last, so that it vouches for the other files.
    """
    outputs = RunOutputs(run, grid.template, model.label)
    sidecar = read_json(out_dir / sidecar_of(outputs.embeddings))
    files = [out_dir / outputs.embeddings] + ([out_dir / outputs.predictions] if model.task else [])
    figures = sidecar.get("Figures")
    if not isinstance(figures, list):
        return False
    files += [out_dir / str(name) for name in figures]
    if settings.save_grid:
        saved = GridOutputs(run, grid)
        files += [out_dir / saved.nifti, settings.work / saved.int8]
    try:
        unchanged = sidecar.get("InputFiles") == fingerprint(inputs)
    except OSError:  # something is missing: the run itself will say what
        return False
    return (
        unchanged
        and sidecar.get("SettingsHash") == hash_of(grid, model, settings)
        and all(file.is_file() and file.stat().st_size for file in files)
        and _is_whole(out_dir / outputs.embeddings, sidecar)
        and (model.task is None or _n_rows(out_dir / outputs.predictions) == 1)
    )


def _n_rows(table: Path) -> int:
    return max(0, sum(1 for _ in open(table, "rb")) - 1)


def _is_whole(table: Path, sidecar: dict) -> bool:
    """Whether a table of windows has the rows and the columns that its sidecar tells of."""
    with open(table, encoding="utf-8", errors="replace") as file:
        columns = file.readline().rstrip("\n").split("\t")
        n_rows = sum(1 for _ in file)
    channels = [name for name in sidecar if name.startswith("channel")]
    count = sidecar.get("Windows", {}).get("Count") if isinstance(sidecar.get("Windows"), dict) else None
    return n_rows == count and columns[-1] in (*channels[-1:], "weights") and set(channels) <= set(columns)


@dataclass(frozen=True)
class EncodedRun:
    """What one model made of one run.

    Attributes
    ----------
    run : Run
    inputs : tuple of Path
        Every file it is made from, the BOLD first.
    placed : PlacedRun
    displacement : (source frames,) array or None
        Framewise displacement of the kept volumes, mm.
    model : Model
    starts : (windows,) int array
        First frames of the windows.
    embeddings : (windows, channels) array
    motion : WindowMotion
    censored : (windows,) bool array
    prediction : Prediction or None
    precision : str
        That it was encoded in.
    """

    run: Run
    inputs: tuple
    placed: PlacedRun
    displacement: Optional[np.ndarray]
    model: Model
    starts: np.ndarray
    embeddings: np.ndarray
    motion: WindowMotion
    censored: np.ndarray
    prediction: Optional[Prediction]
    precision: str

    @property
    def onsets(self) -> np.ndarray:
        """Of the windows, s after the start of the run, (windows,)."""
        return self.placed.frame_times[self.starts]

    @property
    def duration(self) -> float:
        """Of a window, s."""
        return self.model.n_frames * self.placed.repetition_time


def withdraw(out_dir: Path, run: Run, grid: Grid, model: Model) -> None:
    """Take away the sidecar that vouches for a run's tables and figures, before they change."""
    (out_dir / sidecar_of(RunOutputs(run, grid.template, model.label).embeddings)).unlink(missing_ok=True)


def write_run(out_dir: Path, result: EncodedRun, dataset: Dataset, settings: Settings, figures: "list[Path]") -> None:
    """Write one run's tables and sidecars for one model, after `withdraw`.

    Parameters
    ----------
    figures : list of Path
        Figures that belong to it, relative to the output folder.
    """
    run, placed, model, starts, prediction = (
        result.run, result.placed, result.model, result.starts, result.prediction
    )  # fmt: skip
    outputs = RunOutputs(run, placed.grid.template, model.label)
    stride = settings.window_stride or model.n_frames
    provenance = {
        "Description": f"NeuroSTORM embeddings, one row per window of {model.n_frames} frames",
        "Model": model_entry(model),
        "Grid": placed.grid.describe(),
        "Preprocessing": placed.steps,
        "Precision": result.precision,
        "Windows": {
            "Frames": model.n_frames,
            "Stride": stride,
            "Count": len(starts),
            "FramesNotUsed": int(len(placed.time_map) - starts[-1] - model.n_frames),
            "Censored": int(result.censored.sum()),
            "FramewiseDisplacementThreshold": settings.fd_threshold,
            "MaxCensoredFraction": settings.max_censored,
        },
        "FramewiseDisplacement": displacement_entry(result.displacement),
        "Notes": placed.notes,
        "Sources": [dataset.uri(path) for path in result.inputs],
        "SoftwareVersions": software_versions(),
        "RandomSeed": settings.random_seed,
    }
    if prediction is None:
        for path in (outputs.predictions, sidecar_of(outputs.predictions)):
            (out_dir / path).unlink(missing_ok=True)
    else:
        table, columns = stamped(*predictions_table(prediction, int((~result.censored).sum())), model.warning)
        task = {
            "Kind": model.task.kind,
            "LabelMean": model.task.label_mean,
            "LabelStd": model.task.label_std,
            "LabelRange": model.task.label_range,
            "TrainedOn": model.task.trained_on,
        }
        write_table(out_dir / outputs.predictions, table)
        write_sidecar(
            out_dir / sidecar_of(outputs.predictions),
            {**provenance, "Description": "NeuroSTORM prediction of the run", "Task": task, **columns},
        )
    table, columns = stamped(
        *embeddings_table(result.embeddings, result.onsets, result.duration, result.motion, result.censored),
        model.warning,
    )
    write_table(out_dir / outputs.embeddings, table)
    finished = {
        "SettingsHash": hash_of(placed.grid, model, settings),
        "InputFiles": fingerprint(result.inputs),
        "Figures": [path.as_posix() for path in figures],
    }
    write_sidecar(out_dir / sidecar_of(outputs.embeddings), {**provenance, **finished, **columns})


def displacement_entry(displacement: Optional[np.ndarray]) -> Optional[dict]:
    """Framewise displacement over all kept volumes, mm; `None` if it is not known."""
    known = displacement[~np.isnan(displacement)] if displacement is not None else np.empty(0)
    return {"Mean": float(known.mean()), "Max": float(known.max()), "Units": "mm"} if len(known) else None


def collect_subject(
    out_dir: Path, subject: str, grid: Grid, model: Model, settings: Settings, failed: "set[str]" = frozenset()
) -> "list[str]":
    """Write a subject's table from all its runs that were written with these settings, by this call or earlier ones.

    Parameters
    ----------
    failed : set of str
        Names of runs that failed in this call: what an earlier call wrote of them is left out.

    Returns
    -------
    notes : list of str
        Runs that were left out because they were written with other settings.
    """
    pattern = f"_space-{grid.template}_desc-{model.label}_embeddings.tsv"
    folder = out_dir / f"sub-{subject}"
    wanted = hash_of(grid, model, settings)
    notes, runs, sources = [], {}, []
    with lock_folder(out_dir):
        sweep(folder, f"sub-{subject}_")
        for path in sorted([*folder.glob(f"func/*{pattern}"), *folder.glob(f"ses-*/func/*{pattern}")]):
            name = path.name.removesuffix(pattern)
            if name in failed:
                notes.append(f"{name}: failed, so it is not in the table of sub-{subject}")
                continue
            if read_json(sidecar_of(path)).get("SettingsHash") != wanted:
                notes.append(f"{name}: written with other settings, so it is not in the table of sub-{subject}")
                continue
            try:
                runs[name] = read_table(path)
            except NeurostormError as error:
                notes.append(str(error))
                continue
            sources.append(f"bids::{path.relative_to(out_dir).as_posix()}")
        path = out_dir / subject_embeddings(subject, grid.template, model.label)
        if not runs:
            for stale in (path, sidecar_of(path)):
                stale.unlink(missing_ok=True)
            return notes
        table, columns = stamped(*subject_table(runs), model.warning)
        write_table(path, table)
        content = {
            "Description": "NeuroSTORM embeddings, one row per run and their mean weighted by windows",
            "Model": model_entry(model),
            "Grid": grid.describe(),
            "Sources": sources,
            "SoftwareVersions": software_versions(),
            "SettingsHash": wanted,
        }
        write_sidecar(sidecar_of(path), {**content, **columns})
    return notes
