"""Windows for pretraining: clips of gridded runs, what is hidden of them, and whose they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from neurostorm_bids.model.masks import Masking
from neurostorm_bids.train.clips import RawClips, StoredFrames, raw_clip

MASK, PARTNER, MIXED = 2, 3, 4  # set random numbers apart that are for different things


class Runs(Protocol):
    """Runs by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> StoredFrames:
        """Return a run."""


Item = tuple[RawClips, Tensor, float, int]  # clips, hidden units, background, person


@dataclass(frozen=True)
class Views:
    """What is made of a window.

    Attributes
    ----------
    masking : Masking
    n_units : int
        That can be hidden.
    augmentation : str
        One of `augment.AUGMENTATIONS`.
    n_clips : int
        1: the window; 2: it and another of its run that does not overlap; 4: two views of both.
    """

    masking: Masking
    n_units: int
    augmentation: str = "published"
    n_clips: int = 1


class Mixture:
    """Which windows a pass is made of, where several data sets are mixed: a share of each that grows with size ** exponent.

    No window of a data set comes twice before all of it have come once.

    Parameters
    ----------
    sizes : sequence of int
        Windows of each data set.
    exponent : float
        1: every window once, as data sets are put one after another; 0: the same number of each.
    seed : int
    """

    def __init__(self, sizes: Sequence[int], exponent: float, seed: int):
        self.sizes, self.seed = np.array(sizes), seed
        self.firsts = np.concatenate([[0], np.cumsum(self.sizes)])
        weights = np.where(self.sizes > 0, self.sizes.astype(float) ** exponent, 0.0)
        exact = weights / weights.sum() * self.sizes.sum()
        counts = np.floor(exact).astype(int)
        left = int(self.sizes.sum() - counts.sum())
        counts[np.argsort(counts - exact, kind="stable")[:left]] += 1  # the largest remainders
        self.counts = counts
        self.ends = np.cumsum(counts)
        self._order = lru_cache(maxsize=2 * len(self.sizes))(self._permutation)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._order = lru_cache(maxsize=2 * len(self.sizes))(self._permutation)

    def window(self, number: int, i: int) -> int:
        """Return the window that is item ``i`` of a pass."""
        if (self.counts == self.sizes).all():
            return i
        dataset = int(np.searchsorted(self.ends, i, side="right"))
        k = i - int(self.ends[dataset] - self.counts[dataset])
        cycle, place = divmod(number * int(self.counts[dataset]) + k, int(self.sizes[dataset]))
        return int(self.firsts[dataset] + self._order(dataset, cycle)[place])

    def _permutation(self, dataset: int, cycle: int) -> np.ndarray:
        return np.random.default_rng([self.seed, dataset, cycle, MIXED]).permutation(int(self.sizes[dataset]))


class PretrainingWindows(Dataset[Item]):
    """Windows of runs; items are asked for by (pass, number), and are the same for the same ones in every process.

    Parameters
    ----------
    runs : sequence of StoredFrames
        Those of a data set one after another.
    people : (runs,) int array
        Whose they are.
    length : int
        Frames of a window.
    views : Views
    seed : int
    shifted : bool
        Start every window up to a window's length later, at random.
    datasets : (runs,) int array, optional
        Of which data set they are, from 0.
    exponent : float
        How data sets are mixed, see `Mixture`.
    """

    def __init__(
        self,
        runs: Runs,
        people: np.ndarray,
        length: int,
        views: Views,
        seed: int,
        *,
        shifted: bool = False,
        datasets: np.ndarray | None = None,
        exponent: float = 1.0,
    ):
        self.runs, self.people, self.length, self.views, self.seed = runs, people, length, views, seed
        self.shifted = shifted
        frames = getattr(runs, "n_frames", None)
        counts = np.array([runs[k].shape[3] for k in range(len(runs))] if frames is None else frames, int) // length
        if views.n_clips > 1:  # a partner that does not overlap has to be there
            counts = np.where(counts > 1, counts, 0)
        self.ends = np.cumsum(counts)
        self.counts = counts
        of = np.zeros(len(counts), int) if datasets is None else datasets
        sizes = np.bincount(of, weights=counts).astype(int).tolist() if len(counts) else [0]
        self.mixture = Mixture(sizes, exponent, seed)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def place(self, window: int) -> tuple[int, int]:
        """Return the number of a window's run, and its first frame."""
        run = int(np.searchsorted(self.ends, window, side="right"))
        return run, self.length * (window - int(self.ends[run] - self.counts[run]))

    def __getitem__(self, item: tuple[int, int]) -> Item:
        """Return clips (n_clips, ...), hidden units (units,), the background, and the person's number."""
        number, i = item
        rng = np.random.default_rng([self.seed, number, i])
        k, start = self.place(self.mixture.window(number, i))
        run = self.runs[k]
        last = run.shape[3] - self.length
        if self.shifted:
            near = np.arange(start, min(start + self.length - 1, last) + 1)
            if self.views.n_clips > 1:  # from the middle of a short run no window is left for the partner
                near = near[(near >= self.length) | (near <= last - self.length)]
            start = int(near[rng.integers(len(near))])
        starts = [start]
        if self.views.n_clips > 1:
            starts.append(self._partner(start, last, np.random.default_rng([self.seed, number, i, PARTNER])))
        clips = [
            raw_clip(run, each, self.length, rng, self.views.augmentation)
            for each in starts
            for _ in range(max(1, self.views.n_clips // 2))
        ]
        generator = torch.Generator().manual_seed(
            int(np.random.default_rng([self.seed, number, i, MASK]).integers(2**62))
        )
        hidden = self.views.masking.draw(1, self.views.n_units, generator)[0]
        return default_collate(clips), hidden, float(run.background), int(self.people[k])

    def _partner(self, start: int, last: int, rng: np.random.Generator) -> int:
        """Return the first frame of another window of the run that does not overlap with the one at ``start``."""
        before, after = max(0, start - self.length + 1), max(0, last - start - self.length + 1)
        k = int(rng.integers(before + after))
        return k if k < before else start + self.length + k - before


class HeldOut(Dataset[Item]):
    """Some of the windows of people who are held out, as many of each: as many as can be looked at often.

    Parameters
    ----------
    windows : PretrainingWindows
    most : int
        Windows.
    seed : int
    """

    def __init__(self, windows: PretrainingWindows, most: int, seed: int):
        self.windows = windows
        people = np.repeat(windows.people, windows.counts)
        order = np.random.default_rng(seed).permutation(len(people))
        _, first, theirs = np.unique(people[order], return_index=True, return_inverse=True)
        by_person = np.lexsort([first[theirs]])  # people in the order in which they come first
        counts = np.bincount(theirs)[np.argsort(first)]
        nth = np.arange(len(people)) - np.repeat(np.cumsum(counts) - counts, counts)
        # two windows of everybody, then two more, ...: two of many people rather than many of two
        chosen = order[by_person[np.lexsort([np.arange(len(people)), nth // 2])]]
        self.chosen = np.sort(chosen[:most])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        """Return the same as `PretrainingWindows`, in every pass the same."""
        return self.windows[0, int(self.chosen[item[1]])]
