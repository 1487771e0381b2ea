"""The texts of boilerplate/ that the app writes out: methods, model cards, references."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jinja2


def boilerplate(name: str) -> str:
    """Return a text of boilerplate/ as it is."""
    return files("neurostorm_bids.boilerplate").joinpath(name).read_text(encoding="utf-8")


def filled_in(name: str, filters: dict[str, Callable[..., Any]] | None = None, /, **values: Any) -> str:
    """Return a text of boilerplate/, Markdown, with values in it; one that is missing is an error."""
    environment = jinja2.Environment(  # noqa: S701 (Markdown, not a page)
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(filters or {})
    return environment.from_string(boilerplate(name)).render(**values)
