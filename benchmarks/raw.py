"""Raw series by fMRIPrep's transforms: milliseconds a volume, beside scipy's interpolation of the same volume; and memory."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec
from scipy.ndimage import map_coordinates

from benchmarks.measure import in_own_process, print_table, side_by_side
from benchmarks.resampling import brain_mask
from neurostorm_bids.resample.gather import Points, gather, prepared
from neurostorm_bids.resample.grid import FSL

SHAPE = (104, 104, 72)  # of 2 mm
AFFINE = from_matvec(np.diag([2.0, 2, 2]), [-104.0, -120, -66])
TURN = from_matvec(np.array([[0.9998, -0.02, 0], [0.02, 0.9998, 0], [0, 0, 1]]), [0.6, -0.4, 0.3])
N_VOLUMES = 16  # a block, as in a run
LENGTHS = (100, 1000)
FMRIPREP_GRID = from_matvec(np.diag([2.0, 2, 2]), [-90.0, -126, -72]), (91, 109, 91)  # MNI152NLin6Asym res-2

RUN = """
import numpy as np
from pathlib import Path
from neurostorm_bids.find.acquisition import SliceTiming
from neurostorm_bids.resample.brain import Brain
from neurostorm_bids.resample.nifti import Bold
from neurostorm_bids.resample.raw_series import RawRun, interpolate_raw
bold = Bold(values["bold"])
at = np.load(values["voxels"])
motion = np.repeat(np.array(values["turn"])[None], bold.n_volumes, axis=0)
times = SliceTiming(tuple(np.linspace(0, 1.9, bold.shape[2])), 2) if values["slices"] else None
raw = RawRun(motion, None, False, times, 0.95, 2.0, 0, {})
brain = Brain(np.arange(len(at)), at, None, 0.0, 1.0, [], np.zeros(bold.shape, bool))
frames, _ = interpolate_raw(bold, raw, brain, values["how"], Path(values["work"]), None)
result["frames"] = len(frames)
"""


def brain_voxels() -> np.ndarray:
    """Where the brain of the grid is in the series, voxels."""
    mask = brain_mask(FSL.shape).ravel().astype(bool)
    voxels = apply_affine(np.linalg.inv(AFFINE) @ FSL.matrix, np.indices(FSL.shape).reshape(3, -1).T[mask])
    return voxels[((voxels >= 0) & (voxels <= np.array(SHAPE) - 1)).all(axis=1)]


def volume() -> None:
    """Seconds of one volume, without reading it."""
    data = np.random.RandomState(0).standard_normal((N_VOLUMES, *SHAPE[::-1])).astype(np.float32)
    at = brain_voxels()
    points = Points(at.astype(np.float32), np.full(len(at), 0.4, np.float32), 1)
    moved = np.linalg.inv(AFFINE) @ TURN @ AFFINE
    there = apply_affine(
        moved @ np.linalg.inv(AFFINE) @ FMRIPREP_GRID[0], np.indices(FMRIPREP_GRID[1]).reshape(3, -1).T
    ).T
    rows = []
    for how, order in (("linear", 1), ("cubic", 3)):

        def ours(how=how):
            for each in prepared(data, how):
                gather(each, points, moved, how)

        def scipy_of_fmriprep(order=order):
            map_coordinates(data[0].T, there, order=order, mode="grid-constant")

        def scipy_of_brain(order=order):
            map_coordinates(data[0].T, apply_affine(moved, at).T, order=order, mode="grid-constant")

        seconds = side_by_side({"ours": ours, "all": scipy_of_fmriprep, "brain": scipy_of_brain}, rounds=3)
        cells = (seconds["ours"] / N_VOLUMES, seconds["brain"], seconds["all"])
        rows.append((how, *(f"{1000 * each:.0f}" for each in cells), f"{cells[2] / cells[0]:.0f}"))
    print_table(
        f"A raw volume of 104 x 104 x 72 with its own head motion, at {len(at):,} voxels of brain",
        (
            "",
            "ours (ms)",
            "scipy's map_coordinates, the same voxels (ms)",
            "the same, all 91 x 109 x 91 as fMRIPrep does (ms)",
            "ratio to that",
        ),
        rows,
    )


def run_of_volumes() -> None:
    """Seconds and peak memory of whole runs, in a process of their own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "voxels.npy", brain_voxels())
        rng = np.random.RandomState(0)
        one = (1000 + 30 * rng.standard_normal(SHAPE)).astype(np.int16)
        for n in LENGTHS:
            series = np.stack([np.roll(one, i % 7) for i in range(n)], axis=-1)
            path = Path(folder) / f"bold{n}.nii.gz"
            image = nib.Nifti1Image(series, AFFINE)
            image.set_sform(AFFINE, code=1)
            nib.save(image, path)
            del series, image
            for how, slices in (("linear", False), ("cubic", False), ("linear", True)):
                done = in_own_process(
                    RUN,
                    bold=str(path),
                    voxels=f"{folder}/voxels.npy",
                    turn=TURN.tolist(),
                    how=how,
                    slices=slices,
                    work=folder,
                )
                step = f"{how}, slices shifted" if slices else how
                rows.append((n, step, f"{1000 * done['seconds'] / n:.0f}", f"{done['peak_mb']:.0f}"))
    print_table(
        "Reading and placing a raw series of 104 x 104 x 72, int16, gzip",
        ("volumes", "", "a volume (ms)", "peak memory (MB)"),
        rows,
    )


def run() -> None:
    """Print both tables."""
    volume()
    run_of_volumes()
