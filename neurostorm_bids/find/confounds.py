"""fMRIPrep's confounds of a run: head motion, non-steady-state volumes, and what can be regressed out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.files import check_fetched

MOTION = "motion"  # the strategy that needs nothing but head motion
SLOWEST = 128.0  # s, of the cosines that take out slow drifts, as fMRIPrep makes them


@dataclass(frozen=True)
class Confounds:
    """What is used of fMRIPrep's table of confounds.

    Attributes
    ----------
    framewise_displacement : (volumes,) array
        mm; NaN where undefined.
    non_steady_state : int or None
        Volumes at the start that fMRIPrep flagged as not in steady state; `None` if nobody looked.
    """

    framewise_displacement: np.ndarray
    non_steady_state: int | None

    @property
    def has_motion(self) -> bool:
        """Whether the framewise displacement of any volume is known."""
        return bool((~np.isnan(self.framewise_displacement)).any())


@dataclass(frozen=True)
class Regressors:
    """Confounds to regress out.

    Attributes
    ----------
    strategy : str
        nilearn's name of the denoising strategy.
    names : list of str
    values : (volumes, regressors) array
        Finite; high-pass cosines among them.
    kept : (volumes,) bool array
        Volumes that are not scrubbed.
    """

    strategy: str
    names: list[str]
    values: np.ndarray
    kept: np.ndarray


def read_confounds(path: Path, n_volumes: int) -> Confounds:
    """Read fMRIPrep's table of confounds.

    Raises
    ------
    NeurostormError
        If it cannot be read, or has another number of rows than the run has volumes.
    """
    import pandas as pd

    check_fetched(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        why = " ".join(str(error).split())
        raise NeurostormError(f"{path} cannot be read as a table ({why}); fetch it again") from None
    if len(table) != n_volumes:
        raise NeurostormError(
            f"{path} has {len(table)} rows, the run {n_volumes} volumes; are they the confounds of another run?"
        )
    displacement = np.full(n_volumes, np.nan)
    if "framewise_displacement" in table:
        displacement = pd.to_numeric(table["framewise_displacement"], errors="coerce").to_numpy(float)
        displacement = np.where(np.isfinite(displacement), displacement, np.nan)
    flagged = [name for name in table.columns if name.startswith("non_steady_state_outlier")]
    # one column a volume, which is 1 at that volume; the last of them ends the dummy scans
    last = [int(np.flatnonzero(table[name].to_numpy() == 1)[-1]) for name in flagged if (table[name] == 1).any()]
    return Confounds(displacement, max(last) + 1 if last else 0)


def read_regressors(bold: Path, strategy: str) -> Regressors:
    """Read the confounds of one of nilearn's denoising strategies.

    Parameters
    ----------
    bold : Path
        The preprocessed BOLD file; nilearn finds the confounds beside it.
    strategy : {"motion", "simple", "scrubbing", "compcor"}

    Raises
    ------
    NeurostormError
        If the confounds lack what the strategy needs, or the run has too few volumes for it.
    """
    import warnings

    from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if strategy == MOTION:
                confounds, sample_mask = load_confounds(str(bold), strategy=("motion", "high_pass"), motion="full")
            else:
                confounds, sample_mask = load_confounds_strategy(str(bold), denoise_strategy=strategy)
    except Exception as error:  # nilearn raises many kinds for confounds that lack what a strategy needs
        why = str(error).splitlines()[0][:200]
        raise NeurostormError(
            f"--denoise {strategy} is not possible with the confounds of {bold.name} ({why})"
        ) from None
    kept = np.ones(len(confounds), dtype=bool)
    if sample_mask is not None:
        kept[:] = False
        kept[sample_mask] = True
    return _enough(Regressors(strategy, list(confounds.columns), confounds.fillna(0).to_numpy(float), kept), bold.name)


def motion_regressors(millimetres: np.ndarray, radians: np.ndarray, repetition_time: float, name: str) -> Regressors:
    """Make the regressors of head motion of a run without a table of confounds: those of nilearn's strategies motion and high_pass.

    Parameters
    ----------
    millimetres, radians : (volumes, 3) arrays
    repetition_time : float
        s.
    name : str
        Of the run, for messages.

    Raises
    ------
    NeurostormError
        If the run has too few volumes for them.
    """
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    six = np.hstack([millimetres, radians])
    twelve = np.hstack([six, np.diff(six, axis=0, prepend=six[:1])])
    moments = repetition_time * np.arange(len(six))
    cosines = create_cosine_drift(1 / SLOWEST, moments)[:, :-1]  # the last one is constant
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    names += [f"{each}_derivative1" for each in names]
    names += [f"{each}_power2" for each in names] + [f"cosine{i:02d}" for i in range(cosines.shape[1])]
    values = np.hstack([twelve, twelve**2])
    values = np.hstack([values - values.mean(axis=0), cosines])
    return _enough(Regressors(MOTION, names, values, np.ones(len(six), dtype=bool)), name)


def _enough(regressors: Regressors, name: str) -> Regressors:
    n, of = regressors.kept.sum(), len(regressors.names)
    if not n > of:
        raise NeurostormError(f"--denoise {regressors.strategy}: {name} has {n} volumes to fit {of} confounds; too few")
    return regressors
