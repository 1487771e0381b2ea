"""What a call leaves behind for later: its settings, what became of its runs and, on failure, what was being done."""

import json
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurostorm_bids import __version__
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.json_files import digest, fingerprint, write_json
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.process import peak_mb
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import OF_MODEL

CONFIGURATION, OUTCOME = "neurostorm.toml", "outcome.json"
CRASH = "crash-{}.txt"
MODELS = "models: "  # begins the line of an account that names the models without a result
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Crash:
    """The account of a run's failure.

    Attributes
    ----------
    run : str
    path : Path
    models : tuple of str
        Labels of the models that have no result because of it; empty if the account does not name them.
    text : str
    """

    run: str
    path: Path
    models: tuple[str, ...]
    text: str


def new_call_id() -> str:
    """Return a time and a random part, such as 20260131-142259_0f8c…: no two calls share it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4()}"


def log_folder(out_dir: Path, subject: str, call_id: str) -> Path:
    """Return where a call's files on one subject go."""
    return out_dir / f"sub-{subject}" / "log" / call_id


def requested(settings: Settings, model_files: Sequence[Path]) -> str:
    """Return a digest of what decides which results a subject has in the end: which runs, which models, and how.

    Parameters
    ----------
    model_files : sequence of Path
        Of the models that are no names of the registry.
    """
    settings = settings.as_given  # whether a model was loaded yet, or not
    filters = settings.selection.bids_filter_file
    files = [*model_files, *([filters] if filters and filters.is_file() else [])]
    return digest(
        {
            "version": __version__,
            "bids_dir": settings.bids_dir,
            "files": [[str(path), *about] for path, about in zip(files, fingerprint(files), strict=True)],
            **settings.changing("run", "gridded", "numbers"),
            "given": sorted(name for name in OF_MODEL if settings.resampling.is_given(name)),
        }
    )


def write_configuration(folder: Path, settings: Settings) -> None:
    """Write the settings, such that --config-file takes them again."""
    write_text(folder / CONFIGURATION, settings.as_toml())


def write_crash(folder: Path, outcome: Outcome) -> Path:
    """Write the account of a run's failure; returns its path."""
    path = folder / CRASH.format(outcome.run)
    account = outcome.account or "\n".join(outcome.problems) + "\n"
    models = f"{MODELS}{', '.join(outcome.failed_models)}\n" if outcome.failed_models else ""
    write_text(path, models + account)
    return path


def latest_crashes(out_dir: Path, subject: str) -> list[Crash]:
    """Return the latest account of every run of a subject that ever failed."""
    latest: dict[str, Path] = {}
    for path in sorted(out_dir.glob(f"sub-{subject}/log/*/{CRASH.format('*')}")):  # folders are named by time
        latest[path.name] = path
    crashes = []
    for name, path in sorted(latest.items()):
        text = path.read_text(encoding="utf-8", errors="replace")
        first = text.partition("\n")[0]
        models = tuple(first.removeprefix(MODELS).split(", ")) if first.startswith(MODELS) else ()
        crashes.append(Crash(name.removeprefix("crash-").removesuffix(".txt"), path, models, text))
    return crashes


def write_outcome(folder: Path, wanted: str, outcomes: Sequence[Outcome], complete: bool) -> None:
    """Write what became of a subject's runs in a call, for those who look after many calls.

    Parameters
    ----------
    wanted : str
        From `requested`.
    outcomes : sequence of Outcome
        Of this subject.
    complete : bool
        Whether everything that was asked for came out.
    """
    content: dict[str, Any] = {
        "Status": FINISHED if complete and not any(o.failed for o in outcomes) else FAILED,
        "Requested": wanted,
        "Runs": {
            o.run: {"Status": o.status, "Windows": o.windows, "Seconds": round(o.seconds, 1), "Problems": o.problems}
            for o in outcomes
        },
        "Seconds": round(sum(o.seconds for o in outcomes), 1),
        "PeakMemoryMB": round(peak_mb()),
    }
    write_json(folder / OUTCOME, content)


def crash_account(run: str, doing: str, inputs: Sequence[Path], error: BaseException) -> str:
    """Return what was being done, what the inputs are, and where the program was."""
    lines = [
        f"run: {run}",
        f"problem: {error}",
        f"while: {doing}",
        "inputs:",
        *(f"  {path}  ({_about(path)})" for path in inputs),
        "",
        *traceback.format_exception(error),
    ]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _about(path: Path) -> str:
    """Return the size of a file and, of an image, its shape and voxels."""
    from neurostorm_bids.resample.nifti import open_image

    try:
        size = f"{path.stat().st_size} bytes"
        if not path.name.endswith((".nii", ".nii.gz")):
            return size
        image, _ = open_image(path)
        voxels = " x ".join(f"{v:.3g}" for v in image.header.get_zooms()[:3])
        return f"{size}, {json.dumps(image.shape)}, {voxels} mm, {image.get_data_dtype()}"
    except NeurostormError as problem:
        return str(problem)
    except Exception as problem:  # a damaged file is why we are here
        return f"cannot be read: {problem}"
