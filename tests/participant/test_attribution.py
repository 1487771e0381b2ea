"""--attribution, from the command to maps, tables, report and group: left is left, and what fails is said in red."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import AFFINE, Tree, ellipsoid, save, signal
from nibabel.affines import apply_affine

from neurostorm_bids.derivatives.attribution_files import mean_of_others
from neurostorm_bids.group.sign_flips import label_test, sign_flip_test, t_values
from neurostorm_bids.model.load import load_model
from neurostorm_bids.resample.grid import FSL

LAS = AFFINE @ np.array([[-1.0, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def left_alone(seed, affine, n_volumes=14):
    """A run in which only the left half of the brain changes over time."""
    data = signal(seed, n_volumes=n_volumes)
    x = apply_affine(affine, np.indices(data.shape[:3]).reshape(3, -1).T)[:, 0].reshape(data.shape[:3])
    data[x >= 0] = data[x >= 0][:, :1]
    return data


@pytest.fixture(scope="module")
def explained(tmp_path_factory, narrow):
    """Two people, stored RAS and LAS, explained by a network with random weights."""
    from neurostorm_bids.command.main import main

    folder = tmp_path_factory.mktemp("explained")
    tree = Tree(folder / "fmriprep")
    for i, affine in enumerate((AFFINE, LAS)):
        tree.run(f"sub-{i + 1:02d}_task-rest", data=left_alone(i, affine), affine=affine)
    (tree.path / "participants.tsv").write_text("participant_id\tage\nsub-01\t20\nsub-02\t30\n")
    call = (tree.path, folder / "out", "participant", "--model", narrow, "--attribution", "--attribution-windows", "2")
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in call])
    assert not stop.value.code
    return tree.path, folder / "out", call


def of_subject(out, label, ending, baseline="OwnMean"):
    return next((out / f"sub-{label}" / "func").glob(f"*_stat-attribution{baseline}_{ending}"))


@pytest.mark.parametrize("label", ["01", "02"])
def test_left_is_left(explained, label):
    image = nib.load(of_subject(explained[1], label, "statmap.nii.gz"))
    values = np.asarray(image.dataobj)
    x = apply_affine(image.affine, np.argwhere(np.abs(values) > 0.02 * np.abs(values).max()))[:, 0]
    edge = 24  # mm, of this network's patches, over which values are spread
    assert (x < edge).all()
    assert (x < -edge).any()
    table = pd.read_csv(of_subject(explained[1], label, "statmap.tsv"), sep="\t")
    of_side = table.groupby(table["name"].str.startswith("left"))["attribution"].apply(lambda v: v.abs().sum())
    assert of_side[True] > 5 * of_side[False]


def test_a_map_sums_to_what_the_run_adds(explained):
    about = json.loads(of_subject(explained[1], "01", "statmap.json").read_text())
    added = np.mean([window["Output"] - window["OfBaseline"] for window in about["Windows"]])
    total = np.asarray(nib.load(of_subject(explained[1], "01", "statmap.nii.gz")).dataobj).sum(dtype=float)
    worst = max(window["CompletenessError"] for window in about["Windows"])
    assert total == pytest.approx(added, abs=1.01 * worst * abs(added) + 1e-6)
    assert about["Explained"]["Output"] == "sex: Male rather than Female"
    assert about["Baseline"] == "own-mean"
    assert {check["Name"] for check in about["Checks"]} == {
        "completeness", "split halves of windows", "agreement with occlusion", "randomised weights", "deletion and insertion", "permuted labels",
        "better than chance",
    }  # fmt: skip


def test_parcels_have_courses(explained):
    course = pd.read_csv(of_subject(explained[1], "01", "timeseries.tsv"), sep="\t")
    table = pd.read_csv(of_subject(explained[1], "01", "statmap.tsv"), sep="\t")
    assert len(course) == 6
    sums = course.drop(columns="onset").sum()
    np.testing.assert_allclose(sums.to_numpy(), table["attribution"], atol=1e-5)


def test_the_report_says_what_failed_in_red(explained):
    out = explained[1]
    page = (out / "sub-01.html").read_text()
    assert "Where in the brain: sex: Male rather than Female (logit), from own-mean" in page
    assert "can identify that person" in page
    about = json.loads(of_subject(out, "01", "statmap.json").read_text())
    failed = [check for check in about["Checks"] if check["Passed"] is False]
    assert len(re.findall("This map fails a check", page)) == len(failed)
    split = next(check for check in about["Checks"] if check["Name"].startswith("split"))
    figures = list(out.glob("sub-01/figures/*AttributionOwnMean_bold.png"))
    assert bool(figures) == (split["Passed"] is True)
    assert ("No map is drawn" in page) == (not figures)


def test_the_methods_text_tells_how(explained):
    text = re.sub(r"\s+", " ", (explained[1] / "logs" / "CITATION.md").read_text())
    assert "integrated gradients [@integrated] in 2 windows" in text
    assert "from the run's own mean image to the run" in text
    bib = (explained[1] / "logs" / "CITATION.bib").read_text()
    assert "Axiomatic Attribution" in bib


def test_random_weights_do_not_pass_as_trained(explained):
    # what a network with random weights shows is what another one shows: not all checks can pass
    for label in ("01", "02"):
        about = json.loads(of_subject(explained[1], label, "statmap.json").read_text())
        assert any(check["Passed"] is False for check in about["Checks"])


@pytest.mark.heavy
def test_it_is_not_done_twice_and_baselines_stand_beside_each_other(explained, tmp_path, neurostorm):
    out = tmp_path / "out"
    shutil.copytree(explained[1], out)
    call = (explained[2][0], out, *explained[2][2:])
    assert "explaining" not in neurostorm(*call)[2]
    status, _, said = neurostorm(*call, "--participant-label", "01", "--attribution-baseline", "own-mean", "zero")
    assert status == 0
    assert "from own-mean" not in said
    assert "from zero" in said
    abouts = [json.loads(of_subject(out, "01", "statmap.json", name).read_text()) for name in ("OwnMean", "Zero")]
    assert [about["Baseline"] for about in abouts] == ["own-mean", "zero"]
    page = (out / "sub-01.html").read_text()
    assert page.index(", from own-mean</h3>") < page.index(", from zero</h3>")
    status, _, said = neurostorm(*call, "--attribution-baseline", "mean")
    assert status != 0
    assert "'mean' is not one of 'own-mean', 'group-mean', 'zero'" in said


def test_the_group_averages_people(explained, neurostorm, narrow):
    data, out, _ = explained
    status, _, said = neurostorm(data, out, "group", "--group-task", "attribution", "--model", narrow)
    assert status == 0, said
    table = pd.read_csv(out / "group_desc-narrow_attributionOwnMean.tsv", sep="\t").set_index("parcel")
    people = [pd.read_csv(of_subject(out, f"0{i}", "statmap.tsv"), sep="\t") for i in (1, 2)]
    mean = np.mean([person["attribution"] for person in people], axis=0)
    np.testing.assert_allclose(table.sort_index()["mean"], mean, rtol=1e-5, atol=1e-9)
    assert (table["p_fwe"] >= 2 / 4).all()  # of two people there are four flips
    assert "2 people" in (out / "group_desc-narrow_attribution.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attribution-baseline", "group-mean"), "run the participant level with --save-grid first"),
        (("--attribution-parcels", "ATLAS"), "fewer than two parcels"),
    ],
)
def test_what_is_missing_is_said(tree, tmp_path, neurostorm, narrow, options, message):
    tree.run()
    save(tmp_path / "atlas.nii.gz", ellipsoid().astype(np.int16), AFFINE)
    options = [str(tmp_path / "atlas.nii.gz") if word == "ATLAS" else word for word in options]
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--attribution", *options)
    assert status == 1
    assert message in said
    tables = [table.read_text() for table in (tmp_path / "o" / "sub-01").glob("*_embeddings.tsv")]
    # an atlas is looked at before any run; what others' runs lack is seen later, and then the run was embedded all the same
    assert ["sub-01_task-rest" in text for text in tables] == ([True] if "group-mean" in options else [])


def test_maps_of_other_settings_leave_the_report(explained, tmp_path, neurostorm):
    _, out, call = explained
    shutil.copytree(out, tmp_path / "out")
    again = [*call[:1], tmp_path / "out", *call[2:5], "--target-tr", "native"]
    assert neurostorm(*again, "--participant-label", "01")[0] == 0
    assert "Where in the brain" not in (tmp_path / "out" / "sub-01.html").read_text()
    assert of_subject(tmp_path / "out", "01", "statmap.json").is_file()


@pytest.mark.heavy
def test_another_atlas_takes_the_place_of_the_first(explained, tmp_path, neurostorm):
    _, out, call = explained
    shutil.copytree(out, tmp_path / "out")
    labels = np.zeros(FSL.shape, np.int16)
    labels[:48], labels[48:] = 1, 2
    save(tmp_path / "atlas-halves_dseg.nii.gz", labels, FSL.matrix)
    again = (call[0], tmp_path / "out", *call[2:], "--attribution-parcels", tmp_path / "atlas-halves_dseg.nii.gz")
    assert neurostorm(*again, "--participant-label", "01")[0] == 0
    tables = list((tmp_path / "out" / "sub-01" / "func").glob("*_seg-*"))
    assert len(tables) == 2
    assert all("seg-halves" in table.name for table in tables)


def test_the_mean_of_a_group_is_that_of_other_people(tree, tmp_path, neurostorm, narrow):
    for i in (1, 2, 3):
        tree.run(f"sub-0{i}_task-rest", data=signal(i))
    out = tmp_path / "o"
    assert neurostorm(tree.path, out, "participant", "--model", narrow, "--save-grid", "--target-tr", "native")[0] == 0
    means = [
        np.asarray(nib.load(next((out / f"sub-0{i}" / "func").glob("*_desc-fsl_bold.nii.gz"))).dataobj).mean(axis=-1)
        for i in (2, 3)
    ]
    found = mean_of_others(out / "work", FSL, "01")
    assert np.abs(found.others - np.mean(means, axis=0)).max() < 0.05  # stores have 127 steps to each side
    assert found.people == ("sub-02", "sub-03")


@pytest.mark.heavy
def test_the_mean_image_of_others_is_what_a_run_is_compared_with(tree, tmp_path, neurostorm, narrow):
    for i in (1, 2):
        tree.run(f"sub-0{i}_task-rest", data=(1 + 0.2 * i) * signal(i, n_volumes=14))
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow)
    assert neurostorm(*call, "--save-grid")[0] == 0
    more = (
        "--attribution",
        "--attribution-baseline",
        "group-mean",
        "--attribution-windows",
        "1",
        "--participant-label",
        "01",
    )
    status, _, said = neurostorm(*call, *more)
    assert status == 0, said
    about = json.loads(of_subject(tmp_path / "o", "01", "statmap.json", "GroupMean").read_text())
    assert about["BaselinePeople"] == ["sub-02"]
    ours, theirs = (
        np.asarray(nib.load(next((tmp_path / "o" / f"sub-0{i}" / "func").glob("*_desc-fsl_bold.nii.gz"))).dataobj)
        for i in (1, 2)
    )
    brain = (ours != ours[0, 0, 0, 0]).any(axis=3)  # a corner is background
    model = load_model(str(narrow), "cpu")
    clip = ours[..., : model.network.config.n_frames].copy()
    clip[brain] = theirs[brain].mean(axis=1, keepdims=True)
    with torch.inference_mode():
        expected = model.network.output_head(model.network.embed(torch.from_numpy(clip.astype(np.float32))[None, None]))
    assert about["Windows"][0]["OfBaseline"] == pytest.approx(float(expected[0, -1]), abs=0.02)
    added = about["Windows"][0]["Output"] - about["Windows"][0]["OfBaseline"]
    total = np.asarray(nib.load(of_subject(tmp_path / "o", "01", "statmap.nii.gz", "GroupMean")).dataobj).sum(
        dtype=float
    )
    assert total == pytest.approx(added, rel=0.06)


def test_an_embedding_alone_cannot_be_explained(tree, tmp_path, neurostorm):
    from helpers import narrow_model

    tree.run()
    bare = narrow_model(tmp_path / "bare.ckpt")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", bare, "--attribution")
    assert status == 1
    assert "has no head" in said
    assert "--group-task probe" in said


def test_without_maps_the_group_says_how_to_make_them(tree, tmp_path, neurostorm, narrow):
    for i in (1, 2):
        tree.run(f"sub-0{i}_task-rest")
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "group", "--group-task", "attribution", "--model", narrow)
    assert status == 1
    assert "--attribution" in said


def test_a_null_is_called_significant_as_often_as_stated():
    rng = np.random.RandomState(0)
    hits = [(sign_flip_test(rng.standard_normal((15, 40)), 199, seed)[1] <= 0.05).any() for seed in range(200)]
    assert 0.01 <= np.mean(hits) <= 0.10


def test_families_flip_together():
    rng = np.random.RandomState(0)
    families = np.repeat(np.arange(20), 2)
    nulls = [np.repeat(rng.standard_normal((20, 30)), 2, axis=0) for _ in range(200)]
    together = [(sign_flip_test(each, 199, i, families)[1] <= 0.05).any() for i, each in enumerate(nulls)]
    alone = [(sign_flip_test(each, 199, i)[1] <= 0.05).any() for i, each in enumerate(nulls)]
    assert np.mean(together) <= 0.10
    assert np.mean(alone) > 0.5


def test_labels_that_change_places_tell_5_percent_of_nulls_and_find_a_difference():
    rng, y = np.random.RandomState(0), np.arange(24) % 2.0
    hits = []
    for _ in range(200):
        orders = [rng.permutation(24) for _ in range(199)]
        hits.append((label_test(rng.standard_normal((24, 30)), y, orders)[1] <= 0.05).any())
    assert 0.01 <= np.mean(hits) <= 0.10
    values = rng.standard_normal((24, 30))
    values[:, 3] += 2 * (2 * y - 1)
    r, p = label_test(values, y, orders)
    assert np.flatnonzero(p <= 0.05).tolist() == [3]
    assert r[3] == pytest.approx(np.corrcoef(values[:, 3], y)[0, 1])


def test_flips_of_few_people_are_all_made():
    values = np.array([[1.0, -2], [2, 1], [3, 0.5]])
    t, p, n = sign_flip_test(values, 999, 0)
    assert n == 8
    assert p[0] == 2 / 8
    assert t[0] == pytest.approx(values[:, 0].mean() / (values[:, 0].std(ddof=1) / 3**0.5))
    assert t_values(np.ones((3, 1)))[0] == 0
