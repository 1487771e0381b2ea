"""Clips of gridded runs for training, in an order that depends on seed and epoch alone."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from neurostorm_bids.encode.windows import window_starts
from neurostorm_bids.resample.gridded import FrameSource
from neurostorm_bids.train.augment import augment


class Clips(Dataset[tuple[Tensor, np.float32]]):
    """Windows of runs with their labels; items are asked for by (epoch, number).

    Parameters
    ----------
    runs : sequence of FrameSource
    y : (runs,) float32 array
        Labels as the loss takes them.
    length : int
        Frames of a window.
    seed : int
    shifted : bool
        Start every window up to a window's length later, at random.
    augmented : bool
        Rotate, scale, smooth and add noise.
    """

    def __init__(
        self,
        runs: Sequence[FrameSource],
        y: np.ndarray,
        length: int,
        seed: int,
        *,
        shifted: bool = False,
        augmented: bool = False,
    ):
        self.runs, self.y, self.length, self.seed = runs, y, length, seed
        self.shifted, self.augmented = shifted, augmented
        starts = [window_starts(run.shape[3], length, length) for run in runs]
        self.run_of = np.repeat(np.arange(len(runs)), [len(some) for some in starts])
        self.starts = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, np.float32]:
        """Return a clip (1, X, Y, Z, length) and its label: the same for the same epoch and number, in every process."""
        epoch, i = item
        rng = np.random.default_rng([self.seed, epoch, i])
        run, start = self.runs[self.run_of[i]], int(self.starts[i])
        if self.shifted:
            latest = min(start + self.length - 1, run.shape[3] - self.length)
            start = int(rng.integers(start, latest + 1))
        clip = torch.from_numpy(run.window(start, start + self.length))
        if self.augmented:
            clip = augment(clip, run.background, rng)
        return clip[None], self.y[self.run_of[i]]


class Embedded(Dataset[tuple[Tensor, np.float32]]):
    """Embeddings of windows with their labels, where the encoder is not tuned.

    Parameters
    ----------
    embeddings : (windows, channels) array
    y : (windows,) float32 array
    """

    def __init__(self, embeddings: np.ndarray, y: np.ndarray):
        self.embeddings, self.y = torch.from_numpy(np.asarray(embeddings, np.float32)), y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, np.float32]:
        """Return an embedding (channels,) and its label."""
        return self.embeddings[item[1]], self.y[item[1]]


class Order(Sampler[tuple[int, int]]):
    """(epoch, number) of all items, shared among processes: a batch of each of them makes one batch of all.

    Parameters
    ----------
    n : int
        Items.
    seed : int or None
        `None` keeps their order, and all of them.
    rank, world : int
        Number of this process, of how many.
    """

    def __init__(self, n: int, seed: int | None, rank: int = 0, world: int = 1):
        self.n, self.seed, self.rank, self.world, self.epoch = n, seed, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this at the start of each."""
        self.epoch = epoch

    def _numbers(self) -> np.ndarray:
        if self.seed is None:
            return np.arange(self.n)[self.rank :: self.world]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        if self.n >= self.world:  # every process has as many steps as the others
            order = order[: self.n // self.world * self.world]
        return order[self.rank :: self.world]

    def __len__(self) -> int:
        return len(self._numbers())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, int(i)) for i in self._numbers())
