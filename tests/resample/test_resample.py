"""World coordinates decide; interpolation, time and normalisation are the published ones."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import AFFINE, GOLDEN, SHAPE, ellipsoid, save, signal
from nibabel.affines import apply_affine
from nilearn.image import resample_img
from scan import scan

from neurostorm_bids import to_model_grid
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.grid import AS_FMRIPREP, FSL


def run_of(tmp_path, data, affine=AFFINE, mask=None, repetition_time=2.0):
    """Write a run and its mask."""
    mask = ellipsoid(data.shape[:3]) if mask is None else mask
    return (
        save(tmp_path / "bold.nii.gz", data, affine, repetition_time),
        save(tmp_path / "mask.nii.gz", mask, affine),
    )


def reoriented(path: Path, axes: str) -> Path:
    """The same image stored with its axes in another order and direction."""
    image = nib.load(path)
    change = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    target = path.with_name(f"{axes}_{path.name}")
    nib.save(image.as_reoriented(change), target)
    return target


def test_published_preprocessing(tmp_path):
    about = json.loads((GOLDEN / "preproc_2009c_2mm.json").read_text())
    reference = np.load(GOLDEN / "preproc_2009c_2mm.npz")
    data, mask = scan(about["scan"]["seed"], tuple(about["scan"]["shape"]), about["scan"]["n_frames"])
    bold, mask = run_of(tmp_path, data, np.array(about["affine"]), mask, about["repetition_time_s"])
    gridded = to_model_grid(bold, mask, grid="as-fmriprep")
    assert gridded.shape == (96, 96, 96, int(reference["n_frames"]))
    volumes = np.asarray(gridded)
    assert np.abs(volumes[1::5, 2::5, 3::5] - reference["sub"]).max() <= reference["scale"] / 2


def test_grids_are_the_field_s():
    # HCP's LAS array of 91 x 109 x 91, flipped and cropped (3, 2) / (-6, -7) / (3, 2)
    assert np.array_equal(FSL.matrix @ [3, -6, 3, 1], [90, -126, -72, 1])
    assert (FSL.orientation, FSL.voxel_size, FSL.shape) == ("LAS", (2.0, 2.0, 2.0), (96, 96, 96))
    assert np.array_equal(AS_FMRIPREP.matrix @ [0, -9, 0, 1], [-96.5, -132.5, -78.5, 1])
    assert AS_FMRIPREP.orientation == "RAS"


def test_a_blob_on_the_left_stays_on_the_left_however_stored(tmp_path):
    data = signal()
    left = np.array([-40.0, -20, 20])  # mm, RAS: left of the midline
    voxel = np.round(apply_affine(np.linalg.inv(AFFINE), left[None])[0]).astype(int)
    data[tuple(slice(v - 1, v + 2) for v in voxel)] += 3000
    bold, mask = run_of(tmp_path, data)
    expected = np.asarray(to_model_grid(bold, mask))
    brightest = np.unravel_index(expected.mean(axis=3).argmax(), expected.shape[:3])
    assert np.abs(apply_affine(FSL.matrix, np.array([brightest]))[0] - left).max() < 8
    assert brightest[0] > 48  # an LAS array runs from right to left
    for axes in ("LAS", "LPI", "ASR"):
        assert np.allclose(
            np.asarray(to_model_grid(reoriented(bold, axes), reoriented(mask, axes))), expected, atol=2e-4
        )


@pytest.mark.parametrize("oblique", [False, True])
def test_interpolation_agrees_with_nilearn(tmp_path, oblique):
    affine = AFFINE.copy()
    if oblique:
        angle = np.deg2rad(12)
        rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine[:3, :3] = rotation @ affine[:3, :3]
        affine[:3, 3] = rotation @ affine[:3, 3]
    data = signal(n_volumes=25)
    bold, mask = run_of(tmp_path, data, affine)
    gridded = to_model_grid(bold, mask, target_repetition_time=None)
    nilearn = resample_img(nib.Nifti1Image(data, affine), FSL.matrix, FSL.shape, interpolation="linear")
    expected = nilearn.get_fdata(dtype=np.float32).reshape(-1, 25)[gridded.brain].T
    assert np.abs(gridded.frames[:] - expected).max() < 1e-3 * np.ptp(expected)


def test_z_score_background_and_negatives(tmp_path):
    data = signal()
    data[15:18, 18:21, 15:18] = -500
    gridded = to_model_grid(*run_of(tmp_path, data))
    volumes = np.asarray(gridded, dtype=np.float64)
    in_brain = np.zeros(gridded.grid.shape, bool)
    in_brain.ravel()[gridded.brain] = True
    assert abs(volumes[in_brain].mean()) < 1e-4
    assert abs(volumes[in_brain].std() - 1) < 1e-4
    assert np.all(volumes[~in_brain] == volumes[in_brain].min())
    assert volumes.min() * gridded.statistics.std + gridded.statistics.mean == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [(np.int16, 1, 0), (np.int16, 0.25, 900), (np.uint8, 8, 0), (">f4", 1, 0), (float, 1, 0)],
)
def test_stored_types_and_scaling(tmp_path, dtype, slope, intercept):
    data = signal(n_volumes=3)
    stored = np.clip(np.round((data - intercept) / slope), 0, 255 if dtype == np.uint8 else None).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype == ">f4" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(stored, AFFINE, header)
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "x.nii.gz")
    _, mask = run_of(tmp_path, data)
    gridded = to_model_grid(tmp_path / "x.nii.gz", mask, repetition_time=2.0)
    truth = stored.astype(np.float32) * slope + intercept
    same, _ = run_of(tmp_path, truth)
    assert np.allclose(gridded.frames[:], to_model_grid(same, mask).frames[:], rtol=1e-5)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("shape", [(*SHAPE, 1, 4), (*SHAPE, 4, 1)])
def test_single_axes_are_ignored(tmp_path, name, shape):
    data = signal(n_volumes=4)
    bold, mask = run_of(tmp_path, data)
    odd = save(tmp_path / name, data.reshape(shape), repetition_time=2.0)
    assert np.array_equal(to_model_grid(odd, mask, repetition_time=2.0).frames[:], to_model_grid(bold, mask).frames[:])


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_the_repetition_time_is_that_of_the_time_axis(tmp_path, name):
    """With an axis of length 1 between, time is the fifth axis, and its step the sixth of pixdim."""
    image = nib.Nifti1Image(signal(n_volumes=4)[:, :, :, None], AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4:6] = 1.0, 2.5
    nib.save(image, tmp_path / name)
    mask = save(tmp_path / "m.nii.gz", ellipsoid())
    assert to_model_grid(tmp_path / name, mask).steps["SourceRepetitionTime"] == pytest.approx(2.5)


def test_an_image_in_memory_is_resampled_like_its_file(tmp_path):
    bold, mask = run_of(tmp_path, signal())
    from_files = to_model_grid(bold, mask)
    from_memory = to_model_grid(nib.load(bold), nib.load(mask))
    assert np.array_equal(from_files.frames[:], from_memory.frames[:])


def test_indexing_is_that_of_the_array(tmp_path):
    gridded = to_model_grid(*run_of(tmp_path, signal()))
    volumes = np.asarray(gridded)
    for index in (
        np.s_[..., 3:7], np.s_[4], np.s_[40, 50, 45, 2], np.s_[40:50, :, 3], np.s_[:, :, :, -4:], np.s_[..., 5], np.s_[..., ::2],
        np.s_[40, 50, 45, 4:8], np.s_[...], np.s_[..., 7:3],
    ):  # fmt: skip
        assert np.array_equal(gridded[index], volumes[index]), index


def test_dummy_scans_are_left_out_and_time_goes_on(tmp_path):
    bold, mask = run_of(tmp_path, signal())
    gridded = to_model_grid(bold, mask, dummy_scans=2, target_repetition_time=None)
    assert gridded.frame_times.tolist() == [4.0 + 2.0 * i for i in range(10)]
    with pytest.raises(NeurostormError, match="cannot drop 12 dummy scans of 12"):
        to_model_grid(bold, mask, dummy_scans=12)


@pytest.mark.parametrize(("unit", "value"), [("sec", 1.5), ("msec", 1500.0), ("usec", 1.5e6), ("unknown", 1.5)])
def test_the_header_s_time_unit_is_honoured(tmp_path, unit, value):
    bold = save(tmp_path / "b.nii.gz", signal(), repetition_time=value, unit=unit)
    mask = save(tmp_path / "m.nii.gz", ellipsoid())
    assert to_model_grid(bold, mask).steps["SourceRepetitionTime"] == pytest.approx(1.5)


def test_brain_beyond_the_field_of_view_is_background(tmp_path):
    slab = signal()[:, :, 10:20]
    affine = AFFINE.copy()
    affine[2, 3] += 60
    gridded = to_model_grid(*run_of(tmp_path, slab, affine, ellipsoid()[:, :, 10:20]))
    z = apply_affine(FSL.matrix, np.stack(np.unravel_index(gridded.brain, FSL.shape), axis=1))[:, 2]
    assert (z.min(), z.max()) == (-18, 40)  # 10 slices of 6 mm cover -18 to 42 mm


def test_frames_can_be_kept_on_disk(tmp_path):
    bold, mask = run_of(tmp_path, signal())
    work = tmp_path / "work"
    work.mkdir()
    on_disk, in_memory = to_model_grid(bold, mask, work_dir=work), to_model_grid(bold, mask)
    assert np.array_equal(np.asarray(on_disk), np.asarray(in_memory))
    assert not list(work.iterdir())  # the file has no name: it goes with the process, whatever happens to it


def test_a_full_work_folder_is_reported(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(NeurostormError, match=r"work folder .*No space left on device.*--work-dir"):
        to_model_grid(*run_of(tmp_path, signal()), work_dir=tmp_path)
