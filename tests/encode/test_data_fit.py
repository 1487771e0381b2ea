"""Runs of the demo's kind fit a reference made of it; what was done to a run on purpose is asked about in the right words."""

import json
import re
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
from scipy.signal import butter, periodogram, sosfiltfilt

from neurostorm_bids.demo.dataset import N_VOLUMES, REPETITION_TIME
from neurostorm_bids.demo.phantom import AFFINE, anatomy, bold_run
from neurostorm_bids.encode.data_fit import BANDS, CELLS, Measures, as_plain, measure, mirrored
from neurostorm_bids.encode.data_fit import from_plain as measures_from_plain
from neurostorm_bids.encode.reference import QUESTIONS, compare, from_plain, make_reference, to_plain
from neurostorm_bids.encode.windows import encode
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.load import load_model
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.parcels import blocks
from neurostorm_bids.resample.resample import to_model_grid

KNOWN, NEW = range(20, 34), range(40, 46)  # seeds of the reference's runs, and of others of the same kind


@dataclass
class Kind:
    """The demo's kind of run, with what the demo model makes of it."""

    brain: object
    model: object

    def run(self, seed):
        return bold_run(self.brain, seed, N_VOLUMES, REPETITION_TIME, 0)

    def look(self, data, mask=None):
        images = (nib.Nifti1Image(each, AFFINE) for each in (data, np.uint8(self.brain.mask if mask is None else mask)))
        run = to_model_grid(*images, repetition_time=REPETITION_TIME, grid=FSL)
        embeddings, _ = encode(self.model, run, np.array([0, 40]), 1)
        return measure(run), embeddings


@pytest.fixture(scope="module")
def kind():
    return Kind(anatomy(), load_model("demo", "cpu"))


@pytest.fixture(scope="module")
def reference(kind):
    looks = [kind.look(kind.run(seed)) for seed in KNOWN]
    return make_reference([measures for measures, _ in looks], [embeddings for _, embeddings in looks])


def flags(kind, reference, data, mask=None):
    return {each.name: each.words for each in compare(*kind.look(data, mask), reference) if each.words}


@pytest.mark.heavy
def test_runs_of_the_same_kind_are_not_flagged(kind, reference):
    for seed in NEW:
        assert flags(kind, reference, kind.run(seed)) == {}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "measure", "words"),
    [
        ("scaled", "fluctuation", r"denoised or scaled\? \(0\.[45]\d* times the middle of what it saw\)"),
        ("band-pass filtered", "fast_share", "was it low-pass or band-pass filtered"),
        ("band-pass filtered", "spectrum", "has another power spectrum than what the model saw"),
        ("smoothed", "tsnr", "was it smoothed, filtered or denoised"),
        ("cropped", "least_covered", "was the field of view cropped"),
        ("back to front", "likeness", "mirrored"),
    ],
)
def test_what_was_done_to_a_run_is_asked_about(kind, reference, name, measure, words):
    data, mask = kind.run(50).astype(float), None
    inside = kind.brain.mask
    if name == "band-pass filtered":
        series, mean = data[inside], data[inside].mean(axis=1, keepdims=True)
        band = butter(2, (0.01, 0.08), "bandpass", fs=1 / REPETITION_TIME, output="sos")
        data[inside] = sosfiltfilt(band, series - mean, axis=1) + mean
    elif name in ("smoothed", "scaled"):
        mean, factor = data[inside].mean(axis=1, keepdims=True), {"smoothed": 0.3, "scaled": 0.5}[name]
        data[inside] = mean + factor * (data[inside] - mean)
    elif name == "cropped":
        mask = inside.copy()
        mask[:, :, :30] = 0
    else:
        data, mask = data[:, ::-1], inside[:, ::-1]
    found = flags(kind, reference, np.float32(data), mask)
    assert re.search(words, found[measure])


