"""Write files so that no reader ever sees half of one, whatever happens to the process."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from neurostorm_bids.errors import NeurostormError

PARTIAL = ".partial"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to; on success it takes the place of ``path``.

    Raises
    ------
    NeurostormError
        If the folder cannot be written to or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        os.close(handle)
    except OSError as error:
        raise NeurostormError(f"cannot write {path}: {error.strerror}") from None
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise NeurostormError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, *prefixes: str) -> None:
    """Remove what killed processes left of files with these prefixes; call it only while nobody else can be writing."""
    for prefix in prefixes:
        for path in folder.glob(f".{prefix}*.????????{PARTIAL}"):
            with contextlib.suppress(OSError):  # a folder of that name is not ours
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
