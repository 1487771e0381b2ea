"""Shift the slices of a raw series in time, so that all of a volume stands for one moment.

As AFNI's 3dTshift does it for fMRIPrep: without its linear trend, each series is moved by the phase of its Fourier transform;
beyond its ends it is 0.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy import fft

from neurostorm_bids.resample.frames import FrameStore

FEWEST = 5  # volumes in the steady state, below which fMRIPrep leaves slice timing alone
VOXELS = 4096  # shifted at a time


def shifted(series: np.ndarray, later: float) -> np.ndarray:
    """Return what series were some time later.

    Parameters
    ----------
    series : (volumes, voxels) float32 array
    later : float
        Volumes.
    """
    n = len(series)
    moments = np.arange(n, dtype=np.float32)[:, None]
    middle = moments - (n - 1) / 2
    mean = series.mean(axis=0, dtype=np.float64).astype(np.float32)
    slope = np.einsum("ij,ij->j", middle, series - mean, optimize=True) / np.einsum("ij,ij->", middle, middle)
    long = fft.next_fast_len(n + 1 + int(np.ceil(abs(later))), real=True)
    spectrum = fft.rfft(series - mean - slope * middle, long, axis=0)
    phase = np.exp(2j * np.pi * later * fft.rfftfreq(long)).astype(np.complex64)[:, None]
    moved = fft.irfft(spectrum * phase, long, axis=0)[:n]
    return np.asarray(moved + mean + slope * (middle + np.float32(later)), dtype=np.float32)


class ShiftedSlices:
    """A raw series whose slices were shifted in time; kept in nameless files, so that memory does not grow with its length.

    Parameters
    ----------
    blocks : iterable of (n, Z, Y, X) arrays
        Its volumes.
    later : dict
        By slice: volumes by which it is shifted.
    axis : {0, 1, 2}
        Of x, y, z, along which slices follow each other.
    folder : Path, optional
        As of `FrameStore`.
    """

    def __init__(self, blocks: Iterable[np.ndarray], later: dict[int, float], axis: int, folder: Path | None = None):
        self._dimension = 3 - axis  # of a block
        self._stores: list[FrameStore] = []
        self._shape: tuple[int, ...] = ()
        for block in blocks:
            slices = np.moveaxis(block, self._dimension, 0)
            if not self._stores:
                self._shape = slices.shape[2:]
                self._stores = [FrameStore(int(np.prod(self._shape)), folder) for _ in slices]
            for store, values in zip(self._stores, slices, strict=True):
                store.append(values.reshape(len(block), -1))
        for store, volumes in zip(self._stores, (later[k] for k in sorted(later)), strict=True):
            if volumes:
                self._shift(store, volumes)

    def blocks(self, n_volumes: int) -> Iterator[np.ndarray]:
        """Yield (n, Z, Y, X) arrays of some volumes."""
        for start in range(0, len(self._stores[0]), n_volumes):
            slices = np.stack([store[start : start + n_volumes] for store in self._stores])
            yield np.moveaxis(slices.reshape(*slices.shape[:2], *self._shape), 0, self._dimension)

    @staticmethod
    def _shift(store: FrameStore, volumes: float) -> None:
        series = store[0 : len(store)]
        for start in range(0, series.shape[1], VOXELS):
            series[:, start : start + VOXELS] = shifted(series[:, start : start + VOXELS], volumes)
        store.write(0, series)
