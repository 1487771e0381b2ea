"""What neuroimagers expect of a command line and click lacks: options in groups, and several values after one option."""

import click


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
        """Rewrite ``--opt a b`` as ``--opt a --opt b``; arguments of the command that follow stay arguments."""
        known = {name: option for option in self.params for name in option.opts if isinstance(option, click.Option)}
        normal = ctx.token_normalize_func or str
        arguments, runs, rest = 0, [], list(args)
        i = 0
        while i < len(rest):
            name = rest[i]
            option = known.get(normal(name) if name.startswith("--") else name)
            if option is None or option.is_flag or option.count:
                arguments += not name.startswith("-")
                i += 1
            elif isinstance(option, Several):
                end = i + 1
                while end < len(rest) and not rest[end].startswith("-"):
                    end += 1
                runs.append((i, end))
                i = end
            else:
                i += 2
        # A run of values may have swallowed the arguments: hand the last ones back.
        missing = max(0, sum(isinstance(p, click.Argument) for p in self.params) - arguments)
        for start, end in reversed(runs):
            give_back = min(missing, max(0, end - start - 2))
            missing -= give_back
            values, arguments_after = rest[start + 1 : end - give_back], rest[end - give_back : end]
            rest[start:end] = [part for value in values for part in (rest[start], value)] or [rest[start]]
            rest[start + 2 * len(values) : start + 2 * len(values)] = arguments_after
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_name = {param.name: param for param in self.params} | {"help": self.get_help_option(ctx)}
        for title, names in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([by_name[name].get_help_record(ctx) for name in names], col_max=28)
