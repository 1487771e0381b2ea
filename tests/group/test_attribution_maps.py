"""What the group level makes of people's maps: where they go with the target, families, two baselines beside each other."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import Results

from neurostorm_bids.find.dataset import find_selected
from neurostorm_bids.find.participants import read_phenotype
from neurostorm_bids.group.connectome_weights import strength_of_parcels
from neurostorm_bids.group.halves import agreement_of_halves
from neurostorm_bids.group.study import Study
from neurostorm_bids.resample.grid import FSL
from neurostorm_bids.resample.parcels import blocks
from neurostorm_bids.settings import Settings

N, PLANTED, ALIKE = 16, 40, 7
PARCELS = blocks(FSL)


def write_map(results, name, values, baseline, added, others=(), passed=True):
    """Write the map of one run as the participant level does: each parcel's value in its first voxel."""
    table = next(results.out.rglob(f"{name}_*_embeddings.tsv"))
    stem = table.name.removesuffix("_embeddings.tsv")
    stat = f"stat-attribution{baseline.title().replace('-', '')}"
    volume = np.zeros(FSL.shape, np.float32)
    for parcel, value in enumerate(values):
        volume.flat[(PARCELS.numbers == parcel + 1).argmax()] = value
    nib.save(nib.Nifti1Image(volume, FSL.matrix), table.with_name(f"{stem}_{stat}_statmap.nii.gz"))
    columns = {"voxels": 100, "attribution": values, "attribution_random_weights": 0.0}
    rows = pd.DataFrame({"name": PARCELS.labels, **columns})
    of_parcels = f"{stem}_{stat}_statmap.tsv".replace("_desc-", f"_seg-{PARCELS.name}_desc-")
    rows.to_csv(table.with_name(of_parcels), sep="\t", index=False)
    about = {
        "SettingsHash": "x",
        "InputFiles": {},
        "Explained": {"Output": "sex: M rather than F", "Unit": "logit", "Class": "M"},
        "Baseline": baseline,
        "BaselinePeople": list(others) or None,
        "ShareOutsideParcels": 0.125,
        "Atlas": PARCELS.name,
        "Model": {"WeightsSHA256": "x"},
        "Windows": [{"Onset": 0.0, "Output": added, "OfBaseline": 0.0}],
        "Checks": [{"Name": "completeness", "Passed": True}, {"Name": "split halves of windows", "Passed": passed}],
    }
    table.with_name(f"{stem}_{stat}_statmap.json").write_text(json.dumps(about))


