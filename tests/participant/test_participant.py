"""The participant level from the command line: what it writes, skips, and says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import FMRIPREP_SPACE, FSL_SPACE, NARROW, Tree, lightning, random_network, signal

from neurostorm_bids import load_model, to_model_grid
from neurostorm_bids.derivatives.tables import channels_of, read_table, write_table
from neurostorm_bids.encode import sizes
from neurostorm_bids.settings.participant import Resources


@pytest.fixture
def two_subjects(tree):
    """One subject with two runs, one with a session."""
    tree.run("sub-01_task-rest_run-1", data=signal(1))
    tree.run("sub-01_task-rest_run-2", data=signal(2, n_volumes=8))
    tree.run("sub-02_ses-a_task-rest", data=signal(3))
    return tree


def content(folder):
    """Every file below a folder with its bytes and time of change."""
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_everything_is_written(two_subjects, narrow, tmp_path, neurostorm):
    before = content(two_subjects.path)
    out = tmp_path / "out"
    status, printed, _ = neurostorm(two_subjects.path, out, "participant", "--model", narrow)
    assert status == 0
    assert content(two_subjects.path) == before
    stems = [
        "sub-01/func/sub-01_task-rest_run-1_space-MNI152NLin6Asym_desc-narrow",
        "sub-01/func/sub-01_task-rest_run-2_space-MNI152NLin6Asym_desc-narrow",
        "sub-02/ses-a/func/sub-02_ses-a_task-rest_space-MNI152NLin6Asym_desc-narrow",
    ]
    expected = {
        f"{stem}_{table}.{end}" for stem in stems for table in ("embeddings", "predictions") for end in ("tsv", "json")
    }
    expected |= {
        f"sub-{s}/sub-{s}_space-MNI152NLin6Asym_desc-narrow_embeddings.{end}"
        for s in ("01", "02")
        for end in ("tsv", "json")
    }
    expected |= {f"{stem}_datafit.json" for stem in stems}
    drawn = ("alignment", "narrowCarpet", "narrowTrajectory")
    names = [Path(stem).name.rsplit("_", 1)[0] for stem in stems]
    expected |= {f"{name[:6]}/figures/{name}_desc-{what}_bold.png" for name in names for what in drawn}
    expected |= {f"logs/CITATION.{end}" for end in ("md", "html", "tex", "bib")}
    expected |= {"dataset_description.json", ".bidsignore", "README", "CHANGES"}
    expected |= {"sub-01.html", "sub-02.html"}
    written = {str(path) for path in content(out)}
    logs, locks = ({path for path in written if name in path} for name in ("/log/", ".locks/"))
    assert written - logs - locks == expected
    assert sorted(path.split("/")[0] + Path(path).name for path in logs) == [
        f"sub-{subject}{name}" for subject in ("01", "02") for name in ("neurostorm.toml", "outcome.json")
    ]
    assert [line.split()[1] for line in printed.splitlines()[1:4]] == [
        "5",
        "3",
        "5",
    ]  # 12 volumes of 2 s: 30 frames of 0.8


def test_the_numbers_are_those_of_the_api(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    neurostorm(two_subjects.path, out, "participant", "--model", narrow, "--participant-label", "02")
    folder = two_subjects.path / "sub-02" / "ses-a" / "func"
    stem = f"sub-02_ses-a_task-rest_space-{FSL_SPACE}_res-2"
    gridded = to_model_grid(folder / f"{stem}_desc-preproc_bold.nii.gz", folder / f"{stem}_desc-brain_mask.nii.gz")
    model = load_model(narrow)
    clips = np.stack([gridded[..., i : i + 6] for i in range(0, 30, 6)])[:, None]
    table = read_table(next(out.glob("sub-02/ses-a/func/*_embeddings.tsv")))
    np.testing.assert_allclose(channels_of(table), model.embed(clips).numpy(), rtol=1e-4, atol=1e-6)
    assert table["onset"].tolist() == pytest.approx([0, 4.8, 9.6, 14.4, 19.2])
    assert table["duration"].tolist() == pytest.approx([4.8] * 5)
    prediction = read_table(next(out.glob("sub-02/ses-a/func/*_predictions.tsv"))).iloc[0]
    logits = model.predict(clips).numpy()
    assert prediction["probability_Male"] == pytest.approx(1 / (1 + np.exp(-logits.mean())), rel=1e-4)
    assert prediction["value"] == ("Male" if logits.mean() > 0 else "Female")
    assert prediction["spread"] == pytest.approx(np.std(1 / (1 + np.exp(-logits))), rel=1e-2)


def test_floats_survive_the_round_trip(tmp_path):
    rng = np.random.RandomState(0)
    values = (rng.standard_normal((5, 300)) * 10.0 ** np.arange(-20, 10, 0.1)[:300]).astype(np.float32)
    write_table(tmp_path / "x.tsv", pd.DataFrame(values, columns=[f"channel{i:03d}" for i in range(300)]))
    assert np.array_equal(channels_of(read_table(tmp_path / "x.tsv")).astype(np.float32), values)


def test_framewise_displacement_of_windows(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    neurostorm(
        two_subjects.path, out, "participant", "--model", narrow, "--target-tr", "native", "--participant-label", "02"
    )
    table = read_table(next(out.glob("sub-02/ses-a/func/*_embeddings.tsv")))
    assert table["mean_framewise_displacement"].tolist() == pytest.approx([0.3, 0.85])  # 0.1 ... 0.5 and 0.6 ... 1.1
    assert table["max_framewise_displacement"].tolist() == pytest.approx([0.5, 1.1])


def test_subject_table_weights_runs_by_windows(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    neurostorm(
        two_subjects.path, out, "participant", "--model", narrow, "--participant-label", "01", "--run-label", "1"
    )
    neurostorm(
        two_subjects.path, out, "participant", "--model", narrow, "--participant-label", "01", "--run-label", "2"
    )
    table = read_table(next(out.glob("sub-01/*_embeddings.tsv")))
    assert table["run"].tolist() == ["sub-01_task-rest_run-1", "sub-01_task-rest_run-2", "mean"]
    assert table["windows"].tolist() == [5, 3, 8]
    windows = [channels_of(read_table(path)) for path in sorted(out.glob("sub-01/func/*_embeddings.tsv"))]
    np.testing.assert_allclose(channels_of(table)[2], np.concatenate(windows).mean(axis=0), rtol=1e-6)


def test_sidecar_says_how(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    neurostorm(two_subjects.path, out, "participant", "--model", narrow, "--dummy-scans", "2")
    path = next(out.glob("sub-02/ses-a/func/*_embeddings.json"))
    sidecar, table = json.loads(path.read_text()), read_table(path.with_suffix(".tsv"))
    assert all(column in sidecar for column in table.columns)
    assert sidecar["Model"]["WeightsSHA256"] == subprocess.check_output(["sha256sum", narrow], text=True).split()[0]
    assert sidecar["Grid"]["Orientation"] == "LAS"
    assert sidecar["Preprocessing"]["DummyScansDropped"] == 2
    assert sidecar["Windows"] == {
        "Frames": 6,
        "Stride": 6,
        "Count": 4,
        "FramesNotUsed": 1,
        "Censored": 0,
        "FramewiseDisplacementThreshold": None,
        "MaxCensoredFraction": 0.5,
    }
    assert (
        sidecar["Sources"][0]
        == f"bids:fmriprep:sub-02/ses-a/func/sub-02_ses-a_task-rest_space-{FSL_SPACE}_res-2_desc-preproc_bold.nii.gz"
    )
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"]["fmriprep"] == two_subjects.path.as_uri()


def test_finished_runs_are_skipped_until_something_changes(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"

    def again(*options):
        _, printed, _ = neurostorm(two_subjects.path, out, "participant", "--model", narrow, *options)
        return [line.split(maxsplit=3)[3] for line in printed.splitlines()[1:4]]

    done, skipped = "done", "finished earlier, skipped"
    assert again() == [done] * 3
    before = content(out / "sub-01" / "func")
    assert again() == [skipped] * 3
    assert content(out / "sub-01" / "func") == before
    assert again("--window-stride", "3") == [done] * 3
    assert again("--window-stride", "3", "--force") == [done] * 3
    two_subjects.run("sub-01_task-rest_run-1", data=signal(9))
    assert again("--window-stride", "3") == [done, skipped, skipped]
    next(out.glob("sub-02/ses-a/func/*predictions.tsv")).unlink()
    assert again("--window-stride", "3") == [skipped, skipped, done]


def whole(path):
    """Whether a file of ours was written to its end."""
    text = path.read_text()
    return text.endswith("\n") and (path.suffix != ".json" or json.loads(text))


@pytest.mark.heavy
@pytest.mark.parametrize("moment", ["replace", "fsync"])
@pytest.mark.parametrize("nth", range(1, 8))
def test_killed_between_any_two_writes(two_subjects, narrow, tmp_path, monkeypatch, neurostorm, moment, nth):
    """A second call with other settings dies; what is there is whole, and the first settings are done again."""
    out = tmp_path / "out"
    call = (two_subjects.path, out, "participant", "--model", narrow, "--participant-label", "02")
    neurostorm(*call)
    finished = {path: path.read_bytes() for path in out.rglob("func/*") if path.suffix == ".tsv"}
    real, calls = getattr(os, moment), []

    def die(*args):
        written = os.readlink(f"/proc/self/fd/{args[0]}") if moment == "fsync" else str(args[1])
        if "/func/" in written or "/figures/" in written:  # not what concerns the whole data set
            calls.append(args)
            if len(calls) == nth:
                raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(os, moment, die)
    neurostorm(*call, "--window-stride", "1")
    monkeypatch.undo()
    assert len(calls) == nth
    assert all(whole(path) for path in out.rglob("*") if path.suffix in (".tsv", ".json"))
    assert not [*out.rglob(".*.tsv.*"), *out.rglob(".*.png.*")]
    status, printed, _ = neurostorm(*call)
    assert status == 0
    assert "done" in printed
    assert {path: path.read_bytes() for path in finished} == finished


@pytest.mark.heavy
def test_a_killed_worker_fails_its_own_run_alone(two_subjects, narrow, tmp_path, monkeypatch, neurostorm):
    """One run's process dies as if the kernel had killed it; the others are done."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import neurostorm_bids.resample.nifti as image\n"
        "opened = image.Bold.blocks\n"
        "def blocks(self, *args):\n"
        "    if 'run-2' in self.name:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return opened(self, *args)\n"
        "image.Bold.blocks = blocks\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, printed, said = neurostorm(
        two_subjects.path, tmp_path / "out", "participant", "--model", narrow, "--nprocs", "2"
    )
    assert status == 1
    assert "sub-01_task-rest_run-2: its process was killed, probably because memory ran out" in said
    states = {line.split()[0]: line.split()[-1] for line in printed.splitlines()[1:4]}
    # a run that was finished when the others' pool died is found so
    for other in ("sub-01_task-rest_run-1", "sub-02_ses-a_task-rest"):
        assert states.pop(other) in ("done", "skipped")
    assert states == {"sub-01_task-rest_run-2": "FAILED"}


