"""What a report says about one run and one model, read from what is on disk."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.seen import SEEN
from neurostorm_bids.derivatives.tables import censored_in, channels_of, read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.run import PREPROCESSED
from neurostorm_bids.report.data_fit import DataFit, read_data_fit
from neurostorm_bids.report.explained import ExplainedFacts, anatomy_or_function, read_explained
from neurostorm_bids.report.figures.trajectory import describe, trajectory_of
from neurostorm_bids.runtime.json_files import read_json

EMBEDDINGS = re.compile(r"(?P<run>.+)_space-(?P<space>[^_]+)_desc-(?P<label>[^_]+)_embeddings\.json")
FIGURES = {  # end of the figure's desc- label -> title and caption
    "alignment": (
        "Alignment with the template",
        "Mean of the BOLD run in the model's grid and, under each slice, the template; the orange line is the run's "
        "brain mask in both. Left is left (L). The line should follow the edge of both brains, and folds, ventricles "
        "and cerebellum should be in the same places.",
    ),
    "fieldmap": (
        "Correction of distortion",
        "Mean of the same volumes of the raw series without and with the fieldmap, and by how many mm the signal had been "
        "shifted along the phase-encoding axis. With it, the orange line, the run's brain mask, should follow the edge of the "
        "brain more closely.",
    ),
    "outside": (
        "What lies outside the grid",
        "The box is the model's grid; brain in red lies outside of it, and the model does not see it.",
    ),
    "Carpet": (
        "Signal over time",
        "Framewise displacement (FD) above; below, each line is a voxel's signal, detrended and standardised, from the "
        "brain's edge (top) to its centre (bottom). Vertical lines and numbers: windows. Red: windows left out for "
        "head motion.",
    ),
    "Trajectory": ("How the embedding changes", ""),
}


@dataclass(frozen=True)
class EncodedFacts:
    """What one model made of one run, as it is on disk."""

    run: str
    label: str
    model: str
    grid: str
    warning: str
    facts: list[tuple[str, str]]
    notes: list[str]
    prediction: dict[str, Any]
    figures: list[tuple[str, str, str]]  # path relative to the report, title, caption
    versions: dict[str, str]
    settings_hash: str
    explained: list[ExplainedFacts] = field(default_factory=list)
    anatomy_or_function: str | None = None
    data_fit: DataFit | None = None


def read_facts(out_dir: Path, path: Path) -> EncodedFacts | None:
    """Read what a sidecar, its tables and figures say; `None` if they are damaged or incomplete.

    Parameters
    ----------
    path : Path
        The sidecar of the embeddings.
    """
    sidecar, name = read_json(path), EMBEDDINGS.fullmatch(path.name)
    assert name is not None
    try:
        table = read_table(path.with_suffix(".tsv"))
        grid = _grid(sidecar["Grid"])
        words = describe(trajectory_of(channels_of(table), table["mean_framewise_displacement"].to_numpy(float)))
        figures = [
            (figure, *_caption(figure, words)) for figure in sidecar.get("Figures", []) if (out_dir / figure).is_file()
        ]
        facts = _facts(sidecar, table)
        notes = [str(note) for note in sidecar.get("Notes", [])]
    except (KeyError, TypeError, ValueError, NeurostormError, AttributeError):
        return None
    prediction: dict[str, Any] = {}
    predicted = path.with_name(path.name.replace("_embeddings.json", "_predictions.tsv"))
    if predicted.is_file():
        try:
            prediction = _prediction(predicted)
            if sidecar.get(SEEN):
                prediction["trained_on"] += "; this person was among them"
                notes.append("The model was trained on this person: what it predicts of them is no test of it.")
        except (IndexError, KeyError, TypeError, ValueError, NeurostormError):
            notes.append(f"{predicted.name} is damaged; run again with --force")
    model, maps = sidecar.get("Model") or {}, read_explained(out_dir, path)
    return EncodedFacts(
        run=name["run"],
        label=name["label"],
        model=str(model.get("Name", name["label"])),
        grid=grid,
        warning=str(model.get("Warning", "")),
        facts=facts,
        notes=notes,
        prediction=prediction,
        figures=figures,
        versions=sidecar.get("SoftwareVersions") or {},
        settings_hash=str(sidecar.get("SettingsHash")),
        explained=maps,
        anatomy_or_function=anatomy_or_function(maps),
        data_fit=read_data_fit(path),
    )


def _facts(sidecar: dict[str, Any], table: pd.DataFrame) -> list[tuple[str, str]]:
    steps, grid = sidecar["Preprocessing"], sidecar["Grid"]
    denoised = [("Confounds regressed out", steps["Denoising"]["Strategy"])] if "Denoising" in steps else []
    licence = (sidecar.get("Model") or {}).get("License")
    return [
        *([("Licence of the model", str(licence))] if licence else []),
        ("Grid", _grid(grid)),
        ("Brain voxels covered", _brain(steps, grid)),
        ("Brain outside the grid", _outside(steps)),
        ("Read from", f"{_series(steps)}space {steps['InputSpace']}; {_transforms(steps)}"),
        *_raw_series(steps.get("RawSeries")),
        ("Brain mask", str(steps["BrainMask"])),
        ("Repetition time", _repetition_time(steps)),
        *denoised,
        ("Volumes", f"{steps['SourceVolumes']}, {steps['DummyScansDropped']} dropped at the start"),
        ("Windows", _windows(sidecar["Windows"], table)),
        ("Head motion", _motion(sidecar.get("FramewiseDisplacement"))),
    ]


def _series(steps: dict[str, Any]) -> str:
    """Say which series was read, where that is not the ordinary one."""
    mean = f"{steps['MeanAdded']} added; " if steps.get("MeanAdded") else ""
    return mean if steps["Series"] == PREPROCESSED else f"series {steps['Series']}; {mean}"


def _raw_series(steps: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Say what was done with a raw series."""
    if not steps:
        return []
    distortion, slices = steps["DistortionCorrection"], steps["SliceTiming"]
    if isinstance(distortion, dict):
        jacobian = "scaled by how far it stretches them" if distortion["Jacobian"] else "as they are"
        distortion = (
            f"fieldmap {distortion['Fieldmap']}, phase encoding {distortion['PhaseEncodingDirection']}, readout time "
            f"{distortion['TotalReadoutTime']:.4g} s ({distortion['TotalReadoutTimeFrom']}); intensities {jacobian}"
        )
    if isinstance(slices, dict):
        slices = f"slices shifted to {slices['Moment']:g} s after the start of each volume"
    return [
        ("Head motion", f"of every volume, from {steps['HeadMotion']}, in the one interpolation"),
        ("Distortion", distortion),
        ("Slice timing", slices),
    ]


