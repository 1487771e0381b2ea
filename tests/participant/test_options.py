"""Denoising, head motion, registration and what is kept of a placed run."""

import json
from dataclasses import replace

import itk
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import AFFINE, FSL_SPACE, NARROW, ellipsoid, lightning, random_network, save, signal
from nilearn.image import clean_img, resample_img
from nilearn.interfaces.fmriprep import load_confounds_strategy

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.encode.windows import motion_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.denoise import regress_out
from neurostorm_bids.resample.frames import FrameStore
from neurostorm_bids.resample.grid import FSL

NAME = "sub-01_task-rest"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A quick model with a head."""
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v1", n_outputs=1)
    path = tmp_path_factory.mktemp("model") / "narrow.ckpt"
    return lightning(path, network.state_dict(), downstream_task_type="regression", **NARROW)


def full_confounds(tree, n_volumes, n_dummies=0, spike=None):
    """Write the confounds that nilearn's strategies ask for."""
    rng = np.random.RandomState(3)
    table = pd.DataFrame({"framewise_displacement": 0.1 + 0.01 * rng.random_sample(n_volumes)})
    for name in [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + [
        "csf",
        "white_matter",
        "global_signal",
    ]:
        values = rng.standard_normal(n_volumes).cumsum()
        table[name], table[f"{name}_power2"] = values, values**2
        change = np.diff(values, prepend=np.nan)
        table[f"{name}_derivative1"], table[f"{name}_derivative1_power2"] = change, change**2
    for i in range(3):
        table[f"cosine{i:02d}"] = np.cos(np.pi * (i + 1) * (np.arange(n_volumes) + 0.5) / n_volumes)
    table["std_dvars"] = 1.0
    for i in range(n_dummies):
        table[f"non_steady_state_outlier{i:02d}"] = (np.arange(n_volumes) == i).astype(float)
    if spike is not None:
        table.loc[spike, "framewise_displacement"] = 2.0
    table.loc[0, "framewise_displacement"] = np.nan
    path = tree.folder(NAME) / f"{NAME}_desc-confounds_timeseries.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    path.with_suffix(".json").write_text("{}")
    return table


def test_denoising_is_nilearn_s_before_placing(tree, tmp_path, neurostorm, model):
    n = 60
    data = signal(n_volumes=n)
    bold = tree.run(NAME, data=data)
    table = full_confounds(tree, n)
    data += (40 * table["trans_x"].to_numpy() / table["trans_x"].std()).astype(np.float32)  # something to clean
    save(bold, data, repetition_time=2.0)
    assert (
        neurostorm(
            tree.path,
            tmp_path / "o",
            "participant",
            "--model",
            model,
            "--denoise",
            "simple",
            "--target-tr",
            "native",
            "--save-grid",
        )[0]
        == 0
    )
    confounds, _ = load_confounds_strategy(str(bold), denoise_strategy="simple")
    cleaned = clean_img(nib.Nifti1Image(data, AFFINE), confounds=confounds.fillna(0), detrend=False, standardize=None)
    expected = resample_img(cleaned, FSL.matrix, FSL.shape, interpolation="linear").get_fdata()
    ours = nib.load(next((tmp_path / "o").rglob("*_desc-fsl_bold.nii.gz"))).get_fdata()
    brain = ours[..., 0] > ours.min()
    expected = np.maximum(expected[brain], 0)
    expected = (expected - expected.mean()) / expected.std()
    assert np.abs(ours[brain] - expected).max() < 2e-3
    sidecar = json.loads(next((tmp_path / "o").rglob("func/*embeddings.json")).read_text())
    assert "cosine00" in sidecar["Preprocessing"]["Denoising"]["Confounds"]


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
def test_a_strategy_that_the_confounds_do_not_serve_is_told(tree, tmp_path, neurostorm, model, n_volumes):
    tree.run(NAME, data=signal(n_volumes=n_volumes))
    if n_volumes == 12:
        full_confounds(tree, n_volumes)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, "--denoise", "simple")
    assert status == 1
    assert ("too few" if n_volumes == 12 else "--denoise simple is not possible with the confounds of") in said


