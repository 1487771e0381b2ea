"""Tuning a narrow network on planted patterns, through its own pieces: no files but checkpoints."""

import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL, lightning, random_network
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, gaussian_filter
from torch.utils.data import default_collate

from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.model import backend
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.task import interpret
from neurostorm_bids.train import augment as augmentation
from neurostorm_bids.train.augment import disturbed, draw, smoothed
from neurostorm_bids.train.clips import clips_of
from neurostorm_bids.train.data import Clips, Draw, LabelledWindows, Order
from neurostorm_bids.train.fit import TrainingData, fit, outputs_of
from neurostorm_bids.train.module import decayed_and_not
from neurostorm_bids.train.objective import Objective
from neurostorm_bids.train.plan import Plan
from neurostorm_bids.train.trainer import TrainingRun
from neurostorm_bids.train.tuning import prepare_for_tuning, tuned_parts

SIZE, FRAMES, N = 24, 4, 80
CLASSES = ["left", "right"]
CPU = torch.device("cpu")
CONFIG = {**SMALL, "img_size": (SIZE, SIZE, SIZE, FRAMES)}


@dataclass
class InMemory:
    """A gridded run that is small enough to be an array."""

    data: np.ndarray
    background: float = -1.0
    scale: float = 0.1

    @property
    def shape(self):
        return self.data.shape

    def stored(self, start, stop):
        return np.round(np.moveaxis(self.data[..., start:stop], -1, 0) / self.scale).astype(np.int8)

    def window(self, start, stop):
        return np.moveaxis(self.stored(start, stop) * np.float32(self.scale), 0, -1)


def narrow(folder: Path):
    """A network that hardly tells where something is: its position embeddings are small."""
    network = random_network(img_size=CONFIG["img_size"])
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "pos_embed" in name or "time_embed" in name:
                weight.mul_(0.3)
            if "x_proj" in name or "in_proj" in name:
                weight.mul_(3)
            if name.endswith(("dt_proj.bias", "A_log")):  # a long memory, as trained networks have
                weight.fill_(-2)
    return load_model(lightning(folder / "narrow.ckpt", network.state_dict(), **CONFIG), "cpu")


def asymmetric(n=N, n_frames=FRAMES, seed=0):
    """Runs that are brighter on the right or on the left: the mean over the brain is the same."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    side = np.sign(np.linspace(-1, 1, SIZE))[:, None, None, None]
    runs = []
    for label in y:
        patches = rng.standard_normal((4, 4, 4)).repeat(6, 0).repeat(6, 1).repeat(6, 2)[..., None]
        data = 0.1 * rng.standard_normal((SIZE, SIZE, SIZE, n_frames)) + patches + (2 * label - 1) * side
        runs.append(InMemory(data.astype(np.float32)))
    return runs, y


def embedded(model, runs):
    return [model.embed(run.window(0, FRAMES)[None, None]).numpy() for run in runs]


def plan_of(tuning, epochs=10, patience=None, rate=0.01):
    more = {"learning_rate": rate, "prompt_length": 4, "lora_rank": 4, "augmentation": "none"}
    return Plan(tuning, epochs, patience or epochs, batch_size=8, device=CPU, **more)


def tune(model, data, parts, folder, plan, advance=lambda *_: None, resume=False):
    return fit(model, data, *parts, plan, TrainingRun(folder, resume, lambda _: None, advance))


def predict(model, trained, data, which):
    return outputs_of(model, trained, data, which, 1, lambda *_: None)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """(model, data, (runs to train on, for validation), to test)."""
    runs, y = asymmetric()
    order = np.random.default_rng(1).permutation(N)
    model = narrow(tmp_path_factory.mktemp("narrow"))
    return model, TrainingData(runs, y, CLASSES, np.arange(N)), (order[36:], order[20:36]), order[:20]


@pytest.fixture(scope="module")
def frozen(task):
    """What a probe of the frozen embedding comes to on the subjects to test: balanced accuracy."""
    model, data, _, test = task
    folds = np.full(N, -1)
    folds[test] = 0
    embeddings = np.concatenate(embedded(model, data.runs))
    return evaluate(embeddings, Design(data.y, np.arange(N), folds, True)).metrics["balanced_accuracy"][0]


@pytest.mark.parametrize(
    ("tuning", "rate", "epochs"),
    [
        ("layernorm", 0.05, 14),
        ("prompt", 0.1, 24),
        ("prompt-layernorm", 0.05, 16),
        ("lora", 0.03, 10),
        ("full", 0.005, 12),
    ],
)
def test_tuning_sees_what_the_frozen_probe_does_not(task, frozen, tmp_path, tuning, rate, epochs):
    model, data, parts, test = task
    outputs = predict(model, tune(model, data, parts, tmp_path, plan_of(tuning, epochs, rate=rate)), data, test)
    right = np.mean([(outputs[i].mean() > 0) == data.y[i] for i in test])
    assert frozen < 0.75
    assert right >= 0.85


def test_linear_tuning_finds_what_logistic_regression_finds(task, tmp_path):
    """A head alone is a linear probe: on the training samples its outputs go with scikit-learn's."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    model, data, (training, validation), _ = task
    data = replace(data, embeddings=embedded(model, data.runs))
    trained = tune(model, data, (training, validation), tmp_path, plan_of("linear", 40, rate=0.05))
    x = StandardScaler().fit_transform(np.concatenate([data.embeddings[i] for i in training]))
    theirs = LogisticRegression().fit(x, data.y[training]).decision_function(x)
    ours = predict(model, trained, data, training)
    assert np.corrcoef(theirs, [ours[i][0, 0] for i in training])[0, 1] > 0.9


