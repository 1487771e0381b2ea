"""Against a reference of the demo's own kind, the demo's runs are not asked about, and runs spoilt on purpose are, in the right words."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from neurostorm_bids.demo import dataset
from neurostorm_bids.demo.dataset import REPETITION_TIME, write_dataset
from neurostorm_bids.derivatives.fit_files import reference_from
from neurostorm_bids.encode.reference import to_plain
from neurostorm_bids.model import load
from neurostorm_bids.model.registry import DEMO_FILE
from neurostorm_bids.model.tuned import reference_file
from neurostorm_bids.runtime.json_files import write_json

pytestmark = pytest.mark.heavy
PEOPLE = 10
FUNC = "sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-{}.nii.gz"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The demo model with a reference made of ten people of the demo's kind, none of whom is in the demo."""
    from neurostorm_bids.participant.level import participant_level
    from neurostorm_bids.settings import Settings

    folder = tmp_path_factory.mktemp("reference")
    weights = folder / "like.safetensors"
    shutil.copy(DEMO_FILE, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "RUNS", tuple((f"{i + 10}", None) for i in range(PEOPLE)))
        patch.setattr(dataset, "N_DUMMIES", {(f"{i + 10}", ""): 2 for i in range(0, PEOPLE, 3)})  # as in the demo
        real = dataset.bold_run
        patch.setattr(dataset, "bold_run", lambda brain, seed, *more: real(brain, seed + 100, *more))
        write_dataset(folder / "people")
    assert participant_level(Settings.of(folder / "people", folder / "out", model=(str(weights),))) == 0
    write_json(reference_file(weights), to_plain(reference_from(folder / "out", "like")))
    load._once.cache_clear()
    return weights


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder)
    return folder


def flags(data, out, model, neurostorm):
    """Return what is asked about each run, by name."""
    status, _, said = neurostorm(data, out, "participant", "--model", model)
    assert status == 0, said
    fits = {path.name.split("_space-")[0]: json.loads(path.read_text()) for path in out.rglob("*_datafit.json")}
    assert all(fit["Reference"] == f"{PEOPLE} runs" for fit in fits.values())
    return {run: {k: one["Flag"] for k, one in fit["Measures"].items() if one["Flag"]} for run, fit in fits.items()}


def test_runs_of_the_same_kind_are_not_asked_about(demo, tmp_path, model, neurostorm):
    found = flags(demo, tmp_path, model, neurostorm)
    assert len(found) == 3
    assert {name: asked for name, asked in found.items() if asked} == {}


def scaled(data, mask):
    mean = data.mean(axis=3, keepdims=True)
    return mean + 0.3 * (data - mean), mask


def filtered(data, mask):
    slow = butter(5, 0.05, fs=1 / REPETITION_TIME, output="sos")
    data = data.copy()
    data[mask] = sosfiltfilt(slow, data[mask])
    return data, mask


def cropped(data, mask):
    mask = mask.copy()
    mask[:, :, : int(0.3 * mask.shape[2])] = False
    return data, mask


def mirrored(data, mask):
    """Front and back: the phantom's left and right are nearly alike; tests/encode has a mean image whose are not."""
    return data[:, ::-1], mask[:, ::-1]


@pytest.mark.parametrize(
    ("spoil", "measure", "words"),
    [
        (scaled, "fluctuation", "was it smoothed, filtered, denoised or scaled?"),
        (filtered, "fast_share", "was it low-pass or band-pass filtered"),
        (cropped, "brain_covered", "was the field of view cropped, or the mask too small?"),
        (mirrored, "likeness", "is it upside down, mirrored"),
    ],
)
def test_what_was_spoilt_is_asked_about(demo, tmp_path, model, neurostorm, spoil, measure, words):
    shutil.copytree(demo, tmp_path / "in")
    shutil.rmtree(tmp_path / "in" / "sub-02")
    paths = [tmp_path / "in" / FUNC.format(kind) for kind in ("preproc_bold", "brain_mask")]
    bold, mask = map(nib.load, paths)
    data, inside = spoil(np.asarray(bold.dataobj, np.float32), np.asarray(mask.dataobj) > 0)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data, np.float32), bold.affine, bold.header), paths[0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(inside, np.uint8), mask.affine, mask.header), paths[1])
    asked = flags(tmp_path / "in", tmp_path / "out", model, neurostorm)["sub-01_task-rest"]
    assert words in asked[measure]
