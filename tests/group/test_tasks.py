"""The group tasks from the command line, on output folders whose embeddings are made up."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from fabricated import N_CHANNELS, Fabricated

N = 40


@pytest.fixture
def group(tmp_path, neurostorm):
    """Call the group level on `folder(tmp_path)`; returns the exit status and what was said."""

    def call(*options, model="base"):
        status, printed, said = neurostorm(tmp_path / "fmriprep", tmp_path / "out", "group", "--model", model, *options)
        return status, printed + said

    return call


def people(tmp_path, seed=0, n=N, sessions=1, **columns):
    """Make up people whose embedding's first channels follow their age, and their phenotype."""
    rng = np.random.default_rng(seed)
    made = Fabricated.at(tmp_path)
    age = rng.normal(40, 10, n)
    traits = rng.standard_normal((n, N_CHANNELS))
    traits[:, :4] += ((age - 40) / 10)[:, None]
    rows = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(n)], "age": age.round(2)})
    for name, values in columns.items():
        rows[name] = values
    made.phenotype(rows)
    for i in range(n):
        for session in range(sessions):
            name = f"sub-{i:02d}_ses-{session + 1}_task-rest" if sessions > 1 else f"sub-{i:02d}_task-rest"
            made.run(name, traits[i] + 0.3 * rng.standard_normal(N_CHANNELS), fd=0.1 + 0.2 * rng.random())
    return made, age


def probe(*options):
    return ("--group-task", "probe", "--target", "age", "--n-permutations", "39", "--cv-repeats", "2", *options)


