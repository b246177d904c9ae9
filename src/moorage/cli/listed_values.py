"""Options that take several values after one name, as `az` has them: `--rights EnrollmentRead EnrollmentWrite`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click


class ListedValues(click.Command):
    """A command whose `multiple` options go on until the next option. `A,B` and the option twice are the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and parameter.multiple
            for name in parameter.opts
        }
        return super().parse_args(ctx, list(_spread(args, names)))


def _spread(args: Sequence[str], names: set[str]) -> Iterator[str]:
    """`--rights A B` as `--rights A --rights B`."""
    current: str | None = None
    first = False
    for argument in args:
        if argument.startswith("-"):
            current, first = (argument, True) if argument in names else (None, False)
        elif current is not None and not first:
            yield current
        else:
            first = False
        yield argument


def listed(values: Sequence[str]) -> list[str]:
    """Each value of such an option, those joined by commas or spaces apart."""
    return [part for value in values for part in value.replace(",", " ").split()]
