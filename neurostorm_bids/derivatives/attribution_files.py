"""Write where in the brain a prediction comes from: a map, a table of parcels and their courses, and what vouches for them."""

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.gridded_files import read_int8
from neurostorm_bids.derivatives.names import GRIDDED, AttributionOutputs, sidecar_of
from neurostorm_bids.derivatives.run import origin_of, settings_hash
from neurostorm_bids.derivatives.sidecars import PRIVACY
from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.explain.baseline import Baseline
from neurostorm_bids.explain.run import Explanation
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.parcels import parcels_of
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import digest, fingerprint, read_json, write_json
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.explaining import GROUP_MEAN

MOST_OTHERS = 50  # people whose mean images make the mean of a group
FAITHFUL = (
    "A map that is faithful to the model says what the model uses, which need not be what the brain does (Thomas, Re & Poldrack 2022, "
    "arXiv 2205.15581)."
)
COLUMNS = {
    "parcel": "Number, from 1",
    "name": "Of the parcel in the atlas",
    "voxels": "Of the parcel in the grid",
    "attribution": "What the parcel adds to the output beyond the baseline: integrated gradients, summed over voxels and frames, mean over windows",
    "occlusion": "By how much the output of the first window falls when the parcel is replaced by the baseline",
    "attribution_random_weights": "As attribution, of the first window, by the same network with random weights: what any network would show",
}


def outputs_of(run: Run, grid: Grid, model: Model, baseline: str, settings: Settings) -> AttributionOutputs:
    """Return the files of one run, one model and what the run is compared with."""
    atlas = parcels_of(grid, settings.explaining.attribution_parcels).name
    return AttributionOutputs(run, grid.template, model.label, baseline, atlas)


def explained_with(source: RunSource, grid: Grid, model: Model, baseline: str, settings: Settings) -> str:
    """Return a digest of everything that a map depends on."""
    options = settings.explaining
    return digest(
        {
            "embeddings": settings_hash(grid, model, settings),
            "seed": seed_of(source.run.subject, settings),
            "baseline": baseline,
            "people": sorted(_stores_of_others(settings.work, grid, source.run.subject))
            if baseline == GROUP_MEAN
            else None,
            "windows": options.attribution_windows,
            "class": options.attribution_class,
            "atlas": parcels_of(grid, options.attribution_parcels).digest,
            "inputs": fingerprint([path for path in source.inputs if path.is_file()]),
        }
    )


def seed_of(subject: str, settings: Settings) -> int:
    """Return the seed of a person's random weights: a group is compared with many networks, not with the accidents of one."""
    return zlib.crc32(f"{settings.conduct.random_seed} {subject}".encode())


def is_explained(source: RunSource, grid: Grid, model: Model, baseline: str, settings: Settings) -> bool:
    """Whether a map was written with these settings from these files; its sidecar is written last."""
    outputs = outputs_of(source.run, grid, model, baseline, settings)
    sidecar = read_json(settings.out_dir / sidecar_of(outputs.map))
    files = [outputs.map, outputs.parcels, outputs.course, *([figure] if (figure := sidecar.get("Figure")) else [])]
    is_there = all((settings.out_dir / path).is_file() for path in files)
    return is_there and sidecar.get("MadeFrom") == explained_with(source, grid, model, baseline, settings)


def invalidate_map(source: RunSource, grid: Grid, model: Model, baseline: str, settings: Settings) -> None:
    """Remove the sidecar that vouches for a map, before it changes."""
    outputs = outputs_of(source.run, grid, model, baseline, settings)
    (settings.out_dir / sidecar_of(outputs.map)).unlink(missing_ok=True)


def write_explanation(explanation: Explanation, figure: Path | None, settings: Settings) -> None:
    """Write map, parcels, courses and, last, the sidecar that vouches for them.

    Parameters
    ----------
    figure : Path or None
        Relative to the output folder; `None` if nothing is drawn.
    """
    encoded = explanation.encoded
    source, grid, model = encoded.gridded.source, encoded.gridded.grid, encoded.model
    assert source is not None
    baseline = explanation.baseline.name
    outputs, out_dir = outputs_of(source.run, grid, model, baseline, settings), settings.out_dir
    invalidate_map(source, grid, model, baseline, settings)
    for table in (outputs.parcels, outputs.course):  # of another atlas, whose map this was
        for path in (out_dir / table).parent.glob(table.name.replace(f"_seg-{outputs.atlas}_", "_seg-*_")):
            path.unlink(missing_ok=True)
    write_volume(out_dir / outputs.map, explanation.volume, grid)
    write_table(out_dir / outputs.parcels, _table_of_parcels(explanation))
    moments = np.arange(explanation.course.shape[1]) * encoded.gridded.repetition_time
    course = pd.DataFrame(explanation.course.T, columns=explanation.parcels.columns)
    write_table(out_dir / outputs.course, course.assign(onset=moments)[["onset", *course.columns]])
    made = {
        **origin_of(source, grid, model, settings),
        "MadeFrom": explained_with(source, grid, model, baseline, settings),
    }
    write_json(out_dir / sidecar_of(outputs.map), {**_about(explanation, figure), **made})


