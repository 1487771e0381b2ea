"""The selective scan of Mamba-1: a linear recurrence whose coefficients depend on the token.

For every sequence and channel, with ``n`` hidden states::

    h[t] = exp(delta[t] * A) * h[t-1] + delta[t] * B[t] * u[t]
    y[t] = <C[t], h[t]>

Source: Gu & Dao (2023), arXiv 2312.00752, algorithm 2.
"""

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

LOG = logging.getLogger("neurostorm")


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


def scan_for(tensor: Tensor, n_states: int = 16) -> Callable:
    """The scan for tensors like this one: a kernel on a GPU, a compiled one on a CPU, else the loop."""
    from neurostorm_bids.model.scan import cpu as cpu_scan

    if tensor.is_cuda:
        return gpu_scan()
    return cpu_scan.cpu_scan if cpu_scan.available(tensor, n_states) else selective_scan


@lru_cache(maxsize=1)
def gpu_scan() -> Callable:
    """The quickest scan that works on this machine's GPU: of ``mamba_ssm``, of Triton, or the loop.

    A kernel is compared with the loop once, before it is used: a build that does not fit the GPU is told and left out.
    """
    for name, find in (("mamba_ssm", _of_mamba_ssm), ("Triton", _of_triton)):
        try:
            scan = find()
        except ImportError:  # not installed, or mamba_ssm without its Mamba-1 kernel
            continue
        try:
            _compare_with_loop(scan, torch.device("cuda"))
        except Exception as error:
            LOG.warning("the scan of %s does not work on this GPU (%s); another is used", name, error)
            continue
        return scan
    LOG.warning("neither mamba_ssm nor Triton can be used: the scan on the GPU is a slow loop")
    return selective_scan


def _of_mamba_ssm() -> Callable:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        channels_first = [x.transpose(1, 2).contiguous() for x in (u, delta)]  # its layout is (S, D, L)
        states_first = [x.transpose(1, 2).contiguous() for x in (B, C)]
        return selective_scan_fn(*channels_first, A.contiguous(), *states_first).transpose(1, 2)

    return scan


def _of_triton() -> Callable:
    from neurostorm_bids.model.scan.triton_scan import triton_scan

    return triton_scan


def _compare_with_loop(scan: Callable, device: torch.device) -> None:
    """Raise ValueError if a scan differs from the loop."""
    rng = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, 2, 37, 40, generator=rng).to(device)
    A = -8 * torch.rand(40, 16, generator=rng).to(device)
    B, C = torch.randn(2, 2, 37, 16, generator=rng).to(device)
    delta = torch.nn.functional.softplus(delta)
    with torch.inference_mode():
        expected = selective_scan(u, delta, A, B, C)
        difference = ((scan(u, delta, A, B, C) - expected).abs().max() / expected.abs().max()).item()
    if not difference < 1e-4:
        raise ValueError(f"it differs from the loop by {difference:.1g} of the largest value")
