"""The selective scan on a CPU with gradients, by the compiled kernels; threads share the sequences.

The numbers are those of scan.py, which says what is computed. For the gradient the states are computed again, so that
memory holds what goes in and comes out, not a state for every token.
"""

import torch
from torch import Tensor

from neurostorm_bids.model.scan import kernels


def available(tensor: Tensor, n_states: int) -> bool:
    """Whether the kernels are there, and fit."""
    fits = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and n_states <= kernels.MOST_STATES
    return fits and kernels.library() is not None


def cpu_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`scan.selective_scan`; same arguments, float32, with gradients."""
    return _Scan.apply(u, delta, A, B, C)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C):
        u, delta = u.contiguous(), delta.contiguous()
        A, BC = A.T.contiguous(), torch.cat([B, C], dim=2)
        y, skip = torch.empty_like(u), A.new_zeros(A.shape[1])
        _share(lambda part, _: kernels.scan(u[part], delta[part], A, BC[part], skip, None, y[part]), len(u))
        ctx.save_for_backward(u, delta, A, BC)
        return y

    @staticmethod
    def backward(ctx, dy):
        u, delta, A, BC = ctx.saved_tensors
        dy, n_parts = dy.contiguous(), torch.get_num_threads()
        du, ddelta, dBC = torch.empty_like(u), torch.empty_like(u), torch.zeros_like(BC)
        dA = A.new_zeros(n_parts, *A.shape)  # of each thread

        def one(part: slice, i: int) -> None:
            out = (du[part], ddelta[part], dA[i], dBC[part])
            kernels.scan_backward(u[part], delta[part], A, BC[part], dy[part], *out)

        _share(one, len(u))
        dB, dC = dBC.chunk(2, dim=2)
        return du, ddelta, dA.sum(dim=0).T, dB, dC


def _share(work, n: int) -> None:
    """Call work(slice, number) for as many parts of n sequences as PyTorch was given threads."""
    n_parts = torch.get_num_threads()
    parts = [slice(i * n // n_parts, (i + 1) * n // n_parts) for i in range(n_parts)]
    if n_parts == 1:
        work(parts[0], 0)
        return
    for done in [kernels.pool(n_parts).submit(work, part, i) for i, part in enumerate(parts) if part.start < part.stop]:
        done.result()
