"""The GPU kernel, run by Triton's interpreter, gives the loop's numbers and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.model.scan import dispatch as scan
from neurostorm_bids.model.scan.dispatch import selective_scan

triton_scan = pytest.importorskip("neurostorm_bids.model.scan.triton_scan", reason="no Triton here").triton_scan


def inputs(n, length, channels, states, seed=0):
    """Inputs of a scan, and weights to make one number of its output."""
    rng = torch.Generator().manual_seed(seed)
    u, delta, weights = torch.randn(3, n, length, channels, generator=rng)
    A = -8 * torch.rand(channels, states, generator=rng)
    B, C = torch.randn(2, n, length, states, generator=rng)
    return (u, F.softplus(delta), A, B, C), weights


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 2), st.integers(1, 20), st.integers(1, 40), st.integers(1, 17), st.integers(0, 2**31))
def test_forward_of_any_size(n, length, channels, states, seed):
    arguments, _ = inputs(n, length, channels, states, seed)
    expected = selective_scan(*arguments)
    assert (triton_scan(*arguments) - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("sizes", [(2, 37, 40, 16), (1, 16, 33, 1), (1, 5, 3, 5), (1, 1, 1, 1), (2, 32, 32, 16)])
def test_gradients(sizes):
    arguments, weights = inputs(*sizes)
    gradients = []
    for function in (selective_scan, triton_scan):
        leaves = [x.clone().requires_grad_() for x in arguments]
        (function(*leaves) * weights).sum().backward()
        gradients.append([x.grad for x in leaves])
    for ours, expected in zip(gradients[1], gradients[0], strict=True):
        assert (ours - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


def test_half_precision_inputs_are_summed_in_single():
    arguments, _ = inputs(1, 20, 8, 16)
    halves = [x.bfloat16() for x in arguments]
    expected = selective_scan(*(x.float() for x in halves))
    ours = triton_scan(*halves)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - expected).abs().max() <= 2**-7 * expected.abs().max()


@pytest.mark.parametrize(("factor", "works"), [(1.0, True), (1.01, False), (float("nan"), False)])
def test_a_kernel_that_is_wrong_on_this_machine_is_found_out(factor, works):
    def kernel(*arguments):
        return factor * triton_scan(*arguments)

    if works:
        scan._compare_with_loop(kernel, torch.device("cpu"))
    else:
        with pytest.raises(ValueError, match="differs from the loop"):
            scan._compare_with_loop(kernel, torch.device("cpu"))
