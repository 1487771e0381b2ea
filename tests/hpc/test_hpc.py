"""Job arrays: what is written, and that a real Slurm takes it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from cohorts import hcp_run, ukb_run
from helpers import save

from neurostorm_bids.command.hpc import main
from neurostorm_bids.hpc import jobs
from neurostorm_bids.hpc.status import status_of
from neurostorm_bids.resample.grid import FSL

MODEL = ("--model", "demo", "--window-stride", "9")


@pytest.fixture
def three(tree):
    """Three subjects of one run."""
    for subject in ("01", "02", "03"):
        tree.run(f"sub-{subject}_task-rest")
    return tree


def hpc(*args):
    """Call the command; returns the exit status and what it said."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def script_of(said: str) -> str:
    return Path(re.search(r"^(\S+array\.sbatch)$", said, re.MULTILINE)[1]).read_text()


def test_a_script_takes_its_line_of_subjects(three, tmp_path):
    """Run it as Slurm would: by bash, with the number of the task in the environment."""
    out = tmp_path / "o"
    status, said = hpc("slurm", three.path, out, "--subjects-per-task", 2, "--", *MODEL)
    assert status == 0
    assert "tasks: 2; subjects in each: 2" in said
    script = next(out.glob("logs/slurm/*/array.sbatch"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "1"}
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True)
    assert [status_of(out, s).status for s in ("01", "02", "03")] == ["not begun", "not begun", "finished"]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["hcp", "ukb"])
