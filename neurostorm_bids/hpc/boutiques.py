"""A Boutiques descriptor of the command, for Nipoppy, CBRAIN and whatever else reads them.

Made from the settings, so that options, limits and help stand in one place. Schema 0.5, as the tool ``bosh`` validates it.
"""

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from neurostorm_bids import __version__
from neurostorm_bids.runtime.options import Option, default_in_words, options_of, takes_several, value_type
from neurostorm_bids.settings import Settings

SCHEMA = "0.5"
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {
        "id": "bids_dir",
        "name": "BIDS_DIR",
        "type": "File",
        "description": "Output folder of fMRIPrep or NiBabies, raw data set that has it in derivatives/, or folder of HCP or UK Biobank",
    },
    {"id": "out_dir", "name": "OUT_DIR", "type": "String", "description": "Folder of the results"},
    {
        "id": "analysis_level",
        "name": "Level",
        "type": "String",
        "value-choices": ["participant", "group"],
        "description": "Runs, or what is asked of all of them",
    },
)


def descriptor(image: str, kind: str) -> dict[str, Any]:
    """Return the descriptor.

    Parameters
    ----------
    image : str
        Name of the container image in a registry; a ``.sif`` is given to bosh itself (``--imagepath``).
    kind : {"docker", "singularity"}
    """
    parts: list[Any] = [group.default for group in fields(Settings)[3:]]
    options = [_input(type(part), each, details) for part in parts for each, details in options_of(type(part))]
    inputs = [*({**each, "value-key": f"[{each['id'].upper()}]"} for each in ARGUMENTS), *options]
    groups = [
        {
            "id": f"group_{type(part).__name__.lower()}",
            "name": part.title,
            "members": [each.name for each, _ in options_of(type(part))],
        }
        for part in parts
    ]
    return {
        "name": "neurostorm_bids",
        "description": "NeuroSTORM embeddings and predictions for what fMRIPrep wrote (BIDS App)",
        "tool-version": __version__,
        "schema-version": SCHEMA,
        "command-line": " ".join(["neurostorm", *(each["value-key"] for each in inputs)]),
        "container-image": {"type": kind, "image": image},
        "inputs": inputs,
        "groups": groups,
        "output-files": [
            {"id": "results", "name": "Results, as BIDS derivatives", "path-template": "[OUT_DIR]", "optional": False}
        ],
        "error-codes": [
            {"code": 1, "description": "Not all that was asked for succeeded; the last lines say what failed"},
            {"code": 2, "description": "The command line was not understood"},
            {"code": 75, "description": "A training was stopped and can go on (--resume)"},
            {"code": 130, "description": "Stopped by Ctrl-C"},
            {"code": 143, "description": "Stopped by SIGTERM"},
        ],
        "tags": {"domain": ["neuroinformatics", "fmri"], "standard": ["bids-app"]},
    }


def _input(group: type, each: Field[Any], details: Option) -> dict[str, Any]:
    """Return one option as an input."""
    kind, flag = value_type(group, each.name), f"--{each.name.replace('_', '-')}"
    found: dict[str, Any] = {
        "id": each.name,
        "name": flag,
        "command-line-flag": flag,
        "value-key": f"[{each.name.upper()}]",
        "description": _described(each, details),
        "optional": True,
    }
    if kind is bool or each.name == "verbose":
        return {**found, "type": "Flag"}
    if takes_several(group, each.name):
        found["list"] = True
    if isinstance(details.choices, tuple) and details.choices:  # lists that are made depend on what is installed
        words = () if details.word_for_none is None else (details.word_for_none,)
        return {**found, "type": "String", "value-choices": list(dict.fromkeys((*words, *details.choices)))}
    if kind in (int, float) and details.word_for_none is None:
        return {**found, "type": "Number", "integer": kind is int, **_limits(details)}
    return {**found, "type": "File" if kind is Path and details.must_exist else "String"}


def _described(each: Field[Any], details: Option) -> str:
    """Return the help, the word that may stand for a number, and the default, which the command itself has if nothing is given."""
    words, default = [details.help], default_in_words(each, details)
    if details.word_for_none is not None and not details.choices:
        words.append(f"Or: {details.word_for_none}.")
    if default and each.name != "verbose":
        words.append(f"Default: {default}.")
    return " ".join(words)


def _limits(details: Option) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if details.least is not None:
        limits["minimum"] = details.least
        if details.above:
            limits["exclusive-minimum"] = True
    if details.most is not None:
        limits["maximum"] = details.most
    return limits