@pytest.mark.heavy
def test_stop_on_first_crash_with_several_processes(tree, narrow, tmp_path, neurostorm):
    for i in range(6):
        tree.run(f"sub-{i:02d}_task-rest", data=signal(i))
    next(tree.path.glob("sub-00/func/*brain_mask*")).unlink()
    options = ("--nprocs", "2", "--stop-on-first-crash")
    status, printed, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", narrow, *options)
    listed = [line.split()[0] for line in printed.splitlines()[1:-1]]
    written = {path.name.split("_space")[0] for path in (tmp_path / "out").rglob("func/*embeddings.tsv")}
    assert status == 1
    assert written == set(listed) - {"sub-00_task-rest"}
    assert f"{6 - len(listed)} runs not done" in said


def test_a_failed_run_s_old_result_leaves_the_subject_s_table(two_subjects, narrow, tmp_path, neurostorm):
    call = (two_subjects.path, tmp_path / "out", "participant", "--model", narrow, "--participant-label", "01")
    neurostorm(*call)
    bold = next(two_subjects.path.glob("sub-01/func/*run-2*preproc_bold.nii.gz"))
    bold.write_bytes(bold.read_bytes()[:5000])
    status, _, said = neurostorm(*call)
    assert status == 1
    assert "run-2: failed, so it is not in the table of sub-01" in said
    table = read_table(next((tmp_path / "out").glob("sub-01/*_embeddings.tsv")))
    assert table["run"].tolist() == ["sub-01_task-rest_run-1", "mean"]


