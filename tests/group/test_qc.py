"""--group-task qc and --exclude: the worst first, ticks that become a table, and who is left out and why."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from helpers import Results

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.fixture
def results(tmp_path):
    """Twelve subjects with two runs; one run moves, another asks something."""
    results = Results(tmp_path)
    for i in range(12):
        for run in ("01", "02"):
            results.add(f"sub-{i:02d}_task-rest_run-{run}")
    change(results, "sub-07_task-rest_run-02", lambda about: about["FramewiseDisplacement"].update(Mean=9.0))
    stem = next(results.out.rglob("sub-03_task-rest_run-01_*_embeddings.tsv"))
    fit = {"tsnr": {"Value": 40.0, "Flag": "drifts <more> than what the model saw"}}
    stem.with_name(stem.name.replace("_embeddings.tsv", "_datafit.json")).write_text(json.dumps({"Measures": fit}))
    return results


def change(results, run, how):
    path = next(results.out.rglob(f"{run}_*_embeddings.json"))
    about = json.loads(path.read_text())
    how(about)
    path.write_text(json.dumps(about))


def group(results, neurostorm, task, *options):
    return neurostorm(results.raw, results.out, "group", "--model", "base", "--group-task", task, *options)


def test_the_worst_come_first_with_the_reason(results, neurostorm):
    status, printed, said = group(results, neurostorm, "qc")
    assert status == 0, said
    table = pd.read_csv(results.out / "group_desc-base_qc.tsv", sep="\t", keep_default_na=False)
    assert table.loc[0, ["run_name", "because"]].tolist() == ["sub-07_task-rest_run-02", "mean_fd"]
    asked = table[table["questions"] != ""]
    assert asked["run_name"].tolist() == ["sub-03_task-rest_run-01"]
    assert float(asked["badness"].iloc[0]) >= 3
    assert "first sub-07_task-rest_run-02 (mean_fd)" in printed
    page = (results.out / "group_desc-base_qc.html").read_text()
    assert "drifts \\u003cmore> than" in page
    assert "sub-07/figures/sub-07_task-rest_run-02_space-MNI152NLin6Asym_desc-alignment_bold.png" in page


EXCLUDE = "run_name\tparticipant_id\treason\nsub-07_task-rest_run-02\t\tmoved\n\tsub-03\tasleep\n"


OF_AGE = ("--target", "age", "--n-permutations", "9")


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("collect", ()),
        ("identify", ("--n-permutations", "9")),
        ("probe", OF_AGE),
        ("decode", ("--target", "run", "--n-permutations", "9")),
        ("reliability", ("--n-permutations", "9")),
        ("associations", OF_AGE),
        ("normative", ("--reference-group", "group=control")),  # which needs more people, and says so after it
    ],
)
def test_who_is_left_out_is_said_with_the_reason(results, neurostorm, tmp_path, task, options):
    (tmp_path / "exclude.tsv").write_text(EXCLUDE)
    people = "".join(f"sub-{i:02d}\t{20 + i}\t{'control' if i % 2 else 'patient'}\n" for i in range(12))
    (results.raw / "participants.tsv").write_text(f"participant_id\tage\tgroup\n{people}")
    status, _, said = group(results, neurostorm, task, *options, "--exclude", tmp_path / "exclude.tsv")
    assert status == (task == "normative"), said
    assert "3 of 24 runs left out by" in said
    assert "sub-07_task-rest_run-02 (moved)" in said
    assert "sub-03_task-rest_run-01 (asleep)" in said
    assert "no results of model" not in said
    if status == 0:
        page = next(path for path in results.out.glob("group*.html") if path.name != "group_index.html").read_text()
        assert "sub-07_task-rest_run-02 (moved)" in page
        abouts = [json.loads(path.read_text()) for path in results.out.glob("group_*.json")]
        assert all(about["ExcludedBy"]["Reasons"]["sub-03"] == "asleep" for about in abouts if "Command" in about)
    if task == "collect":
        names = pd.read_csv(results.out / "group_desc-base_embeddings.tsv", sep="\t")["run_name"]
        assert len(names) == 21


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\tx\na\tb\n", "has neither a column run_name nor participant_id; there are: name, x"),
        ("participant_id\n" + "".join(f"sub-{i:02d}\n" for i in range(12)), "all runs are left out by"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(results, neurostorm, tmp_path, table, message):
    (tmp_path / "exclude.tsv").write_text(table)
    status, _, said = group(results, neurostorm, "collect", "--exclude", tmp_path / "exclude.tsv")
    assert status == 1
    assert message in said


def test_a_quote_in_a_reason_is_a_letter_and_near_misses_are_named(results, neurostorm, tmp_path):
    rows = 'sub-01_task-rest_run-01\t"blurry\nsub-02_task-rest_run-1\tmoved\nsub-04_task-rest_run-01\t"x"\n'
    (tmp_path / "exclude.tsv").write_text(f"run_name\treason\n{rows}")
    status, _, said = group(results, neurostorm, "collect", "--exclude", tmp_path / "exclude.tsv")
    assert status == 0
    assert "2 of 24 runs left out by" in said
    assert 'sub-01_task-rest_run-01 ("blurry)' in said
    assert (
        "sub-02_task-rest_run-1 names nobody, and nobody is left out by it; is sub-02_task-rest_run-01 meant?" in said
    )


def test_the_participant_level_leaves_them_out_too(tree, tmp_path, neurostorm, narrow):
    for i in (1, 2):
        tree.run(f"sub-0{i}_task-rest")
    (tmp_path / "exclude.csv").write_text("participant_id,reason\n02,moved\n")
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--exclude", tmp_path / "exclude.csv")
    status, _, said = neurostorm(*call)
    assert status == 0, said
    assert "1 of 2 runs left out by" in said
    assert not list((tmp_path / "o").rglob("sub-02*_embeddings.tsv"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_ticks_of_the_page_become_the_table_that_they_came_from(results, neurostorm, tmp_path):
    (tmp_path / "exclude.tsv").write_text(EXCLUDE)
    assert group(results, neurostorm, "qc", "--exclude", tmp_path / "exclude.tsv")[0] == 0
    page = results.out / "group_desc-base_qc.html"
    # what would be saved is written into the page instead
    script = """<script>
      URL.createObjectURL = blob => { blob.text().then(t => { document.title = "saved"; document.body.dataset.saved = JSON.stringify(t); }); return "#"; };
      const box = [...document.querySelectorAll("#qc input[type=checkbox]")].find(b => b.getAttribute("aria-label") === "exclude sub-00_task-rest_run-01");
      box.click(); document.getElementById("qc-save").click();
    </script>"""
    page.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        "--dump-dom",
        f"file://{page}",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "4 of 24 runs ticked" in dom  # two by the line of their subject
    assert len(re.findall(r'title="sub-03 is in the table"', dom)) == 2
    saved = json.loads(re.search(r'data-saved="(.*?)"[ >]', dom)[1].replace("&quot;", '"'))
    (tmp_path / "saved.tsv").write_text(saved)
    assert "4 of 24 runs left out by" in group(results, neurostorm, "collect", "--exclude", tmp_path / "saved.tsv")[2]
    rows = [line.split("\t") for line in saved.splitlines()]
    assert rows[0] == ["run_name", "participant_id", "session_id", "reason"]
    assert ["", "sub-03", "", "asleep"] in rows
    assert ["sub-07_task-rest_run-02", "sub-07", "", "moved"] in rows
    assert [row[0] for row in rows[1:]] == ["sub-00_task-rest_run-01", "", "sub-07_task-rest_run-02"]
