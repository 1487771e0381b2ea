"""The group level: which runs take part, several models, what it leaves to others while it computes, a task of one's own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import Results, Tree

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import join
from neurostorm_bids.group import tasks
from neurostorm_bids.group.baselines import baselines_of
from neurostorm_bids.group.cohort import read_cohort
from neurostorm_bids.group.labels import labels_of
from neurostorm_bids.group.task import describe_tasks, task_names
from neurostorm_bids.group.tasks import collect

NEUROSTORM = Path(sys.executable).with_name("neurostorm")


@pytest.fixture
def results(tmp_path):
    """Twelve subjects with two sessions of two runs."""
    results = Results(tmp_path)
    for i in range(12):
        for session in "ab":
            for run in ("01", "02"):
                results.add(f"sub-{i:02d}_ses-{session}_task-rest_run-{run}")
    return results


def collected(results, neurostorm, *options):
    """Return the names of the runs that a call collected."""
    status, _, said = neurostorm(results.raw, results.out, "group", "--model", "base", *options)
    assert status == 0, said
    table = pd.read_csv(results.out / "group_desc-base_embeddings.tsv", sep="\t")
    return table["run_name"].tolist()


def test_a_filter_file_selects_results_as_it_selects_runs(results, tmp_path, neurostorm):
    path = tmp_path / "filter.json"
    path.write_text('{"bold": {"session": "b", "space": "MNI152NLin6Asym"}}')
    names = collected(results, neurostorm, "--bids-filter-file", path)
    assert len(names) == 24
    assert all("_ses-b_" in name for name in names)


@pytest.mark.parametrize("label", ["1", "01", "run-1"])
def test_a_run_s_label_is_a_number(results, neurostorm, label):
    names = collected(results, neurostorm, "--run-label", label, "--session-label", "a")
    assert names == [f"sub-{i:02d}_ses-a_task-rest_run-01" for i in range(12)]


def test_several_models_share_a_page(results, neurostorm):
    for i in range(12):
        results.add(f"sub-{i:02d}_ses-a_task-rest_run-01", label="demo")
    status, printed, said = neurostorm(results.raw, results.out, "group", "--model", "base", "demo")
    assert status == 0, said
    page = (results.out / "group.html").read_text()
    for name in ("group_desc-base", "group_desc-demo"):
        assert page.count(f"<h1>Cohort ({name})</h1>") == 1
        assert f"{name}_embeddings.tsv" in page
    assert "48 runs of 12 subjects" in printed
    assert "12 runs of 12 subjects" in printed
    assert all((results.out / figure).is_file() for figure in re.findall('src="(.*?)"', page))


def test_a_model_without_results_does_not_take_along_another(results, neurostorm):
    status, printed, said = neurostorm(results.raw, results.out, "group", "--model", "base", "demo")
    assert status == 1
    assert "holds no results of model 'demo'" in said
    assert (results.out / "group.html").is_file()
    assert "group.html" in printed


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"subject": "01"}, (), "chooses the subject; give --participant-label"),
        ({"tsk": "rest"}, (), "there is no entity 'tsk'; did you mean 'task'?"),
        ({"task": "rest"}, ("--task-id", "rest"), "both choose the task"),
    ],
)
def test_a_filter_file_is_refused_as_at_the_participant_level(results, tmp_path, neurostorm, content, options, message):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"bold": content}))
    status, _, said = neurostorm(results.raw, results.out, "group", "--bids-filter-file", path, *options)
    assert status == 1
    assert message in said


def test_a_table_that_is_cut_short_is_not_averaged(results, neurostorm):
    table = next(results.out.glob("sub-03/**/*run-02*_embeddings.tsv"))
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    status, _, said = neurostorm(results.raw, results.out, "group", "--model", "base")
    assert status == 1
    assert f"{table} has {len(lines) - 2} windows" in said
    assert "it is cut short; remove it and run the participant level again" in said


def test_columns_of_a_phenotype_that_are_renamed_get_a_free_name(results, tmp_path, neurostorm):
    table = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(12)], "channel000": 1.0, "age": 2.0})
    table.assign(task="x", phenotype_task="y").to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    collected(results, neurostorm, "--phenotype", tmp_path / "p.tsv")
    columns = pd.read_csv(results.out / "group_desc-base_embeddings.tsv", sep="\t").columns
    assert {"phenotype_task", "phenotype_task_", "phenotype_channel000"} <= set(columns)


def test_options_of_the_other_level_are_named(results, neurostorm):
    _, _, said = neurostorm(
        results.raw, results.out, "group", "--model", "base", "--fd-threshold", "0.2", "--epochs", "3"
    )
    for option in ("--fd-threshold", "--epochs"):
        assert f"{option} has no effect at the group level" in said


@pytest.mark.heavy
def test_others_work_in_the_folder_while_the_group_level_computes(results, tmp_path, neurostorm, monkeypatch):
    """A participant call and another group call, both begun and ended while a task is under way."""
    tree = Tree(tmp_path / "fmriprep")
    tree.run("sub-99_task-rest")
    real, said = collect.overview_of, []

    def meanwhile(*args):
        calls = (
            (tree.path, results.out, "participant", "--model", "demo", "--window-stride", "9"),
            (results.raw, results.out, "group", "--model", "base", "--session-label", "a"),
        )
        for call in calls:
            done = subprocess.run([NEUROSTORM, *call], capture_output=True, text=True, timeout=60)
            said.append((done.returncode, done.stderr))
        return real(*args)

    monkeypatch.setattr(collect, "overview_of", meanwhile)
    assert len(collected(results, neurostorm)) == 48
    assert [status for status, _ in said] == [0, 0], said


def test_a_group_task_of_thirty_lines_is_one_file(results, tmp_path, neurostorm, monkeypatch):
    """Nothing else has to know of it: the command line, its help, the tables, the page."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "spread.py").write_text('''"""How much a subject's runs differ, beside how much subjects do."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neurostorm_bids.group.study import Study
