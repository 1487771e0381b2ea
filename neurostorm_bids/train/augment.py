"""Augmentation of clips: a small rotation and scaling, noise, smoothing; the same for all frames.

As in the published pretraining: rotation by up to 10 degrees about each axis and scaling by up to 10 % along each, about the
centre of the grid, what comes in from outside being the border; then noise in three clips of ten, one image for all frames;
then smoothing in one of ten.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

MAX_ROTATION = math.radians(10)  # about each axis
MAX_SCALING = 0.1  # along each axis
MAX_NOISE, NOISE_SHARE = 0.1, 0.3  # standard deviation, in z-scores; share of clips
MAX_SMOOTHING, SMOOTHING_SHARE = 0.5, 0.1  # standard deviation, voxels; share of clips
AUGMENTATIONS = ("published", "per-frame", "none")


def augment(clip: Tensor, background: float, rng: np.random.Generator, how: str = "published") -> Tensor:
    """Disturb a clip, (X, Y, Z, T) -> the same shape.

    Parameters
    ----------
    background : float
        z-score outside the brain.
    rng : Generator
    how : {"published", "per-frame", "none"}
        per-frame: every frame has noise of its own, and what comes in from outside the grid is background.
    """
    if how == "none":
        return clip
    is_published = how == "published"
    offset = 0.0 if is_published else background  # zeros come in from outside unless the border does
    frames = clip.movedim(-1, 0)[None] - offset
    axes = rotation(rng.uniform(-MAX_ROTATION, MAX_ROTATION, 3)) @ np.diag(
        1 + rng.uniform(-MAX_SCALING, MAX_SCALING, 3)
    )
    # grid_sample's coordinates go from -1 to 1 along (z, y, x): the centre of the grid stays where it is
    matrix = torch.tensor(np.column_stack([axes[::-1, ::-1], np.zeros(3)])[None], dtype=torch.float32)
    where = F.affine_grid(matrix, [1, 1, *frames.shape[2:]], align_corners=False)
    outside = "border" if is_published else "zeros"
    frames = F.grid_sample(frames, where, padding_mode=outside, align_corners=False)[0] + offset
    if rng.random() < NOISE_SHARE:
        shape = frames.shape[1:] if is_published else frames.shape
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(0, MAX_NOISE))
        frames = frames + torch.from_numpy(noise)
    if rng.random() < SMOOTHING_SHARE:
        sigma = rng.uniform(0, MAX_SMOOTHING, 3)
        frames = torch.from_numpy(gaussian_filter(frames.numpy(), (0, *sigma)))
    return frames.movedim(0, -1)


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
