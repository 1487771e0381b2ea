"""Options: dataclass fields that carry their own help, so that a name, its default and its help stand in one place.

`option` makes such a field. The command line makes its options from these fields, and here they are turned back into
the words of a command and into TOML, as logs and job scripts hold them.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

METADATA = "option"


@dataclass(frozen=True)
class Option:
    """What an option is beside its name, type and default, which are those of its field.

    Attributes
    ----------
    help : str
    changes : str
        What in the results depends on it; "nothing", or a word that the settings explain.
    choices : tuple of str, or str
        What it may be; or ``module:function`` of a function that lists that.
    flags : tuple of str
        Other spellings, such as ``-t``.
    metavar : str or None
        What the help shows for its value.
    shown_default : str or None
        What the help shows for a default of `None`.
    word_for_none : str or None
        What is written for `None`, such as auto.
    least, most : float or None
        Limits of a number.
    above : bool
        ``least`` itself is not allowed.
    prefix : str
        May stand before each value and means nothing, such as ``sub-``; values are labels, also between commas and in
        files.
    column : str or None
        Column of a table that lists such labels.
    pattern : str or None
        Regular expression that its value has to match.
    pattern_help : str
        The same in words.
    tasks : tuple of str
        The tasks of the group level that it means something to; empty for all.
    must_exist : bool
        A path has to exist.
    is_folder : bool
        A path is a folder's.
    """

    help: str
    changes: str = "nothing"
    choices: tuple[str, ...] | str = ()
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    shown_default: str | None = None
    word_for_none: str | None = None
    least: float | None = None
    most: float | None = None
    above: bool = False
    prefix: str = ""
    column: str | None = None
    pattern: str | None = None
    pattern_help: str = ""
    tasks: tuple[str, ...] = ()
    must_exist: bool = False
    is_folder: bool = False

    def list_choices(self) -> tuple[str, ...]:
        """Return what the option may be; empty if that is not limited to a list."""
        if isinstance(self.choices, str):
            module, _, name = self.choices.partition(":")
            lister: Callable[[], tuple[str, ...]] = getattr(import_module(module), name)
            return lister()
        return self.choices


def option(default: Any, help: str, **details: Any) -> Any:
    """Return a dataclass field that is an option of the command line; ``details`` are those of `Option`."""
    return field(default=default, metadata={METADATA: Option(help, **details)})


def default_in_words(each: Field[Any], details: Option) -> str:
    """Return what is said of an option's default: in the help, in descriptors, in the documentation; empty if nothing is to be said."""
    if details.shown_default is not None:
        return details.shown_default
    if each.default is None:
        return details.word_for_none or ""
    if isinstance(each.default, tuple):
        return " ".join(map(str, each.default))
    return "" if isinstance(each.default, bool) else str(each.default)


def options_of(group: type) -> Iterator[tuple[Field[Any], Option]]:
    """Yield the fields of a dataclass that are options, each with its details."""
    for each in fields(group):
        if METADATA in each.metadata:
            yield each, each.metadata[METADATA]


def value_type(group: type, name: str) -> type:
    """Return the type of an option's value; of an option that takes several, the type of each; `None` left out."""
    hint = get_type_hints(group)[name]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind not in (type(None), Ellipsis)]
    return kinds[0]


def takes_several(group: type, name: str) -> bool:
    """Whether an option takes several values."""
    return getattr(get_type_hints(group)[name], "__origin__", None) is tuple


def as_words(group: Any) -> Iterator[str]:
    """Yield the words of a command line for the options of a dataclass that differ from their defaults.

    Those in its ``explicit`` count as well, and those in its ``adopted``, which the user did not give, do not.
    """
    explicit: frozenset[str] = getattr(group, "explicit", frozenset())
    adopted: frozenset[str] = getattr(group, "adopted", frozenset())
    for each, details in options_of(type(group)):
        value = getattr(group, each.name)
        if each.name in adopted or (value == each.default and each.name not in explicit):
            continue
        if each.name == "verbose":
            yield "-" + "v" * value
            continue
        yield f"--{each.name.replace('_', '-')}"
        if value is None:
            yield str(details.word_for_none)
        elif value is not True:
            yield from map(_word, value if isinstance(value, tuple) else (value,))


def as_toml(group: Any) -> Iterator[str]:
    """Yield the lines of a TOML file for all options of a dataclass that have a value."""
    for each, details in options_of(type(group)):
        value = getattr(group, each.name)
        value = details.word_for_none if value is None else value
        if value is None or value == ():
            continue
        plain = [_plain(item) for item in value] if isinstance(value, tuple) else _plain(value)
        # a JSON string, number, truth value or list of these is the same in TOML
        yield f"{each.name} = {json.dumps(plain, ensure_ascii=False)}"


def _plain(value: Any) -> Any:
    return _word(value) if isinstance(value, (Path, tuple)) else value


def _word(value: Any) -> str:
    """Write one value as it is typed; a pair of a name and a path as NAME=PATH."""
    return "=".join(map(str, value)) if isinstance(value, tuple) else str(value)