@pytest.mark.parametrize("tuning", ["linear", "prompt", "layernorm", "prompt-layernorm", "lora", "full"])
def test_only_what_is_named_is_tuned(tmp_path, tuning):
    network = prepare_for_tuning(narrow(tmp_path).network, 1, plan_of(tuning))
    names = {name for name in tuned_parts(network) if not name.startswith("output_head.")}
    kinds = {
        "prompt": lambda name: name.endswith(".prompt"),
        "layernorm": lambda name: "norm" in name,
        "lora": lambda name: name.endswith((".lora_A", ".lora_B")),
    }
    wanted = [kinds[kind] for kind in kinds if kind in tuning]
    assert tuning == "full" or all(any(fits(name) for fits in wanted) for name in names)
    assert all(any(fits(name) for name in names) for fits in wanted)
    assert (tuning == "linear") == (not names)


@pytest.mark.parametrize("tuning", ["lora", "full", "prompt"])
def test_matrices_of_weights_decay_and_nothing_else(tmp_path, tuning):
    """Parameters without a gradient change by decay alone; those that shrink are the weights of linear layers."""
    plan = plan_of(tuning)
    network = prepare_for_tuning(narrow(tmp_path).network, 1, plan)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)  # heads and low-rank additions begin as 0
    groups = decayed_and_not(network, plan.learning_rate)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in network.parameters() if p.requires_grad
    }
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(groups).step()
    shrunk = {name for name, parameter in network.named_parameters() if (parameter < 1).all()}
    linear = {
        f"{name}.weight" for name, m in network.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d))
    }
    low_rank = {name for name, _ in network.named_parameters() if name.endswith(("weight.0.a", "weight.0.b"))}
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert shrunk == (linear | low_rank) & trained


def test_before_training_nothing_has_changed(tmp_path):
    """Low-rank additions begin as nothing, so the network is the backbone."""
    model = narrow(tmp_path)
    clip = torch.randn(1, 1, SIZE, SIZE, SIZE, FRAMES)
    with torch.inference_mode():
        before = backend.embed(model.network, clip)
        for tuning in ("linear", "layernorm", "lora", "full"):
            network = prepare_for_tuning(model.network, 1, plan_of(tuning)).eval()
            torch.testing.assert_close(backend.embed(network, clip), before)


def test_alpha_over_rank_scales_low_rank_additions(tmp_path):
    network = prepare_for_tuning(narrow(tmp_path).network, 1, replace(plan_of("lora"), lora_rank=2, lora_alpha=6.0))
    linear = network.model.layers[0].blocks[0].mamba.in_proj
    low_rank, before = linear.parametrizations.weight[0], linear.weight.detach().clone()
    with torch.no_grad():
        low_rank.b.fill_(1.0)
    torch.testing.assert_close(linear.weight - before, (3 * low_rank.a.sum(dim=0)).expand_as(before))


