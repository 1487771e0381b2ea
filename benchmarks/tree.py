"""Start-up: the help text, and the time until one subject's runs are known in data sets of growing size."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import in_own_process, print_table, side_by_side

SIZES = (10, 1000, 10000)

FIND = """
from pathlib import Path
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.settings.participant import Selection
import bids
began = time.perf_counter()
runs, _ = find_runs(find_dataset(Path(values["folder"])), Selection(participant_label=(values["subject"],)))
result["find"] = time.perf_counter() - began
assert len(runs) == 1
"""


def run() -> None:
    """Everything about start-up."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for n in SIZES:
            folder = Path(name) / str(n)
            for i in range(n):
                func = folder / f"sub-{i:05d}" / "func"
                func.mkdir(parents=True)
                stem = f"sub-{i:05d}_task-rest_space-MNI152NLin6Asym_res-2_desc"
                (func / f"{stem}-preproc_bold.nii.gz").touch()
                (func / f"{stem}-brain_mask.nii.gz").touch()
            made = {"Name": "tree", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}
            (folder / "dataset_description.json").write_text(json.dumps(made))
            rows.append((f"{n:,}", *(_seconds(each, subject) for each, subject in _cohorts(folder, n))))
        commands(Path(name) / str(SIZES[0]), Path(name) / "out")
    print_table(
        "Finding one subject's runs", ("subjects in the data set", "fMRIPrep (s)", "HCP (s)", "UK Biobank (s)"), rows
    )


def _cohorts(fmriprep: Path, n: int) -> list[tuple[Path, str]]:
    """Make the same number of subjects as the HCP pipelines and UK Biobank lay them out; returns folders and a subject."""
    hcp, ukb = (fmriprep.with_name(f"{fmriprep.name}-{kind}") for kind in ("hcp", "ukb"))
    for i in range(n):
        results = hcp / f"{100000 + i}" / "MNINonLinear" / "Results" / "rfMRI_REST1_LR"
        rest = ukb / f"{1000000 + i}_20227_2_0" / "fMRI" / "rfMRI.ica"
        for folder, name in ((results, "rfMRI_REST1_LR.nii.gz"), (rest, "filtered_func_data_clean.nii.gz")):
            folder.mkdir(parents=True)
            (folder / name).touch()
    return [(fmriprep, "00005"), (hcp, "100005"), (ukb, "1000005")]


def _seconds(folder: Path, subject: str) -> str:
    found = [in_own_process(FIND, folder=str(folder), subject=subject)["find"] for _ in range(3)]
    return f"{sorted(found)[1]:.2f}"


def commands(data: Path, out: Path) -> None:
    """Print how long it takes until a command says anything."""
    out.mkdir()
    bin_folder = Path(sys.executable).parent
    calls = {
        "neurostorm --help": [bin_folder / "neurostorm", "--help"],
        "neurostorm-hpc status": [bin_folder / "neurostorm-hpc", "status", data, out],
    }
    seconds = side_by_side(
        {name: lambda call=call: subprocess.run(call, capture_output=True) for name, call in calls.items()}
    )
    print()
    for name, value in seconds.items():
        print(f"`{name}`: {value:.2f} s")
