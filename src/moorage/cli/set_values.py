"""`--set tags.site=north`: single members of a JSON document, by their path, as `az` has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


Assignment = tuple[tuple[str, ...], Any]
"""The path as its parts, and the value: JSON, or else the text itself."""


def _assignments(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[Assignment, ...]:
    return tuple(_assignment(text) for text in texts)


def _assignment(text: str) -> Assignment:
    path, equals, value = text.partition("=")
    parts = tuple(path.split("."))
    if not equals or not all(parts):
        raise click.BadParameter(f"{text!r} is not of the form path=value, as in tags.site=north")
    try:
        return parts, json.loads(value)
    except ValueError:
        return parts, value


def set_option(function: F) -> F:
    """Gives the command `assignments`."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="PATH=VALUE",
        callback=_assignments,
        help="A member by its path and its new value, JSON or text: tags.site=north. May be repeated.",
    )(function)


def with_values(document: dict[str, Any], assignments: Iterable[Assignment]) -> dict[str, Any]:
    """A copy of `document` with the values in their places; what is missing on the way is made."""
    changed: dict[str, Any] = json.loads(json.dumps(document))
    for parts, value in assignments:
        place = changed
        for part in parts[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[parts[-1]] = value
    return changed
