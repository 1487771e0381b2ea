"""Locks of runs, and of models that are trained."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from neurostorm_bids.derivatives.names import GRIDDED, figure_folder
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.run import Run
from neurostorm_bids.runtime.atomic import sweep
from neurostorm_bids.runtime.locks import Busy, hold
from neurostorm_bids.settings import WORK


@contextlib.contextmanager
def lock_run(out_dir: Path, run: Run, wait: bool) -> Iterator[None]:
    """Hold the lock of a run, so that no two processes work on it.

    Parameters
    ----------
    wait : bool
        Wait for another process that holds it, as long as it lives.

    Raises
    ------
    Busy
        If another process holds it and ``wait`` is off.
    """
    with hold(out_dir, run.name, wait=-1 if wait else 0):
        # what a killed process left: nobody else writes here now (but in a work folder that is shared, others do)
        for folder in (run.folder, figure_folder(run.subject), Path(WORK, GRIDDED) / run.folder):
            sweep(out_dir / folder, f"{run.name}_space-")
        yield


@contextlib.contextmanager
def lock_model(out_dir: Path, name: str) -> Iterator[None]:
    """Hold the lock of a model that is trained.

    Raises
    ------
    NeurostormError
        If another process trains it.
    """
    try:
        with hold(out_dir, f"model-{name}"):
            yield
    except Busy:
        raise NeurostormError(
            f"another process is training a model called {name}; give another name with --save-as"
        ) from None
