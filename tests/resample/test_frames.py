"""Frames in memory or on disk."""

import numpy as np

from neurostorm_bids.resample.frames import FrameStore


def test_frame_store_reads_what_was_written(tmp_path):
    rng = np.random.RandomState(0)
    frames = rng.standard_normal((20, 7)).astype(np.float32)
    for folder in (None, tmp_path):
        store = FrameStore(7, folder)
        for start in (0, 8, 16):
            store.append(frames[start : start + 8])
        store.write(3, frames[10:12])
        expected = frames.copy()
        expected[3:5] = frames[10:12]
        assert len(store) == 20
        for part in (slice(None), slice(2, 9), slice(15, 99), slice(5, 5), slice(-3, None)):
            assert np.array_equal(store[part], expected[part])
