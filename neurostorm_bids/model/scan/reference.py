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

    A loop over the steps touches (sequences x channels x states) numbers at a time and stays in cache; building the
    whole (sequences x steps x channels x states) product first, as textbooks do, is limited by memory.

    Parameters
    ----------
    u, delta : (S, L, D) tensors
        Input and step size (after softplus) of S sequences, L steps, D channels.
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
