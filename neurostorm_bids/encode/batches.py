"""Make batches of windows ahead of the model, and bring them to its device."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.resample.gridded import FrameSource


def batches(
    run: FrameSource, starts: np.ndarray, length: int, batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Yield (B, 1, X, Y, Z, T) batches on the model's device; the next one is prepared while the model works on the last.

    Parameters
    ----------
    run : GriddedRun or StoredRun
    starts : (windows,) int array
    length : int
        Frames of a window.
    batch_size : int
        Windows at a time.
    device : torch.device
    """
    on_its_way = torch.cuda.Stream(device) if device.type == "cuda" else None

    def make(first: int) -> tuple[Tensor, torch.cuda.Event | None]:
        windows = [run.window(start, start + length) for start in starts[first : first + batch_size]]
        # a lone window keeps its order in memory: stacking would copy it
        batch = torch.from_numpy(windows[0][None, None] if len(windows) == 1 else np.stack(windows)[:, None])
        if on_its_way is None:
            return batch, None
        with torch.cuda.stream(on_its_way):  # beside the stream that computes; needs pinned memory
            batch = batch.pin_memory().to(device, non_blocking=True)
            return batch, on_its_way.record_event()

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, 0)
        for first in range(0, len(starts), batch_size):
            batch, arrived = coming.result()
            if first + batch_size < len(starts):
                coming = pool.submit(make, first + batch_size)
            if arrived is not None:
                computing = torch.cuda.current_stream(device)
                computing.wait_event(arrived)
                batch.record_stream(computing)  # its memory is not reused before the model is done with it
            yield batch
