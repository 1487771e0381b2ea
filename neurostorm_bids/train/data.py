"""Clips of placed runs for training, in an order that depends on seed and epoch alone."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from neurostorm_bids.encode.windows import window_starts
from neurostorm_bids.train.augment import augment


class Stored(Protocol):
    """A placed run that frames can be read from."""

    background: float
    shape: tuple

    def window(self, start: int, stop: int) -> np.ndarray:
        """(X, Y, Z, stop - start) float32."""


class Clips(Dataset):
    """Windows of runs with their labels; items are asked for by (epoch, number).

    Parameters
    ----------
    runs : list of Stored
    y : (runs,) float32 array
        Labels as the loss takes them.
    length : int
        Frames of a window.
    moved : bool
        Begin every window up to a window's length later, by chance.
    augmented : bool
    seed : int
    """

    def __init__(self, runs: "list[Stored]", y: np.ndarray, length: int, moved: bool, augmented: bool, seed: int):
        self.runs, self.y, self.length, self.moved, self.augmented, self.seed = runs, y, length, moved, augmented, seed
        starts = [window_starts(run.shape[3], length, length) for run in runs]
        self.of_run = np.repeat(np.arange(len(runs)), [len(some) for some in starts])
        self.starts = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, item: "tuple[int, int]") -> "tuple[Tensor, np.float32]":
        """A clip (1, X, Y, Z, length) and its label: the same for the same epoch and number, whoever asks."""
        epoch, i = item
        rng = np.random.default_rng([self.seed, epoch, i])
        run, start = self.runs[self.of_run[i]], int(self.starts[i])
        if self.moved:
            latest = min(start + self.length - 1, run.shape[3] - self.length)
            start = int(rng.integers(start, latest + 1))
        clip = torch.from_numpy(run.window(start, start + self.length))
        if self.augmented:
            clip = augment(clip, run.background, rng)
        return clip[None], self.y[self.of_run[i]]


class Embedded(Dataset):
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

    def __getitem__(self, item: "tuple[int, int]") -> "tuple[Tensor, np.float32]":
        """An embedding (channels,) and its label."""
        return self.embeddings[item[1]], self.y[item[1]]


class Order(Sampler):
    """(epoch, number) of all items, shared between processes: a batch of each makes one batch of all.

    Parameters
    ----------
    n : int
        Items.
    seed : int or None
        `None` leaves them in their order, and nothing out.
    rank, world : int
        Number of this process, of how many.
    """

    def __init__(self, n: int, seed: "int | None", rank: int = 0, world: int = 1):
        self.n, self.seed, self.rank, self.world, self.epoch = n, seed, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning tells at the beginning of each epoch."""
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

    def __iter__(self) -> "Iterator[tuple[int, int]]":
        return ((self.epoch, int(i)) for i in self._numbers())
