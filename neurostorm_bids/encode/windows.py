"""Cut a gridded run into windows of the model's length and encode them."""

import logging
from collections.abc import Callable

import numpy as np
import torch

from neurostorm_bids.encode.batches import batches
from neurostorm_bids.encode.parts import Parts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.threads import give_back_memory
from neurostorm_bids.resample.gridded import FrameSource

LOG = logging.getLogger("neurostorm")
MAX_COSINE_DISTANCE = 1e-3  # between the embeddings of a window in half and in single precision
BATCHES_PER_TRIM = 8  # after which freed memory is given back


def window_starts(n_frames: int, length: int, stride: int) -> np.ndarray:
    """Return the first frames of all windows that fit; frames left over at the end are not used.

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


def encode(
    model: Model,
    run: FrameSource,
    starts: np.ndarray,
    batch_size: int,
    precision: str = "fp32",
    progress: Callable[[int, int], None] | None = None,
    *,
    parts: Parts | None = None,
) -> tuple[np.ndarray, str]:
    """Encode the windows of a run.

    Parameters
    ----------
    run : GriddedRun or StoredRun
    starts : (windows,) int array
    batch_size : int
        Windows at a time.
    precision : {"fp32", "bf16", "fp16"}
        A half precision is used if it gives the first window nearly the same embedding (`MAX_COSINE_DISTANCE`).
    progress : callable, optional
        Called with (windows done, windows in all).
    parts : Parts, optional
        Gets the tokens of the windows.

    Returns
    -------
    embeddings : (windows, channels) float32 array
    precision : str
        The one that was used.
    """
    if precision != "fp32" and not _half_precision_will_do(model, run, int(starts[0]), precision):
        precision = "fp32"
    embeddings: list[np.ndarray] = []
    for batch in batches(run, starts, model.n_frames, batch_size, model.device):
        if parts is None:
            embedded = model.embed(batch, precision)
        else:
            embedded, tokens = model.embed_with_tokens(batch, parts.stage, precision)
            parts.add(tokens)
        embeddings.append(embedded.cpu().numpy())
        if len(embeddings) % BATCHES_PER_TRIM == 0:
            give_back_memory()
        if progress:
            progress(sum(map(len, embeddings)), len(starts))
    return np.concatenate(embeddings), precision


def _half_precision_will_do(model: Model, run: FrameSource, start: int, precision: str) -> bool:
    """Whether a half precision keeps the embedding of a window, by the cosine between the two."""
    window = torch.from_numpy(run.window(start, start + model.n_frames)[None, None])
    exact, rounded = model.embed(window, "fp32")[0], model.embed(window, precision)[0]
    cosine = torch.nn.functional.cosine_similarity(exact, rounded, dim=0).item()
    will_do = cosine >= 1 - MAX_COSINE_DISTANCE  # not where fp16 overflowed to NaN
    if not will_do:
        LOG.warning("%s changes the embedding (cosine %.4f to fp32): this run is encoded in fp32", precision, cosine)
    return will_do
