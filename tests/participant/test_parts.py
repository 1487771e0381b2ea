"""--embedding-level and --stage: arrays of frames and tokens that add up to the tables, each token where its patches are."""

import json

import numpy as np
import pytest
import torch
from helpers import NARROW, random_network, signal
from nibabel.affines import apply_affine

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.encode.parts import token_centres
from neurostorm_bids.model import backend
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.network import mean_over_tokens
from neurostorm_bids.resample.grid import FSL

LEVELS = ("--embedding-level", "frame", "token")


@pytest.fixture
def parts(tree, tmp_path, neurostorm, narrow):
    """(a call, the folder of its results) of a run of three windows."""
    tree.run(data=signal(0, n_volumes=14), repetition_time=1.0)
    call = (tree.path, tmp_path / "out", "participant", "--model", narrow, *LEVELS)
    status, _, said = neurostorm(*call)
    assert status == 0, said
    return call, tmp_path / "out" / "sub-01" / "func"


def arrays_of(folder, level, stage=2):
    path = next(folder.glob(f"*_desc-narrow_stage-{stage}_{level}s.npz"))
    return dict(np.load(path)), json.loads(path.with_suffix(".json").read_text())


def test_tokens_and_frames_add_up_to_the_table(parts):
    table = read_table(next(parts[1].glob("*_embeddings.tsv")))
    tokens, about = arrays_of(parts[1], "token")
    frames, _ = arrays_of(parts[1], "frame")
    sizes = dict(zip(about["Axes"]["embeddings"], tokens["embeddings"].shape, strict=True))
    assert sizes == {"window": len(table), "x": 2, "y": 2, "z": 2, "frame": NARROW["img_size"][3], "channel": 16}
    np.testing.assert_allclose(tokens["embeddings"].mean(axis=(1, 2, 3)), frames["embeddings"], atol=1e-6)
    np.testing.assert_allclose(frames["embeddings"].mean(axis=1), channels_of(table), atol=1e-6)
    np.testing.assert_allclose(frames["onset"][:, 0], table["onset"], atol=1e-6)
    np.testing.assert_allclose(np.diff(frames["onset"], axis=1), table["duration"][0] / 6, atol=1e-6)


def test_tokens_are_those_of_the_network(parts, narrow, tree):
    """By the network itself, without the code for one pass."""
    from neurostorm_bids import to_model_grid

    model = load_model(narrow)
    files = sorted((tree.path / "sub-01" / "func").glob("*.nii.gz"))
    bold, mask = (
        next(file for file in files if kind in file.name) for kind in ("desc-preproc_bold", "desc-brain_mask")
    )
    run = to_model_grid(bold, mask, repetition_time=1.0, grid=model.grid)
    with torch.no_grad():
        expected = model.network.model(torch.from_numpy(np.ascontiguousarray(run[..., :6]))[None, None])[0]
    found = arrays_of(parts[1], "token")[0]["embeddings"][0]
    np.testing.assert_allclose(found, expected.permute(1, 2, 3, 4, 0), atol=1e-4)


def test_places_are_where_the_voxels_of_a_token_are(parts, narrow):
    world = arrays_of(parts[1], "token")[0]["world"]
    voxels = np.indices(FSL.shape).reshape(3, -1).T
    for place in ((0, 0, 0), (1, 0, 1)):
        within = (voxels // 48 == place).all(axis=1)
        np.testing.assert_allclose(world[place], apply_affine(FSL.matrix, voxels[within]).mean(axis=0), atol=1e-4)
    first = token_centres(load_model(narrow), FSL, 1)
    np.testing.assert_allclose(first.reshape(2, 2, 2, 2, 2, 2, 3).mean(axis=(1, 3, 5)), world, atol=1e-4)


def test_a_moved_signal_moves_the_token_it_is_in():
    """What lies at a token's world coordinates is what moves that token most, in the first stage."""
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    clip = torch.randn(1, 1, 96, 96, 96, 6, generator=torch.Generator().manual_seed(0))
    other = clip.clone()
    other[..., 24:48, 72:96, 0:24, :] += 3
    with torch.inference_mode():
        moved = [backend.features_of(network, x, (1,))[0] for x in (clip, other)]
    change = (moved[1] - moved[0]).abs().sum(dim=(0, 1, 5))
    assert np.unravel_index(int(change.argmax()), change.shape) == (1, 3, 0)


@pytest.mark.parametrize("compiled", [True, False])
def test_stages_in_one_pass(compiled):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    clips = torch.randn(2, 1, 96, 96, 96, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(compiled), torch.no_grad():
        last, first = backend.features_of(network, clips, (2, 1))
        assert first.shape == (2, 8, 4, 4, 4, 6)
        torch.testing.assert_close(backend.features(network, clips), last)
        stage = network.model.layers[1]
        again = stage(network.model.pos_embeds[1](network.model.layers[0].merge(first.permute(0, 2, 3, 4, 5, 1))))
        torch.testing.assert_close(again.permute(0, 5, 1, 2, 3, 4), last, atol=1e-4, rtol=1e-4)
    assert mean_over_tokens(last).shape == (2, 16)


def test_they_are_made_once_and_again_for_another_stage(parts, neurostorm):
    call, folder = parts
    assert "encoding" not in neurostorm(*call)[2]
    status, _, said = neurostorm(*call, "--stage", "1")
    assert status == 0
    assert "encoding" in said
    assert arrays_of(folder, "token", 1)[0]["embeddings"].shape[1:4] == (4, 4, 4)
    before = (path := next(folder.glob("*_stage-1_tokens.npz"))).read_bytes()
    neurostorm(*call, "--stage", "1", "--force")
    assert path.read_bytes() == before
    path.write_bytes(before[:3000])  # a copy that was cut short
    assert neurostorm(*call, "--stage", "1")[0] == 0
    assert path.read_bytes() == before


def test_a_stage_alone_means_nothing(tree, tmp_path, neurostorm, narrow):
    tree.run()
    said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--stage", "1")[2]
    assert "--stage has no effect" in said


def test_tables_are_as_without(parts, tree, tmp_path, neurostorm, narrow):
    neurostorm(tree.path, tmp_path / "plain", "participant", "--model", narrow)
    plain = next((tmp_path / "plain" / "sub-01" / "func").glob("*_embeddings.tsv"))
    assert plain.read_bytes() == next(parts[1].glob("*_embeddings.tsv")).read_bytes()
    assert not list((tmp_path / "plain").rglob("*.npz"))


def test_a_run_that_was_not_fetched_is_named(tree, tmp_path, neurostorm, narrow):
    bold = tree.run()
    bold.unlink()
    bold.symlink_to(tmp_path / "annex" / "nothing")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, *LEVELS)
    assert status == 1
    assert "datalad get" in said
    assert "unexpected" not in said


def test_a_stage_that_is_not_there_is_said(tree, tmp_path, neurostorm, narrow):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, *LEVELS, "--stage", "3")
    assert status == 1
    assert "model 'narrow' has 2 stages" in said
