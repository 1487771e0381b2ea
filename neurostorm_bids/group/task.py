"""Tasks of the group level: each is a file in ``tasks/``, with a function ``run`` that makes a `GroupResult`.

The file's name is what ``--group-task`` calls it, and the first line of its docstring is its help. Nothing else has to
know of it: `output` writes what it returns.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.group import tasks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from neurostorm_bids.group.study import Study


@dataclass(frozen=True)
class Section:
    """A part of a page: words, notes, facts, a table and figures, in this order.

    Attributes
    ----------
    title : str
    words : sequence of str
        Paragraphs.
    facts : sequence of (str, str)
        Name and text.
    table : DataFrame, optional
    figures : sequence of (str, str)
        A key of `GroupResult.figures`, and a caption.
    notes : sequence of str
        What a reader should know.
    links : sequence of (str, str, str)
        Address, text, and what it says.
    html : str
        What a template of the task's own made of its data; stands before the figures.
    alarms : sequence of str
        What is said in red below the words.
    """

    title: str
    words: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    table: "pd.DataFrame | None" = None
    figures: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    links: Sequence[tuple[str, str, str]] = ()
    html: str = ""
    alarms: Sequence[str] = ()


@dataclass(frozen=True)
class GroupResult:
    """What a task found, ready to be written.

    Attributes
    ----------
    name : str
        What its files' names begin with, such as group_desc-base_target-age.
    title : str
        Of its page.
    answer : str
        The answer in words, for the console.
    sections : sequence of Section
        Of its page.
    about : dict
        What the sidecars of its tables say: a Description, how it was made, ...
    page : str
        Name of its page, without .html; results with the same one share it.
    tables : dict
        End of the file's name, such as _metrics -> DataFrame.
    columns : dict
        End of a table's name -> what its columns are, for its sidecar.
    figures : dict
        End of the file's name -> matplotlib Figure.
    shown : DataFrame, optional
        A table for the console.
    write_more : callable, optional
        Writes files that are no tables, figures or pages; called with the output folder.
    problems : sequence of Problem
        Why not all that was asked for took part.
    """

    name: str
    title: str
    answer: str
    sections: Sequence[Section]
    about: dict[str, Any]
    page: str
    tables: "dict[str, pd.DataFrame]" = field(default_factory=dict)
    columns: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    figures: "dict[str, Figure]" = field(default_factory=dict)
    shown: "pd.DataFrame | None" = None
    write_more: Callable[[Path], None] | None = None
    problems: Sequence[Problem] = ()


GroupTask = Callable[["Study"], "Sequence[GroupResult]"]  # none where another process writes the result


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return tuple(module.name for module in iter_modules(tasks.__path__))


def describe_tasks() -> dict[str, str]:
    """Return what each task does, without importing it: the first line of its docstring."""
    described = {}
    for module in iter_modules(tasks.__path__):
        for folder in tasks.__path__:
            path = Path(folder, f"{module.name}.py")
            if path.is_file():
                text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                described[module.name] = text.partition("\n")[0].rstrip(".")
    return described


def find_task(name: str) -> GroupTask:
    """Import a task.

    Raises
    ------
    NeurostormError
        If there is none of that name.
    """
    if name not in task_names():
        raise NeurostormError(f"there is no group task '{name}'; there are: {', '.join(task_names())}")
    run: GroupTask = import_module(f"{tasks.__name__}.{name}").run
    return run
