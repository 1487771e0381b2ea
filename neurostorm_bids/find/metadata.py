"""What fMRIPrep tells about a run: its sidecar and its confounds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.files import check_fetched

if TYPE_CHECKING:
    import pandas as pd


def read_sidecar(path: Path) -> dict:
    """Read a JSON sidecar; empty if there is none.

    Raises
    ------
    NeurostormError
        If it is there but cannot be read.
    """
    check_fetched(path)
    if not path.exists():
        return {}
    if not path.is_file():
        raise NeurostormError(f"{path} is not a regular file; mend it")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise NeurostormError(f"{path} is not readable JSON ({error}); fetch or mend it") from None
    if not isinstance(content, dict):
        raise NeurostormError(f"{path} is not a JSON object; fetch or mend it")
    return content


def number_in(sidecar: dict, key: str, path: Path) -> Optional[float]:
    """A number of a sidecar; `None` if it is absent."""
    value = sidecar.get(key)
    if value is None:
        return None
    plain = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # NaN is not
    if not plain:
        text = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:76]}..."
        raise NeurostormError(f"{path}: {key} is {text}, not a number; mend it, or give --repetition-time")
    return float(value)


@dataclass(frozen=True)
class Confounds:
    """What we use of fMRIPrep's confounds.

    Attributes
    ----------
    framewise_displacement : (volumes,) array
        mm; NaN where undefined.
    non_steady_state : int
        Volumes at the start that fMRIPrep flagged as not in steady state.
    """

    @property
    def knows_motion(self) -> bool:
        """Whether the framewise displacement of any volume is known."""
        return bool((~np.isnan(self.framewise_displacement)).any())

    framewise_displacement: np.ndarray
    non_steady_state: int


def read_confounds(path: Optional[Path], n_volumes: int) -> Optional[Confounds]:
    """Read fMRIPrep's table of confounds; `None` if there is no table.

    Raises
    ------
    NeurostormError
        If it cannot be read, or has another number of rows than the run has volumes.
    """
    import pandas as pd

    if path is None:
        return None
    check_fetched(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise NeurostormError(f"{path} cannot be read as a table ({_one_line(error)}); fetch it again") from None
    if len(table) != n_volumes:
        raise NeurostormError(
            f"{path} has {len(table)} rows, the run {n_volumes} volumes; the confounds of another run?"
        )
    displacement = np.full(n_volumes, np.nan)
    if "framewise_displacement" in table:
        displacement = pd.to_numeric(table["framewise_displacement"], errors="coerce").to_numpy(float)
        displacement = np.where(np.isfinite(displacement), displacement, np.nan)
    flagged = [name for name in table.columns if name.startswith("non_steady_state_outlier")]
    # one column a volume, which is 1 at that volume; the last of them ends the dummy scans
    last = [int(np.flatnonzero(table[name].to_numpy() == 1)[-1]) for name in flagged if (table[name] == 1).any()]
    return Confounds(displacement, max(last) + 1 if last else 0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def denoising_confounds(path: Path, strategy: str) -> "tuple[pd.DataFrame, np.ndarray]":
    """Confounds of one of nilearn's denoising strategies.

    Parameters
    ----------
    path : Path
        The preprocessed BOLD file; nilearn finds the confounds beside it.
    strategy : {"simple", "scrubbing", "compcor"}

    Returns
    -------
    confounds : DataFrame, (volumes, confounds)
        High-pass cosines among them.
    kept : (volumes,) bool array
        Volumes that are not to be scrubbed.
    """
    import warnings

    from nilearn.interfaces.fmriprep import load_confounds_strategy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            confounds, sample_mask = load_confounds_strategy(str(path), denoise_strategy=strategy)
    except Exception as error:  # nilearn raises many kinds for confounds that lack what a strategy needs
        raise NeurostormError(
            f"--denoise {strategy} is not possible with the confounds of {path.name} ({str(error).splitlines()[0][:200]})"
        ) from None
    kept = np.ones(len(confounds), dtype=bool)
    if sample_mask is not None:
        kept[:] = False
        kept[sample_mask] = True
    if not kept.sum() > confounds.shape[1]:
        raise NeurostormError(
            f"--denoise {strategy}: {path.name} has {kept.sum()} volumes to fit {confounds.shape[1]} confounds; too few"
        )
    return confounds.fillna(0), kept
