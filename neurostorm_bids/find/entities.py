"""The entities of BIDS file names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

OF_THE_SPACE = ("space", "cohort", "res", "den", "desc")  # entities that tell versions of one run apart
ECHO = "echo"
LABEL = "[A-Za-z0-9+]+"


def entities_of(path: Path | str) -> dict[str, str]:
    """Return the key-value pairs of a BIDS file name, in their order.

    >>> entities_of("sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz")["res"]
    '2'
    """
    pairs = (part.partition("-") for part in stem_of(Path(path)).split("_"))
    return {key: value for key, dash, value in pairs if dash}


def name_of(entities: dict[str, str] | tuple[tuple[str, str], ...]) -> str:
    """Return the part of a file name that entities make.

    >>> name_of({"sub": "01", "task": "rest"})
    'sub-01_task-rest'
    """
    pairs = entities.items() if isinstance(entities, dict) else entities
    return "_".join(f"{key}-{value}" for key, value in pairs)


def without_echo(name: str) -> str:
    """Return a run's name as fMRIPrep uses it for files that all echoes share.

    >>> without_echo("sub-01_task-rest_echo-2")
    'sub-01_task-rest'
    """
    return "_".join(part for part in name.split("_") if not part.startswith(f"{ECHO}-"))


def letters_and_digits(name: str) -> str:
    """Return a name as a BIDS label, which has nothing but letters and digits.

    >>> letters_and_digits("NDAR_INV-01")
    'NDARINV01'
    """
    return re.sub("[^A-Za-z0-9]", "", name)


def stem_of(path: Path) -> str:
    """Return a file's name without its extension."""
    return re.sub(r"\.nii(\.gz)?$|\.json$|\.tsv$", "", path.name)


def near_miss(entity: str, wanted: Iterable[str], there: Iterable[str]) -> str:
    """Return a question if one of the labels that were asked for is nearly one of those that are there.

    >>> near_miss("ses", ["01"], ["1", "2"])
    '; did you mean ses-1?'
    """
    known = sorted(set(there))
    for label in wanted:
        alike = [each for each in known if each.lstrip("0") == label.lstrip("0") or each.lower() == label.lower()]
        near = alike or get_close_matches(label, known, 1, cutoff=0.8)
        if near and label not in known:
            return f"; did you mean {entity}-{near[0]}?"
    return ""


def as_number(label: str | None) -> int | str | None:
    """Return an index (run, echo) as a number, so that 1 and 01 are the same; other labels as they are."""
    return int(label) if label and label.isascii() and label.isdecimal() else label
