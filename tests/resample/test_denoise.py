"""Denoising is that of nilearn."""

import json

import nibabel as nib
import numpy as np
import pytest
from helpers import AFFINE, RUN, full_confounds, save, signal
from nilearn.image import clean_img, resample_img
from nilearn.interfaces.fmriprep import load_confounds_strategy

from neurostorm_bids.resample.denoise import regress_out
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import FSL


@pytest.mark.heavy
@pytest.mark.parametrize("strategy", ["scrubbing", "simple", "compcor"])
def test_denoising_is_that_of_nilearn_in_the_run_s_own_space(tree, tmp_path, neurostorm, narrow, strategy):
    n = 90
    data = signal(n_volumes=n)
    bold = tree.run(RUN, data=data)
    table = full_confounds(tree, n, spike=40)
    for name in ("trans_x", "a_comp_cor_01"):  # something to clean
        data += (40 * table[name].to_numpy() / table[name].std()).astype(np.float32)
    save(bold, data, repetition_time=2.0)
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--denoise", strategy)
    status, _, said = neurostorm(*call, "--target-tr", "native", "--save-grid")
    assert status == 0, said
    confounds, kept = load_confounds_strategy(str(bold), denoise_strategy=strategy)
    kept = np.arange(n) if kept is None else kept
    cleaned = clean_img(
        nib.Nifti1Image(data, AFFINE),
        confounds=confounds.fillna(0),
        detrend=False,
        standardize=None,
        clean__sample_mask=kept,
    )
    expected = resample_img(cleaned, FSL.matrix, FSL.shape, interpolation="linear").get_fdata()
    ours = nib.load(next((tmp_path / "o").rglob("*_desc-fsl_bold.nii.gz"))).get_fdata()
    brain = ours[..., 0] > ours.min()
    expected, ours = expected[brain], ours[brain][:, kept]
    # one mean and standard deviation for all: with scrubbing, the volumes that are filled in count too
    slope, intercept = np.polyfit(expected.ravel(), ours.ravel(), 1)
    assert np.abs(ours - (slope * expected + intercept)).max() < 2e-3
    if len(kept) == n:
        assert slope == pytest.approx(1 / expected.std(), rel=1e-4)
    about = json.loads(next((tmp_path / "o").rglob("func/*embeddings.json")).read_text())["Preprocessing"]["Denoising"]
    assert "cosine00" in about["Confounds"]
    assert about["VolumesInterpolated"] == n - len(kept)
    assert ("a_comp_cor_01" in about["Confounds"]) == (strategy == "compcor")


def test_regression_keeps_the_mean_and_fills_scrubbed_frames():
    rng = np.random.RandomState(0)
    confounds = rng.standard_normal((50, 4))
    series = (100 + confounds @ rng.standard_normal((4, 9)) + 0.1 * rng.standard_normal((50, 9))).astype(np.float32)
    kept = np.ones(50, bool)
    kept[[0, 20, 21]] = False
    store = FrameStore(9)
    store.append(series)
    regress_out(store, confounds, kept)
    cleaned = store[:]
    np.testing.assert_allclose(cleaned[kept].mean(axis=0), series[kept].mean(axis=0), rtol=1e-5)
    centred = confounds[kept] - confounds[kept].mean(axis=0)
    assert np.abs(centred.T @ (cleaned[kept] - cleaned[kept].mean(axis=0))).max() < 1e-3
    np.testing.assert_allclose(cleaned[0], cleaned[1], rtol=1e-6)
    np.testing.assert_allclose(cleaned[20], (2 * cleaned[19] + cleaned[22]) / 3, rtol=1e-5)


@pytest.mark.parametrize("n_volumes", [12, 60])
def test_a_strategy_that_the_confounds_do_not_serve_is_reported(tree, tmp_path, neurostorm, narrow, n_volumes):
    tree.run(RUN, data=signal(n_volumes=n_volumes))
    if n_volumes == 12:
        full_confounds(tree, n_volumes)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--denoise", "simple")
    assert status == 1
    assert ("too few" if n_volumes == 12 else "--denoise simple is not possible with the confounds of") in said
