"""Augmentation of clips: a small rotation and scaling, noise, smoothing; the same for all frames.

As in the published pretraining: rotation by up to 10 degrees about each axis and scaling by up to 10 % along each, about the
centre of the grid, what comes in from outside being the border; then noise in three clips of ten, one image for all frames;
then smoothing in one of ten. What a clip is disturbed with is drawn where it is read; it is disturbed on the device.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION = math.radians(10)  # about each axis
MAX_SCALING = 0.1  # along each axis
MAX_NOISE, NOISE_SHARE = 0.1, 0.3  # standard deviation, in z-scores; share of clips
MAX_SMOOTHING, SMOOTHING_SHARE = 0.5, 0.1  # standard deviation, voxels; share of clips
REACH = 2  # voxels to either side that smoothing mixes: four of its largest standard deviations
AUGMENTATIONS = ("published", "per-frame", "none")


class Disturbance(NamedTuple):
    """What a clip is disturbed with: numbers alone, which travel with its frames; several clips' have one axis more.

    Attributes
    ----------
    how : int
        Number in `AUGMENTATIONS`.
    axes : (3, 3) float32 array
        Maps places of the disturbed clip to those of the clip, about the centre of the grid.
    noise : float32
        Standard deviation, in z-scores.
    seed : int
        Of the noise.
    smoothing : (3,) float32 array
        Standard deviation along each axis, voxels.
    """

    how: Any
    axes: Any
    noise: Any
    seed: Any
    smoothing: Any


def draw(rng: np.random.Generator, how: str = "published") -> Disturbance:
    """Draw what a clip is disturbed with.

    Parameters
    ----------
    rng : Generator
    how : {"published", "per-frame", "none"}
        per-frame: every frame has noise of its own, and what comes in from outside the grid is background.
    """
    axes, noise, seed, smoothing = np.eye(3), 0.0, 0, np.zeros(3)
    if how != "none":
        axes = rotation(rng.uniform(-MAX_ROTATION, MAX_ROTATION, 3)) @ np.diag(
            1 + rng.uniform(-MAX_SCALING, MAX_SCALING, 3)
        )
        if rng.random() < NOISE_SHARE:
            noise, seed = rng.uniform(0, MAX_NOISE), int(rng.integers(2**62))
        if rng.random() < SMOOTHING_SHARE:
            smoothing = rng.uniform(0, MAX_SMOOTHING, 3)
    return Disturbance(
        AUGMENTATIONS.index(how), axes.astype(np.float32), np.float32(noise), seed, smoothing.astype(np.float32)
    )


def disturbed(frames: Tensor, background: float, by: Disturbance) -> Tensor:
    """Disturb a clip, (T, X, Y, Z) -> the same shape.

    Parameters
    ----------
    background : float
        z-score outside the brain.
    by : Disturbance
        Of arrays or tensors.
    """
    how = AUGMENTATIONS[int(by.how)]
    if how == "none":
        return frames
    is_published = how == "published"
    offset = 0.0 if is_published else background  # zeros come in from outside unless the border does
    # grid_sample's coordinates go from -1 to 1 along (z, y, x): the centre of the grid stays where it is
    axes = torch.as_tensor(by.axes, dtype=torch.float32).flip(0, 1)
    matrix = torch.cat([axes, axes.new_zeros(3, 1)], dim=1).to(frames.device)
    where = F.affine_grid(matrix[None], [1, 1, *frames.shape[1:]], align_corners=False)
    outside = "border" if is_published else "zeros"
    frames = F.grid_sample(frames[None] - offset, where, padding_mode=outside, align_corners=False)[0] + offset
    if float(by.noise):
        shape = frames.shape[1:] if is_published else frames.shape
        generator = torch.Generator(frames.device).manual_seed(int(by.seed))
        frames = frames + float(by.noise) * torch.randn(shape, generator=generator, device=frames.device)
    sigmas = [float(sigma) for sigma in by.smoothing]
    return smoothed(frames, sigmas) if any(sigmas) else frames


def smoothed(frames: Tensor, sigmas: list[float]) -> Tensor:
    """Smooth volumes (T, X, Y, Z) with a Gaussian of a standard deviation of its own along each axis, voxels."""
    away = torch.arange(-REACH, REACH + 1, dtype=torch.float32, device=frames.device)
    volumes = frames[:, None]
    for axis, sigma in enumerate(sigmas):
        if not sigma:
            continue
        kernel = torch.exp(-0.5 * (away / sigma) ** 2)
        shape, pad = [1] * 5, [0] * 6
        shape[2 + axis] = len(away)
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = REACH
        volumes = F.conv3d(F.pad(volumes, pad, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return volumes[:, 0]


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return the (3, 3) matrix of a rotation about x, then y, then z; angles in radians.

    >>> np.round(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0])
    array([0., 1., 0.])
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
