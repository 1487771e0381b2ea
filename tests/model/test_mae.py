"""The masked autoencoder gives the published model's numbers for a given mask."""

import numpy as np
import pytest
import rule
import torch
from click.testing import CliRunner
from helpers import config_of_golden, golden, lightning

from neurostorm_bids import load_model
from neurostorm_bids.command.model import main
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import read_checkpoint
from neurostorm_bids.model.mae import MaskedAutoencoder
from neurostorm_bids.model.masks import MASKS, Masking, of_tokens, places_in_window, regions_of_patches
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.pretrained import autoencoder_of
from neurostorm_bids.model.strd import add_redundancy_dropout, redundancy

TINY = NeuroSTORMConfig(img_size=(12, 12, 12, 8), patch_size=(3, 3, 3, 1), embed_dim=8, depths=(2, 2))


@pytest.mark.parametrize("kind", ["window", "random"])
def test_published_numbers(kind):
    about, arrays, weights = golden(f"mae_{kind}_random")
    network = MaskedAutoencoder(config_of_golden(about), Masking(kind, about["config"]["mask_ratio"]))
    network.load_state_dict(weights, strict=True)
    shape = tuple(arrays["mask_shape"])
    hidden = torch.from_numpy(np.unpackbits(arrays["mask"], count=int(np.prod(shape))).reshape(shape).astype(bool))
    clip = torch.from_numpy(rule.clip(about["input"]["seed"], about["input"]["size"]))
    with torch.inference_mode():
        found = network(clip, of_tokens(hidden, network.units))
        voxels = network.model.voxels(found.patches)
    assert found.loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    theirs = arrays["pred_every8"]
    ours = voxels[:, :, ::8, ::8, ::8, ::4].numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    np.testing.assert_allclose([voxels.mean(), voxels.std()], arrays["pred_mean_std"], rtol=1e-4, atol=1e-6)


def tiny(kind="window", ratio=0.5, **changes):
    torch.manual_seed(0)
    window = (2, 2, 2, 4)
    config = NeuroSTORMConfig(**{**TINY.__dict__, "window_size": window, "first_window_size": window, **changes})
    regions = torch.arange(64).view(4, 4, 4) // 16  # label 0 is the background
    return MaskedAutoencoder(config, Masking(kind, ratio, window), regions if kind == "atlas" else None)


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_hides_whole_units_and_as_many_as_asked(kind):
    network = tiny(kind, 0.3)
    hidden = network.draw(3, torch.Generator().manual_seed(0))
    units = network.units
    n_units = int(units.max()) + 1
    assert not hidden[:, units < 0].any()  # the background of an atlas
    for clip in hidden:
        chosen = {int(u) for u in units[clip]}
        assert len(chosen) == max(int(0.3 * n_units), kind == "atlas")
        assert clip[units >= 0].tolist() == [int(u) in chosen for u in units[units >= 0]]
    assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(("kind", "frames"), [("window-tube", 8), ("atlas", 8), ("token-tube", 4), ("window", 4)])
def test_tubes_go_through_frames(kind, frames):
    hidden = tiny(kind).draw(2, torch.Generator().manual_seed(1))
    blocks = hidden.unflatten(-1, (-1, frames))
    assert (blocks.all(dim=-1) | ~blocks.any(dim=-1)).all()


def test_a_hidden_window_has_a_vector_for_each_place():
    network = tiny("window")
    with torch.no_grad():
        network.model.window_mask_token.copy_(torch.arange(32.0)[:, None].expand(32, 8))
    x = torch.full((1, 4, 4, 4, 8, 8), -1.0)
    hidden = network.draw(1, torch.Generator().manual_seed(0))
    found = network.model.hide(x, hidden, network.masking)
    places = places_in_window((4, 4, 4, 8), (2, 2, 2, 4))
    assert torch.equal(found[hidden][:, 0], places.float()[hidden[0]])
    assert (found[~hidden] == -1).all()


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 2])
def test_a_mask_of_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ValueError, match="has to be between 0 and 1"):
        Masking("random", ratio)


