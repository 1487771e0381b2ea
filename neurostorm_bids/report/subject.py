"""One subject's report, put together from what is on disk, so that parallel calls and later ones agree."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.names import crash_file
from neurostorm_bids.derivatives.sidecars import read_json
from neurostorm_bids.derivatives.tables import censored_in, channels_of, read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.report.figures.trajectory import course_of, in_words
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.locks import lock_folder

NOT_PROCESSED = "not processed by the last call"
EMBEDDINGS = re.compile(r"(?P<run>.+)_space-(?P<space>[^_]+)_desc-(?P<label>[^_]+)_embeddings\.json")
WORDS = {"ses": "session", "task": "task", "acq": "acquisition", "dir": "direction", "run": "run", "echo": "echo"}
FIGURES = {
    "placed": (
        "The placed run",
        "Mean of the placed BOLD run and, under each slice, the template; the orange line is the run's brain mask in "
        "both. Left is left (L). The line should follow the edge of both brains, and folds, ventricles and cerebellum "
        "should lie in the same places.",
    ),
    "beyond": (
        "What lies beyond the grid",
        "The box is the model's grid; brain in red lies outside of it, and the model does not see it.",
    ),
    "Carpet": (
        "Signal over time",
        "Framewise displacement (FD) above; below, each line is a voxel's signal, detrended and standardised, from the "
        "brain's edge (top) to its centre (bottom). Vertical lines and numbers: windows. Red: windows left out for "
        "head motion.",
    ),
    "Course": ("How the embedding moves", ""),
}


@dataclass(frozen=True)
class Encoded:
    """What one model made of one run, as it is on disk."""

    run: str
    model: str
    grid: str
    warning: str
    facts: list  # of (name, text)
    notes: list
    prediction: dict
    figures: list  # of (path relative to the report, title, caption)
    versions: dict
    settings_hash: str


def write_report(
    out_dir: Path,
    subject: str,
    states: "dict[str, str]",
    problems: "Sequence[str]",
    methods: str,
    hashes: "set[str]",
    command: str,
) -> Path:
    """Write sub-X.html; returns its path.

    Parameters
    ----------
    states : dict
        Name of every run found in the input -> what became of it, such as "done" or "not asked for".
    problems : sequence of str
        Files of this subject that could not be used, and why.
    methods : str
        The methods text, HTML.
    hashes : set of str
        Digests of the settings that the methods text tells of; empty if they are not known.
    command : str
        The call.
    """
    path = out_dir / f"sub-{subject}.html"
    with lock_folder(out_dir):  # from reading to writing, so that of two calls at a time the later one has everything
        write_text(path, _render(out_dir, subject, states, problems, methods, hashes, command))
    return path


def _render(
    out_dir: Path,
    subject: str,
    states: "dict[str, str]",
    problems: "Sequence[str]",
    methods: str,
    hashes: "set[str]",
    command: str,
) -> str:
    runs = {}
    for path in _sidecars(out_dir, subject):
        encoded = _read(out_dir, path)
        if encoded:
            runs.setdefault(encoded.run, []).append(encoded)
    made_good = {run for run, state in states.items() if state == "done"}
    failures = [failure for failure in failures_of(out_dir, subject) if failure[0] not in made_good]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_data("subject.html"))
    return template.render(
        subject=subject,
        style=_data("subject.css"),
        version=__version__,
        command=command,
        runs={name: (title_of(name), blocks) for name, blocks in sorted(runs.items())},
        summary=_summary(subject, runs, states, failures),
        states=[(title_of(name), state) for name, state in sorted(states.items())],
        problems=problems,
        warnings=sorted({f"{e.model}: {e.warning}" for blocks in runs.values() for e in blocks if e.warning}),
        versions=next((blocks[0].versions for blocks in runs.values()), {}),
        methods=methods,
        hashes=hashes,
        failures=failures,
    )


def failures_of(out_dir: Path, subject: str) -> "list[tuple[str, str, str]]":
    """Failures that no later result of the run has made good: (run, path relative to the report, account)."""
    latest = {}
    for path in sorted(out_dir.glob(f"sub-{subject}/log/*/{crash_file('*')}")):  # folders are named by time
        latest[path.name] = path
    written = {}
    for path in _sidecars(out_dir, subject):
        name = EMBEDDINGS.fullmatch(path.name)["run"]
        written[name] = max(written.get(name, 0), path.stat().st_mtime)
    failures = []
    for name, path in sorted(latest.items()):
        run = name.removeprefix("crash-").removesuffix(".txt")
        if path.stat().st_mtime > written.get(run, 0):
            text = path.read_text(encoding="utf-8", errors="replace")
            failures.append((run, path.relative_to(out_dir).as_posix(), text))
    return failures


def title_of(run: str) -> str:
    """A run's name as one says it.

    >>> title_of("sub-01_ses-2_task-rest_run-1")
    'session 2, task rest, run 1'
    """
    pairs = [part.partition("-")[::2] for part in run.split("_")]
    return ", ".join(f"{WORDS.get(key, key)} {value}" for key, value in pairs if key != "sub") or run


def _sidecars(out_dir: Path, subject: str) -> "list[Path]":
    folder = out_dir / f"sub-{subject}"
    found = sorted([*folder.glob("func/*_embeddings.json"), *folder.glob("ses-*/func/*_embeddings.json")])
    return [path for path in found if EMBEDDINGS.fullmatch(path.name)]


def _read(out_dir: Path, path: Path) -> "Encoded | None":
    """What a sidecar, its tables and figures say; `None` if they are damaged or half there."""
    sidecar, name = read_json(path), EMBEDDINGS.fullmatch(path.name)
    try:
        table = read_table(path.with_suffix(".tsv"))
        steps, windows, grid = sidecar["Preprocessing"], sidecar["Windows"], sidecar["Grid"]
        embeddings, motion = channels_of(table), table["mean_framewise_displacement"].to_numpy(float)
        predicted = path.with_name(path.name.replace("_embeddings.json", "_predictions.tsv"))
        notes = [str(note) for note in sidecar.get("Notes", [])]
        prediction = {}
        if predicted.is_file():
            try:
                prediction = _prediction(predicted)
            except (IndexError, KeyError, TypeError, ValueError, NeurostormError):
                notes.append(f"{predicted.name} is damaged; run again with --force")
        figures = [
            (figure, *_caption(figure, in_words(course_of(embeddings, motion))))
            for figure in sidecar.get("Figures", []) if (out_dir / figure).is_file()
        ]  # fmt: skip
        facts = [
            ("Grid", _grid(grid)),
            ("Brain voxels covered", _brain(steps, grid)),
            ("Brain beyond the grid", _beyond(steps)),
            ("Read from", f"space {steps['InputSpace']}; {_way(steps)}"),
            ("Repetition time", _repetition_time(steps)),
            ("Volumes", f"{steps['SourceVolumes']}, {steps['DummyScansDropped']} dropped at the start"),
            ("Windows", _windows(windows, table)),
            ("Head motion", _motion(sidecar.get("FramewiseDisplacement"))),
        ]
        if "Denoising" in steps:
            facts.insert(5, ("Confounds regressed out", steps["Denoising"]["Strategy"]))
    except (KeyError, TypeError, ValueError, NeurostormError, AttributeError):
        return None
    model = sidecar.get("Model") or {}
    return Encoded(
        run=name["run"],
        model=str(model.get("Name", name["label"])),
        grid=_grid(grid),
        warning=str(model.get("Warning", "")),
        facts=facts,
        notes=notes,
        prediction=prediction,
        figures=figures,
        versions=sidecar.get("SoftwareVersions") or {},
        settings_hash=str(sidecar.get("SettingsHash")),
    )


def _summary(subject: str, runs: dict, states: dict, failures: list) -> list:
    sessions = sorted({part for name in {*runs, *states} for part in name.split("_") if part.startswith("ses-")})
    grids = sorted({encoded.grid for blocks in runs.values() for encoded in blocks})
    models = sorted({encoded.model for blocks in runs.values() for encoded in blocks})
    found = len({*runs, *states})
    return [
        ("Subject", subject),
        ("Sessions", ", ".join(session.removeprefix("ses-") for session in sessions) or "none"),
        ("Runs", f"{found} found, {len(runs)} with results, {len(failures)} failed"),
        ("Models", ", ".join(models) or "none"),
        ("Grid", "; ".join(grids) or "none"),
    ]


def _prediction(path: Path) -> dict:
    """A table of one row, and what its sidecar says of the training."""
    row, task = read_table(path).iloc[0].to_dict(), read_json(path.with_suffix(".json")).get("Task") or {}
    probabilities = {
        key.removeprefix("probability_"): float(value) for key, value in row.items() if key.startswith("probability_")
    }
    is_class, value, missing = bool(probabilities), row["value"], pd.isna(row["value"])
    unit = "" if is_class else str(row["unit"])
    prediction = {
        "target": str(row["target"]),
        "value": "no window left" if missing else str(value) if is_class else f"{float(value):.4g} {unit}",
        "probabilities": [] if missing else [(name, f"{p:.3f}") for name, p in probabilities.items()],
        "spread": "" if pd.isna(row["spread"]) else f"{float(row['spread']):.3g} {unit}",
        "windows": int(row["windows"]),
        "trained_on": str(task.get("TrainedOn") or ""),
        "outside": "",
    }
    limits = task.get("LabelRange")
    if limits and not is_class and not missing and not limits[0] <= float(value) <= limits[1]:
        prediction["outside"] = (
            f"This value lies outside the labels of the training ({limits[0]:g} to {limits[1]:g} {unit}): "
            "the model extrapolates, do not trust it."
        )
    return prediction


def _caption(figure: str, words: str) -> "tuple[str, str]":
    desc = re.search(r"_desc-([A-Za-z0-9]+)_bold\.png$", figure)
    for ending, (title, caption) in FIGURES.items():
        if desc and desc[1].endswith(ending):
            return title, caption or words
    return Path(figure).stem, ""


def _grid(grid: dict) -> str:
    shape, size = (" × ".join(f"{n:g}" for n in grid[key]) for key in ("Shape", "VoxelSizeInMM"))
    return f"{grid['Template']}, {shape} voxels of {size} mm, stored {grid['Orientation']} (--grid {grid['Name']})"


def _brain(steps: dict, grid: dict) -> str:
    litres = steps["BrainVoxels"] * float(np.prod(grid["VoxelSizeInMM"])) / 1e6
    return f"{steps['BrainVoxels']:,} ({litres:.2f} l); {steps['BrainInTemplate']:.0%} lie in the template's brain"


def _beyond(steps: dict) -> str:
    sides = ", ".join(steps.get("BrainOutsideGridSides") or [])
    return f"{steps['BrainOutsideGrid']:.1%}{f' ({sides})' if sides else ''}" if steps["BrainOutsideGrid"] else "none"


def _way(steps: dict) -> str:
    ways = (["an affine registration of our own"] if "Registration" in steps else []) + steps["Transforms"]
    return f"{', '.join(ways) or 'no transform'}; interpolation {steps['Interpolation']}"


def _windows(windows: dict, table: pd.DataFrame) -> str:
    left_out = int(censored_in(table).sum())
    text = (
        f"{len(table) - left_out} used of {len(table)}, {windows['Frames']} frames each, one every {windows['Stride']}"
    )
    if windows["FramesNotUsed"]:
        text += f"; {windows['FramesNotUsed']} frames at the end are not used"
    return text


def _motion(displacement: "dict | None") -> str:
    if not displacement:
        return "framewise displacement not known"
    return f"framewise displacement {displacement['Mean']:.2f} mm in the mean, {displacement['Max']:.2f} mm at most"


def _repetition_time(steps: dict) -> str:
    source = f"{steps['SourceRepetitionTime']:g} s"
    native = steps["TargetRepetitionTime"] == "native"
    return source if native else f"{source}, resampled to {steps['RepetitionTime']:.3g} s"


def _data(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
