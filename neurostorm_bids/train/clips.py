"""Clips as they are stored, on their way to the device: one byte a voxel until they are there."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.model.network import resized
from neurostorm_bids.resample.gridded import FrameSource
from neurostorm_bids.train.augment import Disturbance, disturbed, draw


class StoredFrames(FrameSource, Protocol):
    """A run in the model's grid whose frames are kept as bytes."""

    @property
    def scale(self) -> float:
        """Times a stored number gives a z-score."""

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return frames as they are stored, int8, (stop - start, X, Y, Z)."""


class RawClips(NamedTuple):
    """Clips as they are stored, and what they are to be disturbed with; further axes come first.

    Attributes
    ----------
    frames : (..., T, X, Y, Z) int8
    scale, background : (...) float
    by : Disturbance
    """

    frames: Any
    scale: Any
    background: Any
    by: Disturbance


def raw_clip(run: StoredFrames, start: int, length: int, rng: np.random.Generator, augmentation: str) -> RawClips:
    """Read a clip, and draw what it is disturbed with."""
    frames = torch.from_numpy(run.stored(start, start + length))
    return RawClips(frames, np.float32(run.scale), np.float32(run.background), draw(rng, augmentation))


def clips_of(raw: RawClips, size: tuple[int, ...]) -> Tensor:
    """Make clips of the network's size on the device they are on, disturbed, (..., T, X, Y, Z) -> (..., 1, *size, T).

    Low-resolution networks take clips that are made smaller first.
    """
    axes = raw.frames.shape[:-4]
    flat = [part.reshape(-1, *part.shape[len(axes) :]) for part in (*raw[:3], *raw.by)]
    made = []
    for frames, scale, background, *by in zip(*flat, strict=True):
        volumes = resized((frames.float() * float(scale)).movedim(0, -1)[None, None], size)[0, 0].movedim(-1, 0)
        made.append(disturbed(volumes, float(background), Disturbance(*by)).movedim(0, -1))
    clips = torch.stack(made)[:, None]
    return clips.reshape(*axes, *clips.shape[1:])
