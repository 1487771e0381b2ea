"""Resampled volumes in memory or in a nameless file, so that memory does not grow with the length of a run."""

import os
import tempfile
from pathlib import Path

import numpy as np

from neurostorm_bids.errors import NeurostormError


class FrameStore:
    """Volumes of one run, (volumes, voxels) float32, appended in order and read in slices.

    Parameters
    ----------
    n_voxels : int
    folder : Path, optional
        Where the volumes are kept, in a file without a name that vanishes with the store or the process; `None`
        keeps them in memory.
    """

    def __init__(self, n_voxels: int, folder: Path | None = None):
        self.n_voxels, self.n_frames = n_voxels, 0
        self._folder = folder
        self._arrays: list[np.ndarray] = []
        # Plain reads and writes, not a memory map: mapped pages would count as this process's memory.
        self._file = None if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as this object)

    def append(self, frames: np.ndarray) -> None:
        """Add (n, voxels) volumes at the end."""
        self.write(self.n_frames, frames)
        self.n_frames += len(frames)

    def write(self, start: int, frames: np.ndarray) -> None:
        """Put (n, voxels) volumes at ``start``, in place of any that are there."""
        frames = np.ascontiguousarray(frames, dtype=np.float32)
        if self._file is None:
            self._arrays[start : start + len(frames)] = list(frames)
            return
        try:
            view, offset = frames.data.cast("B"), 4 * self.n_voxels * start
            while len(view):
                written = os.pwrite(self._file.fileno(), view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise NeurostormError(
                f"the work folder {self._folder} cannot hold the resampled run ({error.strerror}); "
                "make room, or give another with --work-dir"
            ) from None

    def __len__(self) -> int:
        return self.n_frames

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Return the volumes of a slice with step 1, (n, voxels)."""
        start, stop, _ = frames.indices(self.n_frames)
        n = max(0, stop - start)
        if self._file is None:
            return np.stack(self._arrays[start:stop]) if n else np.empty((0, self.n_voxels), np.float32)
        out = np.empty((n, self.n_voxels), np.float32)
        view = out.data.cast("B") if n else memoryview(b"")
        offset = 4 * self.n_voxels * start
        while len(view):
            got = os.preadv(self._file.fileno(), [view], offset)
            if not got:
                raise NeurostormError(f"the work folder {self._folder} has lost the resampled run; run it again")
            view, offset = view[got:], offset + got
        return out
