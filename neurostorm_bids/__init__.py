"""NeuroSTORM for what fMRIPrep wrote: embeddings and predictions as BIDS derivatives.

The public API is what `__all__` names; everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurostorm_bids.api.results import ProbeResult, probe, read_embeddings
    from neurostorm_bids.api.runs import FoundRun, embed_run, find_runs, grid_run
    from neurostorm_bids.errors import NeurostormError
    from neurostorm_bids.model.load import load_model
    from neurostorm_bids.model.model import Model
    from neurostorm_bids.resample.gridded import GriddedRun
    from neurostorm_bids.resample.resample import to_model_grid

__version__ = "0.4.0"
__all__ = [
    "FoundRun",
    "GriddedRun",
    "Model",
    "NeurostormError",
    "ProbeResult",
    "embed_run",
    "find_runs",
    "grid_run",
    "load_model",
    "probe",
    "read_embeddings",
    "to_model_grid",
]
PLACES = {
    **dict.fromkeys(("FoundRun", "embed_run", "find_runs", "grid_run"), "api.runs"),
    **dict.fromkeys(("ProbeResult", "probe", "read_embeddings"), "api.results"),
    "NeurostormError": "errors",
    "GriddedRun": "resample.gridded",
    "Model": "model.model",
    "load_model": "model.load",
    "to_model_grid": "resample.resample",
}


def __getattr__(name: str) -> Any:  # PyTorch and nibabel are imported when they are needed: --help stays quick
    if name in PLACES:
        return getattr(import_module(f"neurostorm_bids.{PLACES[name]}"), name)
    raise AttributeError(f"module 'neurostorm_bids' has no attribute '{name}'")


def __dir__() -> list[str]:  # what notebooks complete
    return [*__all__, "__version__"]
