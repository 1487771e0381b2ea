"""What JSON sidecars say about models and software."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurostorm_bids.model.model import Model

PRIVACY = (
    "Embeddings, maps, connectomes and resampled runs are made from a person's data and can identify that person among others; share them as you would share the "
    "data themselves."
)
LIBRARIES = ("neurostorm_bids", "torch", "numpy", "scipy", "nibabel", "nilearn", "nitransforms", "pybids", "pandas")


def model_entry(model: "Model") -> dict[str, Any]:
    """Return what a sidecar says about a model."""
    entry = {"Name": model.name, "Source": model.source, "WeightsSHA256": model.sha256}
    if model.about:
        entry["Description"] = model.about
    if model.licence:
        entry["License"] = model.licence
    if model.warning:
        entry["Warning"] = model.warning
    return entry


def software_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that the numbers depend on."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
