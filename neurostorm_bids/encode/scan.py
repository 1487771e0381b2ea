"""The selective scan of Mamba-1: a linear recurrence whose coefficients depend on the token.

For every sequence and channel, with ``n`` hidden states::

    h[t] = exp(delta[t] * A) * h[t-1] + delta[t] * B[t] * u[t]
    y[t] = <C[t], h[t]>

Source: Gu & Dao (2023), arXiv 2312.00752, algorithm 2.
"""

import torch
from torch import Tensor


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Run the recurrence over time, one step after the other.

    A loop over the steps touches (sequences x channels x states) numbers at a time and stays in cache; building
    the whole (sequences x steps x channels x states) product first, as textbooks do, is bound by memory.

    Parameters
    ----------
    u, delta : (S, L, D) tensors
        Input and step size (already through softplus) of S sequences, L steps, D channels.
    A : (D, N) tensor
        Decay rates, negative.
    B, C : (S, L, N) tensors
        Input and output projections of the N states.

    Returns
    -------
    (S, L, D) tensor
    """
    state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])  # (S, D, N)
    drive = delta * u
    outputs = []
    for step in range(u.shape[1]):
        decay = torch.exp(delta[:, step, :, None] * A)
        state = torch.addcmul(drive[:, step, :, None] * B[:, step, None, :], decay, state)
        outputs.append(torch.matmul(state, C[:, step, :, None])[..., 0])
    return torch.stack(outputs, dim=1)


def cuda_scan_available(tensor: Tensor) -> bool:
    """Whether ``mamba_ssm``'s compiled Mamba-1 kernel can be used for this tensor."""
    if not tensor.is_cuda:
        return False
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except ImportError:  # not installed, or built without the Mamba-1 kernel
        return False
    return True


def cuda_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`selective_scan` by the kernel of the package ``mamba_ssm``; same arguments, CUDA tensors."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    channels_first = [x.transpose(1, 2).contiguous() for x in (u, delta)]  # its layout is (S, D, L)
    states_first = [x.transpose(1, 2).contiguous() for x in (B, C)]
    return selective_scan_fn(*channels_first, A.contiguous(), *states_first).transpose(1, 2)
