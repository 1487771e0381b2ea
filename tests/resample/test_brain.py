"""What is the brain, and whether it is where it should be."""

from dataclasses import replace

import itk
import nibabel as nib
import numpy as np
import pytest
from helpers import AFFINE, RUN, ellipsoid, save, signal

from neurostorm_bids import to_model_grid
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.resample.grid import FSL


def test_nan_outside_the_brain_does_no_harm(tree, tmp_path):
    data = signal()
    bold = tree.run(RUN, data=np.where(ellipsoid()[..., None] == 0, np.nan, data).astype(np.float32))
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


def test_a_brain_outside_the_grid_is_reported(tmp_path):
    half = replace(FSL, name="half", shape=(48, 96, 96))  # the right side
    bold, mask = save(tmp_path / "b.nii.gz", signal(), AFFINE, 2.0), save(tmp_path / "m.nii.gz", ellipsoid())
    gridded = to_model_grid(bold, mask, grid=half)
    assert gridded.steps["BrainOutsideGrid"] > 0.3
    assert any("of the brain lies outside the grid" in note for note in gridded.notes)


def test_a_few_voxels_are_no_brain_and_half_a_brain_is_reported(tmp_path):
    few, slab = np.zeros_like(ellipsoid()), ellipsoid()
    few[15:17, 18:20, 16:18] = 1
    slab[:, :, :18] = 0
    bold = save(tmp_path / "b.nii.gz", signal(), repetition_time=2.0)
    with pytest.raises(NeurostormError, match="too few to encode"):
        to_model_grid(bold, save(tmp_path / "few.nii.gz", few))
    gridded = to_model_grid(bold, save(tmp_path / "slab.nii.gz", slab))
    assert any("the run covers only" in note for note in gridded.notes)


def test_a_mask_with_another_affine_is_reported_with_the_distance(tmp_path):
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
