"""A subject's table: one row per run, from what was written by this call or earlier ones."""

from collections.abc import Set
from pathlib import Path

from neurostorm_bids.derivatives.names import run_tables, sidecar_of, subject_embeddings
from neurostorm_bids.derivatives.run import settings_hash
from neurostorm_bids.derivatives.sidecars import PRIVACY, model_entry, software_versions
from neurostorm_bids.derivatives.tables import read_table, subject_table, write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.atomic import sweep
from neurostorm_bids.runtime.json_files import read_json, write_json
from neurostorm_bids.runtime.locks import lock_shared_files
from neurostorm_bids.settings import Settings


def collect_subject(
    subject: str, grid: Grid, model: Model, settings: Settings, failed: Set[str] = frozenset()
) -> list[str]:
    """Write a subject's table from all its runs that were written with these settings.

    Parameters
    ----------
    failed : set of str
        Names of runs that failed in this call: what an earlier call wrote of them is left out.

    Returns
    -------
    list of str
        Which runs were left out, and why.
    """
    out_dir = settings.out_dir
    ending = f"_space-{grid.template}_desc-{model.label}_embeddings.tsv"
    wanted = settings_hash(grid, model, settings)
    notes, runs, sources = [], {}, []
    with lock_shared_files(out_dir):
        sweep(out_dir / f"sub-{subject}", f"sub-{subject}_")
        for path in run_tables(out_dir / f"sub-{subject}", f"*{ending}"):
            name = path.name.removesuffix(ending)
            if name in failed:
                notes.append(f"{name}: failed, so it is not in the table of sub-{subject}")
                continue
            if read_json(sidecar_of(path)).get("SettingsHash") != wanted:
                notes.append(f"{name}: written with other settings, so it is not in the table of sub-{subject}")
                continue
            try:
                runs[name] = read_table(path)
            except NeurostormError as error:
                notes.append(str(error))
                continue
            sources.append(f"bids::{path.relative_to(out_dir).as_posix()}")
        path = out_dir / subject_embeddings(subject, grid.template, model.label)
        if not runs:
            _remove(path)
            return notes
        table, columns = subject_table(runs, model.warning)
        write_table(path, table)
        content = {
            "Description": "NeuroSTORM embeddings, one row per run and their mean weighted by windows",
            "Model": model_entry(model),
            "Grid": grid.describe(),
            "Sources": sources,
            "SoftwareVersions": software_versions(),
            "SettingsHash": wanted,
            "Privacy": PRIVACY,
        }
        write_json(sidecar_of(path), {**content, **columns})
    return notes


def _remove(table: Path) -> None:
    """Remove a table of an earlier call that no longer stands for anything."""
    for stale in (table, sidecar_of(table)):
        stale.unlink(missing_ok=True)
