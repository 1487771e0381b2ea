"""Slices are shifted in time as AFNI's 3dTshift -Fourier does it, written down here anew from its description."""

import numpy as np
import pytest

from neurostorm_bids.find.acquisition import slice_timing
from neurostorm_bids.resample.slice_timing import ShiftedSlices, shifted


def tshift(series, later):
    """Take out the linear trend, evaluate the trigonometric polynomial through the padded series, put the trend back."""
    n = len(series)
    t = np.arange(n)
    trend = np.polynomial.Polynomial.fit(t, series, 1)
    padded = np.zeros(2 * ((n + 3) // 2))
    padded[:n] = series - trend(t)
    m = len(padded)
    coefficients = np.array([np.exp(-2j * np.pi * k * np.arange(m) / m) @ padded for k in range(m // 2 + 1)])
    weights = np.full(m // 2 + 1, 2.0)
    weights[0] = weights[-1] = 1
    waves = np.exp(2j * np.pi * np.outer(t + later, np.arange(m // 2 + 1)) / m)
    return ((waves * weights) @ coefficients).real / m + trend(t + later)


def series(n, seed=0, drift=0.5):
    rng = np.random.RandomState(seed)
    t = np.arange(n)
    return (
        1000 + drift * t + 20 * np.sin(2 * np.pi * t / 9.3) + 10 * np.cos(2 * np.pi * t / 31) + rng.standard_normal(n)
    )


@pytest.mark.parametrize("later", [0.4, -0.3, 0.05])
@pytest.mark.parametrize("n", [60, 61])
def test_it_is_the_fourier_method(later, n):
    data = np.stack([series(n, seed) for seed in range(4)], axis=1).astype(np.float32)
    expected = np.stack([tshift(column, later) for column in data.T.astype(float)], axis=1)
    inner = slice(6, -6)  # lengths of padding differ, and so what is near the ends
    assert np.abs(shifted(data, later) - expected)[inner].max() < 0.02 * data.std(axis=0).max()
    assert np.abs(shifted(data, later) - data).max() > 0.5


def test_a_wave_moves_and_a_line_stays_a_line():
    t = np.arange(80)
    wave = (500 + 3 * t + 30 * np.sin(2 * np.pi * t / 8)).astype(np.float32)[:, None]
    expected = 500 + 3 * (t + 0.25) + 30 * np.sin(2 * np.pi * (t + 0.25) / 8)
    assert np.abs(shifted(wave, 0.25)[:, 0] - expected)[10:-10].max() < 0.6
    line = (500 + 3 * t).astype(np.float32)[:, None]
    assert np.abs(shifted(line, 0.25)[:, 0] - (500 + 3 * (t + 0.25))).max() < 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_slice_is_shifted_by_its_own_time(axis, tmp_path):
    rng = np.random.RandomState(0)
    volumes = rng.standard_normal((23, 4, 5, 6)).astype(np.float32)  # (n, Z, Y, X)
    later = {k: 0.1 * k for k in range(volumes.shape[3 - axis])}
    done = ShiftedSlices([volumes[:10], volumes[10:]], later, axis, tmp_path)
    found = np.concatenate(list(done.blocks(7)))
    for k, by in later.items():
        ours, data = (np.take(v, k, axis=3 - axis).reshape(23, -1) for v in (found, volumes))
        assert np.allclose(ours, shifted(data, by) if by else data, atol=1e-4)


def test_a_reversed_direction_reverses_the_times(tmp_path):
    path = tmp_path / "bold.json"
    path.write_text('{"SliceTiming": [0, 0.5, 1.0], "SliceEncodingDirection": "j-"}')
    timing = slice_timing([path], (9, 3, 7), 2.0)
    assert (timing.times, timing.axis) == ((1.0, 0.5, 0.0), 1)
    assert timing.moment(0.5) == 0.5
