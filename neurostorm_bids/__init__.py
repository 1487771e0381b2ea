"""NeuroSTORM for what fMRIPrep wrote: embeddings and predictions as BIDS derivatives.

The public API is `load_model` and `to_model_grid`; everything else may change.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurostorm_bids.model.load import load_model
    from neurostorm_bids.resample.resample import to_model_grid

__version__ = "0.3.0"
__all__ = ["load_model", "to_model_grid"]


def __getattr__(name: str) -> Any:  # PyTorch and nibabel are imported when they are needed: --help stays quick
    if name == "load_model":
        from neurostorm_bids.model.load import load_model

        return load_model
    if name == "to_model_grid":
        from neurostorm_bids.resample.resample import to_model_grid

        return to_model_grid
    raise AttributeError(f"module 'neurostorm_bids' has no attribute '{name}'")
