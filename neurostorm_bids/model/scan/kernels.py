"""The compiled kernels of kernels.c on PyTorch tensors, if this installation has them.

They are built with the package. Without them `reference.selective_scan` gives the same numbers more slowly.
"""

import ctypes
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

from torch import Tensor

MAX_STATES, LANES = 256, 16  # as in kernels.c


class ScanArrays(NamedTuple):
    """The inputs of a scan, or their gradients; float32.

    Attributes
    ----------
    u, delta : (S, L, C) tensors, contiguous
    A : (N, C) tensor, contiguous
    BC : (S, L, 2 N) tensor
        B, then C; rows may be part of longer rows.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    BC: Tensor


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled library; `None` where the package was installed without a compiler."""
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
    _library().neurostorm_conv_silu(_at(x), _row(x), _at(weight), _at(bias), _at(out), *sizes)


def scan(inputs: ScanArrays, D: Tensor, gate: Tensor | None, out: Tensor) -> None:
    """Selective scan, skip and gate: (scan(u, delta, A, B, C) + D u) * silu(gate).

    Parameters
    ----------
    inputs : ScanArrays
    D : (C,) tensor
    gate : (S, L, C) tensor, or None
        Rows may be part of longer rows; `None` for no gate.
    out : (S, L, C) tensor, contiguous
        Written to; it may be ``inputs.u``.
    """
    u, delta, A, BC = inputs
    s, length, channels = out.shape
    gate_at, gate_row = (None, ctypes.c_int64(0)) if gate is None else (_at(gate), _row(gate))
    sizes = map(ctypes.c_int64, (s, length, channels, A.shape[0]))
    _library().neurostorm_scan(
        _at(u), _at(delta), _at(A), _at(BC), _row(BC), _at(D), gate_at, gate_row, _at(out), *sizes
    )


def scan_backward(inputs: ScanArrays, dy: Tensor, gradients: ScanArrays) -> None:
    """Gradients of the selective scan, without skip and gate.

    Parameters
    ----------
    inputs : ScanArrays
        All contiguous.
    dy : (S, L, C) tensor, contiguous
        Gradient of the output.
    gradients : ScanArrays
        All contiguous; ``u`` and ``delta`` are written to, ``A`` and ``BC`` are added to.
    """
    s, length, channels = inputs.u.shape
    n_states = inputs.A.shape[0]
    room = inputs.u.new_empty((length * n_states + 1) * LANES)
    arrays = map(_at, (*inputs, dy, *gradients, room))
    _library().neurostorm_scan_backward(*arrays, *map(ctypes.c_int64, (s, length, channels, n_states)))


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None, "there are no compiled kernels here"
    return found


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _row(tensor: Tensor) -> ctypes.c_int64:
    """Return the floats from one token to the next; sequences must follow each other at the same distance."""
    assert tensor.stride(2) == 1
    assert tensor.shape[0] == 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)
    return ctypes.c_int64(tensor.stride(1))
