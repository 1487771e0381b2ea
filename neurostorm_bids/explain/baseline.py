"""What a run is compared with: its own mean image, that of other people, or one value everywhere."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.encode.controls import as_fed
from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.model.names import AT_MEAN
from neurostorm_bids.settings.explaining import OWN_MEAN


@dataclass(frozen=True)
class Baseline:
    """What a run is compared with.

    Attributes
    ----------
    name : str
        Of `settings.participant.BASELINES`.
    others : (X, Y, Z) array, or None
        Mean image of other people's runs, for that baseline.
    people : tuple of str
        Whose they are.
    """

    name: str
    others: np.ndarray | None = None
    people: tuple[str, ...] = ()

    def clips(self, encoded: EncodedRun, starts: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield windows and what they are compared with, (X, Y, Z, T) each; the same outside the brain."""
        gridded, length, device = encoded.gridded, encoded.windows.length, encoded.model.device
        mean = as_fed(gridded, AT_MEAN) if self.name == OWN_MEAN else None
        brain = np.zeros((*gridded.grid.shape, 1), dtype=bool)
        brain.flat[gridded.brain] = True
        for start in starts:
            clip = gridded.window(int(start), int(start) + length)
            if mean is not None:
                other = mean.window(int(start), int(start) + length)
            else:
                inside = np.float32(0) if self.others is None else self.others[..., None].astype(np.float32)
                other = np.where(brain, inside, clip)
            yield (
                torch.from_numpy(np.ascontiguousarray(clip)).to(device),
                torch.from_numpy(np.ascontiguousarray(other)).to(device),
            )
