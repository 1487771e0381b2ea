"""Pretraining on made-up runs: it learns, it is killed and resumed, and processes share it."""

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.mae import recompute_blocks
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.model.network import NeuroSTORMConfig
from neurostorm_bids.model.pretrained import new_autoencoder
from neurostorm_bids.model.strd import add_redundancy_dropout
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views
from neurostorm_bids.train.pretraining import Goal, PretrainedNetwork, Pretraining
from neurostorm_bids.train.trainer import AtomicCheckpoints, TrainingRun, train

WINDOW = (2, 2, 2, 4)
CONFIG = NeuroSTORMConfig(
    img_size=(12, 12, 12, 8), patch_size=(3, 3, 3, 1), embed_dim=8, depths=(2, 2), window_size=WINDOW, first_window_size=WINDOW
)  # fmt: skip


class Travelling:
    """A run in which a wave of the person's own travels through the brain; the corner is background."""

    background = -2.0
    shape = (12, 12, 12, 32)

    def __init__(self, person):
        rng = np.random.default_rng(person)
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, 12),) * 3, indexing="ij")
        along = rng.standard_normal(3)
        phase = 2 * np.pi * rng.random() + along[0] * x + along[1] * y + along[2] * z
        self.data = np.sin(phase[..., None] + 2 * np.pi * np.arange(32) / 8).astype(np.float32)
        self.data[:3, :3, :3] = self.background

    scale = 2 / 127

    def stored(self, start, stop):
        return np.round(np.moveaxis(self.data[..., start:stop], -1, 0) / self.scale).astype(np.int8)


MAE = Goal()


def module_of(epochs, goal=MAE, rate=2e-3, dropout=False, n=10, **more):
    masking = Masking("random", 0.5, WINDOW)
    network = new_autoencoder(CONFIG, masking, 0)
    if dropout:
        add_redundancy_dropout(network.model)
    whole = PretrainedNetwork(network, goal.has_contrast)
    whole.train_only_what_is_used(goal)
    views = Views(masking, int(network.units.max()) + 1, "none", goal.n_clips)
    people = np.arange(n)
    parts = [
        PretrainingWindows([Travelling(k) for k in who], who, 8, each, 0, shifted=shifted)
        for who, each, shifted in (
            (people[:-3], views, True),
            (people[-3:], Views(masking, views.n_units, "none", min(2, goal.n_clips)), False),
        )
    ]
    steps = len(parts[0]) // 4
    plan = Plan("full", epochs, epochs, 4, torch.device("cpu"), learning_rate=rate, **{"steps": steps, **more})
    return Pretraining(whole, goal, parts[0], parts[1], plan)


def run_in(folder, advance=lambda *_: None, resume=False, **more):
    return TrainingRun(Path(folder), resume, lambda _record: None, advance, **more)


@pytest.mark.heavy
def test_it_learns_more_than_those_who_know_nothing(tmp_path):
    history = train(module_of(3, rate=6e-3, n=40), run_in(tmp_path))
    assert history[-1]["validation_skill_over_mean_image"] > 0.6
    assert history[-1]["validation_skill_over_time"] > 0.6


def test_the_background_is_not_brain(tmp_path):
    history = train(module_of(1), run_in(tmp_path))
    assert history[0]["validation_brain_error"] != history[0]["validation_error"]


@pytest.mark.parametrize("contrast", ["instance", "local", "both"])
def test_clips_are_compared(tmp_path, contrast):
    module = module_of(2, Goal("mae+contrastive", contrast))
    before = module.network.output_head.fc1.weight.clone()
    history = train(module, run_in(tmp_path))
    assert np.isfinite([epoch["validation_contrast"] for epoch in history]).all()
    assert not torch.equal(module.network.output_head.fc1.weight, before)


def test_without_reconstruction_the_decoder_stays(tmp_path):
    module = module_of(1, Goal("contrastive", "instance"))
    before = {name: w.clone() for name, w in module.network.weights().items()}
    train(module, run_in(tmp_path))
    after = module.network.weights()
    assert torch.equal(after["model.decoder_pred.weight"], before["model.decoder_pred.weight"])
    assert not torch.equal(after["model.patch_embed.fc.weight"], before["model.patch_embed.fc.weight"])


def _train_and_die(folder, number, step, minutes, more):
    def advance(done, _of):
        if done == step:
            os.kill(os.getpid(), number)

    torch.set_num_threads(1)
    train(module_of(3, dropout=True, **more), run_in(folder, advance, minutes=minutes))


