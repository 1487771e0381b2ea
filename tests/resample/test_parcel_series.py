"""The series of parcels are nilearn's on the same grid, and a parcel that is hardly covered is unknown."""

import nibabel as nib
import numpy as np
import pytest
from helpers import AFFINE, ellipsoid, save, signal
from nilearn.maskers import NiftiLabelsMasker

from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.parcel_series import parcel_series
from neurostorm_bids.resample.parcels import blocks
from neurostorm_bids.resample.resample import to_model_grid


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose brain mask lacks a corner of the brain."""
    folder = tmp_path_factory.mktemp("run")
    mask = ellipsoid()
    mask[:12, :14] = 0
    return to_model_grid(
        save(folder / "bold.nii.gz", signal(3, n_volumes=12), AFFINE), save(folder / "mask.nii.gz", mask, AFFINE)
    )


def test_series_and_connectome_are_nilearn_s(run):
    found = parcel_series(run, blocks(FSL))
    mask = np.zeros(FSL.shape, np.int8)
    mask.flat[run.brain] = 1
    labels = nib.Nifti1Image(blocks(FSL).numbers.reshape(FSL.shape).astype(np.int32), FSL.matrix)
    masker = NiftiLabelsMasker(labels, mask_img=nib.Nifti1Image(mask, FSL.matrix), standardize=False)
    theirs = masker.fit_transform(nib.Nifti1Image(np.asarray(run), FSL.matrix))
    ids = np.unique(blocks(FSL).numbers[run.brain])[1:]  # nilearn leaves out labels that the mask has nothing of
    known = ~np.isnan(found.series).any(axis=0)
    assert known.sum() > 50
    columns = {i: column for i, column in zip(ids, theirs.T, strict=True)}
    for parcel in np.flatnonzero(known):
        np.testing.assert_allclose(found.series[:, parcel], columns[parcel + 1], atol=1e-4)
    of_theirs = np.corrcoef([columns[parcel + 1] for parcel in np.flatnonzero(known)])
    np.testing.assert_allclose(found.connectome()[np.ix_(known, known)], of_theirs, atol=1e-4)


def test_a_parcel_that_is_hardly_covered_is_unknown(run):
    found = parcel_series(run, blocks(FSL))
    hardly = found.coverage < 0.5
    assert 0 < hardly.sum() < len(hardly)
    assert np.isnan(found.series[:, hardly]).all()
    assert not np.isnan(found.series[:, ~hardly]).any()
    counts = np.bincount(blocks(FSL).numbers[run.brain], minlength=len(blocks(FSL)) + 1)[1:]
    np.testing.assert_allclose(found.coverage, counts / np.bincount(blocks(FSL).numbers)[1:])
