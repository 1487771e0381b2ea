"""Checks that every reader of input files makes first, with the same wording everywhere."""

import os
from pathlib import Path

from neurostorm_bids.errors import NeurostormError


def check_fetched(path: Path) -> None:
    """Tell a DataLad link whose content was not fetched from a file that does not exist.

    Raises
    ------
    NeurostormError
        If ``path`` is a link to nothing.
    """
    if path.is_symlink() and not path.exists():
        raise NeurostormError(f"not fetched: {path} is a link to a file that is not here; run 'datalad get {path}'")


def check_there(path: Path) -> None:
    """Check that a file exists, is not empty, and can be read.

    Raises
    ------
    NeurostormError
        If it is missing, empty or unreadable.
    """
    check_fetched(path)
    if path.exists() and not path.is_file():
        raise NeurostormError(f"{path} is not a file but a folder, a pipe or a device")
    if not path.is_file():
        raise NeurostormError(f"file not found: {path}")
    if path.stat().st_size == 0:
        raise NeurostormError(f"{path} is empty (0 bytes); fetch it again")
    if not os.access(path, os.R_OK):
        raise NeurostormError(f"{path} cannot be read: permission denied")
