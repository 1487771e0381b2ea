"""The data set's own files: dataset_description.json and .bidsignore."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from neurostorm_bids import __version__
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.write.atomic import write_text
from neurostorm_bids.write.sidecars import read_json, write_sidecar

BIDS_VERSION = "1.10.0"
IGNORED = (
    "*_embeddings.tsv",
    "*_embeddings.json",
    "*_predictions.tsv",
    "*_predictions.json",
    ".neurostorm.lock",
    "work",
)
CITATION = (
    "Please cite Wang et al. (2026), Towards a general-purpose foundation model for functional MRI analysis, "
    "Nature Biomedical Engineering, https://doi.org/10.1038/s41551-026-01666-y"
)


LOCK = ".neurostorm.lock"


@contextlib.contextmanager
def lock(out_dir: Path) -> Iterator[None]:
    """Hold the lock of files that several processes write.

    Raises
    ------
    NeurostormError
        If another process holds it for two minutes.
    """
    try:
        with FileLock(out_dir / LOCK, timeout=120):
            yield
    except Timeout:
        raise NeurostormError(f"another process holds {out_dir / LOCK} for two minutes; is it hanging?") from None
    except OSError as error:
        raise NeurostormError(
            f"cannot lock {out_dir / LOCK}: {error.strerror}; is the folder another user's?"
        ) from None


def write_description(out_dir: Path, dataset: Dataset, warnings: "list[str]") -> None:
    """Write dataset_description.json and .bidsignore; what an earlier call wrote about other inputs stays."""
    path = out_dir / "dataset_description.json"
    with lock(out_dir):
        before = read_json(path)
        known = before.get("DatasetLinks")
        links = {
            name: uri for name, uri in (known if isinstance(known, dict) else {}).items() if isinstance(uri, str)
        } | {dataset.link: dataset.path.as_uri()}
        if dataset.raw is not None:
            links["raw"] = dataset.raw.as_uri()
        sources = [{"URL": uri} for uri in sorted(set(links.values()))]
        for source in sources:
            if source["URL"] == dataset.path.as_uri() and dataset.description.get("DatasetDOI"):
                source["DOI"] = dataset.description["DatasetDOI"]
        earlier = _said_of_models(before)
        content = {
            "Name": "NeuroSTORM embeddings and predictions",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": str(dataset.description.get("License", "unknown: see the source data sets")),
            "GeneratedBy": [
                {
                    "Name": "neurostorm_bids",
                    "Version": __version__,
                    "Description": "; ".join(["NeuroSTORM run on preprocessed BOLD", *sorted({*earlier, *warnings})]),
                }
            ],
            "SourceDatasets": sources,
            "DatasetLinks": links,
            "HowToAcknowledge": CITATION,
        }
        if content != before:
            write_sidecar(path, content)
        ignore = out_dir / ".bidsignore"
        lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines() if ignore.is_file() else []
        if missing := [line for line in IGNORED if line not in lines]:
            write_text(ignore, "\n".join([*lines, *missing]) + "\n")


def _said_of_models(description: dict) -> "list[str]":
    """Warnings on models that an earlier call wrote, such as that they are untrained: their files are still there."""
    made = description.get("GeneratedBy")
    said = made[0].get("Description") if isinstance(made, list) and made and isinstance(made[0], dict) else None
    return [part for part in str(said or "").split("; ") if part.startswith("model ")]


def is_ours_or_new(out_dir: Path) -> bool:
    """Whether a folder's description, if there is one, was written by us."""
    path = out_dir / "dataset_description.json"
    if not path.exists():
        return True
    made = read_json(path).get("GeneratedBy")
    first = made[0] if isinstance(made, list) and made else None
    return isinstance(first, dict) and first.get("Name") == "neurostorm_bids"
