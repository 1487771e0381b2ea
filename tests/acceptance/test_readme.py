"""What the README says is so: every command runs, every option and output is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, SMALL, Tree, lightning, random_network

from neurostorm_bids.model.checkpoint import Checkpoint, write_safetensors
from neurostorm_bids.runtime.files import MODEL_FILE

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
    if line and not line.startswith(("docker", "apptainer"))  # tests/acceptance/container/run.sh runs their like
]  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder in which the README's names mean something."""
    tree = Tree(tmp_path / "BIDS_DIR")
    (tmp_path / "OUT_DIR").mkdir()
    bold = tree.run()
    (tmp_path / "bold.nii.gz").symlink_to(bold)
    (tmp_path / "mask.nii.gz").symlink_to(str(bold).replace("preproc_bold", "brain_mask"))
    lightning(tmp_path / "FILE.ckpt", random_network().state_dict(), **SMALL)
    return tmp_path


def keep_tuned_model(folder):
    """A model as fine-tuning leaves it."""
    folder.mkdir(parents=True)
    write_safetensors(
        Checkpoint(folder, random_network(head="v1", n_outputs=1).state_dict(), SMALL), folder / MODEL_FILE
    )


def how_to_run(command):
    """The command as it is run here, with what differs from a user's machine."""
    words = shlex.split(command)
    if words[0] == "make":
        return ["make", "-n", "-C", ROOT, words[1]]  # make test is what runs this
    if words[0] == "pip":  # everything that it needs is here already: no network
        return [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", ROOT]
    if words[:2] == ["neurostorm-hpc", "slurm"]:
        words.remove("--submit")  # tests/test_hpc.py has a Slurm
    if words[0] == "neurostorm" and "group" in words:
        words += ["--model", "demo"]
    elif words[0] == "neurostorm" and "--model" not in words:
        words += ["--model", "demo", "--window-stride", "9"]  # the published weights are not here
    return [BIN / words[0], *words[1:]]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_command_runs(command, place):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if " participant --model OUT_DIR/models/" in command:
        keep_tuned_model(place / command.split()[-1])
    done = subprocess.run(how_to_run(command), cwd=place, capture_output=True, text=True, env=environment)
    if command.startswith("neurostorm-model fetch"):  # without a network it says what to do
        assert done.returncode == 1
        assert "On a machine with a network: hf download" in done.stderr
        return
    if " group" in command:  # of one subject without a phenotype: tests/test_group.py has a cohort
        assert done.returncode == 1
        assert ("no column" if "finetune" in command else "run the participant level first") in done.stderr
        return
    if command.startswith("neurostorm-hpc status"):  # nothing has been run in this folder
        assert done.returncode == 1
        assert "1 not begun" in done.stdout
        return
    assert done.returncode == 0, done.stderr


def test_notebook_example_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    names = {}
    exec(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1], names)
    assert names["embedding"].shape == (1, 96)


def test_options_are_all_there():
    said = subprocess.run([BIN / "neurostorm", "--help"], capture_output=True, text=True).stdout
    of_help = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", said, re.MULTILINE)) - {"--help", "--version"}
    table = README[README.index("### Options") : README.index("## From Python")]
    assert set(re.findall(r"`(--[\w-]+)`", table)) - {"--help"} == of_help


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
