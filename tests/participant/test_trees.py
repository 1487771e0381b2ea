"""fMRIPrep trees as they really are: what is not beside the series is found, and what cannot be right is refused."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import AFFINE, FSL_SPACE, RUN, ellipsoid, save, signal

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.errors import NeurostormError


@pytest.fixture
def call(tree, tmp_path, neurostorm, narrow):
    """Run the participant level; returns exit status and what was said."""

    def run(*options, out="o", data=None):
        status, _, said = neurostorm(data or tree.path, tmp_path / out, "participant", "--model", narrow, *options)
        return status, said

    return run


def beside(bold, ending):
    return bold.with_name(bold.name.replace("desc-preproc_bold.nii.gz", ending))


def sidecar_in(out):
    return json.loads(next(out.rglob("func/*_embeddings.json")).read_text())


def embeddings_in(out):
    return channels_of(read_table(next(out.rglob("func/*_embeddings.tsv"))))


@pytest.mark.parametrize(
    "name",
    [
        "derivatives/fmriprep/task-rest_bold.json",
        f"derivatives/fmriprep/task-rest_space-{FSL_SPACE}_desc-preproc_bold.json",
        "derivatives/fmriprep/sub-01/sub-01_task-rest_bold.json",
        "task-rest_bold.json",
        "sub-01/func/sub-01_task-rest_bold.json",
    ],
)
def test_a_repetition_time_that_stands_further_up(tmp_path, neurostorm, narrow, name):
    from helpers import Tree

    tree = Tree(tmp_path / "raw" / "derivatives" / "fmriprep")
    tree.run(repetition_time=None, header_repetition_time=0.0)
    (tmp_path / "raw" / "task-nback_bold.json").write_text('{"RepetitionTime": 9.0}')  # of another task
    call = (tmp_path / "raw", tmp_path / "o", "participant", "--model", narrow)
    assert "gives a repetition time above 0" in neurostorm(*call)[2]
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"RepetitionTime": 2.0}')
    status, _, said = neurostorm(*call)
    assert status == 0, said
    sidecar = sidecar_in(tmp_path / "o")
    assert sidecar["Preprocessing"]["SourceRepetitionTime"] == 2.0
    assert any(path.name in source for source in sidecar["Sources"])


@pytest.mark.parametrize("kind", ["same space", "T1w", "template", "none"])
def test_a_run_without_its_own_mask(tree, tmp_path, call, kind):
    bold = tree.run()
    assert call(out="own")[0] == 0
    beside(bold, "desc-brain_mask.nii.gz").unlink()
    anat = tree.path / "sub-01" / "anat"
    moved = AFFINE.copy()
    moved[0, 3] += 12  # the T1w image lies 12 mm to the right
    if kind == "same space":
        save(anat / f"sub-01_space-{FSL_SPACE}_desc-brain_mask.nii.gz", ellipsoid(), AFFINE)
    elif kind == "T1w":
        save(anat / "sub-01_desc-brain_mask.nii.gz", ellipsoid(), moved)
        shift = sitk.AffineTransform(3)
        shift.SetTranslation((-12.0, 0.0, 0.0))  # LPS
        sitk.WriteTransform(
            sitk.CompositeTransform([shift]), str(anat / f"sub-01_from-T1w_to-{FSL_SPACE}_mode-image_xfm.h5")
        )
    status, said = call(*(["--mask", "template"] if kind == "template" else []))
    if kind == "none":
        assert status == 1
        assert "there is no brain mask: neither" in said
        assert "give --mask template" in said
        return
    assert status == 0, said
    whose = {"same space": "the subject's, in the same space", "T1w": "the subject's T1w", "template": "the template's"}
    assert f"the brain mask is {whose[kind]}" in said
    sidecar = sidecar_in(tmp_path / "o")
    assert sidecar["Preprocessing"]["BrainMask"] == whose[kind]
    assert whose[kind] in (tmp_path / "o" / "sub-01.html").read_text().replace("&#39;", "'")
    methods = " ".join((tmp_path / "o" / "logs" / "CITATION.md").read_text().split())
    assert f"The brain mask was {whose[kind]}." in methods
    if kind != "template":  # the same brain, by another way
        np.testing.assert_array_equal(embeddings_in(tmp_path / "o"), embeddings_in(tmp_path / "own"))


def without_orientation(path):
    image = nib.load(path)
    header = image.header.copy()
    data = np.asarray(image.dataobj)
    header["qform_code"] = header["sform_code"] = 0
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0
    bare = nib.Nifti1Image(data, None, header)
    bare.header["qform_code"] = bare.header["sform_code"] = 0
    nib.save(bare, path)


@pytest.mark.parametrize("source", ["boldref", "mask", "nobody"])
def test_a_header_without_orientation(tree, tmp_path, call, source):
    bold = tree.run()
    assert call(out="sound")[0] == 0
    mask = beside(bold, "desc-brain_mask.nii.gz")
    without_orientation(bold)
    if source != "mask":
        without_orientation(mask)
    if source == "boldref":
        save(beside(bold, "boldref.nii.gz"), signal()[..., 0])
    status, said = call()
    if source == "nobody":
        assert status == 1
        assert "neither qform nor sform, so nobody can tell left from right" in said
        assert "--orientation RAS" in said
        return
    assert status == 0, said
    name = "boldref.nii.gz" if source == "boldref" else mask.name
    assert "its header has no orientation; that of" in said
    assert any(name in each for each in sidecar_in(tmp_path / "o")["Sources"])
    np.testing.assert_array_equal(embeddings_in(tmp_path / "o"), embeddings_in(tmp_path / "sound"))


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR"])
def test_an_orientation_that_the_user_knows(tmp_path, axes):
    """Of a series in the shape of the template, whose place is known too."""
    affine = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
    shape = (91, 109, 91)
    world = np.indices(shape).astype(np.float32)
    data = np.stack([1000 + 5 * world[0] + 2 * world[1] + world[2] + 20 * (i % 3) for i in range(6)], axis=-1)
    brain = ellipsoid(shape)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
    )
    images = [nib.Nifti1Image(each, affine).as_reoriented(turn) for each in (data, brain)]
    bold, mask = (save(tmp_path / f"{i}.nii.gz", np.asarray(im.dataobj), im.affine, 2.0) for i, im in enumerate(images))
    expected = to_model_grid(bold, mask).window(0, 10)
    for path in (bold, mask):
        without_orientation(path)
    with pytest.raises(NeurostormError, match="nobody can tell left from right"):
        to_model_grid(bold, mask)
    np.testing.assert_allclose(to_model_grid(bold, mask, orientation=axes).window(0, 10), expected, atol=1e-4)


def test_qform_and_sform_that_differ_are_told(tree, call):
    bold = tree.run()
    image = nib.load(bold)
    moved = AFFINE.copy()
    moved[0, 3] += 6
    image.set_qform(moved, code=1)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), bold)
    status, said = call()
    assert status == 0
    assert "qform and sform put it up to 6 mm apart; the sform is used" in said


def denoised(kind):
    data = signal(n_volumes=20)
    mean = data.mean(axis=3, keepdims=True)
    return {
        "demeaned": data - mean,
        "z-scored": (data - mean) / data.std(axis=3, keepdims=True),
        "percent signal change": 100 * (data - mean) / mean,
        "percent of the mean": 100 * data / mean,
        "grand mean removed": data * (10000 / data.mean()) - 10000,
        "between 0 and 1": (data - data.min(axis=3, keepdims=True)) / np.ptp(data, axis=3, keepdims=True),
    }[kind].astype(np.float32)


@pytest.mark.parametrize(
    "kind",
    ["demeaned", "z-scored", "percent signal change", "percent of the mean", "grand mean removed", "between 0 and 1"],
)
def test_series_of_denoising_tools_are_refused(tree, call, kind):
    bold = tree.run(data=denoised(kind))
    status, said = call()
    assert status == 1
    assert str(bold) in said
    assert "give fMRIPrep's preprocessed series (desc-preproc_bold)" in said


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_bold_of_any_scale_is_bold(tree, call, scale):
    tree.run(data=signal() * np.float32(scale))
    assert call()[0] == 0


def test_a_mean_image_brings_a_denoised_series_back(tree, tmp_path, call):
    bold = tree.run(data=signal(n_volumes=20))
    assert call(out="whole")[0] == 0
    data = signal(n_volumes=20)
    mean = save(tmp_path / "means" / f"{RUN}_mean.nii.gz", data.mean(axis=3))
    save(bold, data - data.mean(axis=3, keepdims=True), repetition_time=2.0)
    pattern = str(tmp_path / "means" / "{run}_mean.nii.gz")
    status, said = call("--mean-from", pattern)
    assert status == 0, said
    assert f"{mean.name} is added to every volume" in said
    sidecar = sidecar_in(tmp_path / "o")
    assert sidecar["Preprocessing"]["MeanAdded"] == mean.name
    assert any(mean.name in source for source in sidecar["Sources"])
    methods = " ".join((tmp_path / "o" / "logs" / "CITATION.md").read_text().split())
    assert "The mean image of each run was added to its series" in methods
    np.testing.assert_allclose(embeddings_in(tmp_path / "o"), embeddings_in(tmp_path / "whole"), atol=1e-4)
    assert "there is no" in call("--mean-from", str(tmp_path / "{sub}.nii.gz"), "--force")[1]
    assert "is none of the run's own" in call("--mean-from", str(tmp_path / "{hair}.nii.gz"), "--force")[1]


@pytest.mark.parametrize("how", ["commas", "text", "table"])
def test_lists_of_labels(tree, tmp_path, call, how):
    for subject in ("01", "02", "03"):
        tree.run(f"sub-{subject}_task-rest")
    (tmp_path / "list.txt").write_text("sub-01\n03\n")
    (tmp_path / "list.tsv").write_text("participant_id\tage\nsub-01\t3\n03\t4\n")
    given = {"commas": "01,sub-03", "text": f"@{tmp_path / 'list.txt'}", "table": str(tmp_path / "list.tsv")}[how]
    assert call("--participant-label", given)[0] == 0
    assert sorted(path.name for path in (tmp_path / "o").glob("sub-*.html")) == ["sub-01.html", "sub-03.html"]


@pytest.mark.parametrize("kind", ["whole", "z-scored"])
def test_a_mean_image_is_not_added_to_what_it_cannot_bring_back(tree, tmp_path, call, kind):
    data = signal(n_volumes=20)
    bold = tree.run(data=data if kind == "whole" else denoised("z-scored"))
    mean = save(tmp_path / "mean.nii.gz", data.mean(axis=3))
    status, said = call("--mean-from", str(mean))
    assert status == 1
    assert str(bold) in said
    expected = {
        "whole": "has its mean already",
        "z-scored": "was z-scored or scaled, and what a mean image cannot bring",
    }
    assert expected[kind] in said


def test_a_mean_image_of_a_run_with_a_number(tree, tmp_path, call):
    data = signal(n_volumes=20)
    tree.run("sub-01_task-rest_run-2", data=data - data.mean(axis=3, keepdims=True))
    save(tmp_path / "sub-01_task-rest_run-2.nii.gz", data.mean(axis=3))
    status, said = call("--mean-from", str(tmp_path / "{run}.nii.gz"))
    assert status == 0, said


@pytest.mark.parametrize("kind", ["spike", "no steady state", "zero volumes", "drift"])
def test_flawed_bold_is_bold(tree, call, kind):
    data = signal(n_volumes=40)
    if kind == "spike":
        data[..., 20] *= 10
    elif kind == "no steady state":
        data[..., 0] *= 4
    elif kind == "zero volumes":
        data[..., 10:14] = 0
    else:
        data *= np.linspace(1, 5, 40, dtype=np.float32)
    tree.run(data=data)
    status, said = call()
    assert status == 0, said


def test_a_mask_without_orientation_on_other_voxels_is_refused(tree, call):
    mask = beside(tree.run(), "desc-brain_mask.nii.gz")
    save(mask, ellipsoid((16, 19, 16)), AFFINE @ np.diag([2.0, 2, 2, 1]))
    without_orientation(mask)
    status, said = call()
    assert status == 1
    assert f"{mask}: the header sets neither qform nor sform" in said


def test_the_affine_of_an_image_with_other_voxels_is_not_taken(tree, call):
    bold = tree.run()
    without_orientation(bold)
    without_orientation(beside(bold, "desc-brain_mask.nii.gz"))
    save(beside(bold, "boldref.nii.gz"), signal()[..., 0], AFFINE @ np.diag([0.5, 0.5, 0.5, 1]))
    status, said = call()
    assert status == 1
    assert "nobody can tell left from right" in said


@pytest.mark.parametrize("given", [",", "empty.tsv", "@empty.txt"])
def test_a_list_without_labels_is_not_everybody(tree, tmp_path, call, monkeypatch, given):
    tree.run()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.tsv").write_text("participant_id\tage\n")
    (tmp_path / "empty.txt").write_text("\n")
    status, said = call("--participant-label", given)
    assert status == 2
    assert "names no label" in said