def test_dummy_scans_are_dropped_from_signal_motion_and_time(tree, tmp_path, neurostorm, model):
    tree.run(NAME, data=signal(n_volumes=14))
    table = full_confounds(tree, 14, n_dummies=2, spike=5)
    options = ("--target-tr", "native", "--save-grid")
    assert neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, *options)[0] == 0
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["onset"].tolist() == [4.0, 16.0]
    displacement = table["framewise_displacement"].to_numpy()
    assert windows["max_framewise_displacement"].tolist() == pytest.approx([2.0, displacement[8:14].max()])
    assert windows["mean_framewise_displacement"].tolist() == pytest.approx(
        [displacement[2:8].mean(), displacement[8:14].mean()]
    )
    assert nib.load(next((tmp_path / "o").rglob("*_bold.nii.gz"))).shape[3] == 12


def test_start_time_moves_the_onsets(tree, tmp_path, neurostorm, model):
    bold = tree.run(NAME)
    bold.with_name(bold.name.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 2.0, "StartTime": 0.9}')
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", model)
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["onset"].tolist() == pytest.approx([0.9 + 4.8 * i for i in range(5)])


@pytest.mark.parametrize("repetition_time", [0.5, 0.72, 2.0])
def test_a_short_movement_is_not_interpolated_away(tmp_path, repetition_time):
    bold = save(tmp_path / "b.nii.gz", signal(n_volumes=80), repetition_time=repetition_time)
    placed = to_model_grid(bold, save(tmp_path / "m.nii.gz", ellipsoid()))
    starts = np.arange(0, placed.shape[3] - 9, 10)
    for volume in range(75):
        displacement = np.zeros(80)
        displacement[volume] = 1.0
        motion = motion_of(placed, displacement, starts, 10, threshold=0.5)
        assert motion.largest.max() == 1.0
        assert (motion.above > 0).any()


def test_censored_windows_stay_in_the_table_and_leave_the_mean(tree, tmp_path, neurostorm, model):
    tree.run(NAME, data=signal(n_volumes=12))
    full_confounds(tree, 12, spike=2)
    options = ("--target-tr", "native", "--fd-threshold", "0.5", "--max-censored", "0.1")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, *options)
    assert status == 0
    assert "1 of 2 windows are censored" in said
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["censored"].tolist() == [1, 0]
    assert windows["high_motion_fraction"].tolist() == pytest.approx([1 / 5, 0])  # the first volume's is undefined
    table = read_table(next((tmp_path / "o").glob("sub-01/*embeddings.tsv")))
    assert table["windows"].tolist() == [1, 1]
    np.testing.assert_allclose(channels_of(table)[0], channels_of(windows)[1])
    assert read_table(next((tmp_path / "o").rglob("*predictions.tsv")))["windows"].tolist() == [1]


def test_a_run_of_censored_windows_alone_has_no_prediction(tree, tmp_path, neurostorm, model):
    tree.run(NAME, data=signal(n_volumes=6))
    full_confounds(tree, 6)
    options = ("--target-tr", "native", "--fd-threshold", "0.01", "--max-censored", "0.0")
    assert neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, *options)[0] == 0
    row = read_table(next((tmp_path / "o").rglob("*predictions.tsv"))).iloc[0]
    assert np.isnan(row["value"])
    assert row["unit"] == "no window left"
    assert np.isnan(channels_of(read_table(next((tmp_path / "o").glob("sub-01/*embeddings.tsv"))))).all()


def test_threshold_without_confounds_is_told(tree, tmp_path, neurostorm, model):
    tree.run(NAME, confounds=False)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, "--fd-threshold", "0.5")
    assert status == 1
    assert "--fd-threshold needs framewise displacement" in said


