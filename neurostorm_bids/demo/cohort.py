"""Write phantoms of many people as fMRIPrep lays out its derivatives: what the demo model was trained on, and the tutorials' cohort."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from neurostorm_bids import __version__
from neurostorm_bids.demo.dataset import save_image, write_json
from neurostorm_bids.demo.people import FLUCTUATION, REPETITION_TIME, person, run_of
from neurostorm_bids.demo.phantom import TEMPLATE, Anatomy, anatomy, framewise_displacement, motion
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.atomic import write_text

# Standard deviation of cohorts' fluctuations: stronger ones, in short runs, can look like series that were scaled voxel by voxel
MILD = 0.5


def write_people(
    folder: Path,
    n_people: int,
    n_volumes: int,
    first: int = 0,
    runs: Sequence[str] = ("task-rest",),
    fluctuation: float = FLUCTUATION,
) -> None:
    """Write phantoms of people and their participants.tsv: coupling, which shows in their runs, and age, which does not.

    Parameters
    ----------
    first : int
        Number of the first person; the same numbers are the same people.
    runs : sequence of str
        What each has, such as ses-1_task-rest.
    fluctuation : float
        Standard deviation, of the signal.

    Raises
    ------
    NeurostormError
        If the folder holds other people.
    """
    people = range(first, first + n_people)
    labels = {f"sub-{i:03d}" for i in people}
    if others := sorted(path.name for path in folder.glob("sub-*") if path.name not in labels):
        raise NeurostormError(f"{folder} holds other phantoms, such as {others[0]}; give another folder, or remove it")
    brain = anatomy()
    rows = [f"sub-{i:03d}\t{_coupling(i)}\t{np.random.default_rng(2000 + i).integers(20, 70)}" for i in people]
    write_text(folder / "participants.tsv", "\n".join(["participant_id\tcoupling\tage", *rows, ""]))
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        list(pool.map(partial(_write_person, folder, brain, n_volumes, fluctuation, runs), people))
    generated = {"Name": "neurostorm-demo", "Version": __version__, "Description": "synthetic; no person's data"}
    description = {
        "Name": "phantoms of neurostorm_bids",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": "CC0",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.0"}, generated],
    }
    write_json(folder / "dataset_description.json", description)


def _write_person(
    folder: Path, brain: Anatomy, n_volumes: int, fluctuation: float, runs: Sequence[str], i: int
) -> None:
    """Write the runs of one person, unless they are there."""
    one = None
    for j, run in enumerate(runs):
        session = f"{run.split('_')[0]}/" if run.startswith("ses-") else ""
        stem = f"sub-{i:03d}/{session}func/sub-{i:03d}_{run}"
        space = f"{stem}_space-{TEMPLATE}_res-2"
        if (folder / f"{space}_desc-preproc_bold.json").exists():  # which is written last
            continue
        one = one or person(brain, i, _coupling(i) == "together")
        seed = 1000 + i + 10_000 * j
        save_image(
            folder / f"{space}_desc-preproc_bold.nii.gz", run_of(one, seed, n_volumes, fluctuation), REPETITION_TIME
        )
        save_image(folder / f"{space}_desc-brain_mask.nii.gz", one.mask.astype(np.uint8))
        position = motion(seed, n_volumes)
        confounds = pd.DataFrame(position, columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"])
        confounds.insert(0, "framewise_displacement", framewise_displacement(position))
        confounds.to_csv(folder / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")
        about = {"RepetitionTime": REPETITION_TIME, "TaskName": run.rpartition("task-")[2], "SkullStripped": True}
        write_json(folder / f"{space}_desc-preproc_bold.json", about)


def _coupling(i: int) -> str:
    return ("apart", "together")[i % 2]
