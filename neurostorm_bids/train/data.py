"""Clips of gridded runs for training, in an order that depends on seed and epoch alone."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from neurostorm_bids.train.clips import RawClips, StoredFrames, raw_clip

Item = tuple[RawClips | Tensor, np.float32, int]  # a clip or an embedding, its label, the number of its sample
DRAWING = 1  # sets the random numbers that choose windows apart from those that change them


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of runs.

    Attributes
    ----------
    run : (windows,) int array
        Number of the run.
    start : (windows,) int array
        First frame.
    y : (windows,) float32 array
        Label as the loss takes it.
    sample : (windows,) int array
        Number of the sample, from 0.
    """

    run: np.ndarray
    start: np.ndarray
    y: np.ndarray
    sample: np.ndarray

    @classmethod
    def of(cls, starts: Sequence[np.ndarray], y: np.ndarray, samples: np.ndarray) -> "LabelledWindows":
        """Return the windows of runs, from their first frames, and the label and the sample of each run."""
        run = np.repeat(np.arange(len(starts)), [len(some) for some in starts])
        numbers = np.unique(samples, return_inverse=True)[1]
        return cls(run, np.concatenate(starts), y[run].astype(np.float32), numbers[run])

    @property
    def counts(self) -> np.ndarray:
        """How many windows each sample has, (samples,)."""
        return np.bincount(self.sample)


class Draw:
    """Which windows an epoch is made of: every one once, or the same number of each sample.

    Parameters
    ----------
    windows : LabelledWindows
    seed : int
    per_sample : int or None
        Windows of each sample in an epoch, drawn anew in each; none comes twice before all of the sample have come once.
        `None` for all windows.
    """

    def __init__(self, windows: LabelledWindows, seed: int, per_sample: int | None = None):
        self.seed, self.per_sample = seed, per_sample
        self.of_sample = np.split(np.argsort(windows.sample, kind="stable"), np.cumsum(windows.counts)[:-1])
        self.n = len(windows.start) if per_sample is None else per_sample * len(self.of_sample)

    def __len__(self) -> int:
        return self.n

    def window(self, epoch: int, i: int) -> int:
        """Return the number of the window that is item ``i`` of an epoch."""
        if self.per_sample is None:
            return i
        sample, k = divmod(i, self.per_sample)
        windows = self.of_sample[sample]
        rng = np.random.default_rng([self.seed, epoch, sample, DRAWING])
        return int(rng.permutation(windows)[k % len(windows)])


class Clips(Dataset[Item]):
    """Windows of runs with their labels; items are asked for by (epoch, number).

    Parameters
    ----------
    runs : sequence of StoredFrames
    windows : LabelledWindows
    length : int
        Frames of a window.
    draw : Draw
    shifts : sequence of bool array or None, optional
        Start every window up to a window's length later, at random: where the run's array has True, or `None`, anywhere.
    augmentation : str
        How clips are disturbed, one of `augment.AUGMENTATIONS`.
    """

    def __init__(
        self,
        runs: Sequence[StoredFrames],
        windows: LabelledWindows,
        length: int,
        draw: Draw,
        *,
        shifts: Sequence[np.ndarray | None] | None = None,
        augmentation: str = "none",
    ):
        self.runs, self.windows, self.length, self.draw = runs, windows, length, draw
        self.shifts, self.augmentation = shifts, augmentation

    def __len__(self) -> int:
        return len(self.draw)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        """Return a clip, its label and its sample: the same for the same epoch and number, in every process."""
        epoch, i = item
        rng = np.random.default_rng([self.draw.seed, epoch, i])
        k = self.draw.window(epoch, i)
        run, start = self.runs[self.windows.run[k]], int(self.windows.start[k])
        if self.shifts is not None:
            later = np.arange(start, min(start + self.length, run.shape[3] - self.length + 1))
            allowed = self.shifts[self.windows.run[k]]
            start = int(rng.choice(later if allowed is None else later[allowed[later]]))
        clip = raw_clip(run, start, self.length, rng, self.augmentation)
        return clip, self.windows.y[k], int(self.windows.sample[k])


class Embedded(Dataset[Item]):
    """Embeddings of windows with their labels, where the encoder is not tuned.

    Parameters
    ----------
    embeddings : (windows, channels) array
    windows : LabelledWindows
    draw : Draw
    """

    def __init__(self, embeddings: np.ndarray, windows: LabelledWindows, draw: Draw):
        self.embeddings = torch.from_numpy(np.asarray(embeddings, np.float32))
        self.windows, self.draw = windows, draw

    def __len__(self) -> int:
        return len(self.draw)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        """Return an embedding (channels,), its label and its sample."""
        k = self.draw.window(*item)
        return self.embeddings[k], self.windows.y[k], int(self.windows.sample[k])


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
        self.seen: tuple[int, int] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this at the start of each."""
        self.epoch = epoch

    def skip(self, epoch: int, n_items: int) -> None:
        """Leave out the first items of an epoch, which an earlier call has had."""
        self.seen = (epoch, n_items)

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
        first = self.seen[1] if self.seen is not None and self.seen[0] == self.epoch else 0
        return ((self.epoch, int(i)) for i in self._numbers()[first:])


class Stream(Order):
    """(pass, number) of items, pass after pass over all of them, cut into stretches of so many steps: the epochs of the engine.

    Parameters
    ----------
    n : int
        Items.
    seed : int
    step : int
        Items that all processes take in a step of the optimiser.
    n_steps : int
        Of a stretch.
    rank, world : int
        Number of this process, of how many.
    """

    def __init__(self, n: int, seed: int, step: int, n_steps: int, rank: int = 0, world: int = 1):
        super().__init__(n, seed, rank, world)
        self.step, self.n_steps, self.in_pass = step, n_steps, n // step

    def __len__(self) -> int:
        return self.n_steps * self.step // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.seen[1] if self.seen is not None and self.seen[0] == self.epoch else 0
        return itertools.islice(self._items(), first, None)

    def _items(self) -> Iterator[tuple[int, int]]:
        order, ordered = np.empty(0, int), -1
        for step in range(self.epoch * self.n_steps, (self.epoch + 1) * self.n_steps):
            number, k = divmod(step, self.in_pass)
            if number != ordered:
                order, ordered = np.random.default_rng([self.seed or 0, number]).permutation(self.n), number
            for i in order[k * self.step : (k + 1) * self.step][self.rank :: self.world]:
                yield number, int(i)