def _prediction(path: Path) -> dict[str, Any]:
    """Return what a table of one row predicts, and what its sidecar says about the training."""
    row = {str(name): value for name, value in read_table(path).iloc[0].items()}
    task = read_json(path.with_suffix(".json")).get("Task") or {}
    probabilities = {
        key.removeprefix("probability_"): float(value) for key, value in row.items() if key.startswith("probability_")
    }
    is_class, value, missing = bool(probabilities), row["value"], pd.isna(row["value"])
    unit = "" if is_class else str(row["unit"])
    return {
        "target": str(row["target"]),
        "value": "no window left" if missing else str(value) if is_class else f"{float(value):.4g} {unit}",
        "probabilities": [] if missing else [(name, f"{p:.3f}") for name, p in probabilities.items()],
        "spread": "" if pd.isna(row["spread"]) else f"{float(row['spread']):.3g} {unit}",
        "windows": int(row["windows"]),
        "trained_on": str(task.get("TrainedOn") or ""),
        "outside": "" if is_class or missing else _outside_training(float(value), task.get("LabelRange"), unit),
    }


def _outside_training(value: float, limits: Any, unit: str) -> str:
    """Return a warning if a value lies outside the labels of the training."""
    if not limits or limits[0] <= value <= limits[1]:
        return ""
    return (
        f"This value lies outside the labels of the training ({limits[0]:g} to {limits[1]:g} {unit}): "
        "the model extrapolates, do not trust it."
    )


def _caption(figure: str, words: str) -> tuple[str, str]:
    desc = re.search(r"_desc-([A-Za-z0-9]+)_bold\.png$", figure)
    for ending, (title, caption) in FIGURES.items():
        if desc and desc[1].endswith(ending):
            return title, caption or words
    return Path(figure).stem, ""


def _grid(grid: dict[str, Any]) -> str:
    shape, size = (" × ".join(f"{n:g}" for n in grid[key]) for key in ("Shape", "VoxelSizeInMM"))
    return f"{grid['Template']}, {shape} voxels of {size} mm, stored {grid['Orientation']} (--grid {grid['Name']})"


def _brain(steps: dict[str, Any], grid: dict[str, Any]) -> str:
    litres = steps["BrainVoxels"] * float(np.prod(grid["VoxelSizeInMM"])) / 1e6
    return f"{steps['BrainVoxels']:,} ({litres:.2f} l); {steps['BrainInTemplate']:.0%} lie in the template's brain"


def _outside(steps: dict[str, Any]) -> str:
    sides = ", ".join(steps.get("BrainOutsideGridSides") or [])
    return f"{steps['BrainOutsideGrid']:.1%}{f' ({sides})' if sides else ''}" if steps["BrainOutsideGrid"] else "none"


def _transforms(steps: dict[str, Any]) -> str:
    chain = (["an affine registration"] if "Registration" in steps else []) + steps["Transforms"]
    return f"{', '.join(chain) or 'no transform'}; interpolation {steps['Interpolation']}"


def _windows(windows: dict[str, Any], table: pd.DataFrame) -> str:
    n_used = len(table) - int(censored_in(table).sum())
    text = f"{n_used} used of {len(table)}, {windows['Frames']} frames each, one every {windows['Stride']}"
    if windows["FramesNotUsed"]:
        text += f"; {windows['FramesNotUsed']} frames at the end are not used"
    return text


def _motion(displacement: dict[str, Any] | None) -> str:
    if not displacement:
        return "framewise displacement not known"
    return f"framewise displacement {displacement['Mean']:.2f} mm on average, {displacement['Max']:.2f} mm at most"


def _repetition_time(steps: dict[str, Any]) -> str:
    source = f"{steps['SourceRepetitionTime']:g} s"
    native = steps["TargetRepetitionTime"] == "native"
    return source if native else f"{source}, resampled to {steps['RepetitionTime']:.3g} s"
