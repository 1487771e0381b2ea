"""What an embedding is compared with: features of the gridded runs that need no model, and a model that learnt nothing.

They are read from what the participant level kept (--save-grid or --timeseries, and --model NAME@random); nothing is run again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.names import GRIDDED
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.cohort import Cohort, read_cohort, weighted_means
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.model.names import AT_FLUCTUATION, AT_MEAN, AT_RANDOM, LABELS
from neurostorm_bids.resample.grid import GRIDS, Grid
from neurostorm_bids.resample.parcels import parcels_of

CONNECTOME, MEAN_IMAGE, RANDOM = "connectome", "mean image", "the same encoder with random weights"
MEAN_INPUT, FLUCTUATION = (
    "the same encoder, fed the run's temporal mean alone",
    "the same encoder, fed the run minus its mean",
)
VARIANTS = {RANDOM: AT_RANDOM, MEAN_INPUT: AT_MEAN, FLUCTUATION: AT_FLUCTUATION}  # of the model, for `identify`
MOST_GRIDDED = 5000  # runs whose mean images fit into memory
BLOCK = 8  # voxels along an edge of a parcel, where there is no atlas: 16 mm
COARSE = 4  # voxels along an edge of the mean image's blocks: 8 mm
MAX_R = 0.999  # of a connection, so that its Fisher z is finite

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
    members = labels.members_among_rows
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
    stores = [store_of(work, cohort, i) for i in rows]
    if missing := sum(store is None for store in stores):
        written = written_connectomes(cohort, rows)
        what = MEAN_IMAGE if written is not None else f"{CONNECTOME} and {MEAN_IMAGE}"
        return {} if written is None else {CONNECTOME: written}, [
            f"no {what} to compare with: {missing} of {len(stores)} runs have no gridded run in {work}; the participant level keeps them "
            "with --save-grid" + ("" if written is not None else f", or the {CONNECTOME} alone with --timeseries ATLAS")
        ]
    grid = next(grid for grid in GRIDS.values() if grid.template == cohort.template)
    of_runs = [_features_of(store, grid) for store in stores if store is not None]
    return {name: np.stack([each[k] for each in of_runs]) for k, name in enumerate((CONNECTOME, MEAN_IMAGE))}, []


def written_connectomes(cohort: Cohort, rows: Sequence[int], name: str = "*") -> np.ndarray | None:
    """Return the connectomes that --timeseries wrote, (runs, pairs), of the first atlas that all runs have; `None` if there is none.

    Parameters
    ----------
    name : str
        Of the atlas; any, if not given.
    """
    ending = "_stat-pearsoncorrelation_relmat.tsv"
    of_atlas: dict[str, list[Path]] = {}
    for i in rows:
        stem = f"{cohort.runs['run_name'].iloc[i]}_space-{cohort.template}_seg-"
        for path in cohort.files[i].parent.glob(f"{stem}{name}{ending}"):
            of_atlas.setdefault(path.name.removeprefix(stem).removesuffix(ending), []).append(path)
    complete = sorted(atlas for atlas, paths in of_atlas.items() if len(paths) == len(rows))
    if not complete:
        return None
    tables = [read_table(path).drop(columns="Node").to_numpy(float) for path in of_atlas[complete[0]]]
    pairs = np.tril_indices(len(tables[0]), -1)
    # a parcel that a run does not cover is connected with nothing
    return np.stack([np.arctanh(np.clip(np.nan_to_num(table[pairs]), -MAX_R, MAX_R)) for table in tables])


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


def store_of(work: Path, cohort: Cohort, i: int) -> Path | None:
    """Return the int8 store of a run, if the participant level kept it."""
    row = cohort.runs.iloc[i]
    session = row.get(SESSION)
    folder = work / GRIDDED / row[SUBJECT] / (session if isinstance(session, str) else "") / "func"
    return next(iter(sorted(folder.glob(f"{row['run_name']}_space-{cohort.template}_res-2_desc-*_bold.npy"))), None)


def _features_of(path: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the connectome (Fisher z of correlations between parcels) and the coarse mean image of a gridded run."""
    series, total, scale = _series_of(path, parcels_of(grid, edge=BLOCK).numbers)
    n = [size // COARSE for size in grid.shape]
    mean = (total * scale / len(series)).reshape(n[0], COARSE, n[1], COARSE, n[2], COARSE).mean(axis=(1, 3, 5))
    return _connectome(series), mean.ravel()


def connectome_of(path: Path, numbers: np.ndarray) -> np.ndarray:
    """Return the connectome of a gridded run, Fisher z of the lower triangle of correlations.

    Parameters
    ----------
    numbers : (voxels,) int array
        Of parcels, from 1; 0 outside.
    """
    return _connectome(_series_of(path, numbers)[0])


def _series_of(path: Path, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the series of parcels (frames, parcels), the sum of all volumes, and the scale of both."""
    stored = read_int8(path)
    counts = np.bincount(numbers)[1:]
    series, total = np.empty((stored.shape[3], len(counts))), np.zeros(stored.shape[:3])
    for t in range(len(series)):
        (volume,) = stored.stored(t, t + 1)
        series[t] = np.bincount(numbers, weights=volume.ravel(), minlength=len(counts) + 1)[1:] / counts
        total += volume
    return series, total, stored.scale


def _connectome(series: np.ndarray) -> np.ndarray:
    from nilearn.connectome import ConnectivityMeasure

    measure = ConnectivityMeasure(kind="correlation", vectorize=True, discard_diagonal=True, standardize=False)
    return np.asarray(np.arctanh(np.clip(measure.fit_transform([series])[0], -MAX_R, MAX_R)))