from neurostorm_bids.group.task import GroupResult, Section


def run(study: Study) -> list[GroupResult]:
    """Compare the spread within and between subjects."""
    runs = pd.DataFrame(study.cohort.embeddings).groupby(study.cohort.runs["participant_id"])
    within, between = float(np.sqrt(runs.var().mean(axis=None))), float(np.sqrt(runs.mean().var().mean()))
    table = pd.DataFrame({"spread": ["within", "between"], "value": [within, between]})
    figure = Figure()
    figure.subplots().bar(table["spread"], table["value"])
    answer = f"Within subjects {within:.2f}, between them {between:.2f}."
    name = f"group_desc-{study.cohort.label}_spread"
    result = GroupResult(
        name=name,
        title="Spread",
        answer=answer,
        sections=[Section("Spread", words=[answer], table=table, figures=[("", "Spread of runs.")])],
        about={"Description": "Standard deviation of embeddings", "Sources": study.sources()},
        page=name,
        tables={"": table},
        figures={"": figure},
    )
    return [result]
''')
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
    assert "spread" in task_names()
    assert describe_tasks()["spread"] == "How much a subject's runs differ, beside how much subjects do"
    status, printed, said = neurostorm(results.raw, results.out, "group", "--model", "base", "--group-task", "spread")
    assert status == 0, said
    assert "Within subjects" in printed
    table = pd.read_csv(results.out / "group_desc-base_spread.tsv", sep="\t")
    assert table["value"].iloc[0] > table["value"].iloc[1]  # noise: four runs differ more than the means of four
    page = (results.out / "group_desc-base_spread.html").read_text()
    assert 'src="group/figures/group_desc-base_spread.png"' in page
    assert "How much a subject" in neurostorm("--help")[1]


# ---- labels of sessions


def table_of(results, phenotype):
    cohort = read_cohort(results.out, "base")
    return cohort, join(cohort.runs, phenotype)[0]


def test_a_target_that_differs_within_a_session_is_refused(results):
    _, table = table_of(results, pd.DataFrame())
    table["score"] = np.arange(len(table)) % 2 + (table["session_id"] == "ses-b") * 10.0
    with pytest.raises(NeurostormError, match=r"differs between runs of a session .*use --group-task decode"):
        labels_of(table, "score")


def test_runs_without_a_session_are_left_out_and_named(results):
    results.add("sub-50_task-rest")
    results.add("sub-51_ses-a_task-rest")
    rows = [(f"sub-{i:02d}", f"ses-{s}", 10.0 * (s == "b") + i) for i in range(12) for s in "ab"]
    phenotype = pd.DataFrame(rows, columns=["participant_id", "session_id", "score"])
    _, table = table_of(results, phenotype)
    table.loc[table["participant_id"] == "sub-50", "score"] = 3.0
    labels = labels_of(table, "score")
    assert len(labels.y) == 24
    assert [len(rows) for rows in labels.members] == [2] * 24
    assert "1 runs without a session are left out, since 'score' differs between sessions: sub-50" in labels.notes


def test_a_phenotype_column_named_like_an_entity_can_be_predicted(results, neurostorm):
    rows = [f"sub-{i:02d}\t{i + 0.5}" for i in range(12)]
    (results.raw / "participants.tsv").write_text("participant_id\trun\n" + "\n".join(rows) + "\n")
    status, printed, said = neurostorm(
        results.raw, results.out, "group", "--model", "base", "--group-task", "probe", "--target", "phenotype_run",
        "--n-permutations", "0",
    )  # fmt: skip
    assert status == 0, said
    assert "column 'run' of the phenotype is called phenotype_run here" in said
    assert "phenotype_run" in printed


def test_the_mean_of_random_weights_counts_windows(tmp_path):
    """Of two runs with one and three windows, the long one counts three times, as in the embedding."""
    results = Results(tmp_path)
    for i in range(12):
        for task, n in (("short", 1), ("long", 3)):
            results.add(f"sub-{i:02d}_task-{task}")
            results.add(f"sub-{i:02d}_task-{task}", np.full((n, results.CHANNELS), float(n)), label="baseRandom")
    phenotype = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(12)], "age": np.arange(12.0)})
    cohort, table = table_of(results, phenotype)
    features, _ = baselines_of(cohort, labels_of(table, "age"), results.out, tmp_path / "work")
    (random,) = features.values()
    np.testing.assert_allclose(random, (1 * 1 + 3 * 3) / 4)


# ---- what collect shows


def test_a_run_far_from_all_others_is_named_and_columns_that_vary_are_shown(tmp_path, neurostorm):
    results = Results(tmp_path)
    for i in range(20):
        far = 40.0 if i == 7 else 0.0
        results.add(f"sub-{i:02d}_task-rest", results.rng.standard_normal((8, results.CHANNELS)) + far)
    rows = [f"sub-{i:02d}\t{'FM'[i % 2]}\t{20 + i}\tsame\t{i % 2 or 'n/a'}" for i in range(20)]
    (results.raw / "participants.tsv").write_text("participant_id\tsex\tage\tstudy\tx\n" + "\n".join(rows) + "\n")
    status, _, said = neurostorm(results.raw, results.out, "group", "--model", "base")
    assert status == 0, said
    table = pd.read_csv(results.out / "group_desc-base_embeddings.tsv", sep="\t")
    shown = collect.columns_to_show(table)
    assert {"sex", "age", "mean_fd"} <= set(shown)
    assert not {"study", "x", "run_name"} & set(shown)
    outliers = (results.out / "group.html").read_text().partition("Outliers</h1>")[2].partition("</section>")[0]
    assert "sub-07_task-rest (" in outliers
    assert "sub-08" not in outliers


def test_head_motion_of_very_many_subjects_is_looked_at_in_some(results, neurostorm, monkeypatch):
    monkeypatch.setattr(collect, "MOST_FOR_MOTION", 11)
    collected(results, neurostorm)
    page = " ".join((results.out / "group.html").read_text().split())
    assert "out of fold, in 44 runs of 11 subjects drawn at random" in page
