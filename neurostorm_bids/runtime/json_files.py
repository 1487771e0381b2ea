"""JSON files that we write ourselves, and digests of their content."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neurostorm_bids.runtime.atomic import write_text


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that we wrote; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def digest(content: Mapping[str, Any]) -> str:
    """Return a short digest that is equal for equal content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fingerprint(paths: Iterable[Path]) -> list[list[str | int]]:
    """Return name, size and modification time (ns) of files, by which a changed input is noticed."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def plain_number(value: float) -> float | None:
    """Return a number with six digits, as JSON has it, which knows no NaN.

    >>> plain_number(1 / 3), plain_number(float("nan"))
    (0.333333, None)
    """
    return float(f"{value:.6g}") if math.isfinite(value) else None


def unknown_as_nan(value: float | None) -> float:
    """Return a number that JSON holds; NaN where it holds none."""
    return math.nan if value is None else float(value)
