"""Look into folders quickly, and survive those that cannot be read: a cohort's folder may hold 60,000."""

import os
from pathlib import Path


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones; nothing if it cannot be read.

    The directory itself says what is a folder, so that none of them is looked at.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(path / entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def is_there(path: Path) -> bool:
    """Whether there is a file; a link to what was not fetched counts, and is reported when it is read."""
    try:
        return path.is_file() or path.is_symlink()
    except PermissionError:
        return False


def may_be_folder(path: Path) -> bool:
    """Whether there is a folder, or nobody may look."""
    try:
        return path.is_dir()
    except PermissionError:
        return True


def is_readable(folder: Path) -> bool:
    """Whether a folder can be listed."""
    return os.access(folder, os.R_OK | os.X_OK)
