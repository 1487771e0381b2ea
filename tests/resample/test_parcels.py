"""Parcels of the model's grid: of an atlas, of TemplateFlow's, of blocks."""

import nibabel as nib
import numpy as np
import pytest
from helpers import AFFINE, FSL_SPACE, save
from nibabel.affines import apply_affine
from nilearn.image import resample_img

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.parcels import ATLAS, blocks, parcels_of


def test_parcels_of_an_atlas_are_nilearn_s(tmp_path, monkeypatch):
    """TemplateFlow's atlas, found in its home, on another grid, brought to the model's by the nearest voxel."""
    affine = nib.affines.from_matvec(np.diag([2.0, 2, 2]), [-96.5, -132.5, -78.5])
    atlas = np.zeros((97, 115, 97), np.int16)
    atlas[20:70, 30:90, 30:60] = 1 + np.indices((50, 60, 30))[0] // 10
    atlas[80, 80, 80] = 9  # smaller than a parcel may be
    path = tmp_path / f"tpl-{FSL_SPACE}" / ATLAS.format(FSL_SPACE)
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(atlas, affine), path)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    ours = parcels_of(FSL).numbers.reshape(FSL.shape)
    theirs = resample_img(nib.Nifti1Image(atlas, affine), FSL.matrix, FSL.shape, interpolation="nearest").get_fdata()
    theirs[theirs == 9] = 0
    assert set(np.unique(ours)) == {0, 1, 2, 3, 4, 5}
    assert (ours == theirs).mean() > 0.999  # half a voxel between the grids: ties go either way


def test_names_of_parcels_come_from_the_table_beside_the_atlas(tmp_path):
    labels = np.zeros((32, 38, 32), np.int16)
    labels[4:14, 8:30, 8:24], labels[18:28, 8:30, 8:24] = 3, 7
    atlas = save(tmp_path / "tpl-X_atlas-Own_desc-2Parcels_dseg.nii.gz", labels, AFFINE)
    (tmp_path / "tpl-X_atlas-Own_desc-2Parcels_dseg.tsv").write_text("index\tname\n3\tleft one\n7\tright one\n")
    found = parcels_of(FSL, atlas)
    assert (found.name, found.labels) == ("Own2Parcels", ("left one", "right one"))
    x = apply_affine(FSL.matrix, np.argwhere(found.numbers.reshape(FSL.shape) == 1))[:, 0]
    assert (x < 0).all()


def test_blocks_cover_the_template_s_brain():
    found = blocks(FSL)
    assert 100 < len(found) < 300
    np.testing.assert_array_equal(found.sums(np.ones(96**3)), np.bincount(found.numbers)[1:])


def test_labels_stored_as_floats_are_rounded_and_may_be_large(tmp_path):
    labels = np.zeros((32, 38, 32), np.float32)
    labels[4:14, 8:30, 8:24], labels[18:28, 8:30, 8:24] = 12174.99999, 1_000_000_000
    found = parcels_of(FSL, save(tmp_path / "atlas.nii.gz", labels, AFFINE))
    assert found.labels == ("label 12175", "label 1000000000")


def test_labels_without_a_name_keep_their_number(tmp_path):
    labels = np.zeros((32, 38, 32), np.int16)
    labels[4:14, 8:30, 8:24], labels[18:28, 8:30, 8:24] = 3, 7
    atlas = save(tmp_path / "own_dseg.nii.gz", labels, AFFINE)
    (tmp_path / "own_dseg.tsv").write_text("index\tname\n3\tleft one\n7\t\n")
    assert parcels_of(FSL, atlas).labels == ("left one", "label 7")


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (np.ones((32, 38, 32, 2), np.int16), AFFINE, "one volume of labels"),
        (np.random.RandomState(0).random_sample((32, 38, 32)).astype(np.float32), AFFINE, "whole numbers"),
        (np.full((32, 38, 32), np.nan, np.float32), AFFINE, "whole numbers"),
        (np.ones((32, 38, 32), np.int16), np.diag([2.0, 2, 1e-9, 1]), "cannot be inverted"),
    ],
)
def test_what_is_no_atlas_is_refused(tmp_path, values, affine, message):
    with pytest.raises(NeurostormError, match=message):
        parcels_of(FSL, save(tmp_path / "atlas.nii.gz", values, affine))


def test_an_atlas_that_is_cut_short_is_named(tmp_path):
    labels = np.random.RandomState(0).randint(0, 9, (32, 38, 32)).astype(np.int16)
    atlas = save(tmp_path / "atlas.nii.gz", labels, AFFINE)
    atlas.write_bytes(atlas.read_bytes()[:5000])
    with pytest.raises(NeurostormError, match=r"atlas\.nii\.gz.*cut short"):
        parcels_of(FSL, atlas)
