"""What an embedding is compared with: features of the gridded runs that need no model, and a model that learnt nothing.

They are read from what the participant level kept (--save-grid, and --model NAME@random); nothing is run again.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.names import GRIDDED
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.find.templateflow import templateflow_home
from neurostorm_bids.group.cohort import Cohort, read_cohort, weighted_means
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.model.names import AT_FLUCTUATION, AT_MEAN, AT_RANDOM, LABELS
from neurostorm_bids.resample.grid import GRIDS, Grid
from neurostorm_bids.resample.nifti import open_image
from neurostorm_bids.resample.sampler import nearest
from neurostorm_bids.resample.template import template_brain

CONNECTOME, MEAN_IMAGE, RANDOM = "connectome", "mean image", "the same encoder with random weights"
MEAN_INPUT, FLUCTUATION = (
    "the same encoder, fed the run's temporal mean alone",
    "the same encoder, fed the run minus its mean",
)
VARIANTS = {RANDOM: AT_RANDOM, MEAN_INPUT: AT_MEAN, FLUCTUATION: AT_FLUCTUATION}  # of the model, for `identify`
MOST_GRIDDED = 5000  # runs whose mean images fit into memory
BLOCK = 8  # voxels along an edge of a parcel, where there is no atlas: 16 mm
MIN_VOXELS = 64  # of a parcel
COARSE = 4  # voxels along an edge of the mean image's blocks: 8 mm
MAX_R = 0.999  # of a connection, so that its Fisher z is finite
ATLAS = "tpl-{0}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"

Features = dict[str, np.ndarray]  # name -> (samples, features)


def baselines_of(cohort: Cohort, labels: Labels, out_dir: Path, work: Path) -> tuple[Features, list[str]]:
    """Return features to compare the embedding with, a row per sample.

    Parameters
    ----------
    labels : Labels
        Which runs of the cohort make a sample.
    work : Path
        The work folder, with the int8 stores.

    Returns
    -------
    features : dict
        Name -> (samples, features) array.
    notes : list of str
        What there is nothing for, and how to get it.
    """
    rows = labels.rows
    features, notes = _of_gridded_runs(cohort, rows, work)
    weights = dict.fromkeys(features, cohort.runs["windows"].to_numpy(float)[rows])
    random = of_variant(cohort, rows, out_dir, AT_RANDOM)
    if random is None:
        notes.append(f"no encoder with random weights to compare with: {how_to_make(cohort, AT_RANDOM)}")
    else:
        features[RANDOM], weights[RANDOM] = random.embeddings, random.runs["windows"].to_numpy(float)
    place = {row: i for i, row in enumerate(rows)}
    members = [[place[int(row)] for row in sample] for sample in labels.members]
    return {name: weighted_means(values, members, weights[name]) for name, values in features.items()}, notes


def features_of_runs(cohort: Cohort, out_dir: Path, work: Path) -> tuple[Features, list[str]]:
    """Return features to compare the embedding with, a row per run, and what there is nothing for."""
    rows = list(range(len(cohort.runs)))
    if len(rows) > MOST_GRIDDED:
        features: Features = {}
        notes = [f"{CONNECTOME} and {MEAN_IMAGE} are compared with up to {MOST_GRIDDED} runs"]
    else:
        features, notes = _of_gridded_runs(cohort, rows, work)
    for name, at in VARIANTS.items():
        found = of_variant(cohort, rows, out_dir, at)
        if found is None:
            notes.append(f"no results of {name}: {how_to_make(cohort, at)}")
        else:
            features[name] = found.embeddings
    return features, notes


def _of_gridded_runs(cohort: Cohort, rows: Sequence[int], work: Path) -> tuple[Features, list[str]]:
    """Return connectomes and mean images, a row per run that is asked for."""
    stores = [_store(work, cohort, i) for i in rows]
    if missing := sum(store is None for store in stores):
        return {}, [
            f"no {CONNECTOME} and {MEAN_IMAGE} to compare with: {missing} of {len(stores)} runs have no gridded run in "
            f"{work}; the participant level keeps them with --save-grid"
        ]
    grid = next(grid for grid in GRIDS.values() if grid.template == cohort.template)
    of_runs = [_features_of(store, grid) for store in stores if store is not None]
    return {name: np.stack([each[k] for each in of_runs]) for k, name in enumerate((CONNECTOME, MEAN_IMAGE))}, []


def of_variant(cohort: Cohort, rows: Sequence[int], out_dir: Path, at: str) -> Cohort | None:
    """Return the same runs with the results of a variant of the model, such as @random; `None` if one is missing."""
    names = cohort.runs["run_name"].to_numpy()[rows]
    try:
        found = read_cohort(out_dir, cohort.label + LABELS[at], cohort.template)
    except NeurostormError:
        return None
    where = {name: i for i, name in enumerate(found.runs["run_name"])}
    return found.keep(np.array([where[name] for name in names])) if where.keys() >= set(names) else None


def how_to_make(cohort: Cohort, at: str) -> str:
    """Return what makes the results of a variant of the model."""
    return f"run the participant level with --model {cohort.label}{at}"


def _store(work: Path, cohort: Cohort, i: int) -> Path | None:
    """Return the int8 store of a run, if the participant level kept it."""
    row = cohort.runs.iloc[i]
    session = row.get(SESSION)
    folder = work / GRIDDED / row[SUBJECT] / (session if isinstance(session, str) else "") / "func"
    return next(iter(sorted(folder.glob(f"{row['run_name']}_space-{cohort.template}_res-2_desc-*_bold.npy"))), None)


def _features_of(path: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the connectome (Fisher z of correlations between parcels) and the coarse mean image of a gridded run."""
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
    connectome = np.arctanh(np.clip(measure.fit_transform([series])[0], -MAX_R, MAX_R))
    n = [size // COARSE for size in grid.shape]
    mean = (total * stored.scale / n_frames).reshape(n[0], COARSE, n[1], COARSE, n[2], COARSE).mean(axis=(1, 3, 5))
    return connectome, mean.ravel()


def labels_in(atlas: Path, grid: Grid) -> np.ndarray:
    """Return the label that a parcellation gives every voxel of a grid, by world coordinates, nearest neighbour: (voxels,) int."""
    image, _ = open_image(atlas)
    world = apply_affine(grid.matrix, np.indices(grid.shape).reshape(3, -1).T)
    return np.asarray(nearest(np.asarray(image.dataobj).astype(int), apply_affine(np.linalg.inv(image.affine), world)))


@lru_cache(maxsize=2)
def parcels(grid: Grid) -> np.ndarray:
    """Return the number of every voxel's parcel, 0 outside, (voxels,) int: TemplateFlow's atlas, or blocks of 16 mm."""
    atlas = templateflow_home() / f"tpl-{grid.template}" / ATLAS.format(grid.template)
    index = np.indices(grid.shape).reshape(3, -1)
    if atlas.is_file() and atlas.stat().st_size:
        labels = labels_in(atlas, grid)
    else:
        blocks = index // BLOCK
        n = [size // BLOCK for size in grid.shape]
        labels = np.where(template_brain(grid), 1 + np.ravel_multi_index(blocks, n), 0)
    counts = np.bincount(labels)
    large = np.flatnonzero(counts >= MIN_VOXELS)
    numbers = np.zeros(len(counts), int)
    numbers[large[large > 0]] = np.arange(1, (large > 0).sum() + 1)
    return np.asarray(numbers[labels])