def _train_and_die(folder: str, die_at: int) -> None:
    """In a process of its own: train, and be killed after a step."""
    torch.set_num_threads(1)
    runs, y = asymmetric(24)

    def advance(step, _total):
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    parts = np.arange(16), np.arange(16, 24)
    folder = Path(folder)
    tune(
        narrow(folder),
        TrainingData(runs, y, CLASSES, np.arange(24)),
        parts,
        folder / "run",
        plan_of("lora", 4),
        advance,
    )


@pytest.mark.heavy
def test_killed_within_an_epoch_and_resumed_the_weights_are_the_same(tmp_path):
    runs, y = asymmetric(24)
    data, parts, plan = (
        TrainingData(runs, y, CLASSES, np.arange(24)),
        (np.arange(16), np.arange(16, 24)),
        plan_of("lora", 4),
    )
    whole = tune(narrow(tmp_path), data, parts, tmp_path / "whole", plan)
    child = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(str(tmp_path), 5))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "run" / "last.ckpt").is_file()  # two epochs of two steps are done, and one step of the third
    steps = []
    again = tune(narrow(tmp_path), data, parts, tmp_path / "run", plan, lambda i, _n: steps.append(i), resume=True)
    assert steps == [5, 6, 7, 8]
    assert [epoch["validation_loss"] for epoch in again.epochs] == [epoch["validation_loss"] for epoch in whole.epochs]
    for name, weight in whole.parts.items():
        assert torch.equal(again.parts[name], weight), name


def test_training_stops_when_the_validation_loss_no_longer_falls(tmp_path):
    runs, y = asymmetric(24)
    y = np.random.default_rng(0).permutation(y)  # nothing to be learnt
    plan, parts = plan_of("linear", 30, patience=3, rate=0.1), (np.arange(16), np.arange(16, 24))
    model = narrow(tmp_path)
    data = TrainingData(runs, y, CLASSES, np.arange(24), embedded(model, runs))
    trained = tune(model, data, parts, tmp_path / "run", plan)
    assert trained.best_epoch + 3 < 15  # it does not stop where the learning rate is high
    assert len(trained.epochs) == 15 + 3
    (tmp_path / "run" / "finished.json").unlink()  # as if killed between the last epoch and this note
    steps = []
    again = tune(model, data, parts, tmp_path / "run", plan, lambda *step: steps.append(step), resume=True)
    assert not steps
    assert all(torch.equal(again.parts[name], weight) for name, weight in trained.parts.items())


