"""Which scan to use: a kernel on a GPU, the compiled one on a CPU, else the loop of reference.py."""

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from neurostorm_bids.model.scan import cpu
from neurostorm_bids.model.scan.reference import selective_scan

LOG = logging.getLogger("neurostorm")
MAX_DIFFERENCE = 1e-4  # of the largest value, between a kernel and the loop, in float32

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def scan_for(tensor: Tensor, n_states: int = 16) -> Scan:
    """Return the scan for tensors like this one."""
    if tensor.is_cuda:
        return gpu_scan()
    return cpu.cpu_scan if cpu.available(tensor, n_states) else selective_scan


@lru_cache(maxsize=1)
def gpu_scan() -> Scan:
    """Return the fastest scan that works on this machine's GPU: that of ``mamba_ssm``, of Triton, or the loop.

    A kernel is compared with the loop once, before it is used: a build that does not fit the GPU is reported and not
    used.
    """
    for name, find in (("mamba_ssm", _from_mamba_ssm), ("Triton", _from_triton)):
        try:
            scan = find()
        except ImportError:  # not installed, or mamba_ssm without its Mamba-1 kernel
            continue
        try:
            _compare_with_loop(scan, torch.device("cuda"))
        except Exception as error:
            LOG.warning("the scan of %s does not work on this GPU (%s); another one is used", name, error)
            continue
        return scan
    LOG.warning("neither mamba_ssm nor Triton can be used: the scan on the GPU is a slow loop")
    return selective_scan


def _from_mamba_ssm() -> Scan:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        channels_first = [x.transpose(1, 2).contiguous() for x in (u, delta)]  # its layout is (S, D, L)
        states_first = [x.transpose(1, 2).contiguous() for x in (B, C)]
        y: Tensor = selective_scan_fn(*channels_first, A.contiguous(), *states_first)
        return y.transpose(1, 2)

    return scan


def _from_triton() -> Scan:
    from neurostorm_bids.model.scan.triton_scan import triton_scan

    return triton_scan


def _compare_with_loop(scan: Scan, device: torch.device) -> None:
    """Raise ValueError if a scan differs from the loop."""
    rng = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, 2, 37, 40, generator=rng).to(device)
    A = -8 * torch.rand(40, 16, generator=rng).to(device)
    B, C = torch.randn(2, 2, 37, 16, generator=rng).to(device)
    delta = torch.nn.functional.softplus(delta)
    with torch.inference_mode():
        expected = selective_scan(u, delta, A, B, C)
        difference = ((scan(u, delta, A, B, C) - expected).abs().max() / expected.abs().max()).item()
    if not difference < MAX_DIFFERENCE:
        raise ValueError(f"it differs from the loop by {difference:.1g} of the largest value")
