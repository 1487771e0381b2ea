"""Windows for pretraining: clips of gridded runs, what is hidden of them, and whose they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neurostorm_bids.model.masks import Masking
from neurostorm_bids.resample.gridded import FrameSource
from neurostorm_bids.train.augment import augment

MASK, PARTNER = 2, 3  # set random numbers apart that are for different things

Item = tuple[Tensor, Tensor, float, int]  # clips, hidden units, background, person


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


class PretrainingWindows(Dataset[Item]):
    """Windows of runs; items are asked for by (epoch, number), and are the same for the same ones in every process.

    Parameters
    ----------
    runs : sequence of FrameSource
    people : (runs,) int array
        Whose they are.
    length : int
        Frames of a window.
    views : Views
    seed : int
    shifted : bool
        Start every window up to a window's length later, at random.
    """

    def __init__(
        self,
        runs: Sequence[FrameSource],
        people: np.ndarray,
        length: int,
        views: Views,
        seed: int,
        *,
        shifted: bool = False,
    ):
        self.runs, self.people, self.length, self.views, self.seed = runs, people, length, views, seed
        self.shifted = shifted
        counts = np.array([run.shape[3] // length for run in runs])
        if views.n_clips > 1:  # a partner that does not overlap has to be there
            counts = np.where(counts > 1, counts, 0)
        self.run = np.repeat(np.arange(len(runs)), counts)
        self.start = np.concatenate([length * np.arange(n) for n in counts]) if counts.sum() else np.empty(0, int)

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, item: tuple[int, int]) -> Item:
        """Return clips (n_clips, 1, X, Y, Z, length), hidden units (units,), the background, and the person's number."""
        epoch, i = item
        rng = np.random.default_rng([self.seed, epoch, i])
        run, start = self.runs[self.run[i]], int(self.start[i])
        last = run.shape[3] - self.length
        if self.shifted:
            start = int(rng.integers(start, min(start + self.length - 1, last) + 1))
        starts = [start]
        if self.views.n_clips > 1:
            starts.append(self._partner(start, last, np.random.default_rng([self.seed, epoch, i, PARTNER])))
        clips = [self._clip(run, each, rng) for each in starts for _ in range(max(1, self.views.n_clips // 2))]
        generator = torch.Generator().manual_seed(
            int(np.random.default_rng([self.seed, epoch, i, MASK]).integers(2**62))
        )
        hidden = self.views.masking.draw(1, self.views.n_units, generator)[0]
        return torch.stack(clips), hidden, float(run.background), int(self.people[self.run[i]])

    def _clip(self, run: FrameSource, start: int, rng: np.random.Generator) -> Tensor:
        clip = torch.from_numpy(run.window(start, start + self.length))
        return augment(clip, run.background, rng, self.views.augmentation)[None]

    def _partner(self, start: int, last: int, rng: np.random.Generator) -> int:
        """Return the first frame of another window of the run that does not overlap with the one at ``start``."""
        before, after = max(0, start - self.length + 1), max(0, last - start - self.length + 1)
        if before + after == 0:  # shifted into the middle of a run of two windows: the nearest that there is
            return 0 if start > last - start else last
        k = int(rng.integers(before + after))
        return k if k < before else start + self.length + k - before
