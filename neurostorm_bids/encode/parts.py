"""More of each window than one vector: one for each frame, or one for each place and frame."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.settings.participant import FRAME, TOKEN, Encoding


@dataclass
class Parts:
    """The tokens of a stage in the windows of a run.

    Attributes
    ----------
    stage : int
        From 1.
    with_tokens : bool
        Whether every token is kept, beside their mean over space.
    work_dir : Path or None
        Tokens are kept in a nameless file of this folder; `None` keeps them in memory.
    shape : tuple of int
        Of a window's tokens, (x, y, z, frames, channels).
    of_frames : list of (windows, frames, channels) float32 arrays
        Mean over space, batch after batch.
    tokens : FrameStore or None
        A row for each window.
    """

    stage: int
    with_tokens: bool
    work_dir: Path | None = None
    shape: tuple[int, ...] = ()
    of_frames: list[np.ndarray] = field(default_factory=list)
    tokens: FrameStore | None = None

    @property
    def frames(self) -> np.ndarray:
        """Mean over the places of a stage, (windows, frames, channels) float32."""
        return np.concatenate(self.of_frames)

    def add(self, tokens: Tensor) -> None:
        """Keep the tokens of a batch of windows, (B, C, x, y, z, T)."""
        self.of_frames.append(tokens.mean(dim=(2, 3, 4)).transpose(1, 2).cpu().numpy())
        self.shape = (*tokens.shape[2:], tokens.shape[1])
        if self.with_tokens:
            rows = tokens.permute(0, 2, 3, 4, 5, 1).reshape(len(tokens), -1).cpu().numpy()
            self.tokens = self.tokens or FrameStore(rows.shape[1], self.work_dir)
            self.tokens.append(rows)


def parts_of(model: Model, encoding: Encoding, work_dir: Path | None = None) -> Parts | None:
    """Return what keeps the parts of windows that are asked for; `None` for vectors of windows alone.

    Raises
    ------
    NeurostormError
        If the model has no such stage.
    """
    if not {FRAME, TOKEN} & set(encoding.embedding_level):
        return None
    n = len(model.network.config.depths)
    if encoding.stage is not None and encoding.stage > n:
        raise NeurostormError(f"--stage {encoding.stage}: model '{model.name}' has {n} stages")
    return Parts(encoding.stage or n, TOKEN in encoding.embedding_level, work_dir)


def token_centres(model: Model, grid: Grid, stage: int) -> np.ndarray:
    """Return where the middles of a stage's tokens are in the world (RAS), mm, (x, y, z, 3).

    Parameters
    ----------
    grid : Grid
        That runs are fed in; a model of another size resizes them.
    stage : int
        From 1.
    """
    config = model.network.config
    edges = np.array(config.patch_size[:3]) * 2 ** (stage - 1)
    index = np.stack(np.meshgrid(*map(np.arange, config.grid(stage - 1)), indexing="ij"), axis=-1)
    shrunk = np.array(grid.shape) / np.array(config.img_size[:3])  # the outer faces of voxels coincide
    return np.asarray(apply_affine(grid.matrix, (index + 0.5) * edges * shrunk - 0.5))
