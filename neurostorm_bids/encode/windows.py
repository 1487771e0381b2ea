"""Cut a placed run into windows of the model's length and encode them."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch

from neurostorm_bids.encode.batches import batches
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model import cpu_encoder as cpu
from neurostorm_bids.model.load import Model
from neurostorm_bids.resample.gridded import PlacedRun

LOG = logging.getLogger("neurostorm")
NEARLY = 1e-3  # of cosine distance


def window_starts(n_frames: int, length: int, stride: int) -> np.ndarray:
    """First frames of all windows that fit; frames left at the end are not used.

    Raises
    ------
    NeurostormError
        If not even one window fits.
    """
    if n_frames < length:
        raise NeurostormError(
            f"{n_frames} frames after resampling are fewer than one window of {length}; the run is too short for this model"
        )
    return np.arange(0, n_frames - length + 1, stride)


def clip_bytes(model: Model) -> int:
    """Memory that encoding one window takes, measured in arrays of the first stage's tokens and channels, float32."""
    config = model.network.config
    with torch.inference_mode():
        n_arrays = 20 if cpu.available(model.network) else 50
    return n_arrays * 4 * math.prod(config.grid(0)) * config.n_frames * config.embed_dim


def encode(
    model: Model,
    run: PlacedRun,
    starts: np.ndarray,
    batch_size: int,
    progress: Optional[Callable[[int, int], None]] = None,
    precision: str = "fp32",
) -> "tuple[np.ndarray, str]":
    """Encode the windows of a run.

    Parameters
    ----------
    model : Model
    run : PlacedRun or StoredRun
    starts : (windows,) int array
    batch_size : int
        Windows at a time.
    progress : callable, optional
        Called with (windows done, windows in all).
    precision : {"fp32", "bf16", "fp16"}
        A half precision is used if it gives the run's first window nearly the same embedding (`NEARLY`).

    Returns
    -------
    embeddings : (windows, channels) float32 array
    precision : str
        That was used.
    """
    if precision != "fp32" and not _half_serves(model, run, int(starts[0]), precision):
        precision = "fp32"
    embeddings = []
    for batch in batches(run, starts, model.n_frames, batch_size, model.device):
        embeddings.append(model.embed(batch, precision).cpu().numpy())
        if len(embeddings) % 8 == 0:
            cpu.give_back_memory()
        if progress:
            progress(sum(map(len, embeddings)), len(starts))
    return np.concatenate(embeddings), precision


def _half_serves(model: Model, run: PlacedRun, start: int, precision: str) -> bool:
    """Whether a half precision keeps the embedding of a window, by the cosine between the two."""
    window = torch.from_numpy(run.window(start, start + model.n_frames)[None, None])
    exact, rounded = model.embed(window, "fp32")[0], model.embed(window, precision)[0]
    cosine = torch.nn.functional.cosine_similarity(exact, rounded, dim=0).item()
    serves = cosine >= 1 - NEARLY  # not where fp16 overflowed to NaN
    if not serves:
        LOG.warning("%s moves the embedding (cosine %.4f to fp32): this run is encoded in fp32", precision, cosine)
    return serves


@dataclass(frozen=True)
class WindowMotion:
    """Head motion in each window.

    Attributes
    ----------
    mean, largest : (windows,) arrays
        Framewise displacement, mm; NaN where it is unknown.
    above : (windows,) array, or None
        Share of the volumes above the threshold; `None` if there is no threshold.
    """

    mean: np.ndarray
    largest: np.ndarray
    above: Optional[np.ndarray]

    def censored(self, most: float) -> np.ndarray:
        """Which windows have more than this share of volumes above the threshold, (windows,) bool."""
        return np.zeros(len(self.mean), dtype=bool) if self.above is None else self.above > most


def motion_of(
    run: PlacedRun,
    displacement: "np.ndarray | None",
    starts: np.ndarray,
    length: int,
    threshold: Optional[float] = None,
) -> WindowMotion:
    """Head motion of windows, over the volumes that each window is made from.

    Parameters
    ----------
    displacement : (source frames,) array or None
        Framewise displacement of the kept source frames, mm; `None` if there are no confounds.
    threshold : float, optional
        mm.
    """
    mean, largest, above = np.full((3, len(starts)), np.nan)
    for i, start in enumerate(starts if displacement is not None else ()):
        # the volumes that the window's frames are mixed from: interpolating the displacement would flatten its peaks
        first, last = run.time_map.lower[start], np.ceil(run.time_map.positions[start + length - 1])
        volumes = displacement[first : int(last) + 1]
        known = volumes[~np.isnan(volumes)]
        if len(known):
            mean[i], largest[i] = known.mean(), known.max()
            above[i] = np.nan if threshold is None else (known > threshold).mean()
    if threshold is not None and np.isnan(above).any():
        raise NeurostormError(
            "--fd-threshold needs framewise displacement, which fMRIPrep's confounds of this run lack"
        )
    return WindowMotion(mean, largest, above if threshold is not None else None)
