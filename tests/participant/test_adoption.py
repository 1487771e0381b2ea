"""A fine-tuned model's own resampling: taken over unless other options are given, and recorded."""

from pathlib import Path

import pytest
from helpers import RUN, narrow_model

from neurostorm_bids.command.main import settings_of
from neurostorm_bids.derivatives.adoption import adopt
from neurostorm_bids.derivatives.call_logs import requested
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.load import load_model
from neurostorm_bids.runtime.json_files import read_json

NATIVE = {"target_tr": None, "interpolation": "cubic", "denoise": None, "repetition_time": 3.0, "register": "affine"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Write a whole model that says how the runs it was trained on were resampled."""
    folder = tmp_path_factory.mktemp("tuned")

    def write(name="tuned", gridding=NATIVE):
        task = {"downstream_task_type": "classification", "task_name": "sex", "classes": ["Female", "Male"]}
        return narrow_model(folder / f"{name}.ckpt", tuning="full", grid="fsl", gridding=gridding, **task)

    return write


@pytest.fixture
def call(tree, tmp_path, neurostorm):
    """Run the participant level on one run; returns status, what was said and the sidecar."""

    def run(model, *options, out="out"):
        if not tree.path.joinpath("sub-01").exists():
            tree.run(RUN)
        status, _, said = neurostorm(tree.path, tmp_path / out, "participant", "--model", model, *options)
        tables = sorted((tmp_path / out).glob("sub-01/func/*_embeddings.tsv"))
        return status, said, read_json(tables[0].with_suffix(".json")) if tables else None

    return run


def table(tmp_path, out):
    return read_table(next((tmp_path / out).glob("sub-01/func/*_embeddings.tsv")))


def test_a_tuned_model_brings_its_resampling(tuned, call, tmp_path):
    status, said, sidecar = call(tuned())
    assert status == 0
    assert "runs are resampled as in the training of model tuned: --interpolation cubic --target-tr native" in said
    assert "was trained on" not in said  # the run's own repetition time and registration are not compared
    assert sidecar["ResamplingOfModel"] == {
        "Adopted": {"interpolation": "cubic", "target_tr": "native"},
        "Departures": {},
    }
    call(tuned(), "--interpolation", "cubic", "--target-tr", "native", out="typed")
    assert table(tmp_path, "out").equals(table(tmp_path, "typed"))


def test_a_default_that_is_given_is_not_replaced(tuned, call):
    status, said, sidecar = call(tuned(), "--target-tr", "0.8")
    assert status == 0
    assert "model tuned was trained on runs resampled with --target-tr native, this call has 0.8" in said
    assert sidecar["ResamplingOfModel"] == {
        "Adopted": {"interpolation": "cubic"},
        "Departures": {"target_tr": {"Training": "native", "Here": 0.8}},
    }


def test_no_denoising_can_be_asked_for(tuned):
    model = load_model(tuned("clean", {"denoise": "simple"}), "cpu")
    for words, denoise in (((), "simple"), (("--denoise", "none"), None), (("--denoise", "compcor"), "compcor")):
        settings = adopt([model], settings_of(["/data", "/out", "participant", *words]))
        assert settings.resampling.denoise == denoise


def test_a_tuned_model_is_fed_in_its_own_grid(tuned, call):
    status, said, _ = call(tuned(), "--grid", "as-fmriprep")
    assert status == 1
    assert "error: model tuned was tuned in the grid fsl and cannot be fed in as-fmriprep; leave out --grid" in said
    assert call(tuned(), "--grid", "fsl")[0] == 0


def test_models_that_need_different_runs_are_refused(tuned, narrow, call):
    status, said, _ = call(narrow, "--model", tuned())
    assert status == 1
    assert "the models need runs that are resampled differently (--interpolation: narrow linear, tuned cubic)" in said
    assert call(narrow, "--model", tuned(), "--interpolation", "linear", "--target-tr", "0.8")[0] == 0


@pytest.mark.parametrize("gridding", [{"denoise": "all"}, {"target_tr": -1}, {"interpolation": None}])
def test_a_model_with_impossible_options_is_refused(tuned, gridding):
    model = load_model(tuned("broken", gridding), "cpu")
    with pytest.raises(NeurostormError, match="its hyper-parameter gridding holds"):
        adopt([model], settings_of(["/data", "/out", "participant"]))


def test_a_job_array_asks_for_what_the_call_does(tuned):
    """What was adopted is no option of the call, and a default that was given is one."""
    model = load_model(tuned(), "cpu")
    asked = settings_of(["/data", "/out", "participant", "--target-tr", "0.8"])
    assert asked.as_words()[4:] == ["--target-tr", "0.8"]
    adopted = adopt([model], asked)
    assert adopted.resampling.interpolation == "cubic"
    assert adopted.as_words() == asked.as_words()
    assert requested(adopted, []) == requested(asked, [])
    assert requested(asked, []) != requested(settings_of(["/data", "/out", "participant"]), [])
    assert adopted.bids_dir == Path("/data")