def test_a_cohort_s_folders_are_arrays_too(tmp_path, kind):
    for subject in ("1000001", "1000002"):
        if kind == "hcp":
            hcp_run(tmp_path / "in", subject)
        else:
            ukb_run(tmp_path / "in", f"{subject}_20227_2_0")
    out = tmp_path / "o"
    status, said = hpc("slurm", tmp_path / "in", out, "--participant-label", "1000002", "--", *MODEL)
    assert status == 0, said
    script = next(out.glob("logs/slurm/*/array.sbatch"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"}
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True)
    status, said = hpc("status", tmp_path / "in", out)
    assert "1 finished" in said
    assert "1 not begun" in said


def test_finished_are_left_out_and_failed_are_taken_again(three, tmp_path, neurostorm):
    out = tmp_path / "o"
    bad = three.run("sub-02_task-rest")
    bad.write_bytes(b"nothing")
    neurostorm(three.path, out, "participant", *MODEL, "--participant-label", "01", "02")
    status, said = hpc("status", three.path, out)
    assert status == 1
    assert re.search(r"sub-02 +failed: .*cannot be read as NIfTI", said)
    assert re.search(r"sub-03 +not begun", said)
    table = (out / "logs" / "status.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in table[1:]] == [
        ["sub-01", "finished"], ["sub-02", "failed"], ["sub-03", "not begun"]
    ]  # fmt: skip
    status, said = hpc("slurm", three.path, out, "--", *MODEL)
    assert "1 of 3 subjects are finished, 2 are left" in said
    assert (next(out.glob("logs/slurm/*/subjects.txt"))).read_text() == "02\n03\n"
    assert "0 of 3 subjects are finished" in hpc("slurm", three.path, out, "--", *MODEL, "--target-tr", "native")[1]


def test_memory_and_time_are_those_that_were_measured(three, tmp_path, neurostorm):
    out = tmp_path / "o"
    assert "#SBATCH --mem=3000M" in script_of(hpc("slurm", three.path, out, "--", *MODEL)[1])
    neurostorm(three.path, out, "participant", *MODEL, "--participant-label", "01")
    measured = status_of(out, "01").memory_mb
    assert 100 < measured < 20000
    script = script_of(hpc("slurm", three.path, out, "--", *MODEL)[1])
    asked = int(re.search(r"--mem=(\d+)M", script)[1])
    assert measured < asked <= 1.3 * measured + 1


def test_in_a_container_what_is_needed_is_bound(three, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORM_HOME", "/big/weights")
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    image, model = tmp_path / "n.sif", tmp_path / "models" / "m.ckpt"
    model.parent.mkdir()
    for path in (image, model):
        path.write_bytes(b"")
    status, said = hpc(
        "slurm", three.path, tmp_path / "o", "--container", image, "--gpu", "--partition", "gpu", "--at-a-time", 5,
        "--sbatch-option=--qos=long", "--", "--model", model, "--work-dir", tmp_path / "w",
    )  # fmt: skip
    assert status == 0, said
    script = script_of(said)
    for line in ("--array=1-3%5", "--gres=gpu:1", "--partition=gpu", "--qos=long"):
        assert f"#SBATCH {line}\n" in script
    call = script.splitlines()[-1]
    assert call.startswith("exec apptainer run --cleanenv --containall --writable-tmpfs --nv ")
    for bind in (
        f"{three.path}:{three.path}:ro",
        f"{tmp_path / 'o'}:{tmp_path / 'o'}",
        f"{tmp_path / 'models'}:{tmp_path / 'models'}:ro",
        f"{tmp_path / 'w'}:{tmp_path / 'w'}",
        "/big/weights:/opt/neurostorm:ro",
    ):
        assert f" --bind {bind} " in call


@pytest.mark.parametrize("at", ["@random", "@mean"])
def test_in_a_container_the_weights_of_a_variant_are_bound(three, tmp_path, at):
    image, model = tmp_path / "n.sif", tmp_path / "models" / "m.ckpt"
    model.parent.mkdir()
    for path in (image, model):
        path.write_bytes(b"")
    status, said = hpc("slurm", three.path, tmp_path / "o", "--container", image, "--", "--model", f"{model}{at}")
    assert status == 0, said
    call = script_of(said).splitlines()[-1]
    assert f" --bind {model.parent}:{model.parent}:ro " in call
    assert f" --model {model}{at} " in f"{call} "


def test_awkward_paths_are_quoted_or_refused(three, tmp_path):
    work = tmp_path / "a $(touch b) 'c'"
    script = script_of(hpc("slurm", three.path, tmp_path / "o", "--", *MODEL, "--work-dir", work)[1])
    words = subprocess.run(
        ["bash", "-c", f"exec() {{ printf '%s\\n' \"$@\"; }}; {script.splitlines()[-1]}"], capture_output=True, text=True,
        env={"SLURM_CPUS_PER_TASK": "1", "subjects": "x"}, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert words[words.index("--work-dir") + 1] == str(work)
    status, said = hpc("slurm", three.path, tmp_path / "o 2", "--", *MODEL)
    assert status == 1
    assert "path without spaces" in said
    (tmp_path / "i.sif").write_bytes(b"")
    status, said = hpc("slurm", three.path, tmp_path / "a:b", "--container", tmp_path / "i.sif", "--", *MODEL)
    assert "cannot bind a path with a colon" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--", "--no-such"), "No such option"),
        (("--", "--participant-label", "01"), "give it before --"),
        (("--participant-label", "77", "--", *MODEL), "holds no sub-77"),
        (("--time", "soon", "--", *MODEL), "is not H:MM:SS"),
        (("--sbatch-option", "x", "--", *MODEL), "no option of sbatch"),
    ],
)
def test_wrong_calls(three, tmp_path, options, message):
    status, said = hpc("slurm", three.path, tmp_path / "o", *options)
    assert status != 0
    assert message in said


def test_sixty_thousand_subjects_make_an_array_that_slurm_takes():
    labels = [f"{i:05d}" for i in range(60000)]
    tasks = jobs.batches(labels, None)
    assert len(tasks) <= jobs.LARGEST_ARRAY
    assert [label for task in tasks for label in task] == labels
    with pytest.raises(Exception, match="--subjects-per-task 60 or more"):
        jobs.batches(labels, 10)


def test_without_slurm_it_says_so(three, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    status, said = hpc("slurm", three.path, tmp_path / "o", "--submit", "--", *MODEL)
    assert status == 1
    assert "no sbatch on this machine" in said


def test_a_real_slurm_runs_the_array_and_then_the_group(three, tmp_path, slurm):
    out = tmp_path / "o"
    good = three.run("sub-02_task-rest").read_bytes()
    three.run("sub-02_task-rest").write_bytes(b"nothing")
    call = (
        "slurm",
        three.path,
        out,
        "--mem-mb",
        1500,
        "--cpus",
        1,
        "--submit",
        "--group",
        "--group-task qc --model demo",
    )
    raw, halves = tmp_path / "raw", np.ones(FSL.shape, np.int16)
    halves[48:] = 2
    atlas = save(tmp_path / "tpl-x_atlas-Halves_dseg.nii.gz", halves, FSL.matrix)
    raw.mkdir()
    (raw / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.8.0"}')
    (raw / "task-rest_events.tsv").write_text("onset\tduration\ttrial_type\n10\t2\thouses\n13\t2\thouses\n")
    more = (
        *("--embedding-level", "frame", "token", "--stage", "3", "--timeseries", atlas),
        *("-d", f"raw={raw}", "--conditions", "houses", "--lag", "0", "--window-per-trial"),
        *("--exclude", tmp_path / "exclude.tsv"),
    )
    (tmp_path / "exclude.tsv").write_text("run_name\treason\nsub-03_task-motor\tmoved\n")
    three.run("sub-03_task-motor")
    status, said = hpc(*call, "--", *MODEL, *more)
    assert status == 0, said
    wait_for_slurm()
    assert not list(out.rglob("func/sub-03_task-motor*"))
    assert [len(pd.read_csv(table, sep="\t")) for table in out.rglob("func/*_embeddings.tsv")] == [2, 2]  # trials
    assert len(list(out.rglob("func/*_stage-3_tokens.npz"))) == len(list(out.rglob("func/*_stage-3_frames.npz"))) == 2
    assert len(list(out.rglob("func/*_seg-Halves_stat-pearsoncorrelation_relmat.tsv"))) == 2
    assert all("houses" in table.read_text() for table in out.rglob("func/*_embeddings.tsv"))
    assert [status_of(out, s).status for s in ("01", "02", "03")] == ["finished", "failed", "finished"]
    assert not list(out.glob("logs/slurm/*/group.log"))  # the group job waits for the whole array
    subprocess.run(["scancel", "--name=neurostorm-group"], check=True)
    next(three.path.glob("sub-02/func/*bold.nii.gz")).write_bytes(good)
    assert "2 of 3 subjects are finished, 1 are left" in hpc(*call, "--", *MODEL, *more)[1]
    wait_for_slurm("neurostorm-group")
    assert hpc("status", three.path, out)[0] == 0
    assert list(out.glob("logs/slurm/*/group.log"))
    assert len(pd.read_csv(next(out.glob("group_*_qc.tsv")), sep="\t")) == 3


def wait_for_slurm(name="neurostorm"):
    """Until no job of this name is there."""
    assert shutil.which("squeue")
    for _ in range(300):
        if not subprocess.run(["squeue", "-h", f"--name={name}"], capture_output=True, text=True).stdout.strip():
            return
        time.sleep(0.5)
    raise AssertionError(f"{name} does not end")


def test_nothing_is_written_to_the_input(three):
    for call in (("slurm", three.path, three.path, "--", *MODEL), ("status", three.path, three.path)):
        status, said = hpc(*call)
        assert status == 1
        assert "is inside the input, which is never written to" in said
    assert not (three.path / "logs").exists()


def test_two_calls_at_once_have_folders_of_their_own(three, tmp_path):
    out = tmp_path / "o"
    for label in ("01", "02"):
        assert hpc("slurm", three.path, out, "--participant-label", label, "--", *MODEL)[0] == 0
    assert sorted(path.read_text() for path in out.glob("logs/slurm/*/subjects.txt")) == ["01\n", "02\n"]


def test_a_subject_whose_report_fails_is_not_finished(three, tmp_path, neurostorm):
    out = tmp_path / "o"
    (out / "sub-01.html").mkdir(parents=True)
    assert neurostorm(three.path, out, "participant", *MODEL, "--participant-label", "01", "02")[0] == 1
    assert [status_of(out, s).status for s in ("01", "02")] == ["failed", "finished"]


def test_other_input_or_label_scaling_is_not_finished(three, tmp_path, neurostorm):
    out = tmp_path / "o"
    neurostorm(three.path, out, "participant", *MODEL)
    assert "3 of 3 subjects are finished" in hpc("slurm", three.path, out, "--", *MODEL)[1]
    scaled = ("--", *MODEL, "--label-mean", "5", "--label-std", "2")
    assert "0 of 3 subjects are finished" in hpc("slurm", three.path, out, *scaled)[1]
    other = three.path.with_name("other")
    shutil.copytree(three.path, other)
    assert "0 of 3 subjects are finished" in hpc("slurm", other, out, "--", *MODEL)[1]


def test_files_beside_the_output_do_not_cover_it(three, tmp_path, monkeypatch):
    """Apptainer binds in order: a folder above, bound later, would hide the output folder below it."""
    filters, image = tmp_path / "f.json", tmp_path / "n.sif"
    filters.write_text('{"bold": {"task": "rest"}}')
    image.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    status, said = hpc("slurm", three.path, "o", "--container", image, "--", *MODEL, "--bids-filter-file", "f.json")
    assert status == 0, said
    call = script_of(said).splitlines()[-1]
    assert call.index(f"--bind {tmp_path}:{tmp_path}:ro") < call.index(f"--bind {tmp_path / 'o'}:{tmp_path / 'o'} ")
    assert f"--bids-filter-file {filters} " in call


def test_options_of_a_configuration_file_come_along(three, tmp_path):
    (tmp_path / "c.toml").write_text('model = ["demo"]\nparticipant-label = ["03"]\nwindow-stride = 9\n')
    status, said = hpc("slurm", three.path, tmp_path / "o", "--", "--config-file", tmp_path / "c.toml")
    assert status == 0
    assert next((tmp_path / "o").glob("logs/slurm/*/subjects.txt")).read_text() == "03\n"
    assert "--model demo --window-stride 9 --omp-nthreads" in script_of(said)


def test_a_group_job_alone_when_nothing_is_left(three, tmp_path, neurostorm):
    out = tmp_path / "o"
    neurostorm(three.path, out, "participant", *MODEL)
    status, said = hpc("slurm", three.path, out, "--group", "--model demo", "--", *MODEL)
    assert status == 0
    folder = next(out.glob("logs/slurm/*"))
    assert [path.name for path in folder.iterdir()] == ["group.sbatch"]
    assert (folder / "group.sbatch").read_text().endswith(f"exec neurostorm {three.path} {out} group --model demo\n")
    status, said = hpc("slurm", three.path, out, "--group", "'", "--", *MODEL)
    assert status == 1
    assert "No closing quotation" in said
