"""Time: which repetition time holds, resampling as published, and when windows start."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import RUN, ellipsoid, save
from hypothesis import given
from hypothesis import strategies as st

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.timing import choose_repetition_time, time_map


def clock(tmp_path, repetition_time, n_volumes, start):
    """A run whose voxels show the time: above their anatomy, the seconds after the start that its volume stands for."""
    times = start + repetition_time * np.arange(n_volumes)
    data = (anatomy()[..., None] + times).astype(np.float32)
    return save(tmp_path / "b.nii.gz", data, repetition_time=repetition_time), save(tmp_path / "m.nii.gz", ellipsoid())


def anatomy():
    """Two tissues: a series whose voxels all had the same mean would be refused as scaled to percent."""
    return np.where(np.indices(ellipsoid().shape)[0] < ellipsoid().shape[0] // 2, 64.0, 128.0)


def times_shown(run):
    """The seconds that the resampled frames show in a voxel's neighbourhood."""
    shown = np.asarray(run.time_map(run.frames))
    first = np.asarray(run.frames[0:1])[0]
    return (shown - first)[:, 0]


@pytest.mark.parametrize("target", [0.8, None])
@pytest.mark.parametrize(("repetition_time", "dummies"), [(2.0, 0), (2.0, 3), (0.72, 0), (3.0, 0)])
def test_a_frame_shows_the_middle_of_the_interval_that_starts_at_its_onset(tmp_path, repetition_time, dummies, target):
    """After slice timing correction to the middle of the volume, as fMRIPrep does it: StartTime is half a TR."""
    bold, mask = clock(tmp_path, repetition_time, 40, start=repetition_time / 2)
    run = to_model_grid(
        bold, mask, start_time=repetition_time / 2, slice_timing_corrected=True, dummy_scans=dummies,
        target_repetition_time=target,
    )  # fmt: skip
    shown = times_shown(run) + (0.5 + dummies) * repetition_time
    inside = slice(2, -2)  # the first and last frames have no volume on one side
    length = run.repetition_time
    np.testing.assert_allclose(shown[inside], run.frame_onsets[inside] + length / 2, atol=1e-4)
    np.testing.assert_allclose(shown[inside], run.frame_times[inside], atol=1e-4)
    assert run.frame_onsets[0] == pytest.approx(
        dummies * repetition_time, abs=1e-5
    )  # where the scanner began with the volume
    assert run.frame_onsets[-1] + length == pytest.approx(40 * repetition_time)  # and where it ended


@pytest.mark.parametrize("start", [0.0, 11.6])
def test_without_slice_timing_correction_a_volume_starts_its_interval(tmp_path, start):
    """Of a run that was cut, StartTime says where the first volume that is left begins."""
    bold, mask = clock(tmp_path, 2.0, 40, start=start)
    run = to_model_grid(bold, mask, start_time=start)
    shown = times_shown(run) + start
    np.testing.assert_allclose(shown[2:-2], run.frame_times[2:-2], atol=1e-4)
    assert run.frame_onsets[0] == pytest.approx(start)
    assert run.frame_onsets[-1] + run.repetition_time == pytest.approx(start + 80)


@pytest.mark.parametrize(
    ("sidecar", "first"),
    [
        ({}, 0.0),
        ({"StartTime": 0.9}, 0.9),
        ({"StartTime": 0.9, "SliceTimingCorrected": False}, 0.9),
        ({"StartTime": 0.9, "SliceTimingCorrected": True}, -0.1),
        ({"StartTime": 1.0, "SliceTimingCorrected": True}, 0.0),
    ],
)
def test_onsets_in_the_table(tree, tmp_path, neurostorm, narrow, sidecar, first):
    bold = tree.run(RUN)
    path = bold.with_name(bold.name.replace(".nii.gz", ".json"))
    path.write_text(json.dumps({"RepetitionTime": 2.0, **sidecar}))
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow)
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["onset"].tolist() == pytest.approx([first + 4.8 * i for i in range(5)])


@given(st.integers(1, 60), st.floats(0.3, 4.0), st.one_of(st.none(), st.floats(0.3, 3.0)))
def test_time_is_resampled_as_published(n_frames, repetition_time, target):
    times = time_map(n_frames, repetition_time, target)
    series = np.random.RandomState(n_frames).standard_normal((n_frames, 3))
    if target is None:
        assert np.array_equal(times(series), series)
        return
    size = max(1, round(n_frames * repetition_time / target))
    torch_says = F.interpolate(torch.from_numpy(series.T[None]), size=size, mode="linear", align_corners=False)
    np.testing.assert_allclose(times(series), torch_says[0].numpy().T, atol=1e-9)
    assert times.repetition_time * size == pytest.approx(n_frames * repetition_time)


def test_a_part_of_the_resampled_series_is_that_part():
    times, series = time_map(30, 2.0, 0.8), np.random.RandomState(0).standard_normal((30, 2))
    assert np.array_equal(times(series, 10, 25), times(series)[10:25])


@pytest.mark.parametrize(
    ("said", "expected", "source", "n_warnings"),
    [
        ({"sidecar": 2.0, "header": 2.0}, 2.0, "sidecar", 0),
        ({"sidecar": 2.0, "header": 2.5}, 2.0, "sidecar", 1),
        ({"sidecar": None, "header": 0.72}, 0.72, "header", 0),
        ({"sidecar": 0, "header": 0.72}, 0.72, "header", 0),
        ({"asked": 1.0, "sidecar": 2.0, "header": 2.0}, 1.0, "repetition-time", 2),
    ],
)
def test_which_repetition_time_holds(said, expected, source, n_warnings):
    seconds, by, warnings = choose_repetition_time("x.nii.gz", **said)
    assert (seconds, by, len(warnings)) == (expected, source, n_warnings)


@pytest.mark.parametrize("said", [{}, {"sidecar": 0.0, "header": None}, {"header": 2000.0}, {"sidecar": -1.0}])
def test_no_plausible_repetition_time_names_the_option(said):
    with pytest.raises(NeurostormError, match=r"x\.nii\.gz.*--repetition-time"):
        choose_repetition_time("x.nii.gz", **said)


@pytest.mark.parametrize("target", [0, -1, float("nan"), 100])
def test_impossible_target_is_refused(target):
    with pytest.raises(NeurostormError, match="not plausible"):
        time_map(10, 2.0, target)
