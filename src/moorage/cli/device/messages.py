"""Messages on the command line: `--data`, `--properties`, as `az iot device` has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
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


def json_text(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Any JSON, as it stands or in a file."""
    if text is None:
        return None
    try:
        return json.loads(Path(text).read_text("utf-8") if Path(text).is_file() else text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{text[:100]!r} is neither JSON nor a file of it: {error}") from None


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
