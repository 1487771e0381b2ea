"""The encoder gives the published model's numbers, from files of the published format, through the public API."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import rule
import torch
import torch.nn.functional as F
from helpers import SMALL, golden, lightning, random_network, textbook_scan
from hypothesis import given, settings
from hypothesis import strategies as st

from neurostorm_bids import load_model
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.network import from_windows, to_windows
from neurostorm_bids.model.scan.dispatch import selective_scan


def distance(ours, reference):
    """Largest difference, relative to the reference's largest value."""
    return np.abs(ours.numpy().reshape(reference.shape) - reference).max() / np.abs(reference).max()


@pytest.fixture(scope="module", params=["encoder_base", "encoder_prompt"])
def reference(request, tmp_path_factory):
    """A published configuration as a checkpoint file, its input and the published model's answers."""
    about, arrays, weights = golden(request.param)
    task = "regression" if about["head"][0] == "reg" else "classification"
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.ckpt"
    lightning(path, weights, downstream_task_type=task, task_name="sex", **about["config"])
    return path, arrays, torch.from_numpy(rule.clip(about["input"]["seed"], about["input"]["size"]))


def test_published_numbers(reference):
    path, arrays, clip = reference
    model = load_model(path, device="cpu")
    assert distance(model.features(clip), arrays["features"]) < 1e-5
    assert distance(model.embed(clip), arrays["embedding"]) < 1e-5
    assert distance(model.predict(clip), arrays["logits"]) < 1e-5


def test_pretraining_checkpoint_without_its_decoder(tmp_path):
    about, arrays, weights = golden("encoder_base")
    weights = {name: w for name, w in weights.items() if name.startswith("model.")}
    weights |= {
        "model.mask_token": torch.zeros(36),
        "model.window_mask_token": torch.zeros(256, 36),
        "model.atlas_mask_token": torch.zeros(36),
        "model.first_patch_expanding.expand.weight": torch.zeros(4, 4),
        "model.layers_up.0.blocks.0.norm1.weight": torch.zeros(4),
        "model.norm_up.bias": torch.zeros(4),
        "model.decoder_pred.weight": torch.zeros(216, 36),
    }
    model = load_model(lightning(tmp_path / "mae.ckpt", weights, pretraining=True, use_mae=True, **about["config"]))
    clip = torch.from_numpy(rule.clip(about["input"]["seed"], about["input"]["size"]))
    assert distance(model.embed(clip), arrays["embedding"]) < 1e-5
    assert sum(p.numel() for p in model.network.model.parameters()) == 5_173_020
    with pytest.raises(Exception, match="no head"):
        model.predict(clip)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 9), st.integers(1, 17), st.integers(0, 2**31))
def test_scan_of_any_size(n, length, channels, states, seed):
    rng = torch.Generator().manual_seed(seed)
    u, delta = torch.randn(2, n, length, channels, generator=rng)
    A = -torch.rand(channels, states, generator=rng) * 16
    B, C = torch.randn(2, n, length, states, generator=rng)
    delta = F.softplus(delta)
    expected = textbook_scan(u, delta, A, B, C)
    assert (selective_scan(u, delta, A, B, C) - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())


@given(st.tuples(*[st.integers(1, 3)] * 4), st.tuples(*[st.integers(1, 3)] * 4))
def test_windows_are_raster_ordered_and_undone(counts, window):
    shape = (2, *(n * w for n, w in zip(counts, window, strict=True)), 3)
    x = torch.arange(np.prod(shape), dtype=torch.float32).view(shape)
    windows = to_windows(x, window)
    first = x[0, : window[0], : window[1], : window[2], : window[3]].reshape(-1, 3)
    assert torch.equal(windows[0], first)
    assert torch.equal(from_windows(windows, window, shape), x)


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, (2, 2, 2, 6)),
        ({"img_size": (24, 24, 24, 40)}, (2, 2, 2, 40)),  # long sequence
        ({"img_size": (30, 42, 36, 5)}, (3, 4, 3, 5)),  # windows and merging that do not divide
        ({"last_layer_full_MSA": False}, (2, 2, 2, 6)),
        ({"embed_dim": 12, "depths": (2, 2, 2), "c_multiplier": 3}, (1, 1, 1, 6)),  # large
    ],
)
def test_variants_follow_their_configuration(changes, tokens):
    network = random_network(**changes)
    size = network.config.img_size
    with torch.inference_mode():
        features = network.features(torch.randn(2, 1, *size))
    assert features.shape == (2, network.config.n_channels, *tokens)
    assert torch.isfinite(features).all()


