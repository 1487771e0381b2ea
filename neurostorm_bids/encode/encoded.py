"""A run that a model has encoded: embeddings, head motion and prediction of its windows."""

from dataclasses import dataclass

import numpy as np
import torch

from neurostorm_bids.encode.controls import as_fed
from neurostorm_bids.encode.motion import WindowMotion, motion_of
from neurostorm_bids.encode.windows import encode, window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import AT_MEAN
from neurostorm_bids.model.task import Prediction, interpret
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings.participant import Censoring


@dataclass(frozen=True)
class Windows:
    """The windows of a run and their embeddings, which models with the same encoder share.

    Attributes
    ----------
    starts : (windows,) int array
        First frames.
    length, stride : int
        Frames of a window, and from one window to the next.
    embeddings : (windows, channels) float32 array
    precision : str
        Precision in which they were computed.
    """

    starts: np.ndarray
    length: int
    stride: int
    embeddings: np.ndarray
    precision: str


@dataclass(frozen=True)
class EncodedRun:
    """What one model made of one run.

    Attributes
    ----------
    gridded : GriddedRun
    model : Model
    windows : Windows
    motion : WindowMotion
    censored : (windows,) bool array
        Windows left out of means for head motion.
    prediction : Prediction or None
        `None` for a model without a head.
    """

    gridded: GriddedRun
    model: Model
    windows: Windows
    motion: WindowMotion
    censored: np.ndarray
    prediction: Prediction | None

    @property
    def onsets(self) -> np.ndarray:
        """Where the windows start, s after the start of the acquisition, (windows,)."""
        return np.asarray(self.gridded.frame_onsets[self.windows.starts])

    @property
    def duration(self) -> float:
        """Of a window, s."""
        return self.windows.length * self.gridded.repetition_time


def embed_windows(
    gridded: GriddedRun, model: Model, stride: int | None, precision: str, batch_size: int, progress: Progress
) -> Windows:
    """Cut a run into windows and embed them.

    Parameters
    ----------
    stride : int or None
        Frames from one window to the next; `None` is the model's length.

    Raises
    ------
    NeurostormError
        If the run is too short, or the embeddings are not numbers.
    """
    stride = stride or model.n_frames
    starts = window_starts(len(gridded.time_map), model.n_frames, stride)
    advance = progress.step(f"encoding {len(starts)} windows with model {model.name}", "window")
    run = as_fed(gridded, model.control)
    different = starts[:1] if model.control == AT_MEAN else starts  # windows of the mean are all the same
    embeddings, precision = encode(model, run, different, batch_size, precision, advance)
    embeddings = np.repeat(embeddings, len(starts) // len(different), axis=0)
    if not np.isfinite(embeddings).all():
        raise NeurostormError("the embeddings are not finite; the weights are damaged or do not fit this model")
    return Windows(starts, model.n_frames, stride, embeddings, precision)


def complete(gridded: GriddedRun, model: Model, windows: Windows, censoring: Censoring) -> EncodedRun:
    """Add head motion and, for a model with a head, the prediction.

    Raises
    ------
    NeurostormError
        If the head's outputs are not numbers, or a threshold is given and head motion is not known.
    """
    motion = motion_of(gridded, windows.starts, windows.length, censoring.fd_threshold)
    censored = motion.censored(censoring.max_censored)
    prediction = None
    if model.task is not None:
        outputs = model.predict_from(torch.from_numpy(windows.embeddings)).cpu().numpy()
        if not np.isfinite(outputs).all():
            raise NeurostormError("the outputs of the head are not finite; its weights are damaged")
        prediction = interpret(model.task, outputs[~censored])
    return EncodedRun(gridded, model, windows, motion, censored, prediction)
