"""--timeseries: parcels' series beside the embeddings, under XCP-D's names, and as a baseline of the group level."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import AFFINE, FSL_SPACE, SHAPE, Tree, save, signal

from neurostorm_bids.group.baselines import CONNECTOME, features_of_runs
from neurostorm_bids.group.cohort import read_cohort


def atlas(folder):
    """Eight boxes in the middle of the brain, with names."""
    labels = np.zeros(SHAPE, np.int16)
    for i, corner in enumerate(np.ndindex(2, 2, 2)):
        x, y, z = (10 + 6 * np.array(corner)).tolist()
        labels[x : x + 5, y : y + 5, z : z + 5] = i + 1
    labels[3:5, 3:5, 3:5] = 9  # outside the brain
    (folder / "boxes.tsv").write_text("index\tname\n" + "".join(f"{i}\tbox {i}\n" for i in range(1, 10)))
    return save(folder / "boxes.nii.gz", labels, AFFINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory, narrow):
    """Two people with series of the boxes; (BIDS_DIR, OUT_DIR, the call)."""
    from neurostorm_bids.command.main import main

    folder = tmp_path_factory.mktemp("series")
    tree = Tree(folder / "fmriprep")
    for i in (1, 2):
        tree.run(f"sub-0{i}_task-rest", data=signal(i))
    call = [tree.path, folder / "out", "participant", "--model", narrow, "--timeseries", atlas(folder)]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in call])
    assert not stop.value.code
    return tree.path, folder / "out", call


def of_person(out, ending):
    return out / "sub-01" / "func" / f"sub-01_task-rest_space-{FSL_SPACE}_seg-boxes_{ending}"


def test_tables_say_what_they_are(written):
    out = written[1]
    series = pd.read_csv(of_person(out, "stat-mean_timeseries.tsv"), sep="\t", na_values="n/a")
    about = json.loads(of_person(out, "stat-mean_timeseries.json").read_text())
    assert about["Labels"]["parcel003"] == "box 3"
    assert about["SamplingFrequency"] == pytest.approx(1 / 0.8)
    assert about["Unknown"] == ["parcel009"]
    assert series["parcel009"].isna().all()
    connectome = pd.read_csv(of_person(out, "stat-pearsoncorrelation_relmat.tsv"), sep="\t", index_col="Node")
    known = [f"parcel{i:03d}" for i in range(1, 9)]
    np.testing.assert_allclose(connectome.loc[known, known], series[known].corr(), atol=1e-9)
    coverage = pd.read_csv(of_person(out, "stat-coverage_bold.tsv"), sep="\t", index_col="Node")["coverage"]
    assert coverage["parcel009"] == 0
    assert coverage[known].min() > 0.5


def test_it_is_made_again_only_if_something_changed(written, neurostorm):
    _, out, call = written
    before = of_person(out, "stat-mean_timeseries.tsv").stat().st_mtime_ns
    assert neurostorm(*call)[0] == 0
    assert of_person(out, "stat-mean_timeseries.tsv").stat().st_mtime_ns == before
    of_person(out, "stat-coverage_bold.tsv").unlink()
    assert neurostorm(*call, "--participant-label", "01")[0] == 0
    assert of_person(out, "stat-coverage_bold.tsv").is_file()


def test_the_group_level_takes_them_as_a_baseline(written):
    out = written[1]
    cohort = read_cohort(out, "narrow", None)
    features, notes = features_of_runs(cohort, out, out / "work")
    assert features[CONNECTOME].shape == (2, 9 * 8 // 2)
    of_first = pd.read_csv(
        of_person(out, "stat-pearsoncorrelation_relmat.tsv"), sep="\t", index_col="Node", na_values="n/a"
    )
    assert features[CONNECTOME][0, 0] == pytest.approx(np.arctanh(of_first.loc["parcel002", "parcel001"]))
    assert np.isfinite(features[CONNECTOME]).all()
    assert any(note.startswith("no mean image to compare with") for note in notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Schaefer2018_100Parcels7Networks", f"tpl-{FSL_SPACE}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz. Fetch"),
        ("none.nii.gz", "there is no such file"),
    ],
)  # fmt: skip
def test_an_atlas_that_is_not_there_is_named(tree, tmp_path, neurostorm, narrow, monkeypatch, name, message):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    tree.run()
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--timeseries", name)
    status, _, said = neurostorm(*call)
    assert status == 1
    assert message in said


def test_templateflow_s_atlas_is_taken_by_its_name(tree, tmp_path, neurostorm, narrow, monkeypatch):
    home = tmp_path / "templateflow" / f"tpl-{FSL_SPACE}"
    home.mkdir(parents=True)
    stem = f"tpl-{FSL_SPACE}_res-02_atlas-Own_desc-8Boxes_dseg"
    atlas(home).rename(home / f"{stem}.nii.gz")
    (home / "boxes.tsv").rename(
        home / f"{stem.replace('_res-02', '')}.tsv"
    )  # as TemplateFlow has it, for all resolutions
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home.parent))
    tree.run()
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--timeseries", "Own_8Boxes")
    status, _, said = neurostorm(*call)
    assert status == 0, said
    about = json.loads(next((tmp_path / "o").rglob("*_seg-Own8Boxes_stat-mean_timeseries.json")).read_text())
    assert about["Labels"]["parcel001"] == "box 1"
    assert "Own8Boxes and their Pearson correlations" in " ".join(
        (tmp_path / "o" / "logs" / "CITATION.md").read_text().split()
    )
