"""The data set's own files: dataset_description.json, .bidsignore, README and CHANGES."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurostorm_bids import __version__
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.runtime.atomic import sweep, write_text
from neurostorm_bids.runtime.json_files import digest, read_json, write_json
from neurostorm_bids.runtime.locks import lock_shared_files

BIDS_VERSION = "1.10.0"
NAME = "neurostorm_bids"
IGNORED = (
    "*_embeddings.tsv",
    "*_embeddings.json",
    "*_predictions.tsv",
    "*_predictions.json",
    "*_datafit.json",
    "*_stat-*",
    "sub-*.html",
    "group*",
    "sub-*/figures",
    "sub-*/log",
    "logs",
    ".locks",
    "models",
    "work",
)
TEMPLATEFLOW = "templateflow"  # a link for the URIs of its files; it is not a source data set
README = """# NeuroSTORM embeddings and predictions

Written by neurostorm_bids from preprocessed BOLD runs.

- sub-X.html: the report of a subject; open it before any table
- sub-X/[ses-Y/]func/*_embeddings.tsv: one row per window of a run; the .json beside it says what each column is and
  how it was made
- sub-X/[ses-Y/]func/*_predictions.tsv: one row, what a model with a head predicts for the run
- sub-X/[ses-Y/]func/*_datafit.json: how the run compares with the data of the model
- sub-X/[ses-Y/]func/*_frames.npz, *_tokens.npz: vectors of frames, and of places and frames (--embedding-level); the .json
  names the axes
- sub-X/[ses-Y/]func/*_stat-attribution*: where in the brain a prediction comes from, with checks in the .json
- sub-X/[ses-Y/]func/*_seg-*_stat-mean_timeseries.tsv, *_stat-pearsoncorrelation_relmat.tsv: mean series of parcels and
  their correlations (--timeseries); *_stat-coverage_bold.tsv: how much of each parcel the run covers
- sub-X/sub-X_*_embeddings.tsv: one row per run, and their mean
- models/: models that were fine-tuned here, each with its card
- logs/CITATION.*: methods text and references for papers
- sub-X/log/: settings of every call, and accounts of failures

Embeddings and maps are made from a person's data and can identify that person among others: share them as you would share
the data themselves.

Research use only: not for diagnosis.
"""
CITATION = (
    "Please cite Wang et al. (2026), Towards a general-purpose foundation model for functional MRI analysis, "
    "Nature Biomedical Engineering, https://doi.org/10.1038/s41551-026-01666-y"
)

Entry = dict[str, Any]  # of GeneratedBy


def write_description(
    out_dir: Path, dataset: Dataset, warnings: Sequence[str], configuration: Entry, results: bool = False
) -> tuple[Dataset, list[str]]:
    """Write dataset_description.json, .bidsignore, README and CHANGES; what earlier calls wrote stays.

    Parameters
    ----------
    warnings : sequence of str
        On the weights of the models.
    configuration : dict
        The options that the numbers depend on.
    results : bool
        Whether there are results that were made with this configuration.

    Returns
    -------
    dataset : Dataset
        With the name that it has in this folder's BIDS URIs: another one if an earlier call read another data set.
    notes : list of str
        Other configurations that results in the folder were made with.
    """
    path = out_dir / "dataset_description.json"
    with lock_shared_files(out_dir):
        sweep(out_dir, "dataset_description.json", ".bidsignore", "README", "CHANGES", "sub-")
        sweep(out_dir / "logs", "CITATION", "status.tsv")
        before = read_json(path)
        dataset, links, sources = _links(before, dataset)
        made, notes = _with_this_call(_entries(before), warnings, configuration, results)
        content = {
            "Name": "NeuroSTORM embeddings and predictions",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": str(dataset.description.get("License", "unknown: see the source data sets")),
            "GeneratedBy": made,
            "SourceDatasets": sources,
            "DatasetLinks": links,
            "HowToAcknowledge": CITATION,
        }
        if content != before:
            write_json(path, content)
        _add_lines(out_dir / ".bidsignore", IGNORED)
        if not (out_dir / "README").exists():
            write_text(out_dir / "README", README)
        if not _mentions(out_dir / "CHANGES", __version__):
            entry = f"{__version__} {time.strftime('%Y-%m-%d')}\n  - Results of {NAME} {__version__}\n"
            write_text(out_dir / "CHANGES", "\n".join(filter(None, (entry, _text(out_dir / "CHANGES")))))
    return dataset, notes


def is_damaged(out_dir: Path) -> bool:
    """Whether a folder's description is there and cannot be read."""
    path = out_dir / "dataset_description.json"
    return path.exists() and not read_json(path)


def is_ours_or_new(out_dir: Path) -> bool:
    """Whether a folder's description, if there is one, was written by us."""
    path = out_dir / "dataset_description.json"
    if not path.exists():
        return True
    made = _entries(read_json(path))
    return bool(made) and made[0].get("Name") == NAME


def _links(before: Entry, dataset: Dataset) -> tuple[Dataset, dict[str, str], list[dict[str, str]]]:
    """Return the data set with its name in this folder, all names of data sets, and the source data sets."""
    known = before.get("DatasetLinks")
    links = {name: uri for name, uri in (known if isinstance(known, dict) else {}).items() if isinstance(uri, str)}
    uri = dataset.path.as_uri()
    dataset = replace(dataset, link=_free_name(dataset.link, uri, {**links, TEMPLATEFLOW: ""}))
    links.pop(TEMPLATEFLOW, None)
    links[dataset.link] = uri
    if dataset.raw is not None:
        of_raw = dataset.raw.as_uri()
        dataset = replace(dataset, raw_link=_free_name(dataset.raw_link, of_raw, links))
        links[dataset.raw_link] = of_raw
    sources = [{"URL": each} for each in sorted(set(links.values()))]
    for source in sources:
        if source["URL"] == uri and dataset.description.get("DatasetDOI"):
            source["DOI"] = dataset.description["DatasetDOI"]
    links[TEMPLATEFLOW] = "https://github.com/templateflow/templateflow"
    return dataset, links, sources


def _free_name(wanted: str, uri: str, links: dict[str, str]) -> str:
    """Return a name for a data set that no other one has in this folder."""
    name, n = wanted, 1
    while links.get(name, uri) != uri:
        n += 1
        name = f"{wanted}{n}"
    return name


def _with_this_call(
    made: list[Entry], warnings: Sequence[str], configuration: Entry, results: bool
) -> tuple[list[Entry], list[str]]:
    """Return the entries of GeneratedBy with one for this version and configuration, and how the others differ.

    BIDS wants an entry before there is any result: one without a configuration, which the first result replaces.
    """
    this: Entry = {"Name": NAME, "Version": __version__}
    if results:
        this |= {"ConfigurationHash": digest(configuration), "Configuration": configuration}
        made = [entry for entry in made if entry.get("ConfigurationHash")]
    if os.environ.get("NEUROSTORM_CONTAINER"):  # set by our images
        this["Container"] = {"Type": os.environ["NEUROSTORM_CONTAINER"]}
    same = [entry for entry in made if _key(entry) == _key(this)]
    # warnings of earlier calls stay, since the files that they are about do
    earlier = [str(warning) for entry in same for warning in entry.get("ModelWarnings") or ()]
    this["ModelWarnings"] = sorted({*earlier, *warnings})
    this["Description"] = "; ".join(["NeuroSTORM run on preprocessed BOLD", *this["ModelWarnings"]])
    others = [entry for entry in made if _key(entry) != _key(this)]
    notes = [note for entry in others if (note := _difference(entry, configuration))]
    if not results and others:  # nothing to add yet
        return made, notes
    first = made.index(same[0]) if same else len(others)
    return [*others[:first], this, *others[first:]], notes


def _difference(entry: Entry, configuration: Entry) -> str | None:
    """Say how another entry's configuration and version differ from those of this call, if they do."""
    theirs = entry.get("Configuration") if isinstance(entry.get("Configuration"), dict) else {}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in configuration.items()}
    differing = [
        f"{name} was {theirs[name]}, is {value}"
        for name, value in plain.items()
        if theirs and name in theirs and theirs[name] != value
    ]
    if entry.get("Version") != __version__:
        differing.append(f"version was {entry.get('Version')}, is {__version__}")
    if not differing:
        return None
    return (
        f"OUT_DIR also holds results made with other settings ({'; '.join(differing)}): do not mix them in one "
        "analysis, or give each configuration a folder of its own"
    )


def _key(entry: Entry) -> tuple[Any, Any]:
    return entry.get("Version"), entry.get("ConfigurationHash")


def _entries(description: Entry) -> list[Entry]:
    made = description.get("GeneratedBy")
    return [entry for entry in (made if isinstance(made, list) else []) if isinstance(entry, dict)]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _mentions(path: Path, version: str) -> bool:
    return any(line.split(" ")[0] == version for line in _text(path).splitlines())


def _add_lines(path: Path, lines: Sequence[str]) -> None:
    """Add the lines that a file lacks."""
    there = _text(path).splitlines()
    if missing := [line for line in lines if line not in there]:
        write_text(path, "\n".join([*there, *missing]) + "\n")