def write_volume(path: Path, values: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """Write one value for each voxel of a grid as NIfTI, float32, with the grid's own affine; returns the image."""
    image = nib.Nifti1Image(values.reshape(grid.shape).astype(np.float32), grid.matrix)
    image.set_sform(grid.matrix, code=4)  # 4: MNI space
    image.set_qform(grid.matrix, code=4)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))  # the same map gives the same bytes
    return image


def _table_of_parcels(explanation: Explanation) -> pd.DataFrame:
    parcels = explanation.parcels
    counts = np.bincount(parcels.numbers, minlength=len(parcels) + 1)[1:]
    return pd.DataFrame(
        {
            "parcel": np.arange(1, len(parcels) + 1),
            "name": parcels.labels,
            "voxels": counts,
            "attribution": explanation.of_windows.mean(axis=0),
            "occlusion": explanation.occluded,
            "attribution_random_weights": explanation.random_parcels,
        }
    )


def _about(explanation: Explanation, figure: Path | None) -> dict[str, Any]:
    encoded, clips = explanation.encoded, explanation.of_clips
    return {
        "Description": "What voxels add to what the model predicts of the run; integrated gradients, spread over patches",
        "Explained": {
            "Output": explanation.target.name,
            "Unit": explanation.target.unit,
            "Class": explanation.target.raised,
        },
        "Model": {"Name": encoded.model.name, "WeightsSHA256": encoded.model.sha256},
        "Baseline": explanation.baseline.name,
        "BaselinePeople": list(explanation.baseline.people) or None,
        "Atlas": explanation.parcels.name,
        "ShareOutsideParcels": explanation.share_outside,
        "Windows": [
            {
                "Onset": float(encoded.gridded.frame_onsets[start]),
                "Output": c.output,
                "OfBaseline": c.of_baseline,
                "Nodes": c.nodes,
                "CompletenessError": c.error,
            }
            for start, c in zip(explanation.starts.tolist(), clips, strict=True)
        ],
        "Checks": [
            {"Name": check.name, "Passed": check.passed, "Words": check.words, "Values": check.values}
            for check in explanation.checks
        ],
        "Figure": figure.as_posix() if figure else None,
        "Caution": FAITHFUL,
        "Privacy": PRIVACY,
        "Columns": {**COLUMNS, "onset": "In the table of courses: of the frame in the window, s"},
    }


def mean_of_others(work: Path, grid: Grid, subject: str) -> Baseline:
    """Return the mean image of the runs of the first people beside this one that --save-grid kept, z-scored.

    Raises
    ------
    NeurostormError
        If there are none, or one is damaged.
    """
    stores = _stores_of_others(work, grid, subject)
    means = {person: _mean_of(path, path.stat().st_mtime_ns) for person, path in stores.items()}
    if not means:
        raise NeurostormError(
            f"--attribution-baseline group-mean: {work / GRIDDED} holds no run of anybody else; run the participant level with --save-grid "
            "first, or take own-mean"
        )
    return Baseline(GROUP_MEAN, np.mean(list(means.values()), axis=0).reshape(grid.shape), tuple(means))


def _stores_of_others(work: Path, grid: Grid, subject: str) -> dict[str, Path]:
    """Return the first run that --save-grid kept of each of the first people beside this one."""
    stores: dict[str, Path] = {}
    for folder in sorted((work / GRIDDED).glob("sub-*")):
        if len(stores) < MOST_OTHERS and folder.name != f"sub-{subject}":
            path = next(iter(sorted(folder.glob(f"**/func/*_space-{grid.template}_res-2_desc-*_bold.npy"))), None)
            if path is not None:
                stores[folder.name] = path
    return stores


@lru_cache(maxsize=MOST_OTHERS + 1)
def _mean_of(path: Path, _written: int) -> np.ndarray:
    """Return the mean image of a run, over frames taken evenly, (voxels,)."""
    stored = read_int8(path)
    frames = np.unique(np.linspace(0, stored.shape[3] - 1, 20).round().astype(int))
    return np.asarray(np.mean([stored.window(int(t), int(t) + 1).ravel() for t in frames], axis=0))
