"""Click options made from the fields of the settings, and what neuroimagers expect of a command line and click lacks.

That is: options in groups, several values after one option, ``_`` and ``-`` alike, values from a TOML file.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.runtime.options import Option, default_in_words, options_of, takes_several, value_type
from neurostorm_bids.runtime.toml import parse_toml

LARGEST = 1e30  # NaN and infinity are numbers to click


class Several(click.Option):
    """An option that takes several values, ``--task-id rest nback``, and may be repeated."""

    def __init__(self, names: Sequence[str], **details: Any):
        super().__init__(names, multiple=True, **details)


class Choices(click.Choice[str]):
    """A choice whose list is made when it is needed."""

    def __init__(self, details: Option):
        self.details, self.case_sensitive = details, True

    @property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """What there is to choose from, the word that stands for `None` included."""
        word = self.details.word_for_none
        return (*(() if word is None else (word,)), *self.details.list_choices())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the choice, or `None` for its word."""
        chosen = super().convert(value, param, ctx)
        return None if chosen == self.details.word_for_none else chosen


class Number(click.ParamType):
    """A number within limits, or the word that stands for `None`."""

    name = "number"

    def __init__(self, kind: type, details: Option):
        self.kind, self.details = kind, details

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number."""
        word, text = self.details.word_for_none, str(value)
        if word is not None and text.strip().lower() == word:
            return None
        what = "a whole number" if self.kind is int else "a number"
        if word:
            what = f"{word} nor {what}"
        try:
            if not text.isascii():  # other digits are digits to Python
                raise ValueError
            number = self.kind(text)
        except ValueError:
            self.fail(f"'{value}' is {'neither' if word else 'not'} {what}", param, ctx)
        if not abs(number) < LARGEST:
            self.fail(f"{value} is not a number that can be used", param, ctx)
        d = self.details
        if (d.least is not None and (number < d.least or (d.above and number == d.least))) or (
            d.most is not None and number > d.most
        ):
            self.fail(f"{value} has to be {self.limits()}", param, ctx)
        return number

    def limits(self) -> str:
        """Return the limits in words, such as from 0 to 1."""
        d = self.details
        least, most = (None if limit is None else str(self.kind(limit)) for limit in (d.least, d.most))
        if least is None:
            return f"at most {most}"
        if most is None:
            return f"above {least}" if d.above else f"{least} or more"
        return f"above {least} and at most {most}" if d.above else f"from {least} to {most}"


def options_from(group: type) -> list[click.Option]:
    """Make the options of a group of settings."""
    return [_option(group, each, details) for each, details in options_of(group)]


def _option(group: type, each: Field[Any], details: Option) -> click.Option:
    flags = [f"--{each.name.replace('_', '-')}", *details.flags]
    shown = details.word_for_none if each.default is None else None
    default = each.default if shown is None else shown
    words = default_in_words(each, details)
    text = f"{details.help}  [default: {words}]" if words else details.help
    kind = value_type(group, each.name)
    if each.name == "verbose":
        return click.Option([*flags, each.name], count=True, help=details.help)
    if kind is bool:
        return click.Option([*flags, each.name], is_flag=True, help=text)
    common: dict[str, Any] = {"default": default, "help": text, "metavar": details.metavar}
    if takes_several(group, each.name):
        callback = _named_path if kind is tuple or each.name == "derivatives" else _labels(details)
        return Several([*flags, each.name], callback=callback, **common)
    common["type"] = _click_type(kind, details)
    if details.pattern:
        common["callback"] = _matching(details)
    return click.Option([*flags, each.name], **common)


def _click_type(kind: type, details: Option) -> Any:
    if details.choices:
        return Choices(details)
    if kind in (int, float):
        return Number(kind, details)
    if kind is Path:
        return click.Path(
            exists=details.must_exist, file_okay=not details.is_folder, dir_okay=details.is_folder, path_type=Path
        )
    return str


def _labels(details: Option) -> Callable[..., tuple[str, ...]]:
    """Return a callback that takes ``sub-01`` and ``01`` alike, ``01,02``, and lists in files."""

    def callback(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
        if details.choices:
            return tuple(dict.fromkeys(Choices(details).convert(value, _param, _ctx) for value in values))
        if not details.prefix:
            return tuple(map(str, values))
        found = [part for value in values for part in _listed(str(value), details)]
        if values and not found:
            raise click.BadParameter(f"{', '.join(map(str, values))} names no label")
        return tuple(dict.fromkeys(part.removeprefix(details.prefix) for part in found))

    return callback


def _listed(value: str, details: Option) -> list[str]:
    """Return the labels that a value stands for: those between commas, or those of a file (@FILE, or a .tsv)."""
    path = Path(value.removeprefix("@")).expanduser()
    if not (value.startswith("@") or (details.column and value.endswith(".tsv"))):
        return [part for part in value.split(",") if part]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} cannot be read as a list of labels ({error})") from None
    separator = "," if path.suffix == ".csv" else "\t"
    cells = [[cell.strip() for cell in line.split(separator)] for line in lines if line.strip()]
    if cells and details.column in cells[0]:
        number = cells[0].index(details.column)
        return [row[number] for row in cells[1:] if len(row) > number and row[number] not in ("", "n/a")]
    if path.suffix in (".tsv", ".csv"):
        raise click.BadParameter(f"{path} has no column {details.column or 'of labels'}")
    return [part for line in lines for part in re.split(r"[\s,]+", line) if part]


def _named_path(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Read NAME=PATH."""
    pairs = []
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"'{value}' is not NAME=PATH, such as fmriprep=/data/fmriprep")
        pairs.append((name, Path(path).expanduser().resolve()))
    return tuple(pairs)


