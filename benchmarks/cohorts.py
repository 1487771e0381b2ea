"""The group level over growing cohorts, as users call it: two runs a person, 22 windows each, as in UK Biobank."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import in_own_process, print_table
from neurostorm_bids.derivatives.tables import channels_named

SIZES = (1000, 5000)
N_WINDOWS, N_CHANNELS = 22, 288
N_ROWS = 1000  # written out once; the tables are made of them

COMMAND = """
from neurostorm_bids.command.main import main
try:
    main(values["command"])
except SystemExit as stop:
    result["status"] = stop.code
"""


def write_cohort(folder: Path, n_people: int) -> tuple[Path, Path]:
    """Fabricate a data set and its OUT_DIR as the participant level writes it; returns both."""
    rng = np.random.default_rng(0)
    data, out = folder / "data", folder / "out"
    data.mkdir(parents=True)
    made = {
        "Name": "cohort",
        "BIDSVersion": "1.8.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep"}],
    }
    (data / "dataset_description.json").write_text(json.dumps(made))
    rows = pd.DataFrame(
        rng.standard_normal((N_ROWS, N_CHANNELS)).astype(np.float32), columns=channels_named(N_CHANNELS)
    )
    header, *channels = rows.to_csv(sep="\t", index=False).splitlines()
    names = ["window", "onset", "duration", "mean_framewise_displacement", "max_framewise_displacement"]
    windows = {"Frames": 20, "Stride": 20, "Count": N_WINDOWS}
    columns = {name: {"Description": f"Channel {name} of the embedding"} for name in rows}
    for i in range(n_people):
        for session in "12":
            func = Path(f"sub-{i:06d}", f"ses-{session}", "func")
            (data / func.parts[0]).mkdir(exist_ok=True)
            (out / func).mkdir(parents=True)
            fd = rng.random(N_WINDOWS).round(6)
            own = [f"{k + 1}\t{16.0 * k}\t16.0\t{v}\t{v}" for k, v in enumerate(fd)]
            body = "\n".join(
                f"{a}\t{channels[k]}" for a, k in zip(own, rng.integers(N_ROWS, size=N_WINDOWS), strict=True)
            )
            stem = out / func / f"sub-{i:06d}_ses-{session}_task-rest_space-MNI152NLin6Asym_desc-base_embeddings"
            Path(f"{stem}.tsv").write_text("\t".join(names) + f"\t{header}\n{body}\n")
            about = {
                "SettingsHash": "0" * 16,
                "Windows": windows,
                "Preprocessing": {"BrainVoxels": 180000 + i, "BrainInTemplate": 0.98, "BrainOutsideGrid": 0.0},
                "FramewiseDisplacement": {"Mean": fd.mean(), "Max": fd.max(), "Units": "mm"},
            }
            Path(f"{stem}.json").write_text(json.dumps({**about, **columns}, indent=2))
    ages = "".join(f"sub-{i:06d}\t{40 + rng.integers(40)}\n" for i in range(n_people))
    (data / "participants.tsv").write_text(f"participant_id\tage\n{ages}")
    return data, out


def run() -> None:
    """Seconds and peak memory of commands, with nothing read before and again."""
    print_table(
        "The group level, whole commands, two runs a person",
        ("people", "task", "first call (s)", "memory (MB)", "later call (s)", "memory (MB)"),
        [row for n in SIZES for row in measured(n)],
    )


def measured(n_people: int) -> list[tuple[object, ...]]:
    """Return rows of the table for a number of people."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        data, out = write_cohort(Path(name), n_people)
        for task in ("collect", "identify"):
            call = [str(data), str(out), "group", "--model", "base", "--group-task", task]
            shutil.rmtree(out / "group", ignore_errors=True)
            cells = []
            for _ in range(2):
                found = in_own_process(COMMAND, command=call)
                assert found["status"] == 0
                cells += [f"{found['seconds']:.1f}", f"{found['peak_mb']:.0f}"]
            rows.append((f"{n_people:,}", task, *cells))
    return rows
