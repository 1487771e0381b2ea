"""Contrastive losses, by hand and over processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neurostorm_bids.model.contrastive import TEMPERATURE, ProjectionHead, instance_loss, local_loss, nt_xent


def vectors(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 16, generator=generator), dim=1)


def by_hand(one, other):
    """The loss anchor by anchor."""
    both = np.concatenate([one.numpy(), other.numpy()]).astype(float)
    n, losses = len(one), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        similar = np.exp(both @ both[i] / 0.1)
        losses.append(-np.log(similar[partner] / (similar.sum() - similar[i])))
    return np.mean(losses)


def test_pairs_by_hand():
    one, other = vectors(5, 0), vectors(5, 1)
    assert nt_xent(one, other).item() == pytest.approx(by_hand(one, other), rel=1e-5)
    assert instance_loss(one, other).item() == pytest.approx(by_hand(one, other), rel=1e-5)


def test_clips_of_one_run_by_hand():
    a, b, c, d = (vectors(3, seed) for seed in range(4))
    expected = sum(by_hand(torch.stack([a[i], c[i]]), torch.stack([b[i], d[i]])) for i in range(3))
    assert local_loss((a, b), (c, d)).item() == pytest.approx(expected, rel=1e-5)


def test_pairs_that_agree_cost_less():
    one = vectors(8, 0)
    assert nt_xent(one, one) < nt_xent(one, vectors(8, 1))


def test_the_head_gives_vectors_of_length_one():
    head = ProjectionHead(24)
    found = head(torch.randn(4, 24, 2, 2, 2, 5))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert set(head.state_dict()) == {
        "fc1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
    }  # fmt: skip


SCRIPT = """
import os, sys, torch, torch.distributed as dist
from neurostorm_bids.model.contrastive import instance_loss
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
one, other = (torch.nn.functional.normalize(torch.randn(8, 16, generator=generator), dim=1) for _ in range(2))
mine = slice(4 * rank, 4 * rank + 4)
a, b = (x[mine].clone().requires_grad_() for x in (one, other))
loss = instance_loss(a, b)
loss.backward()
torch.save((loss.detach(), a.grad / 2, b.grad / 2), sys.argv[3])  # Lightning divides by the number of processes
dist.destroy_process_group()
"""


def test_negatives_come_from_all_processes_with_their_gradients(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    calls = [
        [sys.executable, script, str(rank), str(tmp_path / "meet"), str(tmp_path / f"{rank}.pt")] for rank in (0, 1)
    ]
    processes = [subprocess.Popen(call, env=environment, cwd=Path(__file__).parents[2]) for call in calls]
    assert [process.wait(60) for process in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    one, other = (F.normalize(torch.randn(8, 16, generator=generator), dim=1).requires_grad_() for _ in range(2))
    loss = instance_loss(one, other)
    loss.backward()
    for rank, (theirs, a, b) in enumerate(found):
        torch.testing.assert_close(theirs, loss.detach())
        mine = slice(4 * rank, 4 * rank + 4)
        torch.testing.assert_close(a, one.grad[mine])
        torch.testing.assert_close(b, other.grad[mine])


def test_clips_of_the_same_person_are_no_negatives():
    """With everybody another person nothing changes; with two clips of one, what is left is the loss by hand."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=1) for _ in range(2))
    torch.testing.assert_close(nt_xent(one, other, torch.arange(4)), nt_xent(one, other))
    people = torch.tensor([0, 1, 0, 2])
    both, whose = torch.cat([one, other]), people.repeat(2)
    losses = []
    for i in range(8):
        partner = (i + 4) % 8
        among = [j for j in range(8) if whose[j] != whose[i]] + [partner]
        alike = both[i] @ both[among].T / TEMPERATURE
        losses.append(-torch.log_softmax(alike, dim=0)[-1])
    torch.testing.assert_close(nt_xent(one, other, people), torch.stack(losses).mean())
