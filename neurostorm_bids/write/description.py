"""The data set's own files: dataset_description.json and .bidsignore."""

from pathlib import Path

from filelock import FileLock

from neurostorm_bids import __version__
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.write.atomic import write_text
from neurostorm_bids.write.sidecars import read_json, write_sidecar

BIDS_VERSION = "1.10.0"
IGNORED = ("*_embeddings.tsv", "*_embeddings.json", "*_predictions.tsv", "*_predictions.json", ".neurostorm.lock")
CITATION = (
    "Please cite Wang et al. (2026), Towards a general-purpose foundation model for functional MRI analysis, "
    "Nature Biomedical Engineering, https://doi.org/10.1038/s41551-026-01666-y"
)


def lock(out_dir: Path) -> FileLock:
    """The lock that writers of files shared by several processes hold."""
    return FileLock(out_dir / ".neurostorm.lock", timeout=120)


def write_description(out_dir: Path, dataset: Dataset, warnings: "list[str]") -> None:
    """Write dataset_description.json and .bidsignore; what an earlier call wrote about other inputs stays."""
    path = out_dir / "dataset_description.json"
    with lock(out_dir):
        before = read_json(path)
        links = before.get("DatasetLinks", {}) | {dataset.link: dataset.path.as_uri()}
        if dataset.raw is not None:
            links["raw"] = dataset.raw.as_uri()
        sources = [{"URL": uri} for uri in sorted(set(links.values()))]
        for source in sources:
            if source["URL"] == dataset.path.as_uri() and dataset.description.get("DatasetDOI"):
                source["DOI"] = dataset.description["DatasetDOI"]
        content = {
            "Name": "NeuroSTORM embeddings and predictions",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": dataset.description.get("License", "unknown: see the source data sets"),
            "GeneratedBy": [
                {
                    "Name": "neurostorm_bids",
                    "Version": __version__,
                    "Description": "; ".join(["NeuroSTORM run on preprocessed BOLD", *warnings]),
                }
            ],
            "SourceDatasets": sources,
            "DatasetLinks": links,
            "HowToAcknowledge": CITATION,
        }
        if content != before:
            write_sidecar(path, content)
        ignore = out_dir / ".bidsignore"
        lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
        if missing := [line for line in IGNORED if line not in lines]:
            write_text(ignore, "\n".join([*lines, *missing]) + "\n")
