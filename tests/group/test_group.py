"""The group level, on a cohort whose labels are planted: in the signal's pattern, in head motion, and nowhere."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import AFFINE, NARROW, SHAPE, Tree, ellipsoid, lightning, random_network, save

from neurostorm_bids.find.participants import join
from neurostorm_bids.group.answers import BEYOND_MOTION, MOTION
from neurostorm_bids.group.cohort import read_cohort
from neurostorm_bids.group.confounds import Confounds
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.heads import fold_heads
from neurostorm_bids.group.labels import labels_of
from neurostorm_bids.group.samples import design_of, samples_of
from neurostorm_bids.settings.group import GroupAnalysis

N = 60


def write_subject(tree, name, pattern, motion, rng):
    """A run whose spatial pattern and whose jerks are of a given strength."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    volume = 1000 + 150 * x + 120 * pattern * (np.hypot(x - 0.3, np.hypot(y, z - 0.2)) < 0.4)
    jerks = 60 * motion * rng.standard_normal(12)[None, None, None] * (y[..., None] > 0.2)
    data = volume[..., None] + jerks + 15 * rng.standard_normal((*SHAPE, 12))
    folder = tree.folder(name)
    stem = folder / f"{name}_space-MNI152NLin6Asym_res-2"
    save(Path(f"{stem}_desc-preproc_bold.nii.gz"), data.astype(np.float32), AFFINE, 2.0)
    save(Path(f"{stem}_desc-brain_mask.nii.gz"), ellipsoid(), AFFINE)
    fd = ["n/a", *(f"{v:.3f}" for v in np.abs(motion + 0.05 * rng.standard_normal(11)))]
    (folder / f"{name}_desc-confounds_timeseries.tsv").write_text("framewise_displacement\n" + "\n".join(fd) + "\n")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """(fMRIPrep's folder, OUT_DIR, phenotype): sixty subjects of one run through the real participant level."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.RandomState(0)
    tree = Tree(folder / "fmriprep")
    pattern, motion = rng.standard_normal(N), 0.1 + 0.4 * rng.random_sample(N)
    rows = []
    for i in range(N):
        write_subject(tree, f"sub-{i:02d}_task-rest", pattern[i], motion[i], rng)
        rows.append({
            "participant_id": f"sub-{i:02d}", "score": round(pattern[i] + 0.3 * rng.standard_normal(), 4),
            "restless": round(motion[i] + 0.02 * rng.standard_normal(), 4), "noise": round(rng.standard_normal(), 4),
            "group": "patient" if pattern[i] > 0.3 else "control", "site": "AB"[i % 2], "family": f"f{i // 2}",
        })  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(tree.path / "participants.tsv", sep="\t", index=False)
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    model = lightning(folder / "narrow.ckpt", network.state_dict(), **NARROW)
    call = [Path(sys.executable).with_name("neurostorm"), tree.path, folder / "out", "participant", "--model", model]
    # one window a run, hence no figure of its course
    quick = ("--window-stride", "11", "--nprocs", "2", "--omp-nthreads", "1")
    done = subprocess.run([*call, *quick], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return tree.path, folder / "out", table


@pytest.fixture
def group(cohort, neurostorm):
    """Call the group level on the cohort; returns the exit status and what it said."""

    def call(*options, model="narrow.ckpt"):
        data, out, _ = cohort
        status, printed, said = neurostorm(data, out, "group", "--model", out.parent / model, *options)
        return status, printed + said

    return call


def samples(cohort, target, **options):
    _data, out, table = cohort
    runs = read_cohort(out, "narrow")
    joined, _ = join(runs.runs, table)
    return samples_of(runs, joined, labels_of(joined, target, **options))


def folds_of(chosen, seed=0):
    labels = chosen.labels
    return Design(labels.y, labels.groups, make_folds(labels.y, labels.groups, False, seed), False, seed)


def test_collect_has_a_row_per_run_with_phenotype_and_quality(cohort, group):
    data, out, phenotype = cohort
    assert group()[0] == 0
    table = pd.read_csv(out / "group_desc-narrow_embeddings.tsv", sep="\t")
    assert len(table) == N
    assert table["score"].tolist() == phenotype["score"].tolist()
    one = pd.read_csv(next(out.glob("sub-07/func/*_embeddings.tsv")), sep="\t", na_values=["n/a"])
    channels = [name for name in one if name.startswith("channel")]
    np.testing.assert_allclose(table.loc[7, channels].to_numpy(float), one[channels].mean(), rtol=1e-5)
    confounds = pd.read_csv(next(data.glob("sub-07/func/*confounds*")), sep="\t", na_values=["n/a"])
    assert table.loc[7, "mean_fd"] == pytest.approx(confounds["framewise_displacement"].mean(), rel=1e-5)
    again = pd.read_parquet(
        out / "group_desc-narrow_embeddings.parquet", engine="fastparquet"
    )  # an independent reader would be pyarrow, which is large
    pd.testing.assert_frame_equal(again[channels].astype(float), table[channels].astype(float), rtol=1e-6)
    page = (out / "group.html").read_text()
    assert "60 of 60 subjects" in page
    assert all((out / figure).is_file() for figure in re.findall('src="(.*?)"', page))


def test_collect_says_who_is_missing_and_who_is_not_in_the_table(cohort, group, tmp_path):
    data, _out, phenotype = cohort
    (data / "sub-99" / "func").mkdir(parents=True, exist_ok=True)
    few = tmp_path / "few.tsv"
    phenotype.iloc[3:].to_csv(few, sep="\t", index=False)
    try:
        status, said = group("--phenotype", few)
    finally:
        (data / "sub-99" / "func").rmdir()
        (data / "sub-99").rmdir()
    assert status == 0
    assert "no results of model 'narrow' for 1 subject: sub-99" in said
    assert "3 subjects with results not in" in said


def test_probe_finds_the_pattern(cohort, group):
    status, said = group("--group-task", "probe", "--target", "score")
    assert status == 0
    assert "The embedding predicts score better than chance, and adds to head motion and covariates" in said
    out = cohort[1]
    metrics = pd.read_csv(out / "group_desc-narrow_target-score_metrics.tsv", sep="\t").set_index(
        ["features", "metric"]
    )
    assert metrics.loc[("embedding", "r"), "value"] > 0.5
    assert metrics.loc[("embedding", "r"), "p_value"] < 0.01
    low, _high = metrics.loc[(MOTION, "r"), ["lower", "upper"]]
    assert low < 0.3
    predictions = pd.read_csv(out / "group_desc-narrow_target-score_predictions.tsv", sep="\t")
    assert np.corrcoef(predictions["target"], predictions["predicted"])[0, 1] == pytest.approx(
        metrics.loc[("embedding", "pooled_r"), "value"]
    )
    assert "--save-grid" in said  # what there is no baseline for, and what would give it
    assert "--model narrow@random" in said


def test_probe_attributes_motion_to_motion(group):
    status, said = group("--group-task", "probe", "--target", "restless")
    assert status == 0
    assert "nothing can be told that it adds to head motion and covariates" in said or "not predict restless" in said


def test_probe_of_noise_is_not_different_from_chance(cohort):
    chosen = samples(cohort, "noise")
    rng = np.random.RandomState(1)
    p_values = []
    for seed in range(20):
        y = rng.standard_normal(N)
        design = replace(folds_of(chosen, seed), y=y)
        p_values.append(evaluate(chosen.embeddings, design, n_permutations=200).p_value)
    assert sum(p > 0.05 for p in p_values) >= 18


def test_probe_of_classes(cohort, group):
    status, _said = group("--group-task", "probe", "--target", "group", "--n-permutations", "4")
    assert status == 0
    out = cohort[1]
    metrics = pd.read_csv(out / "group_desc-narrow_target-group_metrics.tsv", sep="\t").set_index(
        ["features", "metric"]
    )
    assert metrics.loc[("embedding", "AUROC"), "value"] > 0.8
    assert metrics.loc[("embedding", "balanced_accuracy"), "lower"] > 0.5
    predictions = pd.read_csv(out / "group_desc-narrow_target-group_predictions.tsv", sep="\t")
    assert np.allclose(predictions["probability_control"] + predictions["probability_patient"], 1)
    sidecar = json.loads((out / "group_desc-narrow_target-group_metrics.json").read_text())
    assert sidecar["Classes"] == ["control", "patient"]


def test_folds_keep_families_together(cohort):
    chosen = samples(cohort, "score", group_by="family")
    folds = folds_of(chosen).folds[0]
    for family in np.unique(chosen.labels.groups):
        assert len(np.unique(folds[chosen.labels.groups == family])) == 1
    assert len(np.unique(folds)) == 5


def test_covariates_are_regressed_out_inside_the_folds(cohort):
    """Of a target that is a covariate and chance, nothing is found once the covariate is taken out."""
    chosen = samples(cohort, "score")
    score = chosen.labels.y
    design = replace(folds_of(chosen), y=score + np.random.RandomState(0).standard_normal(N))
    assert evaluate(chosen.embeddings, design).metrics["r"][0] > 0.5
    known = Confounds(score[:, None], ("linear",))
    _, low, high = evaluate(chosen.embeddings, design, known).metrics["partial_r"]
    assert low < 0 < high


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t, ("--target", "iq"), "no column 'iq'; there are: .*score"),
        (lambda t: t.assign(group="all"), ("--target", "group"), "has the same 'group': all"),
        (lambda t: pd.concat([t, t.iloc[:1]]), ("--target", "score"), "sub-00 more than once"),
        (lambda t: t.rename(columns={"participant_id": "id"}), ("--target", "score"), "no column participant_id"),
        (lambda t: t.assign(score=[*["lots"] * 20, *t["score"][20:]]), ("--target", "score"), "text where numbers are needed, such as 'lots'"),
        (lambda t: t.iloc[:5], ("--target", "score"), "only 5 subjects have both results and a value of 'score'"),
        (lambda t: t.assign(group=["odd", *["x"] * 30, *["y"] * 29]), ("--target", "group"), r"class of one subject \(odd\)"),
        (lambda t: t, (), "needs --target COLUMN"),
        (lambda t: t.assign(site="A"), ("--target", "score", "--group-by", "site"), "1 group is too few"),
        (lambda t: t.assign(site=["A" if g == "patient" else "B" for g in t["group"]]), ("--target", "group", "--group-by", "site"), r"all \d+ of class 'control' are in one group \(B\)"),
        (lambda t: t.assign(again=t["score"] * 2 + 1), ("--target", "score", "--covariates", "again"), "'again' is the target, 'score', or the same under another name"),
        (lambda t: t, ("--target", "mean_fd"), "is a measure of the scan"),
        (lambda t: t, ("--target", "score", "--covariates", "family:cubic"), "'cubic' is none of linear, log"),
        (lambda t: t.assign(site=["A", "A", *"B" * 58]), ("--target", "score", "--harmonise", "site"), "only . samples? of 'A'|'A' is tested on models"),
        (lambda t: t, ("--target", "score", "--harmonise", "site", "--leave-out", "site"), "have not seen it"),
        (lambda t: t.assign(iq=np.arange(N) + 80), ("--target", "score", "--leave-out", "iq"), "1 of 60 samples are of '80'; a test needs 5"),
        (lambda t: t, ("--target", "family"), "30 classes in 60 samples"),
        (lambda t: t, ("--target", "score", "--covariates", "family"), "as categories these would explain everything"),
        (lambda t: t.assign(huge=t["score"] * 1e300), ("--target", "huge"), "no measure of a person"),
        (lambda t: t.assign(volume=[np.inf, *range(59)]), ("--target", "score", "--covariates", "volume"), "infinite number"),
        (lambda t: t, ("--target", "site", "--harmonise", "site"), "cannot be told apart"),
        (lambda t: t, ("--target", "score", "--covariates", "height"), "no column 'height'"),
    ],
)  # fmt: skip
def test_phenotypes_that_cannot_be_used(cohort, group, tmp_path, change, options, message):
    path = tmp_path / "table.tsv"
    change(cohort[2]).to_csv(path, sep="\t", index=False, na_rep="n/a")
    status, said = group("--group-task", "probe", "--phenotype", path, *options)
    assert status == 1
    assert re.search(f"error: .*{message}", said), said
    assert "Traceback" not in said


def test_missing_labels_are_left_out_and_reported(cohort, group, tmp_path):
    path = tmp_path / "table.csv"
    table = cohort[2].copy()
    table.loc[:4, "score"] = np.nan
    table["participant_id"] = table["participant_id"].str.removeprefix("sub-")
    table.to_csv(path, index=False, na_rep="n/a")
    status, said = group("--group-task", "probe", "--phenotype", path, "--target", "score", "--n-permutations", "0")
    assert status == 0
    assert "5 subjects have no 'score': sub-00, sub-01" in said
    assert "The embedding predicts score" in said
    (path,) = cohort[1].glob("group_desc-narrow_target-score_analysis-PhenoTable*_predictions.tsv")  # another analysis
    predictions = pd.read_csv(path, sep="\t")
    assert len(predictions) == N - 5


def test_a_model_without_results(group):
    status, said = group(model="other.ckpt")
    assert status == 1
    assert "no results of model 'other'; there are those of narrow (--model)" in said


@pytest.mark.heavy
def test_baselines_from_gridded_runs_and_random_weights(tree, tmp_path, neurostorm):
    """A pattern in the mean image: the mean image finds it, the table says so."""
    rng = np.random.RandomState(0)
    strength = rng.standard_normal(12)
    for i in range(12):
        write_subject(tree, f"sub-{i:02d}_task-rest", strength[i], 0.2, rng)
    lines = [f"sub-{i:02d}\t{strength[i]:.4f}" for i in range(12)]
    (tree.path / "participants.tsv").write_text("participant_id\tscore\n" + "\n".join(lines) + "\n")
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    model = lightning(tmp_path / "narrow.ckpt", network.state_dict(), **NARROW)
    out = tmp_path / "out"
    models = (model, f"{model}@random")
    status, _, said = neurostorm(tree.path, out, "participant", "--model", *models, "--save-grid")
    assert status == 0
    assert "random weights, for comparison" in said
    assert "random weights" in next(out.glob("sub-00/func/*narrowRandom_embeddings.tsv")).read_text()
    status, _printed, said = neurostorm(
        tree.path,
        out,
        "group",
        "--model",
        model,
        "--group-task",
        "probe",
        "--target",
        "score",
        "--n-permutations",
        "0",
        "--cv-repeats",
        "1",
    )
    assert status == 0, said
    metrics = pd.read_csv(out / "group_desc-narrow_target-score_metrics.tsv", sep="\t").set_index(
        ["features", "metric"]
    )
    named = {"embedding", "connectome", "mean image", "the same encoder with random weights"}
    named |= {name + BEYOND_MOTION for name in named}
    assert set(metrics.index.get_level_values(0)) == named | {MOTION}
    assert metrics.loc[("mean image", "r"), "value"] > 0.4  # twelve subjects


def test_a_cohort_of_one_run_is_collected_without_a_complaint(tree, tmp_path, neurostorm, recwarn):
    write_subject(tree, "sub-01_task-rest", 1.0, 0.2, np.random.RandomState(0))
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9")
    status, printed, _said = neurostorm(tree.path, tmp_path / "o", "group", "--model", "demo")
    assert status == 0
    assert "1 runs of 1 subjects" in printed
    assert not [warning for warning in recwarn if "sklearn" in str(warning.filename)]


def test_identify_without_repeats_says_so(group):
    status, said = group("--group-task", "identify")
    assert status == 1
    assert "one with two runs or sessions" in said


def test_a_probe_is_kept_as_a_model_and_not_tested_on_its_own_people(cohort, group, neurostorm):
    data, out, _ = cohort
    chosen = samples(cohort, "score")
    status, said = group(
        "--group-task", "probe", "--target", "score", "--n-permutations", "19", "--cv-repeats", "1", "--save-as", "kept"
    )
    assert status == 0, said
    status, _, said = neurostorm(
        data, out, "participant", "--model", out / "models" / "kept", "--participant-label", "07", "--attribution",
        "--attribution-windows", "1", "--window-stride", "11",
    )  # fmt: skip
    assert status == 0, said
    about = json.loads(next(out.glob("sub-07/func/*_stat-attributionOwnMean_statmap.json")).read_text())
    by_labels = next(check for check in about["Checks"] if check["Name"] == "permuted labels")
    assert by_labels["Words"].startswith("maps by occlusion of 10 heads")
    assert isinstance(by_labels["Passed"], bool)
    assert "model kept was trained on this person" in said
    table = pd.read_csv(next(out.glob("sub-07/func/*_desc-kept_predictions.tsv")), sep="\t")
    heads = fold_heads(chosen.embeddings, design_of(chosen.labels, GroupAnalysis(cv_repeats=1), 0))
    each = [float((weights @ chosen.embeddings[7] + bias)[0]) for weights, bias in zip(*heads, strict=True)]
    assert table.loc[0, "value"] == pytest.approx(np.mean(each), abs=1e-3)
    assert table.loc[0, "spread_of_models"] == pytest.approx(np.std(each, ddof=1), rel=1e-3)
    assert table.loc[0, "seen_in_training"] == 1
    assert "this person was among them" in (out / "sub-07.html").read_text()
    status, said = group("--group-task", "evaluate", "--target", "score", model="out/models/kept")
    assert status == 1
    assert "model 'kept' was trained on 1 subject of these (sub-07)" in said


def test_a_probe_is_not_kept_under_a_name_that_is_taken(cohort, group):
    (cohort[1] / "models" / "taken").mkdir(parents=True, exist_ok=True)
    (cohort[1] / "models" / "taken" / "model.safetensors").write_bytes(b"")
    status, said = group("--group-task", "probe", "--target", "score", "--save-as", "taken")
    assert status == 1
    assert "taken is there already" in said
