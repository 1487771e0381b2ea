"""The page of ``--group-task qc`` for a large study: how long it takes, how large it is, and how soon a browser has drawn it."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import print_table, side_by_side

N_RUNS, N_WINDOWS, N_CHANNELS = 10_000, 4, 32


def run() -> None:
    """Everything about the page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name:
        data, out = Path(name) / "data", Path(name) / "out"
        make_results(data, out)
        neurostorm = Path(sys.executable).with_name("neurostorm")
        call = [neurostorm, data, out, "group", "--model", "base", "--group-task", "qc", "--quiet"]
        seconds = side_by_side({"made": lambda: subprocess.run(call, check=True, capture_output=True)}, 1)["made"]
        page = out / "group_desc-base_qc.html"
        drawn = empty = "no Chromium"
        if browser:
            shot = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={name}/page.png"]
            calls = {"page": [*shot, f"file://{page}"], "empty": [*shot, "about:blank"]}
            found = side_by_side(
                {kind: lambda call=call: subprocess.run(call, capture_output=True) for kind, call in calls.items()}
            )
            drawn, empty = (f"{found[kind]:.1f}" for kind in calls)
        row = (f"{N_RUNS:,}", f"{seconds:.0f}", f"{page.stat().st_size / 1e6:.1f}", drawn, empty)
    header = ("runs", "made (s)", "size (MB)", "Chromium starts and draws it (s)", "an empty page (s)")
    print_table("The page of --group-task qc", header, [row])


def make_results(data: Path, out: Path) -> None:
    """Write tables of embeddings as the participant level does."""
    rng = np.random.default_rng(0)
    made = {"Name": "study", "BIDSVersion": "1.8.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    data.mkdir()
    (data / "dataset_description.json").write_text(json.dumps(made))
    columns = [
        "window",
        "onset",
        "duration",
        "mean_framewise_displacement",
        *(f"channel{i:03d}" for i in range(N_CHANNELS)),
    ]
    for i in range(N_RUNS):
        name = f"sub-{i:05d}"
        (data / name).mkdir()
        func = out / name / "func"
        func.mkdir(parents=True)
        stem = func / f"{name}_task-rest_space-MNI152NLin6Asym_res-2_desc-base_embeddings"
        values = rng.standard_normal((N_WINDOWS, N_CHANNELS + 1))
        rows = [(k + 1, 16 * k, 16, abs(row[0]) / 5, *row[1:]) for k, row in enumerate(values)]
        lines = ["\t".join(columns), *("\t".join(f"{value:.6g}" for value in row) for row in rows)]
        stem.with_suffix(".tsv").write_text("\n".join(lines) + "\n")
        motion = {"Mean": float(abs(values[:, 0]).mean() / 5), "Max": float(abs(values[:, 0]).max())}
        about = {"SettingsHash": "x", "Windows": {"Count": N_WINDOWS}, "FramewiseDisplacement": motion}
        stem.with_suffix(".json").write_text(json.dumps(about | {name: {} for name in columns}))
