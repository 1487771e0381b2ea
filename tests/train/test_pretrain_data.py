"""Which windows a pretraining sees: passes, mixtures of data sets, and who is looked at."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure import in_own_process
from benchmarks.pretraining import READ, many_stores
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.train.data import Stream
from neurostorm_bids.train.pretrain_data import HeldOut, Mixture, PretrainingWindows, Views


class Frames:
    """A run of so many frames that nobody looks at."""

    background, scale = 0.0, 1.0

    def __init__(self, n):
        self.shape = (2, 2, 2, n)

    def stored(self, start, stop):
        return np.zeros((stop - start, 2, 2, 2), np.int8)


def windows(frames, people, **more):
    runs = [Frames(n) for n in frames]
    return PretrainingWindows(runs, np.array(people), 4, Views(Masking("random", 0.5), 10, "none"), 0, **more)


@given(n=st.integers(6, 40), step=st.sampled_from([2, 4, 6]), n_steps=st.integers(1, 9), world=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_a_stream_is_passes_over_all_windows_cut_anywhere(n, step, n_steps, world):
    """Whatever the stretches, the same windows come one after the other; none twice in a pass; processes share them."""

    def stream(n_steps, rank=0, world=1):
        order = Stream(n, 7, step, n_steps, rank, world)
        for epoch in range(3):
            order.set_epoch(epoch)
            yield from order

    whole = list(stream(n_steps))
    assert len(whole) == 3 * n_steps * step
    cut = Stream(n, 7, step, 3 * n_steps)
    assert list(cut) == whole
    cut.skip(0, 2 * step)
    assert list(cut) == whole[2 * step :]
    for number in {number for number, _ in whole}:
        seen = [i for of, i in whole if of == number]
        assert len(set(seen)) == len(seen)
    shared = zip(*(stream(n_steps, rank, world) for rank in range(world)), strict=True)
    assert [item for items in shared for item in items] == whole


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any), exponent=st.sampled_from([0, 0.3, 0.5, 1])
)
@settings(max_examples=60, deadline=None)
def test_data_sets_are_mixed_by_size_to_a_power(sizes, exponent):
    mixture, n = Mixture(sizes, exponent, 3), sum(sizes)
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    passes = np.array([[mixture.window(number, i) for i in range(n)] for number in range(3)])
    of = np.searchsorted(firsts, passes, side="right") - 1
    weights = np.array([size**exponent if size else 0 for size in sizes], float)
    counts = np.bincount(of[0], minlength=len(sizes))
    assert np.abs(counts - n * weights / weights.sum()).max() < 1
    for number, size in enumerate(sizes):  # none twice before all have come once
        times = np.bincount(passes[of == number] - firsts[number], minlength=size)
        assert size == 0 or times.max() - times.min() <= 1
    again = pickle.loads(pickle.dumps(mixture))
    assert [again.window(1, i) for i in range(n)] == passes[1].tolist()


def test_with_an_exponent_of_one_every_window_comes_once_a_pass():
    data = windows([8, 20, 4], [0, 1, 2], datasets=np.array([0, 0, 1]))
    assert len(data) == 8
    assert [data.place(data.mixture.window(5, i)) for i in range(8)] == [(0, 0), (0, 4)] + [
        (1, 4 * k) for k in range(5)
    ] + [(2, 0)]


@given(frames=st.lists(st.integers(4, 60), min_size=2, max_size=12), most=st.integers(2, 20), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_of_people_held_out_two_windows_come_before_a_third_of_anybody(frames, most, seed):
    people = np.arange(len(frames)) // 2
    data = windows(frames, people)
    held = HeldOut(data, most, seed)
    assert len(held) == min(most, len(data))
    assert len(set(held.chosen)) == len(held)
    there = np.bincount(np.repeat(people, data.counts), minlength=people.max() + 1)
    taken = np.bincount(np.repeat(people, data.counts)[held.chosen], minlength=people.max() + 1)
    if taken.max() > 2:
        assert (taken >= np.minimum(there, 2)).all()
    if most % 2 == 0:  # pairs are not cut in two
        assert ((taken == 1) & (there > 1)).sum() <= (there % 2 == 1).sum() + 1


@pytest.mark.parametrize("number", [0, 3])
def test_held_out_windows_are_hidden_the_same_in_every_epoch(number):
    held = HeldOut(windows([8, 8, 8], [0, 1, 2]), 4, 0)
    assert held[number, 1][1].tolist() == held[0, 1][1].tolist()


@pytest.mark.heavy
def test_memory_stays_where_it_is_from_a_hundred_runs_to_thousands(tmp_path):
    peaks = []
    for n in (100, 5000):
        many_stores(tmp_path / str(n), n)
        peaks.append(in_own_process(READ, folder=str(tmp_path / str(n)))["peak_mb"])
    assert peaks[1] < peaks[0] + 30  # a run has 26 MB; python -m benchmarks pretraining goes on to 100,000
