"""--dry-run says what would be done, writes nothing, and fails where something cannot be done."""

import re

import numpy as np
import pytest
from helpers import RUN, signal

from neurostorm_bids import load_model
from neurostorm_bids.encode.sizes import window_mb


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def call(tree, tmp_path, narrow, neurostorm):
    def dry(*options):
        return neurostorm(tree.path, tmp_path / "out", "participant", "--model", narrow, "--dry-run", *options)

    return dry


def test_it_says_what_would_be_read_and_writes_nothing(tree, tmp_path, call):
    bold = tree.run(data=signal(0, n_volumes=14), repetition_time=2.0)
    before = files(tree.path)
    status, printed, _ = call()
    assert status == 0
    assert f"{RUN}: to do" in printed
    assert f"{bold.relative_to(tree.path)}: 14 volumes, TR 2 s" in printed
    assert "35 frames of 0.8 s; 5 windows of 6 for model narrow" in printed
    assert "1 run(s): 0 finished, 1 to do (about" in printed
    assert "with         linear interpolation, confounds regressed out: none, no volume censored, fp32" in printed
    printed = call("--interpolation", "cubic", "--fd-threshold", "0.5")[1]
    assert "with         cubic interpolation, confounds regressed out: none, high motion above 0.5 mm, fp32" in printed
    assert not (tmp_path / "out").exists()
    assert files(tree.path) == before


def test_it_says_how_long_and_how_much_memory_each_run_takes(tree, call, narrow):
    tree.run(data=signal(0, n_volumes=14), repetition_time=2.0)
    said = [call(*options)[1] for options in ((), ("--batch-size", "50"))]
    memory = [int(re.search(r"takes +about \d+ s and ([\d,]+) MB", text)[1].replace(",", "")) for text in said]
    window = window_mb(load_model(narrow, "cpu"))
    assert memory[1] - memory[0] > 40 * window  # 49 more at a time, less what the process holds by then
    for text in said:
        assert "through      no transform: it is in the space of the grid" in text
        assert "with 1 at a time and" in text


def test_what_is_there_is_finished(tree, tmp_path, call, neurostorm, narrow):
    tree.run()
    assert neurostorm(tree.path, tmp_path / "out", "participant", "--model", narrow)[0] == 0
    before = files(tmp_path / "out")
    assert f"{RUN}: finished" in call()[1]
    assert f"{RUN}: to do" in call("--force")[1]
    assert f"{RUN}: to do" in call("--embedding-level", "frame")[1]
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--input-space", "T1w"), "T1w"),
        (("--conditions", "faces"), "there is no events.tsv"),
        (("--target-tr", "native"), "fewer than one window"),
    ],
)
def test_what_cannot_be_done_fails(tree, call, options, message):
    tree.run(data=signal(0, n_volumes=4), repetition_time=2.0)
    tree.run("sub-02_task-rest", data=signal(0, n_volumes=4), repetition_time=2.0)
    status, printed, _ = call(*options)
    assert status == 1
    assert message in printed
    assert "2 cannot be done" in printed


def test_a_damaged_run_is_found_without_reading_it_all(tree, call):
    tree.run("sub-02_task-rest", data=np.ones((32, 38, 32, 6), np.float32)).write_bytes(b"nothing")
    tree.run()
    status, printed, _ = call()
    assert status == 1
    assert f"{RUN}: to do" in printed
    assert "sub-02_task-rest: cannot be done" in printed


def test_the_group_level_has_no_dry_run(tree, tmp_path, neurostorm, narrow):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "out", "group", "--model", narrow, "--dry-run")
    assert status == 1
    assert "--dry-run is of the participant level" in said


@pytest.mark.parametrize("option", ["--reports-only", "--boilerplate-only"])
def test_it_goes_with_nothing_else_that_is_no_run(tree, call, option):
    tree.run()
    status, _, said = call(option)
    assert status == 1
    assert f"leave out {option}" in said


def test_a_folder_that_cannot_be_made_is_said(tree, tmp_path, narrow, neurostorm):
    tree.run()
    (tmp_path / "file").touch()
    status, _, said = neurostorm(tree.path, tmp_path / "file" / "o", "participant", "--model", narrow, "--dry-run")
    assert status == 1
    assert "cannot be made or written to" in said


def test_reports_of_nothing_are_none(tree, tmp_path, narrow, neurostorm):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--reports-only")
    assert status == 1
    assert "holds no results; is it the right folder?" in said
    assert not (tmp_path / "o").exists()
