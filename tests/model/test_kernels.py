"""The compiled kernels and the encoder built on them give the reference's numbers."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import NARROW, lightning, random_network, textbook_scan
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.model import backend
from neurostorm_bids.model import cpu_encoder as cpu
from neurostorm_bids.model.network import Mamba
from neurostorm_bids.model.scan import kernels
from neurostorm_bids.model.scan.cpu import cpu_scan
from neurostorm_bids.model.scan.kernels import ScanArrays
from neurostorm_bids.model.scan.reference import selective_scan


def test_this_installation_has_the_kernels():
    """The build makes them; where it did not, no test of them may pass by being skipped."""
    assert kernels.library() is not None, "the extension was not compiled: install gcc and Python's headers"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 50), st.integers(1, 40), st.integers(0, 2**31))
def test_scan_of_any_size(n, length, channels, states, seed):
    rng = torch.Generator().manual_seed(seed)
    u, delta, gate = torch.randn(3, n, length, channels, generator=rng)
    delta = F.softplus(3 * delta)
    A = -torch.rand(channels, states, generator=rng) * 16
    B, C = torch.randn(2, n, length, states, generator=rng)
    D = torch.randn(channels, generator=rng)
    wide = torch.cat([torch.randn(n, length, 3, generator=rng), B, C], dim=2)  # rows are part of longer rows
    out = torch.full((n, length, channels), float("nan"))
    expected = textbook_scan(u, delta, A, B, C) + D * u
    kernels.scan(ScanArrays(u, delta, A.T.contiguous(), wide[..., 3:]), D, None, out)
    assert (out - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
    kernels.scan(ScanArrays(u, delta, A.T.contiguous(), wide[..., 3:]), D, gate, u)  # in place
    expected = expected * F.silu(gate.double())
    assert (u - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 50), st.integers(1, 6), st.integers(0, 2**31))
def test_convolution_of_any_size(n, length, channels, taps, seed):
    rng = torch.Generator().manual_seed(seed)
    wide = torch.randn(n, length, 2 * channels, generator=rng)
    x = wide[..., :channels]
    conv = torch.nn.Conv1d(channels, channels, taps, groups=channels, padding=taps - 1)
    out = torch.empty(n, length, channels)
    kernels.conv_silu(x, conv.weight[:, 0].detach().T.contiguous(), conv.bias.detach(), out)
    with torch.no_grad():
        expected = F.silu(conv.double()(x.double().transpose(1, 2))[..., :length].transpose(1, 2))
    assert (out - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("value", [-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30])
def test_extreme_gates_stay_finite_and_right(value):
    ones = torch.ones(1, 2, 5)
    out = torch.empty(1, 2, 5)
    arrays = ScanArrays(ones, ones, -torch.ones(3, 5), torch.ones(1, 2, 6))
    kernels.scan(arrays, torch.ones(5), torch.full((1, 2, 5), value), out)
    plain = textbook_scan(ones, ones, -torch.ones(5, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 3)) + 1
    expected = plain * F.silu(torch.full((1, 2, 5), value).double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt_len": 5},
        {"img_size": (30, 42, 36, 5)},  # windows that do not divide, and merging that does not
        {"img_size": (36, 30, 42, 7), "prompt_len": 3, "depths": (3, 2, 2)},
        {"last_layer_full_MSA": False, "depths": (2, 3)},
        {"embed_dim": 20, "in_chans": 2},
        {"first_window_size": (2, 3, 4, 2), "window_size": (3, 2, 2, 4)},
    ],
)
def test_the_encoder_by_windows_is_the_encoder(changes, threads):
    network = random_network(**changes)
    size = network.config.img_size
    clips = torch.randn(2, network.config.in_chans, *size)
    with torch.no_grad():  # without inference mode the reference runs
        assert not cpu.available(network)
        expected = backend.features(network, clips)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            assert cpu.available(network)
            features = backend.features(network, clips)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()


def test_memory_order_of_the_clip_does_not_matter():
    network = random_network()
    clip = torch.randn(1, 6, 24, 24, 24).movedim(1, -1)[:, None]  # time first in memory, as a gridded run's windows
    with torch.inference_mode():
        assert torch.equal(backend.features(network, clip), backend.features(network, clip.contiguous()))


def test_an_error_in_a_thread_is_raised_and_threads_are_given_back():
    network, before = random_network(), torch.get_num_threads()
    network.model.layers[0].blocks[0].norm1.weight.data = torch.ones(3)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        backend.features(network, torch.randn(1, 1, *network.config.img_size))
    assert torch.get_num_threads() == before


def test_gradients_go_the_reference_s_way():
    network = random_network()
    backend.features(network, torch.randn(1, 1, *network.config.img_size)).sum().backward()
    assert all(p.grad is not None for p in network.model.parameters() if p.requires_grad)


def test_without_the_library_the_numbers_are_the_same(tmp_path):
    code = (
        "import sys, torch\n"
        "from neurostorm_bids.model.scan import kernels\n"
        "if sys.argv[1] == 'plain': kernels.find_spec = lambda name: None\n"
        "from neurostorm_bids import load_model\n"
        "torch.manual_seed(0)\n"
        "torch.save(load_model('demo').embed(torch.randn(1, 1, 96, 96, 96, 20)), sys.argv[2])\n"
    )
    for way in ("plain", "compiled"):
        subprocess.run([sys.executable, "-c", code, way, str(tmp_path / way)], check=True)
    plain, compiled = (torch.load(tmp_path / way) for way in ("plain", "compiled"))
    assert (plain - compiled).abs().max() < 1e-5 * plain.abs().max()
    assert not torch.equal(plain, compiled)  # it was another way


def test_states_beyond_the_kernel_s_room_take_the_reference():
    network = random_network()
    network.model.layers[0].blocks[0].mamba = Mamba(8, d_state=kernels.MAX_STATES + 1)
    with torch.inference_mode():
        assert not cpu.available(network)


@pytest.mark.skipif(not cpu.has_bfloat16(), reason="no bfloat16 here")
def test_bfloat16_keeps_embeddings(tree, tmp_path, neurostorm):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    model = lightning(tmp_path / "narrow.ckpt", network.state_dict(), **NARROW)
    tree.run()
    for precision in ("fp32", "bf16"):
        call = (tree.path, tmp_path / precision, "participant", "--model", model, "--precision", precision)
        assert neurostorm(*call)[0] == 0
    tables = [channels_of(read_table(next((tmp_path / p).rglob("func/*embeddings.tsv")))) for p in ("fp32", "bf16")]
    cosine = F.cosine_similarity(*map(torch.from_numpy, tables), dim=1)
    assert 1 - 1e-3 < cosine.min() < 1
    sidecar = json.loads(next((tmp_path / "bf16").rglob("func/*embeddings.json")).read_text())
    assert sidecar["Precision"] == "bf16"


@pytest.mark.skipif(not cpu.has_bfloat16(), reason="no bfloat16 here")
def test_a_run_that_bfloat16_would_change_is_encoded_in_single(tree, tmp_path, neurostorm, monkeypatch):
    monkeypatch.setattr("neurostorm_bids.encode.windows.MAX_COSINE_DISTANCE", -1.0)
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo", "--precision", "bf16")
    assert status == 0
    assert "this run is encoded in fp32" in said


def test_autocast_keeps_features_and_sums_the_scan_in_single(monkeypatch):
    """The way of a GPU, taken on the CPU: its scan is given float32 only."""
    network, types = random_network(), set()

    def scan(*tensors):
        types.update(tensor.dtype for tensor in tensors)
        return selective_scan(*tensors)

    monkeypatch.setattr(cpu, "available", lambda network: False)
    monkeypatch.setattr("neurostorm_bids.model.network.scan_for", lambda *_: scan)
    clips = torch.randn(1, 1, *network.config.img_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, rounded = (backend.embed(network, clips, precision) for precision in ("fp32", "bf16"))
    assert types == {torch.float32}
    assert 1 - 1e-3 < F.cosine_similarity(exact, rounded).item() < 1


def test_fp16_on_a_cpu_is_refused(tree, tmp_path, neurostorm):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo", "--precision", "fp16")
    assert status == 1
    assert "--precision fp16 is for GPUs" in said


def test_bfloat16_without_instructions_is_refused(tree, tmp_path, neurostorm, monkeypatch):
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo", "--precision", "bf16")
    assert status == 1
    assert "no bfloat16 instructions" in said


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("s", "length", "channels", "states"), [(3, 37, 40, 16), (1, 20, 16, 16), (4, 9, 23, 7)])
def test_gradients_of_the_scan_are_the_loop_s_in_double_precision(threads, s, length, channels, states):
    rng = torch.Generator().manual_seed(0)
    u, delta, dy = torch.randn(3, s, length, channels, generator=rng)
    B, C = torch.randn(2, s, length, states, generator=rng)
    inputs = (u, F.softplus(delta), -8 * torch.rand(channels, states, generator=rng), B, C)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        for function, dtype in ((cpu_scan, torch.float32), (selective_scan, torch.float64)):
            own = [x.to(dtype).clone().requires_grad_() for x in inputs]
            y = function(*own)
            y.backward(dy.to(dtype))
            found.append([y.detach(), *(x.grad for x in own)])
    finally:
        torch.set_num_threads(before)
    for ours, exact in zip(*found, strict=True):
        assert (ours - exact).abs().max() < 2e-6 * exact.abs().max()
