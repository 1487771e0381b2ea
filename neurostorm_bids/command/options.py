"""What neuroimagers expect of a command line and click lacks: options in groups, and several values after one option."""

import sys

import click

from neurostorm_bids.errors import NeurostormError


class Several(click.Option):
    """An option that takes several values, ``--task-id rest nback``, and may be repeated."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, multiple=True, **kwargs)


class BidsCommand(click.Command):
    """A command whose help shows its options in groups and whose `Several` options take several values."""

    def __init__(self, *args, groups: dict, **kwargs):
        self.groups = groups  # title -> names of parameters
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list) -> list:
        return super().parse_args(ctx, self._repeat(ctx, args))

    def _repeat(self, ctx: click.Context, args: list) -> list:
        """Rewrite ``--opt a b`` as ``--opt=a --opt=b``; the command's arguments that follow stay arguments."""
        known = {name: option for option in self.params for name in option.opts if isinstance(option, click.Option)}
        normal = ctx.token_normalize_func or str
        arguments, runs, rest = 0, [], []  # runs: index in rest -> values that follow an option
        args = iter(args)
        for token in args:
            name, equals, value = token.partition("=")
            name = normal(name) if name.startswith("--") else name
            option = known.get(name)
            if isinstance(option, Several):
                runs.append([name, [value] if equals else []])
                rest.append(runs[-1])
            elif not token.startswith("-") and rest and isinstance(rest[-1], list):
                rest[-1][1].append(token)
            else:
                rest.append(token)
                arguments += option is None and not token.startswith("-")
                if option is not None and not equals and not option.is_flag and not option.count:
                    rest.append(next(args, None) or "")
        return self._with_arguments_back(rest, runs, arguments)

    def _with_arguments_back(self, rest: list, runs: list, n_arguments: int) -> list:
        """Values that are the command's arguments leave the option that they followed."""
        positional = [param for param in self.params if isinstance(param, click.Argument)]
        missing = max(0, len(positional) - n_arguments)
        levels = positional[-1].type.choices if isinstance(positional[-1].type, click.Choice) else ()
        # the run that ends in the last argument's value has swallowed them; else the last one that can spare some
        order = sorted(reversed(runs), key=lambda run: not (run[1] and run[1][-1] in levels))
        back = {}
        for run in order:
            n = min(missing, max(0, len(run[1]) - 1))
            missing -= n
            back[id(run)] = n
        out = []
        for part in rest:
            if not isinstance(part, list):
                out.append(part)
                continue
            name, values = part
            n_own = len(values) - back[id(part)]
            own = [token for value in values[:n_own] for token in (name, value)]
            out += (own or [name]) + values[n_own:]
        return out

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_name = {param.name: param for param in self.params} | {"help": self.get_help_option(ctx)}
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([by_name[name].get_help_record(ctx) for name in names], col_max=28)


class OneLineErrors(click.Group):
    """A group whose commands tell our errors in one line."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except NeurostormError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
