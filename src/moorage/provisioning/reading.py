"""Members of a JSON object that a caller sent, each of the kind it has to be. All raise Invalid."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from moorage.errors import Invalid

E = TypeVar("E", bound=StrEnum)

Document = Mapping[str, Any]


def text(document: Document, name: str, where: str = "") -> str | None:
    """A string, or None when it is missing, null or empty."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{where}{name}", "must be a string")
    return value or None


def boolean(document: Document, name: str, where: str = "", *, default: bool) -> bool:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Invalid(f"{where}{name}", "must be true or false")
    return value


def optional_object(document: Document, name: str, where: str = "") -> Document | None:
    """An object, or None when it is missing or null."""
    value = document.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise Invalid(f"{where}{name}", "must be a JSON object")
    return value


def required_object(document: Document, name: str, where: str = "") -> Document:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise Invalid(f"{where}{name}", "is required, and a JSON object")
    return value


def choice(document: Document, name: str, choices: type[E]) -> E | None:
    """The member of `choices`, spelt in any case."""
    given = text(document, name)
    if given is None:
        return None
    for known in choices:
        if known.value.lower() == given.lower():
            return known
    raise Invalid(name, f"{given!r} is none of {', '.join(known.value for known in choices)}")
