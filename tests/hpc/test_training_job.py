"""The job of a training: what is written, and that a real Slurm stops it and goes on with it."""

import os
import re
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from test_hpc import hpc

SMALL = ("--size", "embed_dim=4", "depths=1,1", "img_size=24", "sequence_length=8")


@pytest.fixture
def people(tree):
    for i in range(5):
        tree.run(f"sub-{i:02d}_task-rest")
    return tree


def write(tree, out, *options, words=("--save-as", "ours", *SMALL)):
    return hpc("slurm", tree.path, out, "--group-task", "pretrain", *options, "--", *words)


def test_a_job_of_two_nodes_of_four(people, tmp_path):
    status, said = write(people, tmp_path / "o", "--nodes", 2, "--gpus", 4, "--cpus", 6, "--time", "2:00:00")
    assert status == 0, said
    script = Path(re.search(r"^(\S+training\.sbatch)$", said, re.MULTILINE)[1]).read_text()
    for line in (
        "nodes=2",
        "ntasks-per-node=4",
        "cpus-per-task=6",
        "gres=gpu:4",
        "time=2:00:00",
        "requeue",
        "signal=USR1@300",
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "--devices 4 --nodes 2" in script
    assert "--ntasks=" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_in_a_container_slurm_s_variables_and_all_inputs_are_seen(people, tmp_path):
    """Run the call as a task of Slurm would, with a program in Apptainer's place that says what it was given."""
    image, other, weights = tmp_path / "image.sif", tmp_path / "other", tmp_path / "w" / "model.ckpt"
    weights.parent.mkdir()
    for path in (image, weights):
        path.write_bytes(b"")
    other.mkdir()
    words = ("--save-as", "ours", "--from", weights, "--pretrain-on", other)
    status, said = write(people, tmp_path / "o", "--container", image, "--gpus", 1, words=words)
    assert status == 0, said
    script = Path(re.search(r"^(\S+training\.sbatch)$", said, re.MULTILINE)[1]).read_text()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"'),
        ("apptainer", 'echo "$APPTAINERENV_SLURM_PROCID of $*"'),
    ):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_PROCID": "3",
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 of run ")
    for folder in (people.path, other, weights.parent):
        assert f"--bind {folder}:{folder}:ro" in done.stdout
    assert f"--start-from {weights}" in done.stdout


def test_people_who_are_left_out_stay_left_out(people, tmp_path):
    words = ("--save-as", "ours", "--participant-label", "00", "01", "02", "03")
    status, said = write(people, tmp_path / "o", words=words)
    assert status == 0, said
    script = Path(re.search(r"^(\S+training\.sbatch)$", said, re.MULTILINE)[1]).read_text()
    assert "--participant-label 00 01 02 03" in script
    status, said = write(people, tmp_path / "o", "--participant-label", "00")
    assert status == 1
    assert "--participant-label is of arrays" in said


@pytest.mark.parametrize("words", [SMALL, ("--save-as", "ours", "--resume")])
def test_a_training_needs_a_name(people, tmp_path, words):
    status, said = write(people, tmp_path / "o", words=words)
    assert status == 1
    assert "give --save-as NAME after --, and no --resume" in said


def test_a_real_slurm_stops_a_training_and_goes_on_with_it(people, tmp_path, slurm):
    """Warned in the middle of it, the job saves a step, goes back to the queue, and ends with all steps done."""
    out = tmp_path / "o"
    words = ("--save-as", "ours", *SMALL, "--steps", "500", "--validate-every", "250", "--batch-size", "1")
    status, said = write(people, out, "--mem-mb", 4000, "--cpus", 1, "--submit", words=words)
    assert status == 0, said
    job = re.search(r"submitted: (\d+)", said)[1]
    wait_for(lambda: "model ours: training" in log(out))
    time.sleep(5)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_for(lambda: "goes on from there" in log(out))
    wait_for(lambda: "Results are in" in log(out))
    first = int(re.search(r"stopped after step (\d+)", log(out))[1])
    assert 0 < first < 500
    history = pd.read_csv(out / "models" / "ours" / "history.tsv", sep="\t")
    assert history["step"].tolist() == [250, 500]


def log(out):
    return "".join(path.read_text() for path in out.glob("logs/slurm/*/*.log"))


def wait_for(condition, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(1)
