"""What --save-grid keeps of a run in the model's grid."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from helpers import FSL_SPACE, RUN

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.gridded_files import is_complete, read_int8, read_motion, write_int8
from neurostorm_bids.encode.motion import motion_of
from neurostorm_bids.resample.grid import FSL


def test_saved_grid_opens_upside_right_and_trains(tree, tmp_path, neurostorm, narrow):
    bold = tree.run(RUN)
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--save-grid", "-w", tmp_path / "work")
    assert neurostorm(*call)[0] == 0
    gridded = to_model_grid(bold, bold.with_name(bold.name.replace("preproc_bold", "brain_mask")))
    volumes = np.asarray(gridded)
    image = nib.load(tmp_path / "o/sub-01/func" / f"{RUN}_space-{FSL_SPACE}_res-2_desc-fsl_bold.nii.gz")
    assert np.array_equal(image.affine, FSL.matrix)
    assert image.get_sform(coded=True)[1] == image.get_qform(coded=True)[1] == 4
    assert image.header.get_zooms()[3] == pytest.approx(0.8)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert np.abs(image.get_fdata() - volumes).max() < 1e-4 * np.ptp(volumes)
    store = tmp_path / "work/neurostorm-grids/sub-01/func" / f"{RUN}_space-{FSL_SPACE}_res-2_desc-fsl_bold.npy"
    stored, about = np.load(store, mmap_mode="r"), json.loads(store.with_suffix(".json").read_text())
    assert stored.dtype == np.int8
    assert stored.shape == (30, len(gridded.brain))  # brain alone
    assert about["Scale"] == pytest.approx(np.abs(volumes).max() / 127)
    assert np.abs(read_int8(store).window(7, 8)[..., 0] - volumes[..., 7]).max() <= about["Scale"] / 2 * 1.001
    _, printed, _ = neurostorm(*call)
    assert "skipped" in printed
    store.unlink()
    _, printed, _ = neurostorm(*call)
    assert "skipped" not in printed
    neurostorm(*call[:-3], "-w", tmp_path / "work", "--clean-workdir")
    assert not store.exists()


def test_a_store_tells_the_head_motion_of_windows(tree, tmp_path):
    """That of the run itself; displacement that is not known of a volume stays unknown."""
    bold = tree.run(RUN)
    gridded = to_model_grid(bold, bold.with_name(bold.name.replace("preproc_bold", "brain_mask")))
    displacement = np.array([np.nan, *np.linspace(0.1, 1.0, 11)])
    run = replace(gridded, displacement=displacement)
    write_int8(tmp_path / "store.npy", run, "x")
    stored = read_motion(tmp_path / "store.npy")
    starts = np.arange(0, 25)
    expected, found = (motion_of(each, starts, 6, 0.4) for each in (run, stored))
    np.testing.assert_array_equal(found.above, expected.above)
    np.testing.assert_array_equal(found.mean, expected.mean)
    write_int8(tmp_path / "store.npy", replace(run, displacement=None), "x")
    assert read_motion(tmp_path / "store.npy").displacement is None
    assert is_complete(tmp_path / "store.npy")
