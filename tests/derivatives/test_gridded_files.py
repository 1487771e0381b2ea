"""What --save-grid keeps of a run in the model's grid."""

import json

import nibabel as nib
import numpy as np
import pytest
from helpers import FSL_SPACE, RUN

from neurostorm_bids import to_model_grid
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
