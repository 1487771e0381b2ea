"""What is said about this process."""

import re
from pathlib import Path

import pytest
import torch

from neurostorm_bids.runtime.process import is_out_of_memory, peak_mb, resident_mb


def test_memory_is_in_mb_of_a_million_bytes():
    """Against the kernel, which says KiB: a MiB would be 4.9 % more."""
    ballast = bytearray(300_000_000)
    kib = int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    assert resident_mb() == pytest.approx(kib * 1024 / 1e6, rel=0.01)
    assert peak_mb() >= 0.99 * resident_mb()
    assert len(ballast)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected
