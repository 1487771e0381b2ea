"""A run that fails: what is said, and whose it is."""

import json

import pytest
import torch
from helpers import Tree, narrow_model, signal

from neurostorm_bids.model.model import Model


def test_memory_that_runs_out_is_no_bug(tree, tmp_path, neurostorm, narrow, monkeypatch):
    tree.run("sub-01_task-a")
    tree.run("sub-01_task-b", data=signal(1, n_volumes=8))
    real, calls = Model.embed, []

    def embed(self, clips, precision="fp32"):
        calls.append(len(clips))
        if len(calls) == 1:
            torch.empty(10**15)  # more than any machine has: PyTorch's own error
        return real(self, clips, precision)

    monkeypatch.setattr(Model, "embed", embed)
    status, printed, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow)
    assert status == 1
    assert "sub-01_task-a: there is not enough memory for this run; use a smaller --batch-size" in said
    assert "(a bug" not in said
    assert "sub-01_task-b" in printed


def test_a_path_that_looks_like_a_subject_is_nobody_s_failure(tmp_path, neurostorm, narrow):
    tree = Tree(tmp_path / "sub-01_pilot" / "fmriprep")
    tree.run("sub-01_task-rest")
    tree.run("sub-02_task-rest").write_bytes(b"nothing")
    out = tmp_path / "o"
    status, _, said = neurostorm(tree.path, out, "participant", "--model", narrow)
    assert status == 1
    assert "sub-01_pilot" in said  # in the message about sub-02
    outcomes = {s: json.loads(next(out.glob(f"sub-{s}/log/*/outcome.json")).read_text()) for s in ("01", "02")}
    assert [outcomes[s]["Status"] for s in ("01", "02")] == ["finished", "failed"]
    assert "No errors to report!" in (out / "sub-01.html").read_text()


def test_a_model_that_succeeds_does_not_hide_the_failure_of_another(tree, tmp_path, neurostorm, narrow):
    """Six volumes are 15 frames: a window of the narrow model, too few for the demo's."""
    tree.run("sub-01_task-rest", data=signal(n_volumes=6))
    call = (tree.path, tmp_path / "o", "participant", "--model")
    status, _, said = neurostorm(*call, narrow, "demo")
    assert status == 1
    assert "model demo: 15 frames after resampling are fewer than one window of 20" in said
    neurostorm(*call, narrow, "--force")  # newer than the account of the failure
    page = (tmp_path / "o" / "sub-01.html").read_text()
    assert "Errors (1)" in page
    assert "fewer than one window of 20" in page
    assert neurostorm(*call, "demo", "--target-tr", "0.5", "--force")[0] == 0
    assert "No errors to report!" in (tmp_path / "o" / "sub-01.html").read_text()


@pytest.mark.heavy
def test_another_seed_is_another_registration(tree, tmp_path, neurostorm, narrow):
    """Without a registration nothing depends on chance, and a run that is finished stays finished."""
    tree.run()
    call = (tree.path, tmp_path / "o", "participant", "--model", narrow, "--random-seed")
    assert "done" in neurostorm(*call, "0")[1]
    assert "finished earlier" in neurostorm(*call, "1")[1]
    assert "done" in neurostorm(*call, "0", "--register", "affine")[1]
    assert "finished earlier" in neurostorm(*call, "0", "--register", "affine")[1]
    assert "done" in neurostorm(*call, "1", "--register", "affine")[1]


def test_two_models_of_one_file_name_are_refused(tree, tmp_path, neurostorm):
    tree.run()
    paths = [narrow_model(tmp_path / name) for name in ("a-b.ckpt", "aB.ckpt")]
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", *paths)
    assert status == 1
    assert "two models would both be written as desc-aB" in said


def test_a_redo_that_fails_leaves_what_was_there(tree, tmp_path, neurostorm, narrow):
    bold = tree.run(confounds=False)
    out = tmp_path / "o"
    call = (tree.path, out, "participant", "--model", narrow)
    assert neurostorm(*call)[0] == 0
    before = {path: path.read_bytes() for path in (out / "sub-01" / "func").iterdir()}
    status, _, said = neurostorm(*call, "--fd-threshold", "0.3")
    assert status == 1
    assert "--fd-threshold needs framewise displacement" in said
    assert {path: path.read_bytes() for path in (out / "sub-01" / "func").iterdir()} == before
    assert "finished earlier" in neurostorm(*call)[1]
    bold.unlink()


def test_a_methods_text_that_cannot_be_written_or_read_does_not_hide_results(tree, tmp_path, neurostorm, narrow):
    tree.run()
    out = tmp_path / "o"
    (out / "logs" / "CITATION.html").mkdir(parents=True)
    status, printed, said = neurostorm(tree.path, out, "participant", "--model", narrow)
    assert status == 1
    assert "the methods text cannot be written" in said
    assert "Results are in" in printed
    assert (out / "sub-01.html").is_file()
    assert json.loads(next(out.glob("sub-01/log/*/outcome.json")).read_text())["Runs"]
    (out / "logs" / "CITATION.html").rmdir()
    (out / "logs" / "CITATION.md").write_text("")
    assert neurostorm(tree.path, out, "participant", "--model", narrow, "--reports-only")[0] == 0


def test_a_kept_run_without_what_vouches_for_it_is_made_again(tree, tmp_path, neurostorm, narrow):
    """As after a kill while it was replaced."""
    tree.run()
    out = tmp_path / "o"
    call = (tree.path, out, "participant", "--model", narrow, "--save-grid")
    neurostorm(*call)
    about = next((out / "work").rglob("*.json"))
    before = about.read_text()
    about.unlink()
    assert "done" in neurostorm(*call)[1]
    assert about.read_text() == before
    assert "finished earlier" in neurostorm(*call)[1]
