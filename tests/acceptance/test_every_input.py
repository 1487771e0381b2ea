"""What is made beside the tables, from every kind of input: parts, parcels, maps, windows by conditions, data fit, quality."""

import json

import numpy as np
import pytest
from cohorts import hcp_run, ukb_run
from helpers import FSL_SPACE, RUN, Tree, save, signal
from minimal import Minimal

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.resample.grid import FSL

pytestmark = pytest.mark.heavy
DATA = signal(0, n_volumes=20)
KINDS = {
    "fmriprep": lambda folder: Tree(folder / "in").run(RUN, data=DATA, repetition_time=2.0),
    "hcp": lambda folder: hcp_run(folder / "in", data=DATA),
    "ukb": lambda folder: ukb_run(folder / "in", data=DATA),
    "minimal": lambda folder: Minimal(folder, n_volumes=20),
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_made_of_every_input(tmp_path, neurostorm, narrow, kind):
    KINDS[kind](tmp_path)
    data, raw, out = tmp_path / ("fmriprep" if kind == "minimal" else "in"), tmp_path / "raw", tmp_path / "out"
    plain = (data, out, "participant", "--model", narrow)
    raw.mkdir(exist_ok=True)
    if not (raw / "dataset_description.json").exists():
        (raw / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.8.0"}))
    plain = (*plain, "-d", f"raw={raw}")
    assert neurostorm(*plain)[0] == 0
    table = next(out.rglob("func/*_embeddings.tsv"))
    name = table.name.split("_space-")[0]
    task = next(part for part in name.split("_") if part.startswith("task-"))
    # the first ten seconds are of one kind, what follows of another
    (raw / f"{task}_events.tsv").write_text("onset\tduration\ttrial_type\n0\t10\thouses\n12\t20\tfaces\n")
    halves = np.ones(FSL.shape, np.int16)
    halves[48:] = 2
    atlas = save(tmp_path / f"tpl-{FSL_SPACE}_atlas-Halves_dseg.nii.gz", halves, FSL.matrix)
    options = (
        *(
            "--embedding-level",
            "frame",
            "token",
            "--timeseries",
            atlas,
            "--attribution",
            "--attribution-parcels",
            atlas,
        ),
        *("--conditions", "faces", "houses", "--lag", "0", "--window-stride", "2"),
    )
    status, _, said = neurostorm(*plain, *options)
    assert status == 0, said
    windows = read_table(table)
    assert set(windows["trial_type"]) == {"faces", "houses"}
    frames = np.load(next(out.rglob("*_stage-2_frames.npz")))["embeddings"]
    np.testing.assert_allclose(frames.mean(axis=1), channels_of(windows), atol=1e-5)
    series = read_table(next(out.rglob("*_seg-Halves_stat-mean_timeseries.tsv")))
    assert len(series.columns) == 2
    assert next(out.rglob("*_stat-attributionOwnMean_statmap.nii.gz")).is_file()
    fit = json.loads(next(out.rglob("*_datafit.json")).read_text())
    assert fit["Measures"]["repetition_time"]["Value"] == 2.0
    assert neurostorm(data, out, "group", "--group-task", "qc", "--model", narrow)[0] == 0
    assert name in next(out.glob("group_*_qc.html")).read_text()
    assert "resampling" not in neurostorm(*plain, *options)[2]  # all is there