def test_clips_of_a_batch_do_not_mix():
    network = random_network()
    clips = torch.randn(3, 1, *SMALL["img_size"])
    with torch.inference_mode():
        together = network.embed(clips)
        alone = torch.cat([network.embed(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_low_resolution_model_resizes_each_volume():
    network = random_network()
    clip = torch.randn(1, 1, 48, 48, 48, 6)
    resized = torch.stack(
        [F.interpolate(clip[..., t], size=(24, 24, 24), mode="trilinear", align_corners=False) for t in range(6)],
        dim=-1,
    )
    with torch.inference_mode():
        torch.testing.assert_close(network.features(clip), network.features(resized))


def test_head_v2_and_the_unused_norm_of_old_heads(tmp_path):
    network = random_network(head="v2", n_outputs=7)
    weights = network.state_dict() | {"output_head.head.norm.weight": torch.ones(16)}
    hyper_parameters = {key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.items()}
    path = lightning(tmp_path / "v2.ckpt", weights, downstream_task_type="classification", **hyper_parameters)
    model = load_model(path)
    clip = torch.randn(1, 1, *SMALL["img_size"])
    hidden, head = network.output_head.head.hidden, network.output_head.head.head
    with torch.inference_mode():
        embedding = network.embed(clip)
        torch.testing.assert_close(
            model.predict(clip), F.linear(F.linear(embedding, hidden.weight, hidden.bias), head.weight, head.bias)
        )
    assert (model.task.kind, model.network.config.n_outputs) == ("multiclass", 7)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("model.layers.0.blocks.0.mamba.D"), "1 weights are missing"),
        (lambda w: w.update({"model.lora.A": torch.zeros(2)}), "are not NeuroSTORM's .model.lora.A"),
        (lambda w: w.update({"model.patch_embed.fc.bias": torch.zeros(9)}), "another shape"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, spoil, message):
    weights = random_network().state_dict()
    spoil(weights)
    with pytest.raises(Exception, match=message):
        load_model(lightning(tmp_path / "x.ckpt", weights, **SMALL))


def test_hyper_parameters_that_are_objects_are_left_out(tmp_path):
    weights = random_network().state_dict()
    path = lightning(
        tmp_path / "x.ckpt", weights, args=argparse.Namespace(a=1), folder=Path("/x"), task_name="age", **SMALL
    )
    model = load_model(path)
    assert model.hyper_parameters["task_name"] == "age"
    assert model.hyper_parameters["args"] == {"a": 1}
    assert "folder" not in model.hyper_parameters


@pytest.mark.parametrize("value", [0, -1, "x", [96], 10**9, 1.5, None])
def test_unreasonable_hyper_parameters_are_refused_or_defaulted(tmp_path, value):
    weights = random_network().state_dict()
    with pytest.raises(Exception, match=r"x\.ckpt"):
        load_model(lightning(tmp_path / "x.ckpt", weights, **{**SMALL, "img_size": value}))


@pytest.mark.parametrize("name", ["window_size", "first_window_size", "last_layer_full_MSA"])
def test_what_the_weights_do_not_show_must_be_stated(tmp_path, name):
    hyper_parameters = {key: value for key, value in SMALL.items() if key != name}
    with pytest.raises(NeurostormError, match=f"{name} is missing"):
        load_model(lightning(tmp_path / "x.ckpt", random_network().state_dict(), **hyper_parameters))


@pytest.mark.parametrize("shape", [(1, 1, 96, 96, 96, 10), (1, 1, 91, 109, 91, 20), (1, 96, 96, 96, 20)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(NeurostormError, match="model 'demo' takes"):
        load_model("demo").embed(torch.zeros(shape))


def test_scaling_to_a_range_is_not_undone_as_a_mean_and_a_deviation(tmp_path):
    weights = random_network(head="v1", n_outputs=1).state_dict()
    scaled = {"label_mean": 30.0, "label_std": 4.0, "downstream_task_type": "regression"}
    standard = load_model(lightning(tmp_path / "a.ckpt", weights, **SMALL, **scaled))
    to_range = load_model(lightning(tmp_path / "b.ckpt", weights, **SMALL, **scaled, label_scaling_method="minmax"))
    assert (standard.task.is_scaled_back, to_range.task.is_scaled_back) == (True, False)