def test_accumulated_batches_train_as_one_larger_batch(tmp_path):
    runs, y = asymmetric(24)
    data, parts = TrainingData(runs, y, CLASSES, np.arange(24)), (np.arange(16), np.arange(16, 24))
    plans = [replace(plan_of("layernorm", 4), batch_size=8 // n, accumulate=n) for n in (1, 4)]
    steps = [], []
    trained = [
        tune(narrow(tmp_path), data, parts, tmp_path / str(n), plan, lambda *step, n=n: steps[n].append(step))
        for n, plan in enumerate(plans)
    ]
    assert steps[0][-1] == steps[1][-1] == (8, 8)
    for name, weight in trained[0].parts.items():
        torch.testing.assert_close(trained[1].parts[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "rate", "head"),
    [
        ({}, 1e-4, 1e-2),
        ({"batch_size": 8}, 1e-4 * 2**0.5, 1e-2 * 2**0.5),
        ({"accumulate": 2, "devices": 2, "nodes": 4}, 4e-4, 4e-2),
        ({"accumulate": 4, "learning_rate": 5e-5}, 5e-5, 2e-2),
    ],
)
def test_the_learning_rate_follows_the_windows_in_a_step(more, rate, head):
    plan = Plan("full", 30, 5, **{"batch_size": 4, "device": CPU, **more})
    assert (plan.learning_rate, plan.head_rate) == pytest.approx((rate, head))


@given(n=st.integers(2, 60), world=st.integers(1, 5), epoch=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_processes_share_each_epoch_without_overlap(n, world, epoch):
    alone = Order(n, 3)
    shares = [Order(n, 3, rank, world) for rank in range(world)]
    for order in (alone, *shares):
        order.set_epoch(epoch)
    together = [[i for _, i in order] for order in shares]
    if n >= world:
        assert len({len(share) for share in together}) == 1
        merged = [i for step in zip(*together, strict=True) for i in step]
        assert merged == [i for _, i in alone][: len(merged)]
        assert n - len(merged) < world


def _clip(clips, item):
    return clips_of(default_collate([clips[item][0]]), (SIZE,) * 3)


def test_a_clip_is_the_same_whoever_asks():
    runs, y = asymmetric(2, n_frames=11)
    windows = LabelledWindows.of([np.array([0, 4])] * 2, y, np.arange(2))
    clips = Clips(runs, windows, FRAMES, Draw(windows, 5, 2), shifts=[None, None], augmentation="per-frame")
    assert len(clips) == 4
    for item in [(0, 0), (3, 1), (3, 2)]:
        torch.testing.assert_close(_clip(clips, item), _clip(clips, item), rtol=0, atol=0)
    assert not torch.equal(_clip(clips, (0, 1)), _clip(clips, (1, 1)))


def test_shifted_windows_do_not_reach_into_censored_ones():
    run = InMemory(np.broadcast_to(np.arange(20.0, dtype=np.float32), (2, 2, 2, 20)).copy(), scale=1.0)
    windows = LabelledWindows.of([np.array([0, 4, 12])], np.zeros(1), np.zeros(1, int))
    allowed = np.isin(np.arange(17), [0, 1, 2, 4, 12, 14])
    clips = Clips([run], windows, FRAMES, Draw(windows, 0, 3), shifts=[allowed])
    begun = {int(clips[epoch, i][0].frames[0, 0, 0, 0]) for epoch in range(40) for i in range(3)}
    assert begun == {0, 1, 2, 4, 12, 14}


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    per_sample=st.integers(1, 12),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_as_many_windows_of_each_sample(counts, per_sample, seed):
    starts = [np.arange(n) for n in counts]
    windows = LabelledWindows.of(starts, np.zeros(len(counts)), np.arange(len(counts)))
    draw = Draw(windows, seed, per_sample)
    drawn = np.array([draw.window(3, i) for i in range(len(draw))])
    assert np.bincount(windows.sample[drawn]).tolist() == [per_sample] * len(counts)
    for sample, n in enumerate(counts):  # none twice before all have come once
        times = np.bincount(drawn[windows.sample[drawn] == sample] - sum(counts[:sample]), minlength=n)
        assert times.max() - times.min() <= 1
    assert drawn.tolist() == [Draw(windows, seed, per_sample).window(3, i) for i in range(len(draw))]


def test_epochs_draw_different_windows():
    windows = LabelledWindows.of([np.arange(50)], np.zeros(1), np.zeros(1, int))
    draw = Draw(windows, 0, 4)
    assert len({tuple(draw.window(epoch, i) for i in range(4)) for epoch in range(5)}) == 5


def several_runs(model, seed=0):
    """Forty samples of one or two runs of 1 to 12 windows, embeddings that know the class a little."""
    rng = np.random.default_rng(seed)
    samples = np.sort(np.concatenate([np.arange(40), np.arange(0, 40, 3)]))
    y = samples % 2
    n = model.network.config.n_channels
    embeddings = [
        (rng.standard_normal((rng.integers(1, 13), n)) + 0.5 * (2 * label - 1)).astype(np.float32) for label in y
    ]
    return TrainingData([None] * len(y), y, CLASSES, samples, embeddings)


def test_the_validation_loss_is_that_of_samples(tmp_path):
    """By hand: sigmoid and logarithm of the mean output over all windows of all runs of a sample."""
    model = narrow(tmp_path)
    data = several_runs(model)
    training, validation = np.flatnonzero(data.samples < 28), np.flatnonzero(data.samples >= 28)
    trained = tune(model, data, (training, validation), tmp_path / "run", plan_of("linear", 3))
    outputs = predict(model, trained, data, validation)
    losses, right = [], []
    for sample in range(28, 40):
        logit = np.concatenate([outputs[i] for i in validation if data.samples[i] == sample]).mean()
        losses.append(np.log1p(np.exp(-logit if sample % 2 else logit)))  # half of the samples are of each class
        right.append((logit > 0) == sample % 2)
    best = trained.epochs[trained.best_epoch - 1]
    assert best["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)  # classes have the same size
    assert best["validation_balanced_accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.7, 0.2, 0.1)])
def test_what_is_given_a_probability_happens_that_often(tmp_path, shares):
    """Classes that differ in a few channels, in shares that are unequal; new samples, observed against given."""
    rng = np.random.default_rng(0)
    model, n = narrow(tmp_path), 12000
    classes = ["a", "b", "c"][: len(shares)]
    y = rng.choice(len(shares), n, p=shares)
    embeddings = rng.standard_normal((n, 1, model.network.config.n_channels)).astype(np.float32)
    for label in range(1, len(shares)):
        embeddings[y == label, 0, label] += 1.5
    data = TrainingData([None] * n, y, classes, np.arange(n), list(embeddings))
    parts, new = (np.arange(2000), np.arange(2000, 2500)), np.arange(2500, n)
    plan = replace(plan_of("linear", 15, rate=0.01), batch_size=64)
    trained = tune(model, data, parts, tmp_path / "run", plan)
    assert trained.objective.class_shares == pytest.approx(np.bincount(y[:2000]) / 2000)
    outputs, task = predict(model, trained, data, new), trained.objective.task("t", None)
    predictions = [interpret(task, outputs[i]) for i in new]
    for k, name in enumerate(classes):
        given_p = np.array([one.probabilities[name] for one in predictions])
        bins = np.digitize(given_p, [0.1, 0.2, 0.4, 0.6, 0.8])
        for some in (bins == b for b in np.unique(bins)):
            if some.sum() >= 100:
                error = (y[new][some] == k).mean() - given_p[some].mean()
                assert abs(error) < 0.05 + 2 * np.sqrt(0.25 / some.sum())
    recall = [
        np.mean([predictions[i].value == name for i in np.flatnonzero(y[new] == k)]) for k, name in enumerate(classes)
    ]
    assert min(recall) > 0.55  # the most probable class would hardly ever be the rare one


def test_labels_are_scaled_by_samples_and_not_by_windows(tmp_path):
    model = narrow(tmp_path)
    data = several_runs(model)
    ages = 20.0 + data.samples
    parts = np.flatnonzero(data.samples < 30), np.flatnonzero(data.samples >= 30)
    trained = tune(model, replace(data, y=ages, classes=[]), parts, tmp_path / "run", plan_of("linear", 1))
    assert trained.objective.mean == pytest.approx(np.mean(20 + np.arange(30)))
    assert trained.objective.std == pytest.approx(np.std(20 + np.arange(30)))


def test_augmentation_turns_and_scales_all_frames_alike_as_scipy_does(monkeypatch):
    monkeypatch.setattr(augmentation, "NOISE_SHARE", 0)
    monkeypatch.setattr(augmentation, "SMOOTHING_SHARE", 0)
    axes = np.meshgrid(*(np.linspace(-1, 1, SIZE),) * 3, indexing="ij")
    volume = np.exp(-8 * ((axes[0] - 0.3) ** 2 + 2 * axes[1] ** 2 + (axes[2] + 0.2) ** 2)).astype(np.float32)
    clip = torch.from_numpy(np.stack([volume, 2 * volume]))
    ours = disturbed(clip, 0.0, draw(np.random.default_rng(4))).numpy()
    rng = np.random.default_rng(4)
    matrix = augmentation.rotation(rng.uniform(-augmentation.MAX_ROTATION, augmentation.MAX_ROTATION, 3)) @ np.diag(
        1 + rng.uniform(-0.1, 0.1, 3)
    )
    middle = np.full(3, (SIZE - 1) / 2)
    theirs = affine_transform(volume, matrix, middle - matrix @ middle, order=1, mode="nearest")
    np.testing.assert_allclose(ours[0], theirs, atol=1e-5)
    np.testing.assert_allclose(ours[1], 2 * ours[0], atol=1e-5)


def test_noise_is_that_of_the_published_pretraining():
    """In three clips of ten, of a standard deviation up to 0.1, and the same in all frames."""
    clip = torch.zeros(3, 8, 8, 8)
    found = [disturbed(clip, 0.0, draw(np.random.default_rng(i))).numpy() for i in range(300)]
    noisy = [one for one in found if one.std() > 0]
    assert 0.2 < len(noisy) / 300 < 0.4
    spreads = [one.std() for one in noisy]
    assert max(spreads) < 0.11
    assert np.mean(spreads) == pytest.approx(0.05, abs=0.01)
    assert all((one == one[:1]).all() for one in noisy)


def test_noise_of_its_own_in_every_frame():
    clip = torch.zeros(3, 8, 8, 8)
    found = [disturbed(clip, 0.0, draw(np.random.default_rng(i), "per-frame")).numpy() for i in range(50)]
    noisy = next(one for one in found if one.std() > 0)
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1]) < 0.3


@pytest.mark.parametrize(("how", "outside"), [("published", 3.0), ("per-frame", -2.5)])
def test_what_comes_in_from_outside_the_grid(how, outside, monkeypatch):
    """The border, or the background."""
    monkeypatch.setattr(augmentation, "NOISE_SHARE", 0)
    monkeypatch.setattr(augmentation, "SMOOTHING_SHARE", 0)
    clip = torch.full((1, 8, 8, 8), 3.0)
    corners = [disturbed(clip, -2.5, draw(np.random.default_rng(i), how))[0, 0, 0, 0].item() for i in range(20)]
    assert max(abs(value - outside) for value in corners) < 1e-4 or how == "per-frame"
    assert min(corners) == pytest.approx(min(outside, 3.0), abs=0.5)


def test_smoothing_is_that_of_scipy():
    volumes = torch.randn(2, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    theirs = gaussian_filter(volumes.numpy(), (0, 0.5, 0.2, 0.4), mode="nearest", radius=(0, 2, 2, 2))
    np.testing.assert_allclose(smoothed(volumes, [0.5, 0.2, 0.4]), theirs, atol=1e-6)


def test_class_weights_make_every_class_count_the_same():
    objective = Objective.of(np.array([0] * 9 + [1] * 3), ["many", "few"])
    y = torch.tensor([0.0] * 9 + [1.0] * 3)
    outputs = torch.zeros(12, 1, requires_grad=True)
    objective.loss(outputs, y).backward()
    assert outputs.grad[:9].sum().item() == pytest.approx(-outputs.grad[9:].sum().item())


def test_the_loss_of_two_halves_is_that_of_the_whole():
    """As two processes see it: the mean of the losses of equal halves."""
    objective = Objective.of(np.array([0, 0, 0, 1, 2]), ["a", "b", "c"])
    outputs, y = torch.randn(8, 3), torch.tensor([0.0, 1, 2, 0, 0, 0, 1, 1])
    halves = [objective.loss(outputs[part], y[part]) for part in (slice(0, 4), slice(4, 8))]
    assert sum(halves).item() / 2 == pytest.approx(objective.loss(outputs, y).item(), rel=1e-6)


def test_labels_of_a_regression_are_standardised_and_come_back():
    y = np.array([20.0, 30, 40, 70])
    objective = Objective.of(y, [])
    task = objective.task("age", "here")
    np.testing.assert_allclose(objective.scaled(y) * task.label_std + task.label_mean, y, rtol=1e-6)
    assert task.label_range == (20, 70)


def test_the_compiled_way_sees_changed_weights(tmp_path):
    """Training changes weights in place, and validates with the compiled kernels in between."""
    network = narrow(tmp_path).network
    clip = torch.randn(1, 1, SIZE, SIZE, SIZE, FRAMES)
    with torch.inference_mode():
        backend.embed(network, clip)
    with torch.no_grad():
        for block in network.model.layers[0].blocks:
            block.mamba.A_log.add_(1.0)
            block.mamba.conv1d.weight.mul_(2.0)
    expected = network.embed(clip).detach()  # the plain network, without the kernels
    with torch.inference_mode():
        torch.testing.assert_close(backend.embed(network, clip), expected, rtol=1e-4, atol=1e-5)
