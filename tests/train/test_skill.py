"""Baselines of a masked autoencoder, by hand."""

import numpy as np
import pytest
import torch

from neurostorm_bids.train.skill import Errors, between_seen, effective_rank, mean_of_seen, probe, rank_one, spread


def one_place(values, hidden):
    """Patches of one place and one voxel over time."""
    return torch.tensor(values).view(1, 1, 1, 1, -1, 1), torch.tensor(hidden).view(1, 1, 1, 1, -1)


def test_the_mean_is_of_what_is_seen():
    patches, hidden = one_place([1.0, 5.0, 3.0, 100.0], [False, False, False, True])
    assert mean_of_seen(patches, hidden).flatten().tolist() == [3, 3, 3, 3]


def test_a_place_that_is_never_seen_is_the_mean_of_all():
    patches = torch.stack([torch.full((4,), 2.0), torch.full((4,), 9.0)]).view(1, 2, 1, 1, 4, 1)
    hidden = torch.tensor([[False] * 4, [True] * 4]).view(1, 2, 1, 1, 4)
    assert mean_of_seen(patches, hidden)[0, 1].unique().tolist() == [2]
    assert between_seen(patches, hidden)[0, 1].unique().tolist() == [2]


def test_a_line_in_time_is_numpys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, hidden = rng.standard_normal(9), rng.random(9) < 0.5
        if hidden.all():
            continue
        frames = np.arange(9)
        expected = np.interp(frames, frames[~hidden], values[~hidden])
        patches, mask = one_place(values.tolist(), hidden.tolist())
        np.testing.assert_allclose(between_seen(patches, mask).flatten(), expected, atol=1e-6)


def test_errors_are_of_hidden_patches_and_of_brain():
    torch.manual_seed(0)
    patches, found = torch.randn(2, 2, 2, 2, 4, 3), torch.randn(2, 2, 2, 2, 4, 3)
    hidden, brain = torch.rand(2, 2, 2, 2, 4) < 0.5, torch.rand(2, 2, 2, 2, 4) < 0.5
    record = (
        Errors.of(patches[:1], found[:1], hidden[:1], brain[:1])
        + Errors.of(patches[1:], found[1:], hidden[1:], brain[1:])
    ).record()
    each = ((found - patches) ** 2).mean(dim=-1)
    brain = brain & (~hidden).any(dim=-1, keepdim=True)
    assert record["error"] == pytest.approx(each[hidden].mean().item(), rel=1e-5)
    assert record["brain_error"] == pytest.approx(each[hidden & brain].mean().item(), rel=1e-5)
    of_mean = ((mean_of_seen(patches, hidden) - patches) ** 2).mean(dim=-1)[hidden & brain].mean().item()
    assert record["skill_over_mean_image"] == pytest.approx(1 - record["brain_error"] / of_mean, rel=1e-4)


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(20, 5, generator=generator))[0]
    assert effective_rank(torch.randn(4000, 5, generator=generator) @ basis.T) == pytest.approx(5, abs=0.05)
    assert effective_rank(torch.ones(10, 4)) == 0
    assert effective_rank(torch.arange(10.0)[:, None] * torch.ones(1, 4)) == pytest.approx(1, abs=1e-6)


def test_rank_one_by_hand():
    traits = torch.eye(6).repeat_interleave(2, 0)
    people = torch.arange(6).repeat_interleave(2)
    noise = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    found, low, _ = rank_one(traits + 0.01 * noise, people)
    assert found == 1
    assert np.isnan(low)  # of six people
    assert np.isnan(rank_one(torch.randn(4, 3), torch.arange(4))).all()


def test_rank_one_has_an_interval_over_people():
    """Of 40 people with 4 windows each, all windows of a person are found or none: the interval is that of 40, not of 160."""
    people = torch.arange(40).repeat_interleave(4)
    generator = torch.Generator().manual_seed(0)
    traits = torch.randn(40, 200, generator=generator).repeat_interleave(4, 0)
    noise = torch.randn(160, 200, generator=generator)
    found, low, high = rank_one(torch.where((people < 20)[:, None], traits, noise), people)
    assert found == pytest.approx(0.5, abs=0.06)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 40) ** 0.5, rel=0.15)


@pytest.mark.parametrize("has_classes", [False, True])
def test_a_probe_finds_what_is_there_and_nothing_else(has_classes):
    rng = np.random.default_rng(0)
    y = (np.arange(60) % 2).astype(float) if has_classes else rng.standard_normal(60)
    people = torch.arange(60).repeat_interleave(2)
    embeddings = torch.from_numpy(rng.standard_normal((120, 10)))
    chance = probe(embeddings, people, rng.permutation(y), has_classes)
    embeddings[:, 3] += 5 * torch.from_numpy(y[people])
    assert probe(embeddings, people, y, has_classes) > 0.9
    assert abs(chance - (0.5 if has_classes else 0)) < 0.35
    assert np.isnan(probe(embeddings[:20], people[:20], y, has_classes))


def test_spread_is_of_deviations_over_size():
    assert spread(torch.ones(5, 3)) == 0
    values = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    assert spread(values) == pytest.approx((2 / 4) ** 0.5 / ((9 + 25) / 4) ** 0.5)


def test_places_that_are_never_seen_are_not_compared_unless_there_are_no_others():
    """Whoever guesses badly of what nobody could know would make a network look good."""
    patches = torch.ones(1, 1, 1, 2, 2, 1)
    brain = torch.ones(1, 1, 1, 2, 2, dtype=torch.bool)
    hidden = torch.tensor([[True, False], [True, True]]).view(1, 1, 1, 2, 2)  # the second place is never seen
    patches[0, 0, 0, 1] = 9.0
    errors = Errors.of(patches, torch.zeros_like(patches), hidden, brain)
    assert errors.n.tolist() == [3, 1]
    assert errors.mean_image[1] == 0
    tube = torch.tensor([[False, False], [True, True]]).view(1, 1, 1, 2, 2)
    assert Errors.of(patches, patches, tube, brain).n.tolist() == [2, 2]


def test_the_mean_of_everybody_by_hand():
    """Over batches of different people, the error of the mean at each place of what is compared there."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(6, 2, 2, 1, 5, 3, generator=generator) + torch.arange(4.0).view(1, 2, 2, 1, 1, 1)
    hidden = torch.rand(6, 2, 2, 1, 5, generator=generator) < 0.5
    brain = torch.ones_like(hidden)
    parts = [Errors.of(patches[k : k + 2], patches[k : k + 2], hidden[k : k + 2], brain[k : k + 2]) for k in (0, 2, 4)]
    record = (parts[0] + parts[1] + parts[2]).record()
    compared = hidden & (~hidden).any(dim=-1, keepdim=True)
    errors = []
    for x in range(2):
        for y in range(2):
            there = patches[:, x, y, 0][compared[:, x, y, 0]]
            errors += ((there - there.mean(dim=0)) ** 2).mean(dim=-1).tolist()
    assert record["brain_error_of_everybody"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert record["skill_over_everybody"] == 1