def made_up(n, seed, asymmetry=0.2):
    """Measures of runs that vary by a tenth, with a brain that differs between left and right."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, size) for size in CELLS)
    brain = (x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None] ** 2) < 0.8
    shape = 1 - y[None, :, None] + asymmetry * np.sign(x)[:, None, None] * (z > 0)[None, None]
    found = []
    for _ in range(n):
        image = np.where(brain, shape + 0.1 * rng.standard_normal(CELLS), np.nan)
        values = {name: 10 * np.exp(0.1 * rng.standard_normal()) for name in list(QUESTIONS)[:13] if name != "spectrum"}
        spectrum = rng.dirichlet(100 / (1.0 + np.arange(25)))
        found.append(Measures(values, image.ravel().astype(np.float32), spectrum=spectrum))
    middles = rng.standard_normal((n, 1, 24)) * np.linspace(3, 0.1, 24)
    return found, middles + 0.3 * rng.standard_normal((n, 5, 24))


def test_one_in_a_thousand_lies_outside_a_band():
    measures, embeddings = made_up(40, 0)
    reference = make_reference(measures, embeddings)
    others, places = made_up(400, 1)
    outside = [
        not each.low <= each.value <= each.high
        for one, place in zip(others, places, strict=True)
        for each in compare(one, place, reference)
        if each.name not in ("distance", "nearest", "likeness", "asymmetry", "window_distance", "spectrum")
    ]
    assert np.mean(outside) <= 0.005
    of_any = np.mean(
        [any(each.words for each in compare(*pair, reference)) for pair in zip(others, places, strict=True)]
    )
    assert of_any <= 0.05


def test_left_and_right_that_are_swapped_are_asked_about():
    reference = make_reference(*made_up(20, 0))
    (one,), embeddings = made_up(1, 2)
    assert not any(each.words for each in compare(one, embeddings[0], reference))
    swapped = replace(one, image=mirrored(one.image))
    asked = {each.name: each.words for each in compare(swapped, embeddings[0], reference) if each.words}
    assert asked.keys() == {"likeness", "asymmetry"}
    assert "are left and right swapped" in asked["asymmetry"]


@pytest.mark.heavy
def test_a_run_whose_left_and_right_are_swapped_is_asked_about(kind):
    """The demo's anatomy is the same on both sides, so that everybody gets a brighter right frontal lobe here."""
    i, j, k = np.indices(kind.brain.mask.shape)
    x, y, _ = np.moveaxis(nib.affines.apply_affine(AFFINE, np.stack([i, j, k], axis=-1)), -1, 0)
    brighter = np.where(kind.brain.mask & (x > 10) & (y > 10), 1.15, 1.0)[..., None].astype(np.float32)
    looks = [kind.look(kind.run(seed) * brighter) for seed in KNOWN]
    reference = make_reference([measures for measures, _ in looks], [embeddings for _, embeddings in looks])
    assert flags(kind, reference, kind.run(50) * brighter) == {}
    swapped = flags(kind, reference, (kind.run(50) * brighter)[::-1].copy(), kind.brain.mask[::-1].copy())
    assert "are left and right swapped" in swapped["asymmetry"]


def test_a_run_s_spectrum_and_what_it_covers_are_kept(kind):
    data, mask = kind.run(50), kind.brain.mask.copy()
    mask[:, :, :30] = 0
    images = nib.Nifti1Image(data, AFFINE), nib.Nifti1Image(np.uint8(mask), AFFINE)
    run = to_model_grid(*images, repetition_time=REPETITION_TIME, grid=FSL)
    found = measure(run)
    labels = blocks(FSL).labels
    low = [
        share
        for label, share in zip(labels, found.coverage, strict=True)
        if float(label.split(",")[2].split(")")[0]) < -45
    ]
    assert max(low) < 0.1
    assert np.median(found.coverage) > 0.9
    assert min(found.coverage) == found.values["least_covered"]
    series = run.signal(0, run.shape[3])
    frequency, power = periodogram(
        series, fs=1 / run.repetition_time, window=np.hanning(len(series)), axis=0, detrend="constant"
    )
    power[0] /= 2  # one-sided densities count all frequencies twice but the first
    for low_edge, high_edge, share in zip(BANDS[:-1], BANDS[1:], found.spectrum, strict=True):
        within = (frequency >= low_edge) & (frequency < high_edge)
        assert share == pytest.approx(np.median(2 * power[within].sum(axis=0) / (2 * power.sum(axis=0))), abs=0.02)
    again = measures_from_plain(json.loads(json.dumps(as_plain(found))))
    np.testing.assert_allclose(again.coverage, found.coverage, atol=1e-4)
    np.testing.assert_allclose(again.spectrum, found.spectrum, atol=1e-4)
    older = measures_from_plain({"Values": {}, "MeanImage": []})
    assert not older.coverage.size


def test_an_embedding_far_away_is_asked_about():
    measures, embeddings = made_up(20, 0)
    reference = make_reference(measures, embeddings)
    asked = {each.name for each in compare(measures[0], embeddings[0] + 40, reference) if each.words}
    assert asked == {"distance", "nearest", "window_distance"}
    to_both_sides = embeddings[0] + 40 * np.array([1, -1, 1, -1, 0])[:, None]  # whose mean lies where it lay
    asked = {each.name for each in compare(measures[0], to_both_sides, reference) if each.words}
    assert asked == {"window_distance"}


def test_plain_values_are_a_few_kilobytes_and_the_same_reference():
    measures, embeddings = made_up(30, 0)
    for each in measures:
        each.values["mean_fd"] = float("nan")  # as where no run has confounds
    reference = make_reference(measures, embeddings)
    plain = json.loads(json.dumps(to_plain(reference), allow_nan=False))
    assert len(str(plain)) < 30_000
    again = from_plain(plain)
    one, embeddings = made_up(1, 3)
    for ours, theirs in zip(
        compare(one[0], embeddings[0], reference), compare(one[0], embeddings[0], again), strict=True
    ):
        assert ours.value == pytest.approx(theirs.value, rel=0.01, abs=0.01, nan_ok=True)
        assert ours.words == theirs.words
    with pytest.raises(NeurostormError, match="are damaged"):
        from_plain({"runs": 3})


def test_without_a_reference_the_values_stand_alone():
    one, embeddings = made_up(1, 3)
    found = compare(one[0], embeddings[0], None)
    assert len(found) == 12
    assert all(np.isnan(each.low) and not each.words for each in found)


def test_a_few_runs_are_no_reference():
    with pytest.raises(NeurostormError, match="4 runs are no reference"):
        make_reference(*made_up(4, 0))
