"""Points and images go where ITK sends them."""

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import AFFINE, ellipsoid, save, signal

from neurostorm_bids import to_model_grid
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.sampler import inside, make_sampler
from neurostorm_bids.resample.transforms import map_points, read_transform

ROTATION = nib.affines.from_matvec(
    np.array([[0.98, -0.12, 0.05], [0.13, 1.03, -0.08], [-0.04, 0.09, 0.97]]), np.array([3.0, -5.0, 4.0])
)


def grid_of_field(kind):
    """Affine of a displacement field's grid, 8 mm, over the head."""
    ras = np.array([[8.0, 0, 0, -96], [0, 8.0, 0, -132], [0, 0, 8.0, -78], [0, 0, 0, 1]])
    if kind == "LAS":
        return ras @ np.array([[-1.0, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    if kind == "oblique":
        angle = np.deg2rad(17)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return turn @ ras
    return ras


@pytest.fixture(params=["RAS", "LAS", "oblique"])
def composite(request, tmp_path):
    """An affine and a field as fMRIPrep composes them: the field, added last, is applied to points first."""
    affine = grid_of_field(request.param)
    field = itk.smooth_field((24, 28, 24), 9.0)
    parts = (itk.affine_transform(ROTATION), itk.field_transform(field, affine))
    path = itk.write(tmp_path / "from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5", *parts)
    return path, sitk.ReadTransform(str(path)), affine


def test_points_agree_with_itk_everywhere(composite):
    path, transform, _ = composite
    points = np.random.RandomState(1).uniform(-160, 160, (3000, 3))  # also far outside the field
    ours = map_points(read_transform(path), points)
    assert np.abs(ours - itk.map_points(transform, points)).max() < 1e-3
    assert np.abs(ours - points).max() > 10


def test_points_agree_at_the_field_s_edge(composite):
    path, transform, affine = composite
    voxels = np.random.RandomState(2).uniform(-1.2, 0.8, (1000, 3))
    points = nib.affines.apply_affine(affine, voxels)
    assert np.abs(map_points(read_transform(path), points) - itk.map_points(transform, points)).max() < 1e-3


def test_affine_text_file_agrees_with_itk(tmp_path):
    path = itk.write(tmp_path / "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt", itk.affine_transform(ROTATION))
    points = np.random.RandomState(3).uniform(-100, 100, (200, 3))
    expected = itk.map_points(sitk.ReadTransform(str(path)), points)
    assert np.abs(map_points(read_transform(path), points) - expected).max() < 1e-3


def test_an_affine_about_a_centre_agrees_with_itk(tmp_path):
    transform = itk.affine_transform(ROTATION)
    transform.SetCenter([10.0, -20.0, 30.0])
    path = itk.write(tmp_path / "x.txt", transform)
    points = np.random.RandomState(3).uniform(-100, 100, (200, 3))
    assert np.abs(map_points(read_transform(path), points) - itk.map_points(transform, points)).max() < 1e-3


@pytest.mark.parametrize(("interpolation", "itk_s"), [("linear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline)])
def test_images_agree_with_itk(composite, tmp_path, interpolation, itk_s):
    path, transform, _ = composite
    data = signal(n_volumes=2)
    bold, mask = save(tmp_path / "b.nii.gz", data, repetition_time=2.0), save(tmp_path / "m.nii.gz", ellipsoid())
    gridded = to_model_grid(bold, mask, transforms=[path], interpolation=interpolation, target_repetition_time=None)
    voxels = np.stack(np.unravel_index(gridded.brain, FSL.shape), axis=1)
    in_source = nib.affines.apply_affine(
        np.linalg.inv(AFFINE), map_points(read_transform(path), nib.affines.apply_affine(FSL.matrix, voxels))
    )
    interior = inside(in_source - 1, np.array(data.shape[:3]) - 2)
    assert interior.mean() > 0.95
    for frame in range(2):
        image = nib.Nifti1Image(data[..., frame], AFFINE)
        expected = itk.resample(image, FSL.matrix, FSL.shape, transform, itk_s).ravel()[gridded.brain]
        difference = np.abs(gridded.frames[:][frame] - expected)[interior]
        assert difference.max() < 1e-3 * np.ptp(data)


def test_cubic_agrees_with_scipy_up_to_the_edge():
    from scipy.ndimage import map_coordinates

    rng = np.random.RandomState(0)
    shape = (7, 1, 12)
    frames = rng.standard_normal((*shape, 3)).astype(np.float32)
    points = rng.uniform(0, 1, (400, 3)) * (np.array(shape) - 1)
    ours = make_sampler(points, shape, "cubic")(frames.reshape(-1, 3, order="F"))
    for frame in range(3):
        expected = map_coordinates(frames[..., frame], points.T, order=3, mode="mirror")
        assert np.abs(ours[frame] - expected).max() < 1e-3


def spoiled(tmp_path, kind):
    """A transform file with something wrong."""
    good = itk.write(
        tmp_path / "good.h5",
        itk.affine_transform(ROTATION),
        itk.field_transform(itk.smooth_field((5, 5, 5), 1), AFFINE),
    )
    path = tmp_path / "bad.h5"
    if kind == "cut short":
        path.write_bytes(good.read_bytes()[:-3000])
    elif kind == "empty":
        path.touch()
    elif kind == "not HDF5":
        path.write_text("hello")
    elif kind == "HDF5 of another program":
        import h5py

        with h5py.File(path, "w") as file:
            file["x"] = [1, 2]
    elif kind == "FSL matrix":
        path = tmp_path / "bad.txt"
        np.savetxt(path, ROTATION)
    elif kind == "text":
        path = tmp_path / "bad.txt"
        path.write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: Euler3DTransform_double_3_3\nParameters: 0 0 0 1 2 3\nFixedParameters: 0 0 0\n"
        )
    elif kind == "NaN":
        path = tmp_path / "bad.txt"
        path.write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: nan 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
        )
    elif kind == "flat":
        path = tmp_path / "bad.txt"
        path.write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: 0 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
        )
    elif kind == "not fetched":
        path.symlink_to("/nowhere/annex")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "cannot be read as an ITK transform"),
        ("empty", "is empty"),
        ("not HDF5", "cannot be read as an ITK transform"),
        ("HDF5 of another program", "cannot be read as an ITK transform"),
        ("FSL matrix", "cannot be read as an ITK transform"),
        ("text", "cannot be read as an ITK transform"),
        ("NaN", "are no transform"),
        ("flat", "are no transform"),
        ("missing", "file not found"),
        ("not fetched", "not fetched: .*datalad get"),
    ],
)
def test_bad_transform_files_are_reported_by_name(tmp_path, kind, message):
    path = spoiled(tmp_path, kind)
    with pytest.raises(NeurostormError, match=message) as error:
        read_transform(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