def test_label_scaling_is_for_one_model(two_subjects, narrow, tmp_path, neurostorm):
    options = ("--model", narrow, "demo", "--label-mean", "1", "--label-std", "1")
    status, _, said = neurostorm(two_subjects.path, tmp_path / "out", "participant", *options)
    assert status == 1
    assert "--label-mean and --label-std are for one model" in said


def test_a_head_of_unknown_meaning_is_written_raw(tree, tmp_path, neurostorm):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v1", n_outputs=2)
    path = lightning(tmp_path / "x.ckpt", network.state_dict(), **NARROW)
    tree.run()
    assert neurostorm(tree.path, tmp_path / "out", "participant", "--model", path)[0] == 0
    row = read_table(next((tmp_path / "out").rglob("*predictions.tsv"))).iloc[0]
    assert row["unit"].startswith("raw output of the head")
    assert np.isfinite([row["output0"], row["output1"]]).all()


@pytest.mark.heavy
def test_processes_in_parallel_write_the_same(two_subjects, narrow, tmp_path, neurostorm):
    neurostorm(two_subjects.path, tmp_path / "one", "participant", "--model", narrow, "--omp-nthreads", "1")
    status, printed, _ = neurostorm(
        two_subjects.path, tmp_path / "two", "participant", "--model", narrow, "--nprocs", "2"
    )
    assert status == 0
    assert printed.count("done") == 3
    for path in sorted((tmp_path / "one").rglob("*.tsv")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_several_models_at_once_and_the_demo_s_stamp(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    arguments = (two_subjects.path, out, "participant", "--participant-label", "02", "--model", narrow, "demo")
    assert neurostorm(*arguments)[0] == 0
    stamp = "a very small model trained on phantoms, for demonstration"
    for path in out.rglob("*_desc-demo_*.tsv"):
        assert set(read_table(path)["weights"]) == {stamp}
        assert json.loads(path.with_suffix(".json").read_text())["Model"]["Warning"] == stamp
    assert stamp in (out / "dataset_description.json").read_text()
    assert not [path for path in out.rglob("*_desc-narrow_*") if stamp in path.read_text()]
    assert len(list(out.rglob("*_desc-demo_*"))) == len(list(out.rglob("*_desc-narrow_*"))) == 7


@pytest.mark.heavy
def test_batches_do_not_change_the_numbers(two_subjects, narrow, tmp_path, neurostorm):
    for size in (1, 4):
        neurostorm(two_subjects.path, tmp_path / str(size), "participant", "--model", narrow, "--batch-size", size)
    for path in (tmp_path / "1").rglob("*func/*embeddings.tsv"):
        one, four = read_table(path), read_table(tmp_path / "4" / path.relative_to(tmp_path / "1"))
        np.testing.assert_allclose(channels_of(one), channels_of(four), rtol=1e-4, atol=1e-6)


def test_fmriprep_s_default_space_without_the_warp(tmp_path, narrow, neurostorm, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    tree = Tree(tmp_path / "d")
    tree.run(space=f"space-{FMRIPREP_SPACE}")
    call = (tree.path, tmp_path / "out", "participant", "--model", narrow)
    status, _, said = neurostorm(*call, "--template-warp", "require")
    assert status == 1
    name = f"tpl-{FSL_SPACE}/tpl-{FSL_SPACE}_from-{FMRIPREP_SPACE}_mode-image_xfm.h5"
    assert f"the warp between the templates is not on this machine: {tmp_path / 'templateflow' / name}" in said
    assert "--template-warp skip" in said
    status, _, said = neurostorm(*call, "--template-warp", "skip")
    assert status == 0
    assert "without the warp between the templates" in said
    assert neurostorm(tree.path, tmp_path / "p", "participant", "--model", narrow, "--grid", "as-fmriprep")[0] == 0
    path = next((tmp_path / "p").rglob("func/*embeddings.json"))
    assert f"space-{FMRIPREP_SPACE}_desc-narrow" in path.name
    assert json.loads(path.read_text())["Notes"] == []


@pytest.mark.parametrize(
    ("hyper_parameters", "options", "value", "unit"),
    [
        ({}, [], 0.5, "standardised (label scaling unknown)"),
        ({"label_mean": 30.0, "label_std": 4.0, "unit": "years"}, [], 32.0, "years"),
        (
            {"label_mean": 30.0, "label_std": 4.0},
            ["--label-mean", "10", "--label-std", "2"],
            11.0,
            "unit of the labels",
        ),
    ],
)
def test_regression_values_and_their_unit(tree, tmp_path, neurostorm, hyper_parameters, options, value, unit):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v1", n_outputs=1)
    weights = network.state_dict()
    weights["output_head.head.head.weight"].zero_()
    weights["output_head.head.head.bias"].fill_(0.5)
    path = lightning(
        tmp_path / "age.ckpt", weights, downstream_task_type="regression", task_name="age", **NARROW, **hyper_parameters
    )
    tree.run()
    assert neurostorm(tree.path, tmp_path / "out", "participant", "--model", path, *options)[0] == 0
    row = read_table(next((tmp_path / "out").rglob("*predictions.tsv"))).iloc[0]
    assert (row["target"], row["value"], row["unit"]) == ("age", pytest.approx(value), unit)


def test_multi_class_probabilities(tree, tmp_path, neurostorm):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v2", n_outputs=3)
    path = lightning(tmp_path / "t.ckpt", network.state_dict(), downstream_task_type="classification", **NARROW)
    tree.run()
    assert neurostorm(tree.path, tmp_path / "out", "participant", "--model", path)[0] == 0
    row = read_table(next((tmp_path / "out").rglob("*predictions.tsv"))).iloc[0]
    probabilities = {name: row[name] for name in row.index if name.startswith("probability_")}
    assert sum(probabilities.values()) == pytest.approx(1)
    assert f"probability_{row['value']}" == max(probabilities, key=probabilities.get)


@pytest.mark.heavy
@pytest.mark.parametrize("database", [False, True])
def test_nothing_is_written_to_the_input(two_subjects, narrow, tmp_path, database):
    def state():
        paths = [two_subjects.path, *two_subjects.path.rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = state()
    options = ["--bids-database-dir", tmp_path / "index"] if database else []
    command = [
        sys.executable,
        "-m",
        "neurostorm_bids",
        two_subjects.path,
        tmp_path / "out",
        "participant",
        "--model",
        narrow,
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=two_subjects.path)
    assert done.returncode == 0, done.stderr
    assert state() == before


def test_neither_index_nor_work_go_into_the_input(tmp_path, narrow, neurostorm):
    tree = Tree(tmp_path / "raw" / "derivatives" / "fmriprep")
    tree.run()
    for option in ("--bids-database-dir", "--work-dir"):
        call = (tmp_path / "raw", tmp_path / "out", "participant", "--model", narrow, option, tmp_path / "raw" / "x")
        status, _, said = neurostorm(*call)
        assert status == 1
        assert f"{option} {tmp_path / 'raw' / 'x'} is inside the input" in said
    assert (
        neurostorm(tmp_path / "raw", tmp_path / "raw/derivatives/neurostorm", "participant", "--model", narrow)[0] == 0
    )


def test_too_little_memory_is_said_before_the_work_begins(two_subjects, tmp_path, neurostorm):
    out = tmp_path / "o"
    status, _, said = neurostorm(
        two_subjects.path, out, "participant", "--model", "demo", "--mem-mb", "300", "--nprocs", "2"
    )
    assert status == 1
    assert said.startswith("error: --mem-mb 300 is too little: 2 run(s) at a time need about")
    assert not out.exists()


def test_batches_are_made_smaller_to_fit_the_memory(monkeypatch):
    monkeypatch.setattr(sizes, "resident_mb", lambda: 500.0)
    model, each = load_model("demo"), sizes.window_mb(load_model("demo"))
    assert sizes.batch_size(model, Resources(mem_mb=int(500 + 3.5 * each)), wanted=6) == 3


def test_existing_description_is_kept_up_to_date(two_subjects, narrow, tmp_path, neurostorm):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".bidsignore").write_text("mine\n")
    (out / "dataset_description.json").write_text(
        json.dumps({"GeneratedBy": [{"Name": "neurostorm_bids"}], "DatasetLinks": {"other": "file:///x", "odd": {}}})
    )
    neurostorm(two_subjects.path, out, "participant", "--model", narrow)
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert set(links) == {"other", "fmriprep", "templateflow"}
    assert (out / ".bidsignore").read_text().startswith("mine\n*_embeddings.tsv")


def test_pandas_reads_our_tables_plainly(two_subjects, narrow, tmp_path, neurostorm):
    neurostorm(two_subjects.path, tmp_path / "out", "participant", "--model", narrow)
    table = pd.read_csv(next((tmp_path / "out").rglob("func/*embeddings.tsv")), sep="\t")
    assert table.filter(like="channel").to_numpy().dtype == float