def test_saved_grid_opens_upside_right_and_trains(tree, tmp_path, neurostorm, model):
    bold = tree.run(NAME)
    call = (tree.path, tmp_path / "o", "participant", "--model", model, "--save-grid", "-w", tmp_path / "work")
    assert neurostorm(*call)[0] == 0
    placed = to_model_grid(bold, bold.with_name(bold.name.replace("preproc_bold", "brain_mask")))
    volumes = np.asarray(placed)
    image = nib.load(tmp_path / "o/sub-01/func" / f"{NAME}_space-{FSL_SPACE}_res-2_desc-fsl_bold.nii.gz")
    assert np.array_equal(image.affine, FSL.matrix)
    assert image.get_sform(coded=True)[1] == image.get_qform(coded=True)[1] == 4
    assert image.header.get_zooms()[3] == pytest.approx(0.8)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert np.abs(image.get_fdata() - volumes).max() < 1e-4 * np.ptp(volumes)
    store = tmp_path / "work/neurostorm-grids/sub-01/func" / f"{NAME}_space-{FSL_SPACE}_res-2_desc-fsl_bold.npy"
    stored, about = np.load(store, mmap_mode="r"), json.loads(store.with_suffix(".json").read_text())
    assert stored.dtype == np.int8
    assert stored.shape == (30, 96, 96, 96)
    assert about["Scale"] == pytest.approx(np.abs(volumes).max() / 127)
    assert np.abs(stored[7] * about["Scale"] - volumes[..., 7]).max() <= about["Scale"] / 2 * 1.001
    _, printed, _ = neurostorm(*call)
    assert "skipped" in printed
    store.unlink()
    _, printed, _ = neurostorm(*call)
    assert "skipped" not in printed
    neurostorm(*call[:-3], "-w", tmp_path / "work", "--clean-workdir")
    assert not store.exists()


def test_registration_where_nothing_leads(tree, tmp_path, neurostorm, model, monkeypatch):
    """A T1w-space run, 20 mm and some degrees off, is brought to a template that has the same anatomy."""
    from scipy.ndimage import gaussian_filter

    turn = nib.affines.from_matvec(
        np.array([[0.97, -0.1, 0.0], [0.1, 0.98, 0.12], [0, -0.12, 1.02]]), [12.0, -16.0, 9.0]
    )  # template to subject
    rng = np.random.RandomState(1)
    shape, affine = (62, 74, 62), np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = [-92, -128, -75]
    anatomy = gaussian_filter(rng.standard_normal(shape), 3)
    anatomy = (1000 + 300 * anatomy / anatomy.std()) * ellipsoid(shape)
    home = tmp_path / "templateflow" / f"tpl-{FSL_SPACE}" / f"tpl-{FSL_SPACE}_res-02_"
    save(home.with_name(home.name + "T1w.nii.gz"), anatomy.astype(np.float32), affine)
    save(home.with_name(home.name + "desc-brain_mask.nii.gz"), ellipsoid(shape), affine)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    # The subject's image is the same array with the turned affine: the true map is `turn`.
    noise = 20 * rng.standard_normal((*shape, 8))
    data = (anatomy[..., None] + noise * ellipsoid(shape)[..., None]).astype(np.float32)
    angle = turn @ affine
    tree.run(NAME, space="space-T1w", data=data, mask=ellipsoid(shape), affine=affine)
    for path in (tree.path / "sub-01/func").glob("*.nii.gz"):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None, nib.load(path).header)
        image.set_sform(angle, code=1)
        image.set_qform(None, code=0)
        nib.save(image, path)
    call = (tree.path, tmp_path / "o", "participant", "--model", model)
    assert neurostorm(*call)[0] == 1
    status, _, said = neurostorm(*call, "--register", "affine")
    assert status == 0, said
    record = json.loads(next((tmp_path / "o").rglob("func/*embeddings.json")).read_text())["Preprocessing"][
        "Registration"
    ]
    points = np.random.RandomState(0).uniform(-50, 50, (200, 3)) + [0, -18, 15]
    error = nib.affines.apply_affine(np.array(record["Affine"]), points) - nib.affines.apply_affine(turn, points)
    assert np.abs(error).max() < 2.0
    assert record["BrainOverlapDice"] > 0.95
    # A head that is not the template's is refused.
    save(home.with_name(home.name + "desc-brain_mask.nii.gz"), np.roll(ellipsoid(shape), 30, axis=1), affine)
    status, _, said = neurostorm(*call, "--register", "affine", "--force")
    assert status == 1
    assert "registration to the template" in said


