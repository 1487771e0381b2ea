"""Locks between processes, on one machine or on many that share a file system.

They are the kernel's (flock), which network file systems pass on to their server: when a process dies, even by
SIGKILL, its locks are released. The lock files themselves stay and mean nothing.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from neurostorm_bids.errors import NeurostormError

FOLDER = ".locks"
PATIENCE = 120.0  # s, to wait for whoever is writing files that concern more than one run


class Busy(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(out_dir: Path, name: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a named lock of an output folder.

    Parameters
    ----------
    wait : float
        How long to wait for another process that holds it, s; -1 waits as long as that process lives.

    Raises
    ------
    Busy
        If another process still holds it.
    NeurostormError
        If the lock file cannot be made.
    """
    path = out_dir / FOLDER / f"{name}.lock"
    lock = FileLock(path, timeout=wait)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Busy from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise NeurostormError(f"{out_dir} cannot be written to: {why}") from None
        raise NeurostormError(
            f"cannot lock {path} ({why}): is the folder another user's, or a file system mounted without locks?"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def lock_shared_files(out_dir: Path) -> Iterator[None]:
    """Hold the lock of files that concern more than one run, for as long as it takes to write them and no longer.

    Raises
    ------
    NeurostormError
        If another process holds it for two minutes.
    """
    try:
        with hold(out_dir, "folder", wait=PATIENCE):
            yield
    except Busy:
        path = out_dir / FOLDER / "folder.lock"
        raise NeurostormError(f"another process has held {path} for two minutes; does it hang?") from None


def link_leading_out(out_dir: Path, folders: tuple[Path, ...]) -> str | None:
    """Return a message about the first of these folders that is a link out of the output folder; else `None`."""
    for folder in folders:
        where = folder.resolve()
        if not where.is_relative_to(out_dir.resolve()):
            return (
                f"{folder} leads out of the output folder, to {where}: remove the link, or give that folder as OUT_DIR"
            )
    return None
