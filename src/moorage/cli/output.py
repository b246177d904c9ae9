"""How commands print: JSON for programs, a table for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_option(function: F) -> F:
    choice = click.Choice(["json", "table"])
    return click.option("--output", "-o", type=choice, default="json", show_default=True)(function)


def show(value: Any, output: str, columns: Mapping[str, str]) -> None:
    """Print `value`, an object or a list of them. `columns` maps a heading to a dotted path, for the table."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    rows = value if isinstance(value, list) else [value]
    table = [list(columns), *([_cell(row, path) for path in columns.values()] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(columns))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(row: Any, path: str) -> str:
    for part in path.split("."):
        row = row.get(part) if isinstance(row, Mapping) else None
    if row is None:
        return ""
    if isinstance(row, Sequence) and not isinstance(row, str):
        return ", ".join(str(item) for item in row)
    return str(row)