def test_another_analysis_does_not_replace_the_first(tmp_path, group):
    made, _ = people(tmp_path, sex=["F", "M"] * (N // 2), site=["A", "B", "C", "D"] * (N // 4))
    assert group(*probe())[0] == 0
    first = (made.out / "group_desc-base_target-age_metrics.tsv").read_bytes()
    assert group(*probe("--covariates", "sex"))[0] == 0
    assert group(*probe("--group-by", "site"))[0] == 0
    assert (made.out / "group_desc-base_target-age_metrics.tsv").read_bytes() == first
    tables = sorted(path.name for path in made.out.glob("*_metrics.tsv"))
    assert len(tables) == 3
    assert "group_desc-base_target-age_analysis-CovSex_metrics.tsv" in tables
    index = (made.out / "group_index.html").read_text()
    assert all(name.replace("_metrics.tsv", "_probe.html") in index for name in tables)


def test_every_column_of_a_table_is_explained(tmp_path, group):
    made, _ = people(tmp_path)
    assert group(*probe("--delta"))[0] == 0
    for path in made.out.glob("group_*.tsv"):
        if "_by-" not in path.name:
            about = json.loads(path.with_suffix(".json").read_text())
            columns = set(pd.read_csv(path, sep="\t")) - {"participant_id"}
            assert columns <= set(about), path


def test_several_targets_are_corrected_for_their_number(tmp_path, group):
    rng = np.random.default_rng(3)
    made, _age = people(tmp_path, score=rng.standard_normal(N), noise=rng.standard_normal(N))
    status, said = group(
        "--group-task", "probe", "--target", "age", "score", "noise", "--n-permutations", "99", "--cv-repeats", "2"
    )
    assert status == 0
    table = made.results("group_desc-base_target-several_targets.tsv").set_index("target")
    assert table.loc["age", "p_max_statistic"] == pytest.approx(0.01)
    assert (table["p_max_statistic"] >= table["p_value"] - 1e-9).all()
    assert (table["q_value"] >= table["p_value"] - 1e-9).all()
    assert "Of 3 targets, 1 are predicted" in said


def test_a_covariate_with_gaps_is_told_and_one_that_does_not_vary_is_left_out(tmp_path, group):
    iq = np.where(np.arange(N) < 3, np.nan, np.linspace(80, 120, N))
    people(tmp_path, iq=iq, sex=["F"] * (N - 2) + [None] * 2)
    status, said = group(*probe("--covariates", "iq", "sex"))
    assert status == 0
    assert (
        "covariate 'iq' is unknown for 3 of 40 samples: these take no part where something is asked beyond it" in said
    )
    assert "covariate 'sex' is the same in all samples where it is known: left out" in said
    stem = "group_desc-base_target-age_analysis-CovIqSex"
    metrics = pd.read_csv(tmp_path / "out" / f"{stem}_metrics.tsv", sep="\t").set_index(["features", "metric"])
    assert metrics.loc[("embedding", "r"), "n"] == N
    assert metrics.loc[("embedding, beyond covariates", "partial_r"), "n"] == N - 3
    page = (tmp_path / "out" / f"{stem}_probe.html").read_text()
    assert re.search("<dt>Covariates</dt><dd>iq</dd>", page)


@pytest.mark.parametrize(
    ("given", "entered"), [("site", "site:categorical"), ("site:linear", "site"), ("dose", "dose")]
)
def test_coded_sites_are_categories_and_doses_are_not(tmp_path, group, given, entered):
    people(tmp_path, site=np.arange(N) % 3 + 1, dose=np.arange(N) % 3 + 1)
    status, said = group(*probe("--covariates", given))
    assert status == 0
    page = next((tmp_path / "out").glob("*_probe.html")).read_text()
    assert f"<dt>Covariates</dt><dd>{entered}</dd>" in page
    if given == "dose":
        assert "if these are codes give dose:categorical" in said


def test_columns_with_levels_in_their_sidecar_are_classes(tmp_path, group):
    made, _ = people(tmp_path)
    rows = pd.read_csv(made.data / "participants.tsv", sep="\t").assign(arm=np.arange(N) % 3)
    made.phenotype(rows, arm={"0": "placebo", "1": "low", "2": "high"})
    status, _said = group("--group-task", "probe", "--target", "arm", "--n-permutations", "19", "--cv-repeats", "1")
    assert status == 0
    assert "probability_2" in made.results("group_desc-base_target-arm_predictions.tsv")


def test_one_person_under_two_names_is_refused(tmp_path, group):
    made, _ = people(tmp_path)
    one = next((made.out / "sub-03" / "func").glob("*_embeddings.tsv"))
    other = next((made.out / "sub-17" / "func").glob("*_embeddings.tsv"))
    other.write_bytes(one.read_bytes())
    status, said = group(*probe())
    assert status == 1
    assert "sub-03 and sub-17 have identical embeddings" in said


def test_tasks_that_only_some_did_are_told(tmp_path, group):
    made, _ = people(tmp_path, group=["control", "patient"] * (N // 2))
    for i in range(0, N, 2):  # controls did n-back too
        made.run(f"sub-{i:02d}_task-nback", np.random.default_rng(i).standard_normal(N_CHANNELS))
    status, said = group("--group-task", "probe", "--target", "group", "--n-permutations", "19", "--cv-repeats", "1")
    assert status == 0
    assert "which tasks a subject did is related to 'group'" in said
    assert "--task-id" in said


def test_a_target_that_does_not_follow_a_covariate_in_a_line_is_told(tmp_path, group):
    dose = np.linspace(-2, 2, N)
    people(tmp_path, dose=dose, score=dose**2 + 0.1 * np.random.default_rng(0).standard_normal(N))
    status, said = group(
        "--group-task",
        "probe",
        "--target",
        "score",
        "--covariates",
        "dose",
        "--n-permutations",
        "19",
        "--cv-repeats",
        "1",
    )
    assert status == 0
    assert "give --covariates dose:spline" in said


def test_fewer_than_twenty_people_get_no_verdict(tmp_path, group):
    people(tmp_path, n=16)
    status, said = group(*probe())
    assert status == 0
    assert "tested on 16 subjects, too few for a verdict on age" in said


def test_sites_that_shift_the_target_are_told_with_what_helps(tmp_path, group):
    made, _age = people(tmp_path, site=np.repeat(["A", "B"], N // 2))
    rows = pd.read_csv(made.data / "participants.tsv", sep="\t")
    rows["age"] += 30 * (rows["site"] == "B")
    made.phenotype(rows)
    status, said = group(*probe())
    assert status == 0
    assert "'age' differs between the values of 'site'" in said
    assert "--leave-out site" in said
    status, said = group(*probe("--covariates", "site"))
    assert "differs between the values" not in said


def test_two_sites_are_each_tested_on_a_model_of_the_other(tmp_path, group):
    made, _ = people(tmp_path, site=np.repeat(["A", "B"], N // 2))
    status, said = group(*probe("--leave-out", "site"))
    assert status == 0, said
    sites = made.results("group_desc-base_target-age_analysis-OutSite_by-site.tsv")
    assert sites["n"].tolist() == [N // 2, N // 2]
    folds = made.results("group_desc-base_target-age_analysis-OutSite_predictions.tsv")["fold"]
    assert (folds[: N // 2] == 1).all()
    assert (folds[N // 2 :] == 2).all()


def test_the_gap_of_predictions_does_not_depend_on_age(tmp_path, group):
    made, _ = people(tmp_path)
    assert group(*probe("--delta"))[0] == 0
    table = made.results("group_desc-base_target-age_predictions.tsv")
    np.testing.assert_allclose(table["error"], table["predicted"] - table["target"])
    assert abs(np.corrcoef(table["error"], table["target"])[0, 1]) > 0.3  # predictions fall back to the mean
    assert abs(np.corrcoef(table["delta"], table["target"])[0, 1]) < 0.1


def test_options_without_effect_at_a_task_are_named(tmp_path, group):
    people(tmp_path)
    status, said = group("--group-task", "collect", "--covariates", "age", "--n-permutations", "5")
    assert status == 0
    assert "--covariates" in said
    assert "--n-permutations" in said


def test_reliability_over_sessions(tmp_path, group):
    made, _ = people(tmp_path, sessions=2)
    status, said = group("--group-task", "reliability")
    assert status == 0
    assert "Over sessions, the median channel has an ICC(2,1) of 0.9" in said
    table = made.results("group_desc-base_reliability.tsv")
    assert len(table) == N_CHANNELS
    assert (table["people"] == N).all()


def test_reliability_without_repeats_says_what_it_needs(tmp_path, group):
    people(tmp_path)
    status, said = group("--group-task", "reliability")
    assert status == 1
    assert "at least three people with two sessions" in said


def test_people_unlike_the_reference_group_are_found(tmp_path, group):
    made, _ = people(tmp_path, group=["control"] * 36 + ["patient"] * 4)
    for i in range(36, 40):
        made.run(f"sub-{i:02d}_task-rest", 6 + np.random.default_rng(i).standard_normal(N_CHANNELS))
    status, said = group("--group-task", "normative", "--reference-group", "group=control")
    assert status == 0
    (path,) = made.out.glob("group_desc-base_target-normative_analysis-RefGroupControl????.tsv")
    table = made.results(path.name)
    others = ~table["reference"].astype(bool)
    assert (table.loc[others, "percentile"] == 100).all()
    assert table.loc[~others, "percentile"].mean() == pytest.approx(50, abs=3)  # each against the others of the group
    status, said = group("--group-task", "normative", "--reference-group", "group=healthy")
    assert status == 1
    assert "nobody has this value; there are: control, patient" in said


def test_associations_ask_of_every_column(tmp_path, group):
    rng = np.random.default_rng(1)
    made, _age = people(tmp_path, noise=rng.standard_normal(N), name=[f"x{i}" for i in range(N)])
    status, said = group("--group-task", "associations", "--n-permutations", "99", "--cv-repeats", "2")
    assert status == 0
    table = made.results("group_desc-base_target-associations.tsv").set_index("column")
    assert table.loc["age", "q_value"] <= 0.02
    assert table.loc["noise", "q_value"] > 0.05
    assert "left out: name" in said


def test_a_head_is_evaluated_on_people_it_never_saw(tmp_path, group):
    made, age = people(tmp_path)
    for i, stem in enumerate(sorted(made.out.glob("sub-*/func/*_embeddings.tsv"))):
        made.prediction(stem.parent / stem.name.removesuffix("_embeddings.tsv"), "age", age[i] + 5)
    status, said = group("--group-task", "evaluate", "--n-permutations", "99")
    assert status == 0, said
    table = made.results("group_desc-base_target-age_evaluate_metrics.tsv").set_index("metric")
    assert table.loc["MAE", "value"] == pytest.approx(5, abs=0.01)
    assert table.loc["r", "value"] == pytest.approx(1, abs=1e-3)
    assert "Model base predicts age better than chance" in said


def test_a_head_of_classes_is_matched_by_their_names(tmp_path, group):
    made, _ = people(tmp_path, sex=["M", "F"] * (N // 2))
    for i, path in enumerate(sorted(made.out.glob("sub-*/func/*_embeddings.tsv"))):
        p = 0.9 if i % 2 == 0 else 0.2
        made.prediction(
            path.parent / path.name.removesuffix("_embeddings.tsv"), "sex", "M" if p > 0.5 else "F", M=p, F=1 - p
        )
    status, said = group("--group-task", "evaluate", "--target", "sex", "--n-permutations", "99")
    assert status == 0, said
    table = made.results("group_desc-base_target-sex_evaluate_metrics.tsv").set_index("metric")
    assert table.loc["AUROC", "value"] == 1
    rows = pd.read_csv(made.data / "participants.tsv", sep="\t").assign(sex=["male", "female"] * (N // 2))
    made.phenotype(rows)
    status, said = group("--group-task", "evaluate", "--target", "sex")
    assert status == 1
    assert "has the class 'female', which model 'base' does not know; it knows M, F" in said


def test_a_person_whose_age_does_not_fit_their_embedding_stands_out(tmp_path, group):
    made, _age = people(tmp_path, n=60)
    rows = pd.read_csv(made.data / "participants.tsv", sep="\t")
    rows.loc[5, "age"] += 40
    made.phenotype(rows)
    status, said = group("--group-task", "normative", "--target", "age")
    assert status == 0, said
    table = made.results("group_desc-base_target-normative.tsv")
    assert table["z_age"].abs().idxmax() == 5
    assert table.loc[5, "z_age"] < -2  # looks younger than the table says


def test_predictions_of_every_head_are_collected(tmp_path, group):
    made, age = people(tmp_path)
    for i, path in enumerate(sorted(made.out.glob("sub-*/func/*_embeddings.tsv"))):
        made.prediction(path.parent / path.name.removesuffix("_embeddings.tsv"), "age", age[i])
    assert group()[0] == 0
    table = made.results("group_desc-base_predictions.tsv")
    np.testing.assert_allclose(table["prediction"], age)
    assert set(table["target"]) == {"age"}


def test_a_damaged_table_of_predictions_is_named(tmp_path, group):
    made, age = people(tmp_path)
    for i, path in enumerate(sorted(made.out.glob("sub-*/func/*_embeddings.tsv"))):
        made.prediction(path.parent / path.name.removesuffix("_embeddings.tsv"), "age", age[i])
    damaged = next(made.out.glob("sub-03/func/*_predictions.tsv"))
    damaged.write_text("target\tvalue\nage\n")
    status, said = group("--group-task", "evaluate")
    assert status == 1
    assert f"{damaged} is damaged" in said


def test_people_scanned_at_two_sites_are_not_on_both_sides(tmp_path, group):
    made, _ = people(tmp_path, sessions=2)
    rows = pd.read_csv(made.data / "participants.tsv", sep="\t")
    rows = pd.concat(
        [rows.assign(session_id="ses-1", site=np.arange(N) % 3), rows.assign(session_id="ses-2", site=np.arange(N) % 3)]
    )
    rows["age"] += 0.1 * (rows["session_id"] == "ses-2")
    rows.iloc[N, rows.columns.get_loc("site")] = 1  # sub-00 went to another scanner
    table = tmp_path / "table.tsv"
    rows.to_csv(table, sep="\t", index=False)
    status, said = group(*probe("--leave-out", "site", "--phenotype", table))
    assert status == 1
    assert "sub-00 has sessions at several values of 'site'" in said


def test_a_covariate_that_is_the_site_cannot_be_kept_by_harmonisation(tmp_path, group):
    people(tmp_path, site=np.repeat(["A", "B"], N // 2), tesla=np.repeat([1.5, 3.0], N // 2))
    status, said = group(*probe("--harmonise", "site", "--covariates", "tesla"))
    assert status == 1
    assert "a covariate (tesla) is the same within each 'site'" in said


def test_runs_of_one_task_are_compared_person_by_person(tmp_path, group):
    rng = np.random.default_rng(0)
    made = Fabricated.at(tmp_path)
    made.phenotype(pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(12)]}))
    for i in range(12):
        for task in ("rest", "nback"):
            for run in (1, 2):
                made.run(f"sub-{i:02d}_task-{task}_run-{run}", rng.standard_normal(N_CHANNELS))
    status, said = group("--group-task", "reliability")
    assert status == 0
    assert "Over runs of nback" in said
    assert "(12 people, 2 each)" in said


def test_targets_whose_names_differ_in_signs_alone_have_files_of_their_own(tmp_path, group):
    rng = np.random.default_rng(0)
    made, _ = people(tmp_path, **{"A_b": rng.standard_normal(N), "A-b": rng.standard_normal(N)})
    status, said = group(
        "--group-task", "probe", "--target", "A_b", "A-b", "--n-permutations", "19", "--cv-repeats", "1"
    )
    assert status == 0, said
    assert len(list(made.out.glob("group_desc-base_target-Ab*_metrics.tsv"))) == 2


def test_a_damaged_index_loses_no_page(tmp_path, group):
    made, _ = people(tmp_path)
    assert group(*probe())[0] == 0
    (made.out / "group" / "pages.json").write_text('{"group_desc-base_target-age_probe.html": 3}')
    assert group()[0] == 0
    assert "group_desc-base_target-age_probe.html" in (made.out / "group_index.html").read_text()


def test_a_run_whose_table_is_gone_is_named(tmp_path, group):
    made, _ = people(tmp_path)
    next((made.out / "sub-03" / "func").glob("*_embeddings.tsv")).unlink()
    status, said = group()
    assert status == 0
    assert "sub-03_task-rest_space-MNI152NLin6Asym_res-2_desc-base_embeddings.json: its table is missing" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id\tage\nsub-00\t40\t1\t2\nsub-01\t41\t1\t2\n", "its rows have more fields than its header"),
        ("participant_id\tage\tage\nsub-00\t40\t41\n", "has the column 'age' 2 times"),
    ],
)
def test_tables_that_are_not_what_they_seem(tmp_path, group, text, message):
    people(tmp_path)
    (tmp_path / "table.tsv").write_text(text)
    status, said = group(*probe("--phenotype", tmp_path / "table.tsv"))
    assert status == 1
    assert message in said


def test_too_few_permutations_for_so_many_columns_are_told(tmp_path, group):
    rng = np.random.default_rng(0)
    people(tmp_path, **{f"x{i}": rng.standard_normal(N) for i in range(5)})
    status, said = group("--group-task", "associations", "--n-permutations", "19", "--cv-repeats", "1")
    assert status == 0
    assert "give --n-permutations 121 or more" in said


def test_a_covariate_that_is_known_of_few_is_refused(tmp_path, group):
    people(tmp_path, iq=np.where(np.arange(N) < 8, np.arange(N) + 90.0, np.nan))
    status, said = group(*probe("--covariates", "iq"))
    assert status == 1
    assert "all known in 8 of 40 samples: too few to ask what is left" in said
