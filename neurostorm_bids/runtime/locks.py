"""Locks between processes, on one machine or on many that share a file system.

They are locks of the kernel (flock), which network file systems pass on to their server: when a process dies, even by
SIGKILL, its locks are free. The lock files themselves stay and mean nothing.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from filelock import FileLock, Timeout

from neurostorm_bids.derivatives.names import GRIDS
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.runs import Run
from neurostorm_bids.runtime.atomic import sweep
from neurostorm_bids.settings import WORK

FOLDER = ".locks"


class Busy(Exception):
    """Another process is at this run."""


@contextlib.contextmanager
def lock_folder(out_dir: Path) -> Iterator[None]:
    """Hold the lock of the files that concern more than one run.

    Raises
    ------
    NeurostormError
        If another process holds it for two minutes.
    """
    try:
        with _held(out_dir, "folder", timeout=120):
            yield
    except Busy:
        path = out_dir / FOLDER / "folder.lock"
        raise NeurostormError(f"another process holds {path} for two minutes; is it hanging?") from None


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
    with _held(out_dir, run.name, timeout=-1 if wait else 0):
        # what a killed process left: we alone write here now (not so in a work folder that is shared with others)
        for folder in (run.folder, Path(f"sub-{run.subject}", "figures"), Path(WORK, GRIDS) / run.folder):
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
        with _held(out_dir, f"model-{name}", timeout=0):
            yield
    except Busy:
        raise NeurostormError(
            f"another process trains a model of the name {name}; give another with --save-as"
        ) from None


def link_out(out_dir: Path, run: "Run | None" = None, subject: Optional[str] = None) -> "str | None":
    """Say which link in the output folder would lead a write out of it; `None` if there is none.

    Parameters
    ----------
    run : Run, optional
        Look at the folders of this run; by default, at those of no run.
    subject : str, optional
        Look at the folders of this subject.
    """
    folders = [out_dir / "logs", out_dir / FOLDER]
    if subject or run:
        home = out_dir / f"sub-{subject or run.subject}"
        folders = [home, home / "figures", home / "log"]
    if run is not None:
        folders += [out_dir / run.folder.parent, out_dir / run.folder]
    for folder in folders:
        if not folder.resolve().is_relative_to(out_dir.resolve()):
            where = folder.resolve()
            return (
                f"{folder} leads out of the output folder, to {where}: remove the link, or give that place as OUT_DIR"
            )
    return None


@contextlib.contextmanager
def _held(out_dir: Path, name: str, timeout: float) -> Iterator[None]:
    path = out_dir / FOLDER / f"{name}.lock"
    lock = FileLock(path, timeout=timeout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise NeurostormError(
            f"cannot lock {path} ({why}): is the folder another user's, or a file system mounted without locks?"
        ) from None
    try:
        yield
    finally:
        lock.release()
