"""Maps are what they claim to be: captum's numbers, a planted region, and checks that fail where they should."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from helpers import SMALL, random_network

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.explain import checks
from neurostorm_bids.explain.gradients import integrated_gradients
from neurostorm_bids.explain.occlusion import occlude
from neurostorm_bids.explain.target import Target
from neurostorm_bids.model.initial import new_network
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.scan.reference import selective_scan

PLANTED = 21  # the parcel, from 0: one of 64, at (1, 1, 1) of 4 x 4 x 4 patches
CONFIG = NeuroSTORMConfig(**SMALL, head="v1", n_outputs=1)
NUMBERS = torch.arange(1, 65).view(4, 4, 4).repeat_interleave(6, 0).repeat_interleave(6, 1).repeat_interleave(6, 2)
LOGIT = Target("planted", "logit")


def people(n, seed):
    """Clips (n, 24, 24, 24, 6) of which every parcel rises or falls over time, and what the planted one does; anatomy and noise."""
    rng = np.random.RandomState(seed)
    anatomy = np.random.RandomState(0).standard_normal((24, 24, 24, 1))
    clips = anatomy + 0.3 * rng.standard_normal((n, 24, 24, 24, 6))
    y = rng.permutation(np.arange(n) % 2)
    ramp = np.linspace(-1, 1, 6)
    signs = rng.choice([-1.0, 1.0], (n, 64))
    signs[:, PLANTED] = 2 * y - 1
    clips += 0.3 * signs[:, NUMBERS.numpy() - 1][..., None] * ramp
    return torch.from_numpy(clips.astype(np.float32)), torch.from_numpy(y.astype(np.float32))


@dataclass
class Trained:
    network: NeuroSTORM
    clips: torch.Tensor
    y: torch.Tensor

    def output(self, network=None):
        return lambda x: LOGIT.of(network or self.network, x)


@pytest.fixture(scope="module")
def trained():
    """A small network that tells rising from falling people, and people whom it has not seen."""
    torch.manual_seed(0)
    network = new_network(lambda: NeuroSTORM(CONFIG), 0).train()
    clips, y = people(96, 1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for step in range(120):
        chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(step))[:16]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            LOGIT.of(network, clips[chosen][:, None]), y[chosen]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.requires_grad_(False).eval()
    unseen, labels = people(30, 2)
    found = (LOGIT.of(network, unseen[:, None]) > 0).float()
    assert (found == labels).float().mean() > 0.95
    return Trained(network, unseen, labels)


def of_parcels(values):
    return np.bincount(NUMBERS.ravel(), weights=values.sum(axis=3).ravel().astype(float), minlength=65)[1:]


def map_of(output, clip, **more):
    return integrated_gradients(output, clip, clip.mean(dim=-1, keepdim=True).expand_as(clip).contiguous(), **more)


def test_it_is_captum_s_integrated_gradients(monkeypatch):
    network = random_network(head="v1", n_outputs=1)
    clip, baseline = torch.randn(2, 24, 24, 24, 6, generator=torch.Generator().manual_seed(0))
    oracle = IntegratedGradients(lambda x: LOGIT.of(network, x))
    for tolerance, plain in ((1e-5, True), (1e-4, False)):
        if plain:
            monkeypatch.setattr("neurostorm_bids.model.network.scan_for", lambda *_: selective_scan)
        else:
            monkeypatch.undo()
        theirs = oracle.attribute(
            clip[None, None], baseline[None, None], n_steps=8, method="gausslegendre", internal_batch_size=1
        )
        ours = integrated_gradients(lambda x: LOGIT.of(network, x), clip, baseline, nodes=(8,))
        assert np.abs(ours.values - theirs[0, 0].numpy()).max() < tolerance * theirs.abs().max().item()


def test_attributions_sum_to_the_change_of_the_output(trained):
    for clip in trained.clips[:3]:
        found = map_of(trained.output(), clip)
        assert found.error <= 0.01
        assert found.values.sum() == pytest.approx(found.difference, rel=0.011)
    one = map_of(trained.output(), trained.clips[0], nodes=(1,))
    assert one.nodes == 1
    assert one.error == pytest.approx(
        abs(one.values.sum(dtype=np.float64) - one.difference) / abs(one.difference), rel=1e-3
    )


def test_the_planted_region_ranks_first_and_nowhere_else_with_random_weights(trained):
    firsts = {"trained": [], "random": []}
    for person, (clip, label) in enumerate(zip(trained.clips, trained.y, strict=True)):
        random = checks.random_like(trained.network, person)  # another for everybody: one may favour a parcel
        own = of_parcels(map_of(trained.output(), clip).values) * (1 if label else -1)
        firsts["trained"].append(own.argmax() == PLANTED)
        by_chance = of_parcels(map_of(trained.output(random), clip, nodes=(8,)).values)
        firsts["random"].append(np.abs(by_chance).argmax() == PLANTED)
    assert np.mean(firsts["trained"]) >= 0.9
    assert sum(firsts["random"]) <= 3  # of 30 people and 64 parcels: chance gives more in 0.1 % of cases


def test_occlusion_finds_the_planted_region_too(trained):
    clip, label = trained.clips[0], trained.y[0]
    baseline = clip.mean(dim=-1, keepdim=True).expand_as(clip).contiguous()
    fallen = occlude(trained.output(), clip, baseline, NUMBERS)
    assert (fallen * (1 if label else -1)).argmax() == PLANTED
    with torch.no_grad():
        by_hand = clip.clone()
        by_hand[NUMBERS == PLANTED + 1] = baseline[NUMBERS == PLANTED + 1]
        change = trained.output()(clip[None, None]) - trained.output()(by_hand[None, None])
    assert fallen[PLANTED] == pytest.approx(float(change), rel=1e-3)


def deletion_of(trained, network, by):
    clip = trained.clips[0]
    baseline = clip.mean(dim=-1, keepdim=True).expand_as(clip).contiguous()
    with torch.no_grad():
        output = trained.output(network)
        sign = np.sign(float(output(clip[None, None]) - output(baseline[None, None])))
    image = clip.mean(dim=3).numpy()
    edges = of_parcels(np.sqrt(sum(np.square(step) for step in np.gradient(image)))[..., None])
    orders = {
        "the map": by * sign
        if by is not None
        else of_parcels(np.abs(np.gradient(clip[..., :3].mean(dim=3).numpy())[0])[..., None]),
        "the order of edges": edges,
        "the order of brightness": of_parcels(image[..., None]),
    }
    return checks.deletion(output, clip, baseline, NUMBERS, orders, 0)


def test_deletion_passes_for_the_trained_map_and_fails_for_edges(trained):
    own = of_parcels(map_of(trained.output(), trained.clips[0]).values)
    assert deletion_of(trained, trained.network, own).passed
    assert not deletion_of(trained, trained.network, None).passed


def randomisation_of(network, clip, of):
    maps = {
        name: of_parcels(map_of(lambda x, n=n: LOGIT.of(n, x), clip, nodes=(8,)).values)
        for name, n in checks.cascade(network, 7).items()
    }
    others = [
        of_parcels(map_of(lambda x, n=n: LOGIT.of(checks.random_like(network, n), x), clip, nodes=(8,)).values)
        for n in (8, 9)
    ]
    return checks.randomisation(maps, of, others, as_image)


def as_image(values):
    return values.reshape(4, 4, 4)


def test_randomising_the_weights_changes_the_trained_map_and_not_one_of_edges(trained):
    clip = trained.clips[0]
    check = randomisation_of(trained.network, clip, of_parcels(map_of(trained.output(), clip).values))
    assert check.passed
    steps = ["head", "and stage 2", "and stage 1", "and patches"]
    assert list(check.values)[:4] == [f"rank correlation, {step}" for step in steps]
    assert {f"structural similarity, {step}" for step in steps} < check.values.keys()
    rng = np.random.RandomState(0)
    edges = rng.standard_normal(64)
    assert not checks.randomisation(
        {"and patches": edges + 0.1 * rng.standard_normal(64)}, edges, [rng.standard_normal(64)], as_image
    ).passed
    # signs of a random network mean nothing: a map turned over is still the same map
    assert not checks.randomisation({"and patches": -edges}, edges, [rng.standard_normal(64)], as_image).passed


def test_structural_similarity_is_that_of_its_definition():
    one, other = np.random.RandomState(0).standard_normal((2, 9, 8, 7))
    one[:2] = other[:2] = np.nan
    sizes = [np.abs(np.nan_to_num(each)) / np.nanmax(np.abs(each)) for each in (one, other)]
    padded = [np.pad(each, 3, mode="reflect") for each in sizes]
    cubes = [np.lib.stride_tricks.sliding_window_view(each, (7, 7, 7)).reshape(-1, 343) for each in padded]
    means, (a, b) = [cube.mean(axis=1) for cube in cubes], cubes
    covariance = (a * b).mean(axis=1) - means[0] * means[1]
    expected = (2 * means[0] * means[1] + 0.01**2) * (2 * covariance + 0.03**2)
    expected /= (means[0] ** 2 + means[1] ** 2 + 0.01**2) * (a.var(axis=1) + b.var(axis=1) + 0.03**2)
    assert checks.similarity(one, other) == pytest.approx(expected.reshape(9, 8, 7)[2:].mean(), rel=1e-6)
    assert checks.similarity(one, -one) == pytest.approx(1)


@pytest.mark.heavy
def test_all_checks_pass_on_the_trained_model_and_one_fails_on_random_weights(trained):
    """A map is faithful to random weights too: what fails there is that they predict nothing."""
    random = checks.random_like(trained.network, 3)
    for network, expected in ((trained.network, True), (random, False)):
        of_people = [checks_of(network, clip) for clip in trained.clips[:6]]
        assert (np.sum(of_people, axis=0) >= 5).all()
        assert checks.tested(proof_of(network, trained)).passed is expected


def proof_of(network, trained):
    """The accuracy in people whom it has not seen, with a permutation test."""
    with torch.no_grad():
        found, y = (LOGIT.of(network, trained.clips[:, None]) > 0).numpy(), trained.y.numpy().astype(bool)
    rng = np.random.RandomState(0)
    null = [np.mean(found == rng.permutation(y)) for _ in range(199)]
    value = float(np.mean(found == y))
    return {"metric": "accuracy", "value": value, "p": (1 + np.sum(np.array(null) >= value)) / 200}


def test_a_model_without_a_test_leaves_the_check_open():
    assert checks.tested(None).passed is None
    assert checks.tested({"metric": "r", "value": 0.1, "p": None}).passed is None


def checks_of(network, clip):
    """Whether completeness, agreement with occlusion, randomised weights and deletion pass."""
    baseline = clip.mean(dim=-1, keepdim=True).expand_as(clip).contiguous()
    output = lambda x: LOGIT.of(network, x)  # noqa: E731
    found = map_of(output, clip)
    own = of_parcels(found.values)
    with torch.no_grad():
        sign = np.sign(float(output(clip[None, None]) - output(baseline[None, None])))
    image = clip.mean(dim=3).numpy()
    edges = of_parcels(np.sqrt(sum(np.square(step) for step in np.gradient(image)))[..., None])
    orders = {"the map": own * sign, "edges": edges, "brightness": of_parcels(image[..., None])}
    return [
        checks.completeness([found.error]).passed is not False,
        checks.agreement(own, occlude(output, clip, baseline, NUMBERS)).passed,
        randomisation_of(network, clip, own).passed,
        checks.deletion(output, clip, baseline, NUMBERS, orders, 0).passed,
    ]


def test_a_cascade_ends_in_a_random_network(trained):
    last = list(checks.cascade(trained.network, 7).values())[-1]
    for ours, theirs in zip(last.parameters(), checks.random_like(trained.network, 7).parameters(), strict=True):
        assert torch.equal(ours, theirs)
    head = checks.cascade(trained.network, 7)["head"]
    assert torch.equal(head.model.patch_embed.fc.weight, trained.network.model.patch_embed.fc.weight)


def test_halves_that_tell_different_things_are_noticed():
    rng = np.random.RandomState(0)
    shared = rng.standard_normal(50)
    starts = np.arange(4) * 20
    assert checks.split_half(shared + 0.3 * rng.standard_normal((4, 50)), starts, 20).passed
    assert checks.split_half(rng.standard_normal((4, 50)), starts, 20).passed is False
    assert checks.split_half(shared[None], starts[:1], 20).passed is None
    assert checks.split_half(np.zeros((4, 50)), starts, 20).passed is False


def test_halves_of_windows_share_no_frame():
    rng = np.random.RandomState(0)
    frames = rng.standard_normal((60, 50))
    starts = np.arange(41)
    of_windows = np.stack([frames[start : start + 20].sum(axis=0) for start in starts])  # of noise alone
    found = checks.split_half(of_windows, starts, 20)
    halves = of_windows[:11].mean(axis=0), of_windows[30:].mean(axis=0)  # frames 0 to 29, and 30 to 59
    assert found.values["r"] == pytest.approx(np.corrcoef(*halves)[0, 1])
    assert found.passed is False
    assert checks.split_half(of_windows[:9], starts[:9], 20).passed is None
    for few in ([0, 10, 20], [0, 5, 10, 15, 20], [0, 7, 13, 20]):  # two of which have no frame in common
        found = checks.split_half(of_windows[few], np.array(few), 20)
        assert found.values["r"] == pytest.approx(np.corrcoef(of_windows[few[0]], of_windows[few[-1]])[0, 1])


def test_what_stands_still_passes_only_with_permuted_labels():
    rng = np.random.RandomState(0)
    own = rng.standard_normal(60)
    assert checks.beyond_the_mean_image(checks.labels(own, rng.standard_normal((60, 10)))).passed
    untold = checks.beyond_the_mean_image(checks.labels(own, None))
    assert untold.passed is False
    assert "they are open" in untold.words
    assert "give such a map too" in checks.beyond_the_mean_image(checks.labels(own, np.outer(own, np.ones(9)))).words
    assert "moves the output nowhere" in checks.labels(np.zeros(60), rng.standard_normal((60, 10))).words


def test_a_map_that_any_labels_would_give_is_noticed():
    rng = np.random.RandomState(0)
    own = rng.standard_normal(60)
    assert checks.labels(own, rng.standard_normal((60, 10))).passed
    assert checks.labels(own, np.outer(own, rng.standard_normal(10))).passed is False
    assert checks.labels(own, None).passed is None
    silent = np.zeros((60, 10))
    assert checks.labels(own, silent).passed is None  # heads that say nothing are no evidence
    silent[:, :5] = np.outer(own, rng.standard_normal(5))
    assert checks.labels(own, silent).passed is False


@pytest.mark.parametrize(("error", "expected"), [(0.005, True), (0.03, None), (0.2, False)])
def test_completeness_is_judged(error, expected):
    assert checks.completeness([0.001, error]).passed is expected


def test_several_members_and_classes_make_one_number():
    outputs = torch.tensor([[1.0, 2, 3, 5, 0, 1]])  # two members of three classes
    assert Target("t", "logit", chosen=0, members=2)(outputs).tolist() == [3.0]
    assert Target("t", "logit", chosen=0, members=2, against_others=True)(outputs).tolist() == [1.0]
    assert Target("t", "years", members=6, scale=10.0)(outputs).tolist() == [20.0]


def test_without_a_head_there_is_nothing_to_explain():
    from neurostorm_bids.explain.target import target_of

    class Headless:
        task, name = None, "bare"

    with pytest.raises(NeurostormError, match=r"has no head.*--save-as NAME"):
        target_of(Headless(), "")
