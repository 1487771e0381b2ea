"""A run that a model has encoded: embeddings, head motion and prediction of its windows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neurostorm_bids.encode.conditions import choose_windows
from neurostorm_bids.encode.controls import as_fed
from neurostorm_bids.encode.motion import WindowMotion, motion_of
from neurostorm_bids.encode.parts import Parts, parts_of
from neurostorm_bids.encode.windows import encode, window_starts
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.events import read_events
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import AT_MEAN
from neurostorm_bids.model.task import Prediction, interpret
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings.participant import Censoring, Conditions, Encoding


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
    trial_type : tuple of str
        Condition of each window; empty if they were not chosen by conditions.
    trial : (windows,) int array, or None
        Number of each window's event, where there is a window for each.
    parts : Parts or None
        More than one vector of each window, where that is asked for.
    """

    starts: np.ndarray
    length: int
    stride: int
    embeddings: np.ndarray
    precision: str
    trial_type: tuple[str, ...] = ()
    trial: np.ndarray | None = None
    parts: Parts | None = None


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
    gridded: GriddedRun,
    model: Model,
    encoding: Encoding,
    conditions: Conditions,
    batch_size: int,
    progress: Progress,
    *,
    work_dir: Path | None = None,
) -> Windows:
    """Cut a run into windows, or those that conditions ask for, and embed them.

    Parameters
    ----------
    batch_size : int
        Windows at a time.
    work_dir : Path, optional
        Tokens, where they are asked for, are kept in a nameless file of this folder.

    Raises
    ------
    NeurostormError
        If the run is too short, nothing lies in a condition, or the embeddings are not numbers.
    """
    stride, precision = encoding.window_stride or model.n_frames, encoding.precision
    starts, chosen = window_starts(len(gridded.time_map), model.n_frames, stride), None
    if conditions.conditions:
        assert gridded.source is not None
        assert gridded.source.events is not None
        events = read_events(gridded.source.events)
        chosen = choose_windows(
            gridded.frame_onsets, gridded.repetition_time, events, model.n_frames, stride, conditions
        )
        starts = chosen.starts
    advance = progress.step(f"encoding {len(starts)} windows with model {model.name}", "window")
    run = as_fed(gridded, model.control)
    parts = parts_of(model, encoding, work_dir)
    is_same = model.control == AT_MEAN and parts is None  # windows of the mean are all the same
    different = starts[:1] if is_same else starts
    embeddings, precision = encode(model, run, different, batch_size, precision, advance, parts=parts)
    embeddings = np.repeat(embeddings, len(starts) // len(different), axis=0)
    if not np.isfinite(embeddings).all():
        raise NeurostormError("the embeddings are not finite; the weights are damaged or do not fit this model")
    names, trial = (chosen.trial_type, chosen.trial) if chosen else ((), None)
    return Windows(starts, model.n_frames, stride, embeddings, precision, names, trial, parts)


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