EVERY_STEP, EPOCHS_ALONE = 1e-9, 1e9


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("number", "step", "first", "minutes", "more"),
    [
        (signal.SIGKILL, 9, 8, EPOCHS_ALONE, {}),
        # 5 are done after the first half of the next
        (signal.SIGUSR1, 5, 5, EPOCHS_ALONE, {"accumulate": 2, "steps": 3}),
        pytest.param(signal.SIGKILL, 10, 10, EVERY_STEP, {"averaging": 0.9}, marks=pytest.mark.heavy),
        # in the last step of an epoch
        pytest.param(signal.SIGTERM, 7, 8, EPOCHS_ALONE, {}, marks=pytest.mark.heavy),
        # in a step that is drawn anew whenever this runs; the head that compares clips has statistics beside its weights
        (signal.SIGKILL, None, None, EVERY_STEP, {"goal": Goal("mae+contrastive")}),
    ],
)
def test_stopped_and_resumed_the_weights_are_the_same(tmp_path, number, step, first, minutes, more):
    whole = module_of(3, dropout=True, **more)
    history = train(whole, run_in(tmp_path / "whole"))
    if step is None:
        step = first = int(np.random.default_rng().integers(1, history[-1]["step"]))
    print("step", step)
    arguments = (str(tmp_path / "stopped"), number, step, minutes, more)
    child = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == {signal.SIGKILL: -9, signal.SIGUSR1: 75, signal.SIGTERM: 143}[number]
    again = module_of(3, dropout=True, **more)
    begun: list[int] = []
    resumed = train(again, run_in(tmp_path / "stopped", lambda done, _of: begun.append(done), resume=True))
    assert begun[0] == first
    for name in ("step", "train_loss", "validation_loss"):
        assert [epoch[name] for epoch in resumed] == [epoch[name] for epoch in history]
    ours = again.network.weights()
    assert all(torch.equal(ours[name], weight) for name, weight in whole.network.weights().items())


def test_when_the_time_is_up_it_stops_to_go_on_later(tmp_path, caplog):
    module = module_of(2)
    with pytest.raises(Stopped) as stop:
        train(module, run_in(tmp_path, deadline=time.monotonic()))
    assert stop.value.status == 75
    assert "since the time is up; the same command with --resume goes on" in caplog.text
    assert len(train(module_of(2), run_in(tmp_path, resume=True))) == 2


def test_averaged_weights_are_kept(tmp_path):
    averaged, last = module_of(1, averaging=0.9), module_of(1)
    train(averaged, run_in(tmp_path / "averaged"))
    train(last, run_in(tmp_path / "last"))
    start = module_of(1).network.weights()["model.patch_embed.fc.weight"]
    apart = [(one.network.weights()["model.patch_embed.fc.weight"] - start).norm() for one in (averaged, last)]
    assert 0 < apart[0] < apart[1]


def test_blocks_that_are_computed_again_train_the_same(tmp_path):
    kept, again = module_of(1, dropout=True), module_of(1, dropout=True)
    recompute_blocks(again.network.autoencoder)
    for number, module in enumerate((kept, again)):
        train(module, run_in(tmp_path / str(number)))
    theirs = again.network.weights()
    assert all(torch.equal(theirs[name], weight) for name, weight in kept.network.weights().items())


def test_what_is_known_so_far_is_handed_over_after_every_epoch_but_the_last(tmp_path):
    looks = []
    history = train(module_of(3), run_in(tmp_path, look=lambda epochs: looks.append([*epochs])))
    assert looks == [history[:1], history[:2]]


def test_every_step_is_logged(tmp_path):
    train(module_of(1), run_in(tmp_path, logger="csv"))
    text = (tmp_path / "csv-1" / "metrics.csv").read_text()
    assert "train_loss_step" in text
    assert "validation_loss" in text
    assert (tmp_path / "history.tsv").read_text().startswith("epoch\tstep\t")


def test_every_step_is_logged_for_tensorboard(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    module = module_of(2)
    history = train(module, run_in(tmp_path, logger="tensorboard"))
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("train_loss_step")] == list(range(2 * module.plan.steps))
    logged = [event.value for event in found.Scalars("validation_loss")]
    assert logged == pytest.approx([epoch["validation_loss"] for epoch in history])


@pytest.mark.parametrize(
    ("ranks", "of_random", "stops"),
    [((1.01, 1.01), 9.0, True), ((1.01, 4.0, 1.01), 9.0, False), ((1.01, 1.01), 1.5, False)],
)
def test_embeddings_on_one_line_stop_the_training_unless_they_leave_it(tmp_path, monkeypatch, ranks, of_random, stops):
    looks = iter(ranks)
    monkeypatch.setattr("neurostorm_bids.train.pretraining.effective_rank", lambda _: next(looks))
    module = module_of(len(ranks))
    module.rank_of_random = lambda: of_random
    if stops:
        with pytest.raises(NeurostormError, match=r"lie on one line \(effective rank 1.01\)"):
            train(module, run_in(tmp_path))
    else:
        train(module, run_in(tmp_path))
        assert next(looks, None) is None


def test_embeddings_that_are_all_alike_stop_the_training(tmp_path):
    module = module_of(1)
    with torch.no_grad():
        for parameter in module.network.autoencoder.model.layers.parameters():
            parameter.zero_()
    with pytest.raises(NeurostormError, match="training has collapsed"):
        train(module, run_in(tmp_path))


def _save_with_little_room(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        AtomicCheckpoints().save_checkpoint({"w": torch.zeros(100000)}, path)
    except NeurostormError as error:
        Path(f"{path}.txt").write_text(str(error))


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"w": torch.ones(3)}, path)
    child = multiprocessing.get_context("spawn").Process(target=_save_with_little_room, args=(str(path),))
    child.start()
    child.join()
    said = Path(f"{path}.txt").read_text()
    assert f"cannot write {path}" in said
    assert "\n" not in said
    assert torch.equal(torch.load(path)["w"], torch.ones(3))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.txt"]
