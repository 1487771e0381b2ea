"""What a report says about whether a run is like the data of the model, read from what is on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurostorm_bids.derivatives.names import data_fit_beside
from neurostorm_bids.runtime.json_files import read_json

HALF, MOST_NAMED = 0.5, 4


@dataclass(frozen=True)
class DataFit:
    """How a run compares with the data of a model.

    Attributes
    ----------
    reference : str
        What it is compared with, or that nothing is known.
    flags : list of str
        What is asked about the run.
    rows : list of (str, str, str, bool)
        What was measured, the run's value, the reference's band, and whether it is flagged.
    """

    reference: str
    flags: list[str]
    rows: list[tuple[str, str, str, bool]]


def read_data_fit(embeddings: Path) -> DataFit | None:
    """Read the comparison beside a table of embeddings; `None` if there is none, or it is damaged.

    Parameters
    ----------
    embeddings : Path
        The sidecar of the embeddings.
    """
    about = read_json(data_fit_beside(embeddings))
    try:
        measures = about["Measures"].values()
        flags = [str(each["Flag"]) for each in measures if each["Flag"]]
        rows = [(_name(each), _number(each["Value"]), _band(each), bool(each["Flag"])) for each in measures]
        return DataFit(str(about["Reference"]), flags, rows + _hardly_covered(about.get("BlockCoverage") or {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _hardly_covered(coverage: dict[str, float]) -> list[tuple[str, str, str, bool]]:
    """Return a row of the blocks of the brain that the run hardly covers; nothing where it is not known."""
    few = [name for name, share in coverage.items() if share < HALF]
    said = f"{len(few)} of {len(coverage)}" + (f": {', '.join(few[:MOST_NAMED])}" if few else "")
    more = ", …" if len(few) > MOST_NAMED else ""
    return [("Blocks of 24 mm covered by less than half", said + more, "", False)] if coverage else []


def _name(each: dict[str, Any]) -> str:
    return str(each["Description"]) + (f" ({each['Units']})" if each["Units"] else "")


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3g}"


def _band(each: dict[str, Any]) -> str:
    if not each["Band"] or None in each["Band"]:
        return ""
    low, high = each["Band"]
    return f"{_number(low)} to {_number(high)}, middle {_number(each['Middle'])}"
