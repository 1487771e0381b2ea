"""_datafit.json and its section of the report: without a reference, and with one that a cohort made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import AFFINE, Tree, signal

from neurostorm_bids.model import load

MODEL = Path(sys.executable).with_name("neurostorm-model")


@pytest.fixture
def six(tmp_path):
    tree = Tree(tmp_path / "fmriprep")
    for i in range(6):
        tree.run(f"sub-0{i}_task-rest", data=signal(i))
    return tree


def call(tree, tmp_path, narrow, *options):
    return (tree.path, tmp_path / "out", "participant", "--model", narrow, *options)


def fit_of(tmp_path, label):
    return json.loads(next((tmp_path / "out").glob(f"sub-{label}/func/*_desc-narrow_datafit.json")).read_text())


@pytest.mark.heavy
def test_a_cohort_becomes_the_reference_of_a_model(six, tmp_path, neurostorm, narrow):
    narrow = copied(narrow, tmp_path)
    status, _, said = neurostorm(*call(six, tmp_path, narrow))
    assert status == 0, said
    fit = fit_of(tmp_path, "00")
    assert fit["Reference"].startswith("no reference figures are known")
    assert fit["Measures"]["repetition_time"]["Value"] == 2.0
    assert fit["Measures"]["voxel_volume"]["Value"] == 216
    assert fit["Measures"]["fluctuation"]["Band"] is None
    page = (tmp_path / "out" / "sub-00.html").read_text()
    assert "no reference figures are known" in page
    done = subprocess.run([MODEL, "reference", tmp_path / "out", "--model", narrow], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "narrow.ckpt.reference.json: figures of 6 runs" in done.stdout
    data = signal(9)
    mean = data.mean(axis=3, keepdims=True)
    six.run("sub-09_task-rest", data=(mean + 0.3 * (data - mean)).astype(data.dtype), affine=AFFINE)
    load._once.cache_clear()  # as another process would find the model
    status, _, said = neurostorm(*call(six, tmp_path, narrow, "--participant-label", "09"))
    assert status == 0, said
    assert "the run changes less over time than what the model saw: was it smoothed" in said
    fit = fit_of(tmp_path, "09")
    assert fit["Reference"] == "6 runs"
    assert fit["Measures"]["fluctuation"]["Value"] < fit["Measures"]["fluctuation"]["Band"][0]
    assert len(fit["BlockCoverage"]) > 100
    assert 0.5 < sum(share or 0 for share in fit["PowerSpectrum"]["Share"]) <= 1.01
    page = " ".join((tmp_path / "out" / "sub-09.html").read_text().split())
    assert "Blocks of 24 mm covered by less than half" in page
    assert "The run changes less over time" in page


def copied(model, tmp_path):
    path = tmp_path / "narrow.ckpt"
    path.write_bytes(Path(model).read_bytes())
    return path


def test_a_damaged_reference_stops_no_run(six, tmp_path, neurostorm, narrow):
    narrow = copied(narrow, tmp_path)
    (tmp_path / "narrow.ckpt.reference.json").write_text('{"runs": 3}')
    status, _, said = neurostorm(*call(six, tmp_path, narrow, "--participant-label", "00"))
    assert status == 0
    assert "the reference figures of the model are damaged" in said


def test_a_reference_of_no_results_says_so(tmp_path, narrow):
    done = subprocess.run([MODEL, "reference", tmp_path, "--model", narrow], capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no results of model 'narrow'; run the participant level first" in done.stderr
