"""Options given by name in Python, read as the command reads them: the same limits, spellings and messages."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from neurostorm_bids.command.main import settings_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.settings import Settings


def settings_from(bids_dir: str | Path, out_dir: str | Path, level: str, options: dict[str, Any]) -> Settings:
    """Return the settings that options mean.

    Parameters
    ----------
    level : {"participant", "group"}
    options : dict
        Name, with ``_``, -> value: text, number or path; a list of them; a dict for NAME=PATH; `None` for the option's own word, such as
        native.

    Raises
    ------
    NeurostormError
        If there is no such option, or a value is none of its.
    """
    data, out = (Path(path).expanduser().resolve() for path in (bids_dir, out_dir))
    words = [str(data), str(out), level]
    for name, value in Settings(data, out).in_words(options).items():
        words += _words(f"--{name.replace('_', '-')}", value)
    try:
        return settings_of(words)
    except click.ClickException as error:
        raise NeurostormError(error.format_message()) from None
    except click.exceptions.Exit:  # --help and --version are no options of a function
        raise NeurostormError(f"there is no option among {', '.join(options)} that a function takes") from None


def _words(flag: str, value: Any) -> list[str]:
    """Return what one would type."""
    if value is False or value is None:
        return []
    if value is True:
        return [flag]
    if isinstance(value, dict):
        value = [f"{name}={path}" for name, path in value.items()]
    if isinstance(value, (str, Path)) or not isinstance(value, Iterable):
        return [flag, str(value)]
    values = [str(each) for each in value]
    return [flag, *values] if values else []