def _matching(details: Option) -> Callable[..., str | None]:
    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(details.pattern or "", value):
            raise click.BadParameter(f"'{value}' is not {details.pattern_help}")
        return value

    return callback


class BidsCommand(click.Command):
    """A command whose help shows its options in groups and whose `Several` options take several values.

    Parameters
    ----------
    groups : dict
        Title -> names of parameters.
    most_used : dict
        Name of a parameter -> what the help begins with, a line each.
    notes : callable
        Returns what the help says at the end: title -> name -> what it is.
    """

    def __init__(
        self,
        *args: Any,
        groups: dict[str, list[str]],
        most_used: dict[str, str],
        notes: Callable[[], dict[str, dict[str, str]]] = dict,
        **kwargs: Any,
    ):
        self.groups, self.most_used, self.notes = groups, most_used, notes
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat an option before each of its values, which is what click understands."""
        try:
            args = self._repeat(ctx, args)
        except click.BadOptionUsage:
            if not ctx.resilient_parsing:  # the shell asks how the line may go on: its last option has no value yet
                raise
        return super().parse_args(ctx, args)

    def _repeat(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite ``--opt a b`` as ``--opt=a --opt=b``; the command's arguments that follow stay arguments."""
        known = {name: option for option in self.params for name in option.opts if isinstance(option, click.Option)}
        normal = ctx.token_normalize_func or str
        arguments = 0
        rest: list[Any] = []  # words, and [option, values that follow it]
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            name = normal(name) if name.startswith("--") else name
            option = known.get(name)
            if isinstance(option, Several):
                rest.append([name, [value] if equals else []])
            elif not word.startswith("-") and rest and isinstance(rest[-1], list):
                rest[-1][1].append(word)
            else:
                rest.append(word)
                arguments += option is None and not word.startswith("-")
                if option is not None and not equals and not option.is_flag and not option.count:
                    rest.append(self._value_of(name, next(words, None), known, ctx))
        return self._with_arguments_back(rest, arguments)

    def _value_of(self, name: str, word: str | None, known: dict[str, Any], ctx: click.Context) -> str:
        """Return the word after an option as its value, unless it is missing or another option."""
        normal = ctx.token_normalize_func or str
        if word is None or (word.startswith("--") and normal(word.partition("=")[0]) in known):
            raise click.BadOptionUsage(name, f"Option '{name}' requires a value.", ctx)
        return word

    def _with_arguments_back(self, rest: list[Any], n_arguments: int) -> list[str]:
        """Return the command's arguments from the option that they followed."""
        positional = [param for param in self.params if isinstance(param, click.Argument)]
        missing = max(0, len(positional) - n_arguments)
        last = positional[-1].type
        levels = last.choices if isinstance(last, click.Choice) else ()
        several = [part for part in rest if isinstance(part, list)]
        # the option that ends in the last argument's value has swallowed them; else the last one that can spare some
        order = sorted(reversed(several), key=lambda part: not (part[1] and part[1][-1] in levels))
        back = {}
        for part in order:
            n = min(missing, max(0, len(part[1]) - 1))
            missing -= n
            back[id(part)] = n
        out: list[str] = []
        for part in rest:
            if not isinstance(part, list):
                out.append(part)
                continue
            name, values = part
            n_own = len(values) - back[id(part)]
            if not n_own:
                raise click.BadOptionUsage(name, f"Option '{name}' requires a value.")
            own = [word for value in values[:n_own] for word in (name, value)]
            out += own + values[n_own:]
        return out

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their groups."""
        by_name: dict[str | None, Any] = {param.name: param for param in self.params}
        by_name["help"] = self.get_help_option(ctx)
        with formatter.section("Most used, and explained below"):
            formatter.write_dl([(f"--{name.replace('_', '-')}", words) for name, words in self.most_used.items()])
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([by_name[name].get_help_record(ctx) for name in names], col_max=28)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the notes."""
        for title, rows in self.notes().items():
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Take defaults from a TOML file; the command line takes precedence."""
    if path is None:
        return
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} is not readable TOML ({error})") from None
    values = {key.replace("-", "_"): value for key, value in content.items()}
    ours = ("config_file", "version", "help", "skip_bids_validation")
    known = {param.name: param for param in ctx.command.params if isinstance(param, click.Option)}
    if unknown := sorted(name for name in values if name not in known or name in ours):
        near = get_close_matches(unknown[0], sorted(known.keys() - set(ours)), 1)
        meant = f"did you mean {near[0].replace('_', '-')}?" if near else "keys are the options' names, such as task-id"
        raise click.BadParameter(f"{path}: unknown key {unknown[0]}; {meant}")
    if isinstance(values.get("derivatives"), dict):
        values["derivatives"] = [f"{name}={folder}" for name, folder in values["derivatives"].items()]
    for name, value in values.items():
        if isinstance(known[name], Several) and not isinstance(value, list):
            values[name] = [value]
        if not _fits(known[name], values[name]):
            raise click.BadParameter(f"{path}: {name} cannot be {value!r}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _fits(param: click.Option, value: Any) -> bool:
    """Whether a value of a TOML file has a type that an option takes."""
    if isinstance(param, Several):
        return bool(value) and all(type(item) in (str, int) for item in value)
    if param.is_flag:
        return type(value) is bool
    if param.count:
        return type(value) is int
    if isinstance(param.type, Number):
        numbers = (int,) if param.type.kind is int else (int, float)
        return type(value) in numbers or (type(value) is str and param.type.details.word_for_none is not None)
    return type(value) is str


class OneLineErrors(click.Group):
    """A group whose commands report our errors in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except NeurostormError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
