"""A data set with surfaces alone: the message names the file to ask fMRIPrep for."""

import pytest


@pytest.mark.parametrize("name", ["space-fsLR_den-91k_bold.dtseries.nii", "hemi-L_space-fsaverage_bold.func.gii"])
def test_surfaces_alone_are_not_enough(tree, tmp_path, neurostorm, name):
    tree.run()
    folder = tree.folder("sub-01_task-rest")
    for each in folder.iterdir():
        each.unlink()
    (folder / f"sub-01_task-rest_{name}").write_bytes(b"surface")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo")
    assert status == 1
    assert f"there are surface data alone, such as sub-01_task-rest_{name}" in said
    assert "space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz" in said
