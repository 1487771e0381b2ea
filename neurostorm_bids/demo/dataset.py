"""Write the phantom as fMRIPrep 25.2 writes a data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from neurostorm_bids import __version__
from neurostorm_bids.demo.phantom import AFFINE, TEMPLATE, Anatomy, anatomy, bold_run, framewise_displacement, motion

REPETITION_TIME = 2.0  # s
N_VOLUMES = 40
RUNS = (("01", None), ("02", "1"), ("02", "2"))  # subject, session
N_DUMMIES = {("02", "1"): 2}
DESCRIPTION = {
    "Name": "neurostorm demo: a phantom laid out as fMRIPrep 25.2 lays out its derivatives",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "License": "CC0",
    "GeneratedBy": [
        {
            "Name": "neurostorm-demo",
            "Version": __version__,
            "Description": "anatomy of the ICBM 2009a template that nilearn ships, synthetic signal; no person's data",
        }
    ],
}
IDENTITY_ITK = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 1 0 0 0 1 0 0 0 1 0 0 0
FixedParameters: 0 0 0
"""


def write_dataset(folder: Path, n_volumes: int = N_VOLUMES, say: Callable[[str], None] = lambda _: None) -> None:
    """Write the demo data set: two subjects, the second with two sessions, one resting run each."""
    brain = anatomy()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".bidsignore").write_text("*_xfm.*\n*_boldref.nii.gz\n*_timeseries.tsv\n*_timeseries.json\n")
    for subject in sorted({subject for subject, _ in RUNS}):
        _write_anatomy(folder, subject, brain)
    for seed, (subject, session) in enumerate(RUNS, start=1):
        say(f"writing sub-{subject}{f' ses-{session}' if session else ''}: {n_volumes} volumes")
        _write_run(folder, subject, session, brain, seed, n_volumes)
    write_json(folder / "dataset_description.json", DESCRIPTION)  # last: it tells that the data set is whole


def _write_anatomy(folder: Path, subject: str, brain: Anatomy) -> None:
    stem = folder / f"sub-{subject}" / "anat" / f"sub-{subject}"
    save_image(f"{stem}_space-{TEMPLATE}_res-2_desc-preproc_T1w.nii.gz", brain.t1w)
    save_image(f"{stem}_space-{TEMPLATE}_res-2_desc-brain_mask.nii.gz", brain.mask.astype(np.uint8))


def _write_run(folder: Path, subject: str, session: str | None, brain: Anatomy, seed: int, n_volumes: int) -> None:
    func = folder / f"sub-{subject}" / (f"ses-{session}" if session else "") / "func"
    stem = func / f"sub-{subject}{f'_ses-{session}' if session else ''}_task-rest"
    dummies = N_DUMMIES.get((subject, session or ""), 0)
    data = bold_run(brain, seed, n_volumes, REPETITION_TIME, dummies)
    space = f"{stem}_space-{TEMPLATE}_res-2"
    save_image(f"{space}_desc-preproc_bold.nii.gz", data, REPETITION_TIME)
    save_image(f"{space}_desc-brain_mask.nii.gz", brain.mask.astype(np.uint8))
    save_image(f"{space}_boldref.nii.gz", data.mean(axis=3).astype(np.float32))
    write_json(
        Path(f"{space}_desc-preproc_bold.json"),
        {
            "RepetitionTime": REPETITION_TIME,
            "SkullStripped": True,
            "SliceTimingCorrected": False,
            "StartTime": 0.0,
            "TaskName": "rest",
        },
    )
    write_json(Path(f"{space}_desc-brain_mask.json"), {"Type": "Brain"})
    position = motion(seed, n_volumes)
    confounds = pd.DataFrame(position, columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"])
    confounds.insert(0, "global_signal", data[brain.mask].mean(axis=0))
    confounds.insert(1, "framewise_displacement", framewise_displacement(position))
    for i in range(dummies):
        confounds[f"non_steady_state_outlier{i:02d}"] = (np.arange(n_volumes) == i).astype(int)
    confounds.to_csv(f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")
    write_json(Path(f"{stem}_desc-confounds_timeseries.json"), {"global_signal": {"Method": "Mean"}})
    Path(f"{stem}_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt").write_text(IDENTITY_ITK)


def save_image(path: str | Path, data: np.ndarray, repetition_time: float | None = None) -> None:
    """Write an image on the phantom's grid, with its TR (s) if it has one."""
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(AFFINE, code=4)  # 4: MNI space
    image.set_qform(AFFINE, code=4)
    if repetition_time:
        image.header.set_zooms((*image.header.get_zooms()[:3], repetition_time))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
