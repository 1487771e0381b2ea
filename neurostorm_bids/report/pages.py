"""HTML pages that need no network: plain HTML and CSS, and a script where a table is to be sorted."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2

from neurostorm_bids import __version__


def render_page(template: str, **values: Any) -> str:
    """Render one of the templates of this package.

    Parameters
    ----------
    template : str
        Such as subject.html.
    **values : Any
        What the template shows; text is escaped.
    """
    return _environment().get_template(template).render(version=__version__, style=_data("style.css"), **values)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_data), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = _cell
    return environment


def _data(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _cell(value: Any) -> str:
    """Format a cell of a table: three digits, and nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
