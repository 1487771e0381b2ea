"""The demo model was trained: it does on phantoms of other people what its card says."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from neurostorm_bids import load_model
from neurostorm_bids.demo.people import REPETITION_TIME, person, run_of
from neurostorm_bids.demo.phantom import AFFINE, anatomy
from neurostorm_bids.demo.training import PRETRAINING
from neurostorm_bids.model.masks import Masking, of_tokens
from neurostorm_bids.model.pretrained import autoencoder_of, config_of_size, new_autoencoder
from neurostorm_bids.model.registry import DEMO_CARD, DEMO_FILE
from neurostorm_bids.resample.grid import get_grid
from neurostorm_bids.train.clips import clips_of
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.pretrain_data import HeldOut, PretrainingWindows, Views
from neurostorm_bids.train.pretraining import Goal, PretrainedNetwork, Pretraining
from neurostorm_bids.train.skill import Errors
from neurostorm_bids.train.trainer import TrainingRun, train

N_FRAMES, MASK = 100, Masking()  # as long as those that it was trained on


class Phantom:
    """A phantom in the model's grid, one byte a voxel: by nearest neighbour, which smooth phantoms do not mind."""

    def __init__(self, brain, seed):
        data = run_of(person(brain, seed, coupled=seed % 2 == 1), seed, N_FRAMES)
        inside = data[data > 0].astype(np.float32)
        mean, std = inside.mean(), inside.std()
        z = (np.maximum(data, inside.min()) - mean) / std
        self.background, self.scale = float(z.min()), float(np.abs(z).max()) / 127
        grid = get_grid(None)
        back = np.linalg.inv(AFFINE) @ grid.matrix
        where = np.rint(np.indices(grid.shape).reshape(3, -1).T @ back[:3, :3].T + back[:3, 3]).astype(int)
        there = ((where >= 0) & (where < data.shape[:3])).all(axis=1)
        volumes = np.full((N_FRAMES, *grid.shape), self.background, np.float32)
        volumes.reshape(N_FRAMES, -1)[:, there] = z[tuple(where[there].T)].T
        self.frames = np.round(volumes / self.scale).astype(np.int8)
        self.shape = (*grid.shape, N_FRAMES)

    def stored(self, start, stop):
        return self.frames[start:stop]


@pytest.fixture(scope="module")
def phantoms():
    """Of people that the demo model has not seen."""
    brain = anatomy()
    return [Phantom(brain, 5000 + i) for i in range(4)]


def windows(phantoms, network):
    views = Views(MASK, int(network.units.max()) + 1, "none", 1)
    return PretrainingWindows(phantoms, np.arange(len(phantoms)), network.config.n_frames, views, 0)


@pytest.mark.heavy
def test_it_reconstructs_unseen_phantoms_better_than_those_who_know_nothing(phantoms):
    """As its card says: if the card says that it does not, neither may this."""
    network, _, has_decoder = autoencoder_of("demo", MASK, 0)
    assert has_decoder
    total = None
    data = windows(phantoms, network.eval())
    for i in range(len(data)):
        raw, hidden, background, _ = data[0, i]
        clip = clips_of(default_collate([raw]), network.config.img_size[:3])[:, 0]
        patches, shown = network.model.patches(clip), of_tokens(hidden[None], network.units)
        with torch.inference_mode():
            found = network(clip, shown).patches
        brain = ((patches - background).abs() > 0.1).any(dim=-1)
        errors = Errors.of(patches, found, shown, brain)
        total = errors if total is None else total + errors
    record = total.record()
    skills = [record[f"skill_over_{name}"] for name in ("mean_image", "time")]
    assert (min(skills) > 0) == ("reconstructed better than both" in DEMO_CARD.read_text())


@pytest.mark.heavy
def test_going_on_is_ahead_of_beginning_anew(phantoms, tmp_path):
    """In the same number of steps, the demo model reaches a lower loss on phantoms than random weights."""
    losses = {}
    for name in ("demo", "anew"):
        config = config_of_size(PRETRAINING["size"])
        network = autoencoder_of("demo", MASK, 0)[0] if name == "demo" else new_autoencoder(config, MASK, 0)
        whole = PretrainedNetwork(network, has_contrast=False)
        whole.train_only_what_is_used(Goal())
        plan = Plan("full", 1, 1, 2, torch.device("cpu"), learning_rate=1e-4, steps=3)
        parts = windows(phantoms[:3], network), HeldOut(windows(phantoms[3:], network), 2, 0)
        run = TrainingRun(tmp_path / name, False, lambda _: None, lambda *_: None)
        losses[name] = train(Pretraining(whole, Goal(), *parts, plan), run)[-1]["validation_loss"]
    assert losses["demo"] < losses["anew"]


def test_it_is_small_and_says_what_it_is():
    assert DEMO_FILE.stat().st_size < 2e6
    model = load_model("demo", "cpu")
    assert model.task.classes == ("apart", "together")
    assert model.warning == "a very small model trained on phantoms, for demonstration"
    card = DEMO_CARD.read_text()
    for words in ("A very small model trained on phantoms: for demonstration", "skill", "directions", "random weights"):
        assert words in card
    assert REPETITION_TIME == 0.8  # the model's own