def test_registration_without_a_template_says_where_to_put_it(tree, tmp_path, neurostorm, model, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    monkeypatch.setattr("neurostorm_bids.find.templateflow._fetched", lambda *_: None)
    tree.run(NAME, space="space-T1w")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", model, "--register", "affine")
    assert status == 1
    assert str(tmp_path / "templateflow" / f"tpl-{FSL_SPACE}" / f"tpl-{FSL_SPACE}_res-02_T1w.nii.gz") in said


def test_nan_outside_the_brain_does_no_harm(tree, tmp_path):
    data = signal()
    bold = tree.run(NAME, data=np.where(ellipsoid()[..., None] == 0, np.nan, data).astype(np.float32))
    mask = bold.with_name(bold.name.replace("preproc_bold", "brain_mask"))
    clean = save(
        tmp_path / "clean.nii.gz",
        np.where(ellipsoid()[..., None] == 0, 0, data).astype(np.float32),
        repetition_time=2.0,
    )
    assert np.array_equal(np.asarray(to_model_grid(bold, mask)), np.asarray(to_model_grid(clean, mask)))


def test_a_brain_that_is_not_where_the_template_s_is_is_refused(tmp_path):
    affine = AFFINE.copy()
    affine[0, 3] += 70
    bold, mask = save(tmp_path / "b.nii.gz", signal(), affine, 2.0), save(tmp_path / "m.nii.gz", ellipsoid(), affine)
    with pytest.raises(
        NeurostormError, match=r"m\.nii\.gz: only \d+% of the brain lies in the brain of MNI152NLin6Asym"
    ):
        to_model_grid(bold, mask)


def test_a_brain_beyond_the_grid_is_told(tmp_path):
    half = replace(FSL, name="half", shape=(48, 96, 96))  # the right side
    bold, mask = save(tmp_path / "b.nii.gz", signal(), AFFINE, 2.0), save(tmp_path / "m.nii.gz", ellipsoid())
    placed = to_model_grid(bold, mask, grid=half)
    assert placed.steps["BrainOutsideGrid"] > 0.3
    assert any("of the brain lies beyond the grid" in note for note in placed.notes)


def test_a_few_voxels_are_no_brain_and_half_a_brain_is_told(tmp_path):
    few, slab = np.zeros_like(ellipsoid()), ellipsoid()
    few[15:17, 18:20, 16:18] = 1
    slab[:, :, :18] = 0
    bold = save(tmp_path / "b.nii.gz", signal(), repetition_time=2.0)
    with pytest.raises(NeurostormError, match="too few to encode"):
        to_model_grid(bold, save(tmp_path / "few.nii.gz", few))
    placed = to_model_grid(bold, save(tmp_path / "slab.nii.gz", slab))
    assert any("the run covers only" in note for note in placed.notes)


def test_a_mask_with_another_affine_is_told_with_the_distance(tmp_path):
    affine = AFFINE.copy()
    affine[1, 3] += 3
    bold, mask = (
        save(tmp_path / "b.nii.gz", signal(), repetition_time=2.0),
        save(tmp_path / "m.nii.gz", ellipsoid(), affine),
    )
    assert any(
        "m.nii.gz: its affine differs from the run's, by up to 3.0 mm" in n for n in to_model_grid(bold, mask).notes
    )


def test_a_template_s_own_mask_is_no_warning_sign(tmp_path):
    """The mask of an identity transform overlaps well; one of another place is refused."""
    identity = itk.write(tmp_path / "i.txt", itk.affine_transform(np.eye(4)))
    bold, mask = save(tmp_path / "b.nii.gz", signal(), repetition_time=2.0), save(tmp_path / "m.nii.gz", ellipsoid())
    assert to_model_grid(bold, mask, transforms=[identity]).steps["BrainInTemplate"] > 0.9
    away = itk.write(tmp_path / "a.txt", itk.affine_transform(nib.affines.from_matvec(np.eye(3), [0.0, 45, 0])))
    with pytest.raises(
        NeurostormError, match=r"only \d+% of the brain lies in the brain of MNI152NLin6Asym.*swapped.*a\.txt"
    ):
        to_model_grid(bold, mask, transforms=[away])


def test_frame_store_reads_what_was_written(tmp_path):
    rng = np.random.RandomState(0)
    frames = rng.standard_normal((20, 7)).astype(np.float32)
    for folder in (None, tmp_path):
        store = FrameStore(7, folder)
        for start in (0, 8, 16):
            store.append(frames[start : start + 8])
        store.write(3, frames[10:12])
        expected = frames.copy()
        expected[3:5] = frames[10:12]
        assert len(store) == 20
        for part in (slice(None), slice(2, 9), slice(15, 99), slice(5, 5), slice(-3, None)):
            assert np.array_equal(store[part], expected[part])
