"""What README and site say is so: every command runs, every link of the README leads somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import hcp_run
from helpers import ROOT, SMALL, Tree, lightning, narrow_model, random_network, signal
from minimal import Minimal

README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts}
# tutorials run when the site is built; the trainings of the page on pretraining take hours
RUN_HERE = [text for path, text in PAGES.items() if path.parent.name != "tutorials" and path.name != "pretraining.md"]
SAID = "\n".join([README, *RUN_HERE])
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", SAID, re.DOTALL) for line in block.splitlines()
    if line.startswith(("make", "pip", "neurostorm"))  # containers: tests/acceptance/container/run.sh; bosh: .ci/release-check
]  # fmt: skip
ON_A_COHORT = [command for command in COMMANDS if " group" in command or "OUT_DIR/models/" in command]
N_SUBJECTS = 12


@pytest.fixture
def place(tmp_path):
    """A folder in which the README's names mean something."""
    tree = Tree(tmp_path / "BIDS_DIR")
    (tmp_path / "OUT_DIR").mkdir()
    bold = tree.run()
    (tmp_path / "bold.nii.gz").symlink_to(bold)
    (tmp_path / "mask.nii.gz").symlink_to(str(bold).replace("preproc_bold", "brain_mask"))
    minimal = Minimal(tmp_path / "minimal", n_volumes=9)
    (tmp_path / "FMRIPREP_DIR").symlink_to(minimal.derivatives)
    (tmp_path / "RAW_DIR").symlink_to(minimal.raw)
    hcp_run(tmp_path / "HCP_DIR")
    lightning(tmp_path / "FILE.ckpt", random_network().state_dict(), **SMALL)
    return tmp_path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Twelve subjects with two tasks each, after the participant level."""
    folder = tmp_path_factory.mktemp("cohort")
    tree = Tree(folder / "BIDS_DIR")
    rows = []
    for i in range(N_SUBJECTS):
        rows.append({"participant_id": f"sub-{i:02d}", "age": 20 + 3.5 * i, "sex": "FM"[i % 2], "site": "AB"[i // 6]})
        for task in ("rest", "motor"):
            tree.run(f"sub-{i:02d}_task-{task}", data=signal(i + 50 * (task == "rest"), n_volumes=3))
    pd.DataFrame(rows).to_csv(tree.path / "participants.tsv", sep="\t", index=False)
    model = narrow_model(folder / "narrow.ckpt")
    call = [BIN / "neurostorm", "BIDS_DIR", "OUT_DIR", "participant", "--model", model, "--save-grid"]
    subprocess.run(call, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
    return folder


def how_to_run(command):
    """Return the command as it is run here, with what differs from a user's machine."""
    words = shlex.split(command)
    if words[0] == "make":
        return ["make", "-n", "-C", ROOT, words[1]]  # make test is what runs this
    if words[0] == "pip":  # everything that it needs is here already: no network
        return [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", ROOT]
    if words[:2] == ["neurostorm-hpc", "slurm"]:
        words.remove("--submit")  # tests/hpc/test_hpc.py has a Slurm
    if "--attribution" in words:  # it takes half a minute a run
        words += ["--participant-label", "00", "01", "--task-id", "rest"]
    if words[0] == "neurostorm" and "group" in words:
        trains = "finetune" in words or "pretrain" in words
        words = [
            "narrow.ckpt" if word == "FILE.ckpt" or before == "--from" else word
            for before, word in zip(["", *words[:-1]], words, strict=True)
        ]
        words += [] if "--model" in words else ["--model", "narrow.ckpt"]
        words += ["--epochs", "1", "--force"] if trains else []  # pages name the same models
    elif words[0] == "neurostorm" and "--model" not in words:
        words += ["--model", "demo", "--window-stride", "9"]  # the published weights are not here
    return [BIN / words[0], *words[1:]]


def unexplained(out):
    """Return the columns of the group's tables that no sidecar explains."""
    return [
        (table.name, name)
        for table in out.glob("group*.tsv")
        for name in pd.read_csv(table, sep="\t", nrows=1)
        if name not in json.loads(table.with_suffix(".json").read_text())
    ]


def run(command, folder):
    return subprocess.run(how_to_run(command), cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)


@pytest.mark.heavy
@pytest.mark.parametrize("command", dict.fromkeys(c for c in COMMANDS if c not in ON_A_COHORT))
def test_command_runs(command, place):
    done = run(command, place)
    if command.startswith("neurostorm-model fetch"):  # without a network it says what to do
        assert done.returncode == 1
        assert "On a machine with a network: hf download" in done.stderr
    elif command == "neurostorm-model templates" and done.returncode:
        assert "On a machine with a network: python -c" in done.stderr
    elif "--conditions" in command:  # tests/participant/test_trials.py has events
        assert (
            "there is no events.tsv" in done.stderr or "none of the runs" in done.stderr or "localizer" in done.stderr
        )
    elif command.startswith("neurostorm-hpc status"):  # nothing has been run in this folder
        assert done.returncode == 1
        assert "1 not begun" in done.stdout
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("command", dict.fromkeys(ON_A_COHORT))
def test_command_runs_on_a_cohort(command, cohort):
    if "OUT_DIR/models/" in command:  # the README trains it further up
        name = re.search(r"OUT_DIR/models/(\w+)", command)[1]
        before = next(each for each in COMMANDS if f"--save-as {name}" in each)
        assert (cohort / "OUT_DIR" / "models" / name).is_dir() or run(before, cohort).returncode == 0
    if command.startswith("neurostorm-model reference"):
        done = run("neurostorm BIDS_DIR OUT_DIR participant --model OUT_DIR/models/sex", cohort)
        assert done.returncode == 0, done.stderr
    if "--group-task attribution" in command:
        before = next(each for each in COMMANDS if each.endswith("--attribution"))
        assert list((cohort / "OUT_DIR").rglob("*_statmap.json")) or run(before, cohort).returncode == 0
    done = run(command, cohort)
    assert done.returncode == 0, done.stderr
    if " group" in command:
        page = re.search(r"^Open (\S+\.html)$", done.stdout, re.MULTILINE)[1]
        assert "</html>" in Path(page).read_text()
        assert not unexplained(cohort / "OUT_DIR")
    elif "--attribution" in command:
        assert len(list((cohort / "OUT_DIR").rglob("*_desc-sex_stat-attributionOwnMean_statmap.json"))) == 2
    else:
        name = re.search(r"OUT_DIR/models/(\w+)", command)[1]
        assert (
            len(list((cohort / "OUT_DIR").rglob(f"*desc-{name}_embeddings.tsv"))) == 3 * N_SUBJECTS
        )  # of subjects, too
        tables = list((cohort / "OUT_DIR").rglob(f"*desc-{name}_predictions.tsv"))
        assert len(tables) == (2 * N_SUBJECTS if name == "sex" else 0)  # what is pretrained has no head


def test_python_example_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGES[ROOT / "docs" / "howto" / "python.md"], re.DOTALL)[1], names)
    assert names["embedding"].shape == (1, 96)
    assert np.isfinite(names["embedding"].numpy()).all()


def test_every_page_opens_with_what_its_reader_can_do_then():
    pages = {
        path: text for path, text in PAGES.items() if path.parent != ROOT / "docs" and path.parent.name != "generated"
    }
    for path, text in pages.items():
        first = re.sub(r"\A---.*?---\n", "", text, flags=re.DOTALL).split("\n\n")[1]
        assert re.match(r"After (this|these) pages? you (can|know|have) ", first.replace("\n", " ")), path


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
