"""What a call leaves behind to be looked into: its settings, and on failure what was being done."""

import json
import resource
import sys
import time
import traceback
import uuid
from pathlib import Path

from neurostorm_bids.derivatives.names import crash_file
from neurostorm_bids.derivatives.sidecars import write_sidecar
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.runs import Run
from neurostorm_bids.resample.nifti import open_image
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.settings import Settings, digest

CONFIGURATION, OUTCOME = "neurostorm.toml", "outcome.json"


def new_call_id() -> str:
    """Time and a random part, such as 20260131-142259_0f8c…: no two calls share it."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4()}"


def log_folder(out_dir: Path, subject: str, call_id: str) -> Path:
    """Where a call's files on one subject go."""
    return out_dir / f"sub-{subject}" / "log" / call_id


def write_configuration(folder: Path, settings: Settings) -> None:
    """Write the resolved settings, such that --config-file takes them again."""
    write_text(folder / CONFIGURATION, settings.as_toml())


def write_crash(folder: Path, run: str, text: str) -> Path:
    """Write the account of a failure; returns its path."""
    path = folder / crash_file(run)
    write_text(path, text)
    return path


def write_outcome(folder: Path, settings: Settings, outcomes: list, whole: bool) -> None:
    """Write what became of a subject's runs in a call, for those who look after many calls.

    Parameters
    ----------
    outcomes : list of Outcome
        Of this subject.
    whole : bool
        Whether everything that was asked for came out.
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    content = {
        "Status": "finished" if whole and all(o.status != "failed" for o in outcomes) else "failed",
        "Asked": digest(settings.asked),
        "Runs": {
            o.run: {"Status": o.status, "Windows": o.windows, "Seconds": round(o.seconds, 1), "Problems": o.problems}
            for o in outcomes
        },
        "Seconds": round(sum(o.seconds for o in outcomes), 1),
        "PeakMemoryMB": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }
    write_sidecar(folder / OUTCOME, content)


def account(run: Run, doing: str, inputs: "list[Path]", error: BaseException) -> str:
    """What was being done, what the inputs are, and where the program was."""
    lines = [
        f"run: {run.name}",
        f"problem: {error}",
        f"while: {doing}",
        "inputs:",
        *(f"  {path}  ({_about(path)})" for path in inputs),
        "",
        *traceback.format_exception(error),
    ]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _about(path: Path) -> str:
    """Size, and shape and voxels of an image."""
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