@pytest.fixture
def people(tmp_path):
    """Sixteen people whose maps differ between the sexes in one parcel, and are alike in another."""
    results = Results(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for i in range(N):
        name, y = f"sub-{i:02d}_task-rest", i % 2
        results.add(name)
        rows.append(f"sub-{i:02d}\t{'FM'[y]}\tf{i // 4}")
        values = 0.1 * rng.standard_normal(len(PARCELS))
        values[PLANTED] += 2 * y - 1
        values[ALIKE] += 0.5
        write_map(results, name, values, "own-mean", 2.0 * y)
        write_map(results, name, values, "group-mean", 2.0 * y + 3 * (i // 8))
    (results.raw / "participants.tsv").write_text("participant_id\tsex\tfamily\n" + "\n".join(rows) + "\n")
    return results


def attribution_of(people, neurostorm, *options):
    call = (people.raw, people.out, "group", "--group-task", "attribution", "--model", "base", *options)
    status, printed, said = neurostorm(*call)
    assert status == 0, said
    page = " ".join((people.out / "group_desc-base_attribution.html").read_text().split())
    return printed, page, pd.read_csv(people.out / "group_desc-base_attributionOwnMean.tsv", sep="\t")


def test_what_cancels_in_the_mean_is_found_by_the_target(people, neurostorm):
    printed, _, table = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "199")
    assert table.loc[0, "parcel"] == PLANTED + 1
    assert table.loc[0, "p_fwe_target"] == pytest.approx(1 / 200)
    assert table.loc[0, "p_fwe"] > 0.05
    assert (table["p_fwe_target"] <= 0.05).sum() == 1
    assert "It goes with the target (M minus F, 16 people) in 1 parcel" in printed
    y = np.arange(N) % 2
    volumes = [nib.load(next(people.out.rglob(f"sub-{i:02d}_*OwnMean_statmap.nii.gz"))).get_fdata() for i in range(N)]
    assert table.loc[0, "r_target"] == pytest.approx(
        np.corrcoef([v.flat[(PARCELS.numbers == PLANTED + 1).argmax()] for v in volumes], y)[0, 1], abs=1e-4
    )


def test_without_a_target_the_page_says_what_the_mean_cannot_tell(people, neurostorm):
    _, page, table = attribution_of(people, neurostorm)
    assert "r_target" not in table
    assert "without --target the mean over people alone is tested" in page


def test_two_baselines_say_whether_people_differ_in_anatomy(people, neurostorm):
    _, page, _ = attribution_of(people, neurostorm)
    spread = [np.std(values, ddof=1) for values in (3.0 * (np.arange(N) // 8), 2.0 * (np.arange(N) % 2))]
    assert (people.out / "group_desc-base_attributionGroupMean.tsv").is_file()
    assert (
        f"(anatomy, and whatever else stands still) with {spread[0]:.3g}, what changes over time with {spread[1]:.3g}"
        in page
    )


def test_families_are_few(people, neurostorm):
    _, page, _ = attribution_of(people, neurostorm, "--group-by", "family", "--exchange", "between")
    assert "4 families, 16 flips of signs: none can reach p" in page


def test_families_stay_together_whatever_may_change_places(people, neurostorm):
    _, page, _ = attribution_of(people, neurostorm, "--group-by", "family", "--exchange", "within")
    assert "4 families, 16 flips of signs: none can reach p" in page


def change(people, **facts):
    """Change facts in the sidecars of the first person's maps."""
    for path in people.out.rglob("sub-00_*_statmap.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_map_of_other_settings_than_the_embeddings_is_left_out(people, neurostorm):
    change(people, SettingsHash="y")
    printed, _, _ = attribution_of(people, neurostorm)
    assert "in 15 people" in printed


@pytest.mark.parametrize(
    "damage",
    [
        lambda people: change(people, Checks=None),
        lambda people: change(people, Windows=[{"Onset": "?"}]),
        lambda people: next(people.out.rglob("sub-00_*OwnMean_statmap.nii.gz")).write_bytes(b"\x1f\x8b\x08"),
        lambda people: next(people.out.rglob("sub-00_*seg-*OwnMean_statmap.tsv")).write_text("name\tvoxels\n"),
    ],
)
def test_damaged_maps_are_named(people, neurostorm, damage):
    damage(people)
    status, _, said = neurostorm(people.raw, people.out, "group", "--group-task", "attribution", "--model", "base")
    assert status == 1
    assert "sub-00_task-rest" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (False, "8 of 16 maps fail the check split halves of windows: do not read the mean map without it"),
        (None, "of 8 of 16 maps the check split halves of windows is open"),
    ],
)
def test_maps_that_fail_or_are_not_checked_are_not_drawn(people, neurostorm, passed, words):
    attribution_of(people, neurostorm, "--attribution-voxels", "--n-permutations", "9")
    assert len(list(people.out.glob("*attributionOwnMean*_statmap.nii.gz"))) == 3
    for i in range(8):
        write_map(people, f"sub-{i:02d}_task-rest", np.zeros(len(PARCELS)), "own-mean", 0.0, passed=passed)
    _, page, _ = attribution_of(people, neurostorm)
    assert words in page
    assert "No map is drawn." in page
    assert not list(people.out.glob("*attributionOwnMean*_statmap.nii.gz"))
    assert not list(people.out.glob("group/figures/*attributionOwnMean*"))
    assert list(people.out.glob("*attributionGroupMean_statmap.nii.gz"))


def test_a_mean_that_halves_of_the_people_do_not_share_is_not_drawn_beside_a_contrast_that_they_do(people, neurostorm):
    for i in range(N):
        values = 0.1 * np.random.default_rng(i).standard_normal(len(PARCELS))
        values[PLANTED] += 2 * (i % 2) - 1
        write_map(people, f"sub-{i:02d}_task-rest", values, "own-mean", 0.0)
    _, page, _ = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "39")
    assert re.search(
        r"two halves of the people tell different things of the mean \(r = -?0.[012]\d; 0.3 is asked for\)", page
    )
    assert re.search(r"two halves of the people correlate with r = 0.[3-9]\d in the M minus F", page)
    drawn = [path.name for path in people.out.glob("*OwnMean*_statmap.nii.gz")]
    assert drawn == ["group_desc-base_attributionOwnMean_stat-contrast_statmap.nii.gz"]


def test_two_runs_of_a_person_that_tell_different_things_are_red(people, neurostorm):
    rng = np.random.default_rng(9)
    for i in range(N):
        people.add(f"sub-{i:02d}_task-motor")
        write_map(people, f"sub-{i:02d}_task-motor", rng.standard_normal(len(PARCELS)), "own-mean", 0.0)
    _, page, _ = attribution_of(people, neurostorm)
    assert "two runs of a person tell different things (median r = " in page


def test_halves_keep_families_whole_and_agree_as_far_as_people_do():
    rng, shared = np.random.default_rng(0), np.random.default_rng(1).standard_normal(400)
    values = shared + 2 * rng.standard_normal((20, 400))
    found = agreement_of_halves(np.arange(20), lambda some: values[some].mean(axis=0), 0)
    assert found == pytest.approx(1 / (1 + 4 / 10), abs=0.06)  # variance of a mean of ten people
    families = np.repeat(np.arange(5), 4)
    seen = []
    agreement_of_halves(families, lambda some: seen.append(set(families[some])) or shared, 0)
    assert all(not one & other for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert agreement_of_halves(np.arange(3), lambda _: shared, 0) is None
    assert agreement_of_halves(np.arange(9), lambda _: np.zeros(4), 0) == 0


def test_the_contrast_has_a_map_and_a_viewer_of_its_own(people, neurostorm):
    attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "39")
    name = "group_desc-base_attributionOwnMean_stat-contrast"
    volumes = [nib.load(next(people.out.rglob(f"sub-{i:02d}_*OwnMean_statmap.nii.gz"))).get_fdata() for i in range(N)]
    expected = np.mean(volumes[1::2], axis=0) - np.mean(volumes[::2], axis=0)
    np.testing.assert_allclose(nib.load(people.out / f"{name}_statmap.nii.gz").get_fdata(), expected, atol=1e-6)
    viewer = (people.out / f"{name}_viewer.html").read_text()
    assert "M minus F" in viewer
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", viewer)  # it works without a network


def test_a_test_that_cannot_reach_significance_says_so(people, neurostorm):
    _, page, _ = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "9")
    assert "10 orders of the labels: none can reach p" in page


def write_connectome(results, name, connections):
    """Write the correlations of one run as --timeseries does."""
    table = next(results.out.rglob(f"{name}_*_embeddings.tsv"))
    stem = table.name.partition("_desc-")[0]
    matrix = pd.DataFrame(connections, columns=PARCELS.labels)
    matrix.insert(0, "Node", PARCELS.labels)
    path = table.with_name(f"{stem}_seg-{PARCELS.name}_stat-pearsoncorrelation_relmat.tsv")
    matrix.to_csv(path, sep="\t", index=False)


def test_maps_stand_beside_the_connectome_that_timeseries_wrote(people, neurostorm):
    """In the connectome, the sexes differ in all connections of the parcel in which their maps do."""
    _, page, _ = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "9")
    assert "atlas with --timeseries" in page
    rng, n = np.random.default_rng(1), len(PARCELS)
    for i in range(N):
        connections = 0.05 * rng.standard_normal((n, n))
        connections[PLANTED] += 0.3 * (2 * (i % 2) - 1)
        connections = np.tril(connections, -1) + np.tril(connections.T, -1)
        write_connectome(people, f"sub-{i:02d}_task-rest", connections + connections.T + np.eye(n))
    settings = Settings.of(
        people.raw, people.out, analysis_level="group", model=("base",), target=("sex",), group_task="attribution"
    )
    dataset = find_selected(people.raw, settings.selection)
    strength = strength_of_parcels(Study(dataset, read_phenotype(dataset, None), "base", settings), PARCELS)
    assert strength.argmax() == PLANTED
    assert strength[PLANTED] > 3 * np.delete(strength, PLANTED).max()
    _, page, _ = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "9")
    assert "weight of its connections in a ridge regression on the connectome" in page


def test_a_target_that_is_not_known_fails(people, neurostorm):
    call = (people.raw, people.out, "group", "--group-task", "attribution", "--model", "base", "--target", "nosuch")
    status, _, said = neurostorm(*call)
    assert status == 1
    assert "nosuch" in said


def test_people_whom_the_model_saw_are_compared_only_on_request(people, neurostorm):
    for path in people.out.rglob("*_embeddings.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"SeenInTraining": True}))
    _, page, table = attribution_of(people, neurostorm, "--target", "sex", "--n-permutations", "39")
    assert "r_target" not in table
    assert "the model was trained on 16 subjects of these" in page
    assert "r_target" in attribution_of(people, neurostorm, "--target", "sex", "--allow-seen")[2]


def test_different_people_behind_a_baseline_are_mentioned(people, neurostorm):
    write_map(people, "sub-00_task-rest", np.ones(len(PARCELS)), "group-mean", 0.0, others=["sub-01"])
    write_map(people, "sub-01_task-rest", np.ones(len(PARCELS)), "group-mean", 0.0, others=["sub-02"])
    _, page, _ = attribution_of(people, neurostorm)
    assert "the mean images of different people" in page
