"""What is checked before any work begins: folders, and whether a model fits the call."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurostorm_bids.derivatives.description import is_damaged, is_ours_or_new
from neurostorm_bids.derivatives.names import GRIDDED, folders_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.runtime.locks import link_leading_out
from neurostorm_bids.settings import Settings

if TYPE_CHECKING:
    from neurostorm_bids.model.model import Model


def prepare_folders(settings: Settings, dataset: Dataset) -> None:
    """Make the output and work folders; the input is never written to.

    Raises
    ------
    NeurostormError
        If a folder is inside the input, another program's, or cannot be written to.
    """
    folders = {
        "OUT_DIR": settings.out_dir,
        "--work-dir": settings.resources.work_dir,
        "--bids-database-dir": settings.selection.bids_database_dir,
    }
    for option, folder in folders.items():
        if folder is not None:
            _check_place(option, folder, settings, dataset)
            _make(option, folder)
    if problem := link_leading_out(settings.out_dir, folders_of(settings.out_dir)):
        raise NeurostormError(problem)
    if is_damaged(settings.out_dir):
        raise NeurostormError(
            f"{settings.out_dir / 'dataset_description.json'} is not readable JSON; repair it, or remove it and it is "
            "written again"
        )
    if not is_ours_or_new(settings.out_dir):
        raise NeurostormError(
            f"OUT_DIR {settings.out_dir} holds a data set of another program; give a folder of its own"
        )
    if settings.resources.clean_workdir:
        shutil.rmtree(settings.work / GRIDDED, ignore_errors=True)


def check_conduct(settings: Settings) -> None:
    """Check that reports are of results that are there; that a dry run is asked for alone, and that its results could be written.

    Raises
    ------
    NeurostormError
        If not.
    """
    conduct = settings.conduct
    if conduct.reports_only and not (settings.out_dir / "dataset_description.json").exists() and not conduct.dry_run:
        raise NeurostormError(f"--reports-only: {settings.out_dir} holds no results; is it the right folder?")
    if not conduct.dry_run:
        return
    for name in ("reports_only", "boilerplate_only", "md_only_boilerplate"):
        if getattr(conduct, name):
            raise NeurostormError(f"--dry-run is about runs; leave out --{name.replace('_', '-')}")
    for option, folder in (("OUT_DIR", settings.out_dir), ("--work-dir", settings.resources.work_dir)):
        if folder is not None:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                raise NeurostormError(f"{option} {folder} cannot be made or written to: look at {there}")


def _check_place(option: str, folder: Path, settings: Settings, dataset: Dataset) -> None:
    """Check that a folder is not part of the input."""
    roots = [settings.bids_dir, *([dataset.raw] if dataset.raw is not None else [])]
    inputs = [dataset.path]
    if not folder.is_relative_to(settings.out_dir):  # results may go to BIDS_DIR/derivatives/neurostorm
        inputs += roots
    if option == "OUT_DIR" and folder in dataset.path.parents:
        raise NeurostormError(f"OUT_DIR {folder} holds the input {dataset.path}; give a folder of its own in it")
    if folder in roots or any(folder.is_relative_to(path) for path in inputs):
        raise NeurostormError(f"{option} {folder} is inside the input, which is never written to; give another folder")
    for root in roots:
        if folder.is_relative_to(root) and _is_of_a_subject(folder.relative_to(root)):
            raise NeurostormError(f"{option} {folder} is a subject's folder of the input; give another")


def _is_of_a_subject(folder: Path) -> bool:
    return any(part.startswith("sub-") for part in folder.parts)


def _make(option: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NeurostormError(f"{option} {folder} cannot be written to: {error.strerror}") from None


def warnings_of(models: Sequence["Model"]) -> list[str]:
    """Return the warnings on the weights of models, such as that they are for demonstration."""
    return [f"model {model.name}: {model.warning}" for model in models if model.warning]
