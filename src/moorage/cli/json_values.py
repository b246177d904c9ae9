"""JSON among a command's options: as it stands, or in a file. Each is a `type` of click's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


def json_value(text: str) -> Any:
    """Any JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        why: Exception = error
    try:
        return json.loads(Path(text).read_text("utf-8"))
    except OSError:
        pass  # then it was meant as it stands
    except ValueError as error:
        why = error
    raise click.BadParameter(
        f"{text[:100]!r} is neither JSON nor a file of it: {why}; a text needs its quotes, '\"so\"'"
    )


def json_object(text: str) -> dict[str, Any]:
    value = json_value(text)
    if not isinstance(value, dict):
        raise click.BadParameter("a JSON object is wanted")
    return value


def json_or_text(text: str) -> Any:
    """What is not JSON, as it stands or in a file, is a string of its own."""
    try:
        return json_value(text)
    except click.BadParameter:
        return text
