"""Head motion of windows, dummy scans, and censoring."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers import RUN, ellipsoid, full_confounds, save, signal

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.encode.motion import motion_of


def test_dummy_scans_are_dropped_from_signal_motion_and_time(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN, data=signal(n_volumes=14))
    table = full_confounds(tree, 14, n_dummies=2, spike=5)
    options = ("--target-tr", "native", "--save-grid")
    assert neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, *options)[0] == 0
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["onset"].tolist() == [4.0, 16.0]
    displacement = table["framewise_displacement"].to_numpy()
    assert windows["max_framewise_displacement"].tolist() == pytest.approx([2.0, displacement[8:14].max()])
    assert windows["mean_framewise_displacement"].tolist() == pytest.approx(
        [displacement[2:8].mean(), displacement[8:14].mean()]
    )
    assert nib.load(next((tmp_path / "o").rglob("*_bold.nii.gz"))).shape[3] == 12


@pytest.mark.parametrize("repetition_time", [0.5, 0.72, 2.0])
def test_a_short_movement_is_not_interpolated_away(tmp_path, repetition_time):
    bold = save(tmp_path / "b.nii.gz", signal(n_volumes=80), repetition_time=repetition_time)
    gridded = to_model_grid(bold, save(tmp_path / "m.nii.gz", ellipsoid()))
    starts = np.arange(0, gridded.shape[3] - 9, 10)
    for volume in range(75):
        displacement = np.zeros(80)
        displacement[volume] = 1.0
        motion = motion_of(replace(gridded, displacement=displacement), starts, 10, threshold=0.5)
        assert motion.largest.max() == 1.0
        assert (motion.above > 0).any()


def test_censored_windows_stay_in_the_table_and_leave_the_mean(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN, data=signal(n_volumes=12))
    full_confounds(tree, 12, spike=2)
    options = ("--target-tr", "native", "--fd-threshold", "0.5", "--max-censored", "0.1")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, *options)
    assert status == 0
    assert "1 of 2 windows are censored" in said
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["censored"].tolist() == [1, 0]
    assert windows["high_motion_fraction"].tolist() == pytest.approx([1 / 5, 0])  # the first volume's is undefined
    table = read_table(next((tmp_path / "o").glob("sub-01/*embeddings.tsv")))
    assert table["windows"].tolist() == [1, 1]
    np.testing.assert_allclose(channels_of(table)[0], channels_of(windows)[1])
    assert read_table(next((tmp_path / "o").rglob("*predictions.tsv")))["windows"].tolist() == [1]


def test_a_run_of_censored_windows_alone_has_no_prediction(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN, data=signal(n_volumes=6))
    full_confounds(tree, 6)
    options = ("--target-tr", "native", "--fd-threshold", "0.01", "--max-censored", "0.0")
    assert neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, *options)[0] == 0
    row = read_table(next((tmp_path / "o").rglob("*predictions.tsv"))).iloc[0]
    assert np.isnan(row["value"])
    assert row["unit"] == "no window left"
    assert np.isnan(channels_of(read_table(next((tmp_path / "o").glob("sub-01/*embeddings.tsv"))))).all()


def test_threshold_without_confounds_is_reported(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN, confounds=False)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--fd-threshold", "0.5")
    assert status == 1
    assert "--fd-threshold needs framewise displacement" in said