def test_a_parcellation_without_regions_is_refused():
    with pytest.raises(ValueError, match="no region"):
        Masking("atlas").units((2, 2, 2, 4), torch.zeros(2, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize("kind", MASKS)
def test_the_loss_is_the_mean_error_of_hidden_patches(kind):
    network = tiny(kind).eval()
    clips = torch.randn(2, 1, 12, 12, 12, 8)
    hidden = network.draw(2, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = network(clips, hidden)
    voxels = network.model.voxels(found.patches)
    shown = hidden.repeat_interleave(3, 1).repeat_interleave(3, 2).repeat_interleave(3, 3)[:, None]
    assert found.loss.item() == pytest.approx(((voxels - clips) ** 2)[shown].mean().item(), rel=1e-5)


def test_cutting_into_patches_and_back_changes_nothing():
    clips = torch.randn(2, 1, 12, 12, 12, 8)
    network = tiny()
    assert torch.equal(network.model.voxels(network.model.patches(clips)), clips)


def test_volumes_of_an_odd_number_of_patches_are_reconstructed_whole():
    network = tiny(img_size=(15, 9, 12, 8), depths=(1, 1, 1))
    clips = torch.randn(1, 1, 15, 9, 12, 8)
    hidden = network.draw(1, torch.Generator().manual_seed(0))
    assert network.model.voxels(network(clips, hidden).patches).shape == clips.shape


def test_it_learns_to_fill_in_a_repeated_pattern():
    network = tiny("random")
    pattern = torch.randn(1, 1, 12, 12, 12, 1).expand(2, 1, 12, 12, 12, 8)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(60):
        found = network(pattern, network.draw(2, generator))
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        losses.append(found.loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.grad is not None for name, p in network.named_parameters() if "mask_token" not in name)


def test_redundancy_by_the_formula():
    torch.manual_seed(0)
    window = (2, 1, 2, 3)
    tokens = torch.randn(2, 12, 5)
    found = redundancy(tokens, window)
    where = [(x, y, z, t) for x in range(2) for y in range(1) for z in range(2) for t in range(3)]
    for s in range(2):
        a = torch.softmax(tokens[s] @ tokens[s].T / 5**0.5, dim=1)
        for i, (x, y, z, t) in enumerate(where):
            space = [j for j, p in enumerate(where) if j != i and p[3] == t]
            time = [j for j, p in enumerate(where) if j != i and p[:3] == (x, y, z) and abs(p[3] - t) <= 2]
            f_space, f_time = a[i, space].max(), a[i, time].max()
            w = 0.5 * (f_time * a[i] / a[i, space].sum() + f_space * a[i] / a[i, time].sum())
            expected = w.clamp(0, 1).sum() / (len(space) + len(time))
            assert found[s, i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_redundant_tokens_are_dropped_in_training_only():
    network = tiny()
    clips = torch.randn(1, 1, 12, 12, 12, 8)
    hidden = network.draw(1, torch.Generator().manual_seed(0))
    without = network.eval()(clips, hidden).loss
    add_redundancy_dropout(network.model)
    assert torch.equal(network.eval()(clips, hidden).loss, without)
    torch.manual_seed(1)
    assert not torch.equal(network.train()(clips, hidden).loss, without)


def published(tmp_path, kind="window"):
    about, _, weights = golden(f"mae_{kind}_random")
    return lightning(tmp_path / "mae.ckpt", weights, pretraining=True, use_mae=True, **about["config"]), weights


def test_a_published_autoencoder_loads_whole_and_goes_back_without_loss(tmp_path):
    path, weights = published(tmp_path)
    network, _, has_decoder = autoencoder_of(str(path), Masking(), 0)
    assert has_decoder
    assert all(torch.equal(network.state_dict()[name], weight) for name, weight in weights.items())
    for target in (tmp_path / "ours.safetensors", tmp_path / "theirs.ckpt"):
        assert CliRunner().invoke(main, ["convert", str(path), str(target)]).exit_code == 0
        again = read_checkpoint(target)
        assert set(again.tensors) == set(weights)
        assert all(torch.equal(again.tensors[name], weight) for name, weight in weights.items())
        assert again.hyper_parameters["mask_ratio"] == 0.5
    stored = torch.load(tmp_path / "theirs.ckpt", weights_only=True)  # as Lightning reads it
    assert set(stored["state_dict"]) == set(weights)


def test_the_one_mask_token_of_the_older_release_is_that_of_windows(tmp_path):
    about, _, weights = golden("mae_window_random")
    older = {name: w for name, w in weights.items() if "mask_token" not in name}
    older["model.mask_token"] = weights["model.window_mask_token"]
    path = lightning(tmp_path / "older.ckpt", older, pretraining=True, use_mae=True, **about["config"])
    network, _, has_decoder = autoencoder_of(str(path), Masking(), 0)
    assert has_decoder
    assert torch.equal(network.model.window_mask_token, weights["model.window_mask_token"])
    assert not network.model.mask_token.any()


def test_a_decoder_that_is_cut_short_is_refused(tmp_path):
    about, _, weights = golden("mae_window_random")
    del weights["model.norm_up.bias"]
    path = lightning(tmp_path / "cut.ckpt", weights, pretraining=True, use_mae=True, **about["config"])
    with pytest.raises(NeurostormError, match=r"its decoder lacks model\.norm_up\.bias"):
        autoencoder_of(str(path), Masking(), 0)


def test_a_head_that_is_a_transformer_is_refused_by_name(tmp_path):
    about, _, weights = golden("encoder_base")
    weights["output_head.head.cls_token"] = torch.zeros(1, 1, 288)
    path = lightning(tmp_path / "v3.ckpt", weights, clf_head_version="v3", **about["config"])
    with pytest.raises(NeurostormError, match="a transformer over tokens"):
        load_model(path, "cpu")


def test_a_patch_is_of_the_region_that_most_of_its_voxels_are_of():
    labels = np.zeros((6, 3, 3), int)
    labels[:3][:2] = 7  # two thirds of the first patch
    labels[:3][2] = 4
    labels[3, 0, 0] = 2  # one voxel of the second: the others are of no region
    assert regions_of_patches(labels, (3, 3, 3)).flatten().tolist() == [7, 2]
    assert regions_of_patches(np.zeros((3, 3, 3), int), (3, 3, 3)).item() == 0
