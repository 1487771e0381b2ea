"""Registration, where no transform leads to a run."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import FSL_SPACE, RUN, ellipsoid, save

from neurostorm_bids.resample.registration import _to_sitk


@pytest.mark.heavy
def test_registration_where_nothing_leads(tree, tmp_path, neurostorm, narrow, monkeypatch):
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
    tree.run(RUN, space="space-T1w", data=data, mask=ellipsoid(shape), affine=affine)
    for path in (tree.path / "sub-01/func").glob("*.nii.gz"):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None, nib.load(path).header)
        image.set_sform(angle, code=1)
        image.set_qform(None, code=0)
        nib.save(image, path)
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow)
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


def test_registration_without_a_template_says_where_to_put_it(tree, tmp_path, neurostorm, narrow, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    monkeypatch.setattr("neurostorm_bids.find.templateflow._fetched", lambda *_: (None, ""))
    tree.run(RUN, space="space-T1w")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--register", "affine")
    assert status == 1
    assert str(tmp_path / "templateflow" / f"tpl-{FSL_SPACE}" / f"tpl-{FSL_SPACE}_res-02_T1w.nii.gz") in said


def test_sheared_voxels_keep_their_place():
    """SimpleITK knows no sheared axes: such an image is resampled, and shows the same at every place in the world."""
    shape = (40, 44, 36)
    affine = nib.affines.from_matvec(
        np.array([[3.0, 0.6, 0.0], [0.0, 3.0, 0.5], [0.2, 0.0, 3.0]]), [-60.0, -70.0, -50.0]
    )
    voxels = np.indices(shape).reshape(3, -1).T
    world = nib.affines.apply_affine(affine, voxels)
    smooth = (100 * np.sin(world[:, 0] / 25) + 80 * np.cos(world[:, 1] / 20) + world[:, 2]).reshape(shape)
    image = _to_sitk(nib.Nifti1Image(smooth.astype(np.float32), affine), sitk)
    inner = world[(np.abs(voxels - np.array(shape) / 2) < 8).all(axis=1)][::37]
    seen = [image.EvaluateAtPhysicalPoint([-x, -y, z], sitk.sitkLinear) for x, y, z in inner]
    expected = 100 * np.sin(inner[:, 0] / 25) + 80 * np.cos(inner[:, 1] / 20) + inner[:, 2]
    assert np.abs(seen - expected).max() < 1.0
    mask = nib.Nifti1Image((smooth > 0).astype(np.uint8), affine)
    assert set(np.unique(sitk.GetArrayFromImage(_to_sitk(mask, sitk)))) == {0.0, 1.0}
