"""Multi-echo data: the combination, or one echo that was asked for."""

import json

import itk
import nibabel as nib
import numpy as np
import pytest
from helpers import FSL_SPACE, signal

from neurostorm_bids.derivatives.tables import channels_of, read_table

ECHO = "sub-01_task-rest_echo-2"


@pytest.fixture
def echoes(tree, tmp_path):
    """A run of three echoes in the BOLD series' own space; all other files are without an echo, as fMRIPrep has them."""
    for i in (1, 2, 3):
        tree.run(f"sub-01_task-rest_echo-{i}", space="", data=signal(i), confounds=False)
    folder = tree.path / "sub-01" / "func"
    masks = sorted(folder.glob("*brain_mask.nii.gz"))
    masks[0].rename(folder / "sub-01_task-rest_desc-brain_mask.nii.gz")
    for mask in masks[1:]:
        mask.unlink()
    values = "\n".join(["framewise_displacement", "n/a", *["0.2"] * 11])
    (folder / "sub-01_task-rest_desc-confounds_timeseries.tsv").write_text(values + "\n")
    identity = itk.affine_transform(np.eye(4))
    itk.write(folder / "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt", identity)
    grid = nib.affines.from_matvec(np.diag([60.0] * 3), [-120, -160, -100])
    field = itk.field_transform(np.zeros((5, 6, 5, 3)), grid)
    anat = tree.path / "sub-01" / "anat"
    itk.write(anat / f"sub-01_from-T1w_to-{FSL_SPACE}_mode-image_xfm.h5", identity, field)
    (tmp_path / "filter.json").write_text('{"bold": {"echo": 2}}')
    return tree


def test_one_echo_is_processed_with_the_files_that_all_echoes_share(echoes, tmp_path, neurostorm, narrow):
    call = (echoes.path, tmp_path / "o", "participant", "--model", narrow)
    status, _, said = neurostorm(*call, "--bids-filter-file", tmp_path / "filter.json")
    assert status == 0, said
    path = next((tmp_path / "o").rglob(f"{ECHO}_*_embeddings.json"))
    sources = json.loads(path.read_text())["Sources"]
    names = [source.rsplit("/", 1)[1] for source in sources]
    assert names[:2] == [f"{ECHO}_desc-preproc_bold.nii.gz", "sub-01_task-rest_desc-brain_mask.nii.gz"]
    assert "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt" in names
    table = read_table(path.with_suffix(".tsv"))
    assert table["mean_framewise_displacement"].tolist() == pytest.approx([0.2] * len(table))
    # the same series under the name of a run, in the grid's own space
    plain = type(echoes)(tmp_path / "plain")
    plain.run("sub-01_task-rest", data=signal(2))
    neurostorm(plain.path, tmp_path / "p", "participant", "--model", narrow)
    same = read_table(next((tmp_path / "p").rglob("func/*_embeddings.tsv")))
    np.testing.assert_allclose(channels_of(table), channels_of(same), rtol=1e-3, atol=1e-4)


def test_single_echoes_without_a_combination_are_refused(echoes, tmp_path, neurostorm, narrow):
    status, _, said = neurostorm(echoes.path, tmp_path / "o", "participant", "--model", narrow)
    assert status == 1
    assert "sub-01_task-rest: only single echoes are there, not their combination" in said
