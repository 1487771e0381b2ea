"""The compiled kernels of kernels.c on PyTorch tensors, if this installation has them.

They come with the wheel, built when it is; without them `scan.selective_scan` gives the same numbers more slowly.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Optional

from torch import Tensor


@lru_cache(maxsize=1)
def library() -> Optional[ctypes.CDLL]:
    """The compiled library; `None` where the package was installed without a compiler."""
    spec = find_spec("neurostorm_bids.model.scan._kernels")
    return ctypes.CDLL(spec.origin) if spec is not None and spec.origin else None


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """Causal depthwise convolution and SiLU.

    Parameters
    ----------
    x : (S, L, C) float32 tensor
        Rows may be part of longer rows.
    weight : (taps, C) tensor
    bias : (C,) tensor
    out : (S, L, C) tensor, contiguous
        Written to.
    """
    s, length, channels = out.shape
    sizes = map(ctypes.c_int64, (s, length, channels, weight.shape[0]))
    library().neurostorm_conv_silu(_at(x), _row(x), _at(weight), _at(bias), _at(out), *sizes)


def scan(u: Tensor, delta: Tensor, A: Tensor, BC: Tensor, D: Tensor, gate: Optional[Tensor], out: Tensor) -> None:
    """Selective scan, skip and gate: (scan(u, delta, A, B, C) + D u) * silu(gate).

    Parameters
    ----------
    u, delta, out : (S, L, C) float32 tensors, contiguous
        ``out`` is written to; it may be ``u``.
    A : (N, C) tensor, contiguous
    BC : (S, L, 2 N) tensor
        B, then C; rows may be part of longer rows.
    D : (C,) tensor
    gate : (S, L, C) tensor, or None
        Rows may be part of longer rows; `None` for no gate.
    """
    s, length, channels = out.shape
    gate_at, gate_row = (None, ctypes.c_int64(0)) if gate is None else (_at(gate), _row(gate))
    sizes = map(ctypes.c_int64, (s, length, channels, A.shape[0]))
    library().neurostorm_scan(
        _at(u), _at(delta), _at(A), _at(BC), _row(BC), _at(D), gate_at, gate_row, _at(out), *sizes
    )


def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, BC: Tensor, dy: Tensor, du: Tensor, ddelta: Tensor, dA: Tensor, dBC: Tensor
) -> None:
    """Gradients of the selective scan, without skip and gate.

    Parameters
    ----------
    u, delta, dy : (S, L, C) float32 tensors, contiguous
    A : (N, C) tensor, contiguous
    BC : (S, L, 2 N) tensor, contiguous
    du, ddelta : (S, L, C) tensors, contiguous
        Written to.
    dA, dBC : tensors of the shapes of A and BC, contiguous
        Added to.
    """
    s, length, channels = u.shape
    room = u.new_empty((length * A.shape[0] + 1) * LANES)
    arrays = map(_at, (u, delta, A, BC, dy, du, ddelta, dA, dBC, room))
    library().neurostorm_scan_backward(*arrays, *map(ctypes.c_int64, (s, length, channels, A.shape[0])))


MOST_STATES, LANES = 256, 16  # as in kernels.c


@lru_cache(maxsize=1)
def pool(n: int) -> ThreadPoolExecutor:
    """Threads that stay: new ones for every clip would each bring memory of their own."""
    return ThreadPoolExecutor(n, thread_name_prefix="encode")


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _row(tensor: Tensor) -> ctypes.c_int64:
    """Floats from one token to the next; sequences must follow each other at the same distance."""
    assert tensor.stride(2) == 1
    assert tensor.shape[0] == 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)
    return ctypes.c_int64(tensor.stride(1))
