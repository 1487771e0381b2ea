"""Which tokens of a clip are hidden from the encoder in pretraining.

A mask is drawn over units: single tokens, windows, or regions of a parcellation, all frames or some. Units are what is
hidden as a whole; tokens are what the encoder sees.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MASKS = ("random", "window", "window-tube", "token-tube", "atlas")
OUTSIDE = 0  # label of what is no region of a parcellation


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden.

    Attributes
    ----------
    kind : str
        One of `MASKS`. random: single tokens; window: 4-D windows; window-tube: spatial windows in all frames; token-tube:
        spatial tokens for as many frames as a window has; atlas: regions of a parcellation in all frames.
    ratio : float
        Share of the units, above 0 and below 1.
    window : tuple of 4 int
        Tokens of a window along x, y, z and time.

    Raises
    ------
    ValueError
        If the kind is unknown or the ratio out of range.
    """

    kind: str = "window"
    ratio: float = 0.5
    window: tuple[int, ...] = (4, 4, 4, 4)

    def __post_init__(self) -> None:
        if self.kind not in MASKS:
            raise ValueError(f"mask '{self.kind}' is none of {', '.join(MASKS)}")
        if not 0 < self.ratio < 1:
            raise ValueError(f"a mask of {self.ratio:g} hides nothing or everything; it has to be between 0 and 1")

    def units(self, shape: tuple[int, ...], regions: Tensor | None = None) -> Tensor:
        """Return the unit of every token, (D, H, W, T) int64; -1 for a token that is never hidden.

        Parameters
        ----------
        shape : tuple of 4 int
            D, H, W, T of the tokens.
        regions : (D, H, W) int tensor, optional
            Label of each patch, for atlas; `OUTSIDE` for none.

        Raises
        ------
        ValueError
            If there is no parcellation, or no region in it.
        """
        d, h, w, t = shape
        x, y, z, s = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
        wd, wh, ww, wt = self.window
        if self.kind == "atlas":
            if regions is None or tuple(regions.shape) != (d, h, w):
                raise ValueError("a mask of regions needs a parcellation in the grid of patches")
            labels, numbers = torch.unique(regions, return_inverse=True)
            there = labels != OUTSIDE
            if not there.any():
                raise ValueError("the parcellation has no region in the grid")
            number = torch.where(there, torch.cumsum(there, 0) - 1, -1)[numbers]
            return number[..., None].expand(d, h, w, t).contiguous()
        if self.kind == "random":
            return _numbers((x, y, z, s), shape)
        if self.kind == "token-tube":
            return _numbers((x, y, z, s // wt), (d, h, w, math.ceil(t / wt)))
        n = [math.ceil(size / step) for size, step in zip(shape, self.window, strict=True)]
        if self.kind == "window-tube":
            return _numbers((x // wd, y // wh, z // ww, s * 0), (*n[:3], 1))
        return _numbers((x // wd, y // wh, z // ww, s // wt), tuple(n))

    def draw(self, n_clips: int, n_units: int, generator: torch.Generator) -> Tensor:
        """Return which units are hidden in each clip, (B, units) bool: as many in each, at least one region of an atlas."""
        n = math.floor(self.ratio * n_units)
        if self.kind == "atlas":
            n = max(1, n)
        order = torch.rand(n_clips, n_units, generator=generator, device=generator.device).argsort(dim=1)
        return order < n

    @property
    def has_places(self) -> bool:
        """Whether what stands for a hidden token depends on its place in the window."""
        return self.kind == "window"


def regions_of_patches(labels: np.ndarray, patch: tuple[int, ...]) -> Tensor:
    """Return the label of every patch, (D, H, W): the most frequent one among its voxels, those of no region left aside.

    Parameters
    ----------
    labels : (X, Y, Z) int array
        0 where there is no region.
    patch : tuple of 3 int
        Voxels along x, y and z.
    """
    d, h, w = (n // p for n, p in zip(labels.shape, patch, strict=True))
    px, py, pz = patch
    voxels = labels.reshape(d, px, h, py, w, pz).transpose(0, 2, 4, 1, 3, 5).reshape(d * h * w, -1)
    found = np.zeros(len(voxels), np.int64)
    for i in np.flatnonzero(voxels.any(axis=1)):
        found[i] = np.bincount(voxels[i][voxels[i] > 0]).argmax()
    return torch.from_numpy(found.reshape(d, h, w))


def of_tokens(hidden: Tensor, units: Tensor) -> Tensor:
    """Return which tokens are hidden, (B, D, H, W, T) bool, from hidden units (B, units) and the unit of each token."""
    padded = torch.cat([hidden, hidden.new_zeros(len(hidden), 1)], dim=1)  # -1 is the last one: never hidden
    return padded[:, units.to(hidden.device)]


def places_in_window(shape: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """Return each token's place in its window in raster order, (D, H, W, T) int64."""
    where = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    return _numbers(tuple(x % w for x, w in zip(where, window, strict=True)), window)


def _numbers(where: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
    """Return raster numbers of places in a grid of this shape; the last axis varies fastest."""
    number = torch.zeros_like(where[0])
    for x, n in zip(where, shape, strict=True):
        number = number * n + x
    return number
