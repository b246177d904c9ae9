"""Messages on the command line: `--data`, `--properties`, as `az iot device` has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TEXT = "Ping from moorage"


def message_options(function: F) -> F:
    for option in (properties_option, text_option):
        function = option(function)
    return function


def _properties(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, str]:
    """`a=1;b=2`. System properties by their wire names: `$.mid`, `$.cid`, `$.ct`, `$.ce` [hub-device 3.6]."""
    pairs = [pair.partition("=") for pair in (text or "").split(";") if pair]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form name=value")
    return {name: value for name, _, value in pairs}


text_option = click.option("--data", "--da", "text", default=DEFAULT_TEXT, help="What to send.")
properties_option = click.option(
    "--properties",
    "--props",
    "-p",
    callback=_properties,
    help="Of each message: a=1;b=2. System properties as $.mid, $.cid, $.uid, $.ct, $.ce.",
)


def shown(payload: bytes) -> Any:
    """A payload for people and programs: JSON, else text, else its size."""
    try:
        return json.loads(payload)
    except ValueError:
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return f"({len(payload)} bytes)"
