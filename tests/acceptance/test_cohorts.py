"""HCP and UK Biobank where they lie: the same numbers as from fMRIPrep, left where left is, nothing written to the input."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cohorts import FSL_2MM, LAS, field_of, hcp_run, motion, ukb_run
from helpers import AFFINE, RUN, Tree, ellipsoid, save, signal

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.motion import framewise_displacement
from neurostorm_bids.resample.transforms import Moving, map_points, read_transform

# An oblique acquisition of 6 mm, neurological and radiological
TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = 6 * TILT
OBLIQUE[:3, 3] = -OBLIQUE[:3, :3] @ (np.array([32, 38, 32]) - 1) / 2 + [0, -18, 18]
MIRRORED = OBLIQUE @ np.array([[-1.0, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def warp(world):
    """A known map from the template to the subject: an affine and a smooth bend."""
    bent = world + 2.0 * np.sin(world[:, [1, 2, 0]] / 25)
    return bent @ np.array([[1.02, 0.03, 0], [-0.02, 0.98, 0.01], [0, 0.02, 1.01]]).T + [2, -3, 1]


def outputs(out):
    """Tables of embeddings by their names."""
    return {path.name: read_table(path) for path in sorted(out.rglob("func/*_embeddings.tsv"))}


@pytest.mark.parametrize("affine", [OBLIQUE, MIRRORED], ids=["neurological", "radiological"])
@pytest.mark.parametrize("grid", [FSL_2MM, np.diag([2.0, 2, 2, 1]) + np.array([[0, 0, 0, -90], [0, 0, 0, -126], [0, 0, 0, -72], [0] * 4])], ids=["LAS", "RAS"])  # fmt: skip
def test_points_go_where_the_field_was_made_to_send_them(tmp_path, affine, grid):
    shape = (32, 38, 32)
    displacements, _ = field_of(warp, affine, shape, grid)
    path = tmp_path / "warp.nii.gz"
    image = nib.Nifti1Image(displacements.astype(np.float32), grid)
    image.header.set_intent(2006)
    nib.save(image, path)
    # at the field's own voxels nothing is interpolated
    points = np.random.RandomState(0).randint(0, 90, (500, 3)) @ grid[:3, :3].T + grid[:3, 3]
    np.testing.assert_allclose(map_points(read_transform(path, Moving(affine, shape)), points), warp(points), atol=1e-3)


@pytest.mark.parametrize("affine", [OBLIQUE, MIRRORED], ids=["neurological", "radiological"])
def test_a_run_by_fsl_is_the_run_by_itk(tmp_path, affine):
    """The same displacements in a file of each program."""
    data = signal()
    bold = save(tmp_path / "bold.nii.gz", data, affine, 2.0)
    mask = save(tmp_path / "mask.nii.gz", ellipsoid(), affine)
    by_fsl = tmp_path / "warp.nii.gz"
    displacements, _ = field_of(warp, affine, data.shape[:3])
    image = nib.Nifti1Image(displacements.astype(np.float32), FSL_2MM)
    image.header.set_intent(2006)
    nib.save(image, by_fsl)
    voxels = np.indices((91, 109, 91)).reshape(3, -1).T
    world = voxels @ FSL_2MM[:3, :3].T + FSL_2MM[:3, 3]
    lps = ((warp(world) - world) * [-1, -1, 1]).reshape(91, 109, 91, 3)
    itk = sitk.GetImageFromArray(np.ascontiguousarray(lps.transpose(2, 1, 0, 3)), isVector=True)
    itk.SetSpacing((2, 2, 2))
    itk.SetOrigin((-90, 126, -72))
    itk.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteTransform(sitk.CompositeTransform([sitk.DisplacementFieldTransform(itk)]), str(tmp_path / "warp.h5"))
    one, other = (to_model_grid(bold, mask, transforms=[path]) for path in (by_fsl, tmp_path / "warp.h5"))
    np.testing.assert_allclose(one.window(0, 12), other.window(0, 12), atol=1e-3)


def test_an_hcp_run_gives_the_bytes_of_the_same_run_of_fmriprep(tmp_path, tree, neurostorm, narrow):
    name = "sub-100307_task-rest_dir-LR_run-1"
    tree.run(name, data=signal(5), affine=LAS, confounds=False)
    hcp_run(tmp_path / "hcp", data=signal(5), affine=LAS)
    for data, out in ((tree.path, "a"), (tmp_path / "hcp", "b")):
        status, _, said = neurostorm(data, tmp_path / out, "participant", "--model", narrow)
        assert status == 0, said
    one, other = outputs(tmp_path / "a"), outputs(tmp_path / "b")
    assert one.keys() == other.keys() == {f"{name}_space-MNI152NLin6Asym_desc-narrow_embeddings.tsv"}
    for table, same in zip(one.values(), other.values(), strict=True):
        channels = [column for column in table if column.startswith("channel")]
        assert table[channels].equals(same[channels])
    known = framewise_displacement(*motion(12))
    sidecar = json.loads(next((tmp_path / "b").rglob("func/*_embeddings.json")).read_text())
    assert sidecar["FramewiseDisplacement"]["Max"] == pytest.approx(np.nanmax(known))
    assert "bids:hcp:100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR.nii.gz" in sidecar["Sources"]
    methods = (tmp_path / "b" / "logs" / "CITATION.md").read_text()
    assert "preprocessed with the HCP pipelines" in methods
    assert "fMRIPrep" not in methods


def blob(shape=(32, 38, 32)):
    """A run that is bright in the left hemisphere, RAS."""
    data = signal(shape=shape)
    data[: shape[0] // 2] += 3000
    return data


def flipped(data, affine):
    """The same run, stored as this affine says."""
    return data[::-1].copy() if affine[0, 0] < 0 else data


@pytest.mark.parametrize("affine", [AFFINE, LAS], ids=["RAS", "LAS"])
@pytest.mark.parametrize("kind", ["fmriprep", "hcp", "ukb"])
def test_left_stays_left(tmp_path, neurostorm, narrow, kind, affine):
    data = flipped(blob(), affine)
    if kind == "fmriprep":
        Tree(tmp_path / "in").run(RUN, data=data, affine=affine)
    elif kind == "hcp":
        hcp_run(tmp_path / "in", data=data, affine=affine)
    else:
        ukb_run(tmp_path / "in", data=data, affine=affine)
    status, _, said = neurostorm(tmp_path / "in", tmp_path / "o", "participant", "--model", narrow, "--save-grid")
    assert status == 0, said
    image = nib.load(next((tmp_path / "o").rglob("*_bold.nii.gz")))
    mean = image.get_fdata().mean(axis=3)
    x = nib.affines.apply_affine(image.affine, np.argwhere(mean > mean.max() / 2))[:, 0]
    assert np.mean(x < 3) > 0.99


def test_ukb_rest_and_task_of_two_visits(tmp_path, neurostorm, narrow):
    data = tmp_path / "ukb"
    ukb_run(data, "1000001_20227_2_0", affine=OBLIQUE, field=field_of(lambda w: w, OBLIQUE, (32, 38, 32)))
    ukb_run(data, "1000001_20249_2_0", kind="tfMRI.feat")
    ukb_run(data, "1000001_20227_3_1")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    status, _, said = neurostorm(data, tmp_path / "o", "participant", "--model", narrow, "--fd-threshold", "5")
    assert status == 0, said
    assert "--input-type ukb" in said
    runs = {name.split("_space-")[0] for name in outputs(tmp_path / "o")}
    assert runs == {
        "sub-1000001_ses-2_task-rest",
        "sub-1000001_ses-2_task-hariri",
        "sub-1000001_ses-3_task-rest_run-2",
    }
    steps = json.loads(next((tmp_path / "o").rglob("*ses-2_task-rest*_embeddings.json")).read_text())["Preprocessing"]
    assert steps["SourceRepetitionTime"] == 2.0  # the header says 0
    assert steps["Transforms"] == ["example_func2standard_warp.nii.gz"]
    methods = " ".join((tmp_path / "o" / "logs" / "CITATION.md").read_text().split())
    assert "denoised by ICA-FIX" in methods
    assert "the nonlinear registration of the BOLD run that the UK Biobank pipeline had made with FSL" in methods
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_the_series_is_the_one_that_is_asked_for(tmp_path, neurostorm, narrow):
    hcp_run(tmp_path / "hcp", clean=True)
    call = (tmp_path / "hcp", tmp_path / "o", "participant", "--model", narrow)
    assert neurostorm(*call)[0] == 0
    assert "done" in neurostorm(*call, "--series", "clean")[1]
    sidecar = json.loads(next((tmp_path / "o").rglob("func/*_embeddings.json")).read_text())
    assert sidecar["Preprocessing"]["Series"] == "denoised by ICA-FIX"
    assert any("_hp2000_clean" in source for source in sidecar["Sources"])
    assert "denoised by ICA-FIX" in (tmp_path / "o" / "logs" / "CITATION.md").read_text()


@pytest.mark.parametrize("intent", [2007, 2008, 2009])
def test_coefficients_are_not_taken_for_displacements(tmp_path, intent):
    image = nib.Nifti1Image(np.zeros((10, 10, 10, 3), np.float32), FSL_2MM)
    image.header.set_intent(intent)
    nib.save(image, tmp_path / "warp.nii.gz")
    with pytest.raises(NeurostormError, match=r"FNIRT's coefficients.*fnirtfileutils --in=warp.nii.gz .*--withaff"):
        read_transform(tmp_path / "warp.nii.gz", Moving(OBLIQUE, (32, 38, 32)))


def test_what_fmriprep_alone_has_is_refused_for_others(tmp_path, neurostorm, narrow):
    hcp_run(tmp_path / "hcp")
    status, _, said = neurostorm(
        tmp_path / "hcp", tmp_path / "o", "participant", "--model", narrow, "--denoise", "simple"
    )
    assert status == 1
    assert "--denoise simple needs fMRIPrep's table of confounds" in said
