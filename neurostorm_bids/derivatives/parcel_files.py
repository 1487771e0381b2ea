"""Write the series and the connectome of parcels, as XCP-D names them (BIDS extension proposal 17)."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.gridded_files import gridding_digest
from neurostorm_bids.derivatives.names import ParcelOutputs, sidecar_of
from neurostorm_bids.derivatives.sidecars import PRIVACY
from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.source import RunSource
from neurostorm_bids.find.templateflow import find_atlas
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.gridded import GriddedRun
from neurostorm_bids.resample.parcel_series import LEAST_COVERED, ParcelSeries, parcel_series
from neurostorm_bids.resample.parcels import atlas_name, parcels_of
from neurostorm_bids.runtime.json_files import fingerprint, read_json, write_json
from neurostorm_bids.settings import Settings


def atlas_files(grid: Grid, settings: Settings) -> list[Path]:
    """Return the files of the atlases that series are asked for.

    Raises
    ------
    NeurostormError
        If one is not there, or files of two would have the same names.
    """
    files = [find_atlas(grid.template, name) for name in settings.parcellation.timeseries]
    names: dict[str, Path] = {}
    for file in files:
        other = names.setdefault(atlas_name(file), file)
        if other != file:
            raise NeurostormError(
                f"--timeseries: {other} and {file} would both be seg-{atlas_name(file)}; give one of them another name (atlas-NAME)"
            )
    return files


def are_series_there(source: RunSource, grid: Grid, settings: Settings) -> bool:
    """Whether all series that are asked for were written with these settings from these files."""
    for file in atlas_files(grid, settings):
        outputs = ParcelOutputs(source.run, grid.template, atlas_name(file))
        sidecar = read_json(settings.out_dir / sidecar_of(outputs.series))
        files = [settings.out_dir / path for path in (outputs.series, outputs.connectome, outputs.coverage)]
        if sidecar.get("MadeFrom") != _made_from(source, grid, file, settings) or not all(map(Path.is_file, files)):
            return False
    return True


def write_series(run: GriddedRun, settings: Settings) -> None:
    """Write the series, the connectome and the coverage of every atlas; the sidecar of the series comes last, and vouches."""
    assert run.source is not None
    for file in atlas_files(run.grid, settings):
        found = parcel_series(run, parcels_of(run.grid, file, smallest=1))
        outputs = ParcelOutputs(run.source.run, run.grid.template, found.parcels.name)
        _write(found, outputs, settings.out_dir, _about(run, found, file, settings))


def _write(found: ParcelSeries, outputs: ParcelOutputs, out_dir: Path, about: dict[str, Any]) -> None:
    names = found.parcels.columns
    vouching = out_dir / sidecar_of(outputs.series)
    vouching.unlink(missing_ok=True)
    connectome = pd.DataFrame(found.connectome(), columns=names)
    connectome.insert(0, "Node", names)
    write_table(out_dir / outputs.connectome, connectome)
    node = {"Description": "The parcel of the row, by its column in the series"}
    write_json(
        out_dir / sidecar_of(outputs.connectome),
        {**about, "Description": "Pearson correlations of parcels' series", "Node": node},
    )
    write_table(out_dir / outputs.coverage, pd.DataFrame({"Node": names, "coverage": found.coverage}))
    covers = {"Description": "Share of the parcel's voxels that lie in the run's brain"}
    write_json(
        out_dir / sidecar_of(outputs.coverage),
        {
            **about,
            "Description": "How much of each parcel the run covers",
            "Units": "1",
            "Node": node,
            "coverage": covers,
        },
    )
    write_table(out_dir / outputs.series, pd.DataFrame(found.series, columns=names))
    write_json(vouching, {**about, "Description": "Mean series of parcels, a row per frame"})


def _about(run: GriddedRun, found: ParcelSeries, file: Path, settings: Settings) -> dict[str, Any]:
    assert run.source is not None
    few = np.flatnonzero(found.coverage < LEAST_COVERED)
    return {
        "Description": "",
        "SamplingFrequency": 1 / run.repetition_time,
        "StartTime": float(found.onsets[0]),
        "Units": "z-score over all brain voxels and frames",
        "Atlas": {"Name": found.parcels.name, "File": file.name},
        "Labels": dict(zip(found.parcels.columns, found.parcels.labels, strict=True)),
        "Unknown": [found.parcels.columns[i] for i in few],
        "LeastCoverage": LEAST_COVERED,
        "Privacy": PRIVACY,
        "Preprocessing": run.steps,
        "MadeFrom": _made_from(run.source, run.grid, file, settings),
    }


def _made_from(source: RunSource, grid: Grid, atlas: Path, settings: Settings) -> str:
    return gridding_digest(source, grid, {**settings.changing("gridded"), "atlas": fingerprint([atlas])})
