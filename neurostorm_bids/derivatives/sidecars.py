"""JSON sidecars: what a table holds and exactly how it was made."""

import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from neurostorm_bids.model.load import Model
from neurostorm_bids.runtime.atomic import write_text

LIBRARIES = ("neurostorm_bids", "torch", "numpy", "scipy", "nibabel", "nilearn", "nitransforms", "pybids", "pandas")


def model_entry(model: Model) -> dict:
    """What a sidecar says of the model."""
    entry = {"Name": model.name, "Source": model.source, "WeightsSHA256": model.sha256}
    if model.about:
        entry["Description"] = model.about
    if model.warning:
        entry["Warning"] = model.warning
    return entry


def software_versions() -> dict:
    """Versions of Python and of the libraries that the numbers depend on."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def fingerprint(paths: "Iterable[Path]") -> list:
    """Size and time of change (ns) of input files, by which a changed input is noticed."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def write_sidecar(path: Path, content: dict) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object that we wrote; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
