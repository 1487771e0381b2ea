"""What stands beside the embedding: features of the placed runs that need no model, and a model that learnt nothing.

They are read from what participant level kept (--save-grid, and --model NAME@random); nothing is run again.
"""

from functools import lru_cache
from pathlib import Path
from typing import Optional

import numpy as np

from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.names import GRIDS
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.templateflow import templateflow_home
from neurostorm_bids.group.cohort import Cohort, gather
from neurostorm_bids.resample.grid import GRIDS as ALL_GRIDS
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.resample import template_brain
from neurostorm_bids.resample.sampler import apply_affine, nearest

CONNECTOME, MEAN_IMAGE, RANDOM = "connectome", "mean image", "the same encoder with random weights"
BLOCK = 8  # voxels along an edge of a parcel, where there is no atlas: 16 mm
FEWEST_VOXELS = 64  # of a parcel
COARSE = 4  # voxels along an edge of the mean image's blocks
ATLAS = "tpl-{0}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
RANDOM_SUFFIX = "Random"  # of the label of a model with random weights


def baselines_of(
    cohort: Cohort, members: "list[np.ndarray]", out_dir: Path, work: Path
) -> "tuple[dict[str, np.ndarray], list[str]]":
    """Features beside the embedding, a row per sample.

    Parameters
    ----------
    members : list of int array
        Which runs of the cohort make a sample.

    Returns
    -------
    features : dict
        Name -> (samples, features) array.
    notes : list of str
        What there is nothing for, and what would give it.
    """
    features, notes = {}, []
    stores = [_store(work, cohort, i) for i in range(len(cohort.runs))]
    needed = [i for rows in members for i in rows]
    if all(stores[i] is not None for i in needed):
        grid = next(grid for grid in ALL_GRIDS.values() if grid.template == cohort.template)
        weights = cohort.runs["windows"].to_numpy(float)
        of_runs = {i: _features_of(stores[i], grid) for i in needed}
        for k, name in enumerate((CONNECTOME, MEAN_IMAGE)):
            features[name] = np.stack(
                [np.average([of_runs[i][k] for i in rows], axis=0, weights=weights[rows]) for rows in members]
            )
    else:
        n = sum(stores[i] is None for i in needed)
        notes.append(
            f"no {CONNECTOME} and {MEAN_IMAGE} beside the embedding: {n} of {len(needed)} runs have no placed run in {work}; "
            "participant level keeps them with --save-grid"
        )
    try:
        random = gather(out_dir, cohort.label + RANDOM_SUFFIX, cohort.template)
    except NeurostormError:
        random = None
    where = {} if random is None else {name: i for i, name in enumerate(random.runs["run_name"])}
    names = cohort.runs["run_name"].to_numpy()
    if random is not None and all(names[i] in where for i in needed):
        features[RANDOM] = np.stack(
            [random.embeddings[[where[names[i]] for i in rows]].mean(axis=0) for rows in members]
        )
    else:
        notes.append(
            f"no encoder with random weights beside it: run the participant level with --model {cohort.label}@random"
        )
    return features, notes


def _store(work: Path, cohort: Cohort, i: int) -> Optional[Path]:
    """The int8 store of a run, if participant level kept it."""
    row = cohort.runs.iloc[i]
    session = row.get("session_id")
    folder = work / GRIDS / row["participant_id"]
    folder = folder / session / "func" if isinstance(session, str) else folder / "func"
    return next(iter(sorted(folder.glob(f"{row['run_name']}_space-{cohort.template}_res-2_desc-*_bold.npy"))), None)


def _features_of(path: Path, grid: Grid) -> "tuple[np.ndarray, np.ndarray]":
    """Connectome (Fisher z of the correlations between parcels) and coarse mean image of a placed run."""
    from nilearn.connectome import ConnectivityMeasure

    stored = read_int8(path)
    n_frames = stored.shape[3]
    labels = parcels(grid)
    counts = np.bincount(labels)[1:]
    series, total = np.empty((n_frames, len(counts))), np.zeros(grid.shape)
    for t in range(n_frames):
        (volume,) = stored.stored(t, t + 1)
        series[t] = np.bincount(labels, weights=volume.ravel(), minlength=len(counts) + 1)[1:] / counts
        total += volume
    measure = ConnectivityMeasure(kind="correlation", vectorize=True, discard_diagonal=True, standardize=False)
    connectome = np.arctanh(np.clip(measure.fit_transform([series])[0], -0.999, 0.999))
    n = [size // COARSE for size in grid.shape]
    mean = (total * stored.scale / n_frames).reshape(n[0], COARSE, n[1], COARSE, n[2], COARSE).mean(axis=(1, 3, 5))
    return connectome, mean.ravel()


@lru_cache(maxsize=2)
def parcels(grid: Grid) -> np.ndarray:
    """Number of the parcel of every voxel, 0 outside, (voxels,) int: an atlas of TemplateFlow, or blocks of 16 mm."""
    atlas = templateflow_home() / f"tpl-{grid.template}" / ATLAS.format(grid.template)
    index = np.indices(grid.shape).reshape(3, -1)
    if atlas.is_file() and atlas.stat().st_size:
        import nibabel as nib

        image = nib.load(atlas)
        world = apply_affine(grid.matrix, index.T)
        labels = nearest(np.asarray(image.dataobj).astype(int), apply_affine(np.linalg.inv(image.affine), world))
    else:
        blocks = index // BLOCK
        n = [size // BLOCK for size in grid.shape]
        labels = np.where(template_brain(grid), 1 + np.ravel_multi_index(blocks, n), 0)
    counts = np.bincount(labels)
    keep = np.flatnonzero(counts >= FEWEST_VOXELS)
    numbers = np.zeros(len(counts), int)
    numbers[keep[keep > 0]] = np.arange(1, (keep > 0).sum() + 1)
    return numbers[labels]
