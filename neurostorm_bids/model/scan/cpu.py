"""The selective scan on a CPU with gradients, by the compiled kernels; threads share the sequences.

The numbers are those of reference.py, which says what is computed. For the gradient the states are computed again, so
that memory holds what goes in and comes out, not a state for every token.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neurostorm_bids.model.scan import kernels
from neurostorm_bids.model.scan.kernels import ScanArrays
from neurostorm_bids.model.threads import thread_pool


def available(tensor: Tensor, n_states: int) -> bool:
    """Whether there are kernels, and they fit these tensors."""
    fits = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and n_states <= kernels.MAX_STATES
    return fits and kernels.library() is not None


def cpu_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`reference.selective_scan`; same arguments, float32, with gradients."""
    y: Tensor = _Scan.apply(u, delta, A, B, C)  # type: ignore[no-untyped-call]
    return y


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        u, delta = u.contiguous(), delta.contiguous()
        A, BC = A.T.contiguous(), torch.cat([B, C], dim=2)
        y, skip = torch.empty_like(u), A.new_zeros(A.shape[1])

        def one(part: slice, _: int) -> None:
            kernels.scan(ScanArrays(u[part], delta[part], A, BC[part]), skip, None, y[part])

        _share(one, len(u))
        ctx.save_for_backward(u, delta, A, BC)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, BC = ctx.saved_tensors
        dy, n_parts = dy.contiguous(), torch.get_num_threads()
        du, ddelta, dBC = torch.empty_like(u), torch.empty_like(u), torch.zeros_like(BC)
        dA = A.new_zeros(n_parts, *A.shape)  # of each thread

        def one(part: slice, i: int) -> None:
            gradients = ScanArrays(du[part], ddelta[part], dA[i], dBC[part])
            kernels.scan_backward(ScanArrays(u[part], delta[part], A, BC[part]), dy[part], gradients)

        _share(one, len(u))
        dB, dC = dBC.chunk(2, dim=2)
        return du, ddelta, dA.sum(dim=0).T, dB, dC


def _share(work: Callable[[slice, int], None], n: int) -> None:
    """Call work(slice, number) for as many parts of n sequences as PyTorch has threads."""
    n_parts = torch.get_num_threads()
    parts = [slice(i * n // n_parts, (i + 1) * n // n_parts) for i in range(n_parts)]
    if n_parts == 1:
        work(parts[0], 0)
        return
    pool = thread_pool(n_parts)
    for done in [pool.submit(work, part, i) for i, part in enumerate(parts) if part.start < part.stop]:
        done.result()
