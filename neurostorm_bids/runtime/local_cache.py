"""Copies of files on this machine's own disk, within a limit: for what is read again and again from a slow file system."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 600.0  # s, to wait for another process that copies


@dataclass(frozen=True)
class LocalCache:
    """Copies of files; once the limit is reached, no more are made, and what is not here is read from where it is.

    Nothing is thrown out to make room: files that are read in a random order would be thrown out before they are read again.

    Attributes
    ----------
    folder : Path
        Shared by all processes of this machine.
    limit : int
        Bytes.
    """

    folder: Path
    limit: int

    def __call__(self, path: Path) -> Path:
        """Return where to read a file: its copy if there is one or room for one; else the file itself."""
        try:
            found = path.stat()
            name = hashlib.sha256(f"{path} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:32]
            copy = self.folder / f"{name}{path.suffix}"
            if copy.exists():
                return copy
            if self._is_full():
                return path
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=PATIENCE):
                return self._copied(path, copy, found.st_size)
        except (OSError, Timeout):  # a full or vanished disk must not end a training: the file is still where it was
            return path

    def _copied(self, path: Path, copy: Path, size: int) -> Path:
        if copy.exists():
            return copy
        used = sum(entry.stat().st_size for entry in os.scandir(self.folder) if entry.is_file())
        unfinished = copy.with_suffix(".part")
        try:
            if used + size <= self.limit:
                shutil.copyfile(path, unfinished)
                unfinished.rename(copy)
                return copy
        except OSError:  # the disk is smaller than the limit
            unfinished.unlink(missing_ok=True)
        (self.folder / ".full").touch()
        return path

    def _is_full(self) -> bool:
        return (self.folder / ".full").exists()

    def end(self) -> None:
        """Remove all copies."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Make the folder, and throw out what an earlier training has left."""
        self.end()
        self.folder.mkdir(parents=True, exist_ok=True)
