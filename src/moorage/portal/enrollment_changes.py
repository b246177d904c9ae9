"""What two versions of an enrollment say differently, for a reader who was overtaken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid
from moorage.portal.texts import Texts

_BY_ITSELF = ("etag", "lastUpdatedDateTimeUtc", "createdDateTimeUtc", "registrationState")
"""Members that nobody writes."""


class Change(NamedTuple):
    """A member by its path in the document, and what each version has there, as text."""

    member: str
    mine: str
    current: str


def changes(mine: Mapping[str, Any], current: Mapping[str, Any], t: Texts) -> list[Change]:
    """`mine` has been made from `current` and what the reader wrote. Keys are not shown."""
    return [
        Change(member, *(_shown(each, t) for each in pair))
        for member, *pair in _different("", mine, current)
        if member not in _BY_ITSELF
    ]


def _different(path: str, mine: Any, current: Any) -> Iterator[tuple[str, Any, Any]]:
    if _is_certificate(mine) or _is_certificate(current):
        if _thumbprint(mine) != _thumbprint(current):
            yield path, mine, current
    elif isinstance(mine, Mapping) and isinstance(current, Mapping):
        for name in dict.fromkeys((*current, *mine)):
            yield from _different(f"{path}.{name}" if path else name, mine.get(name), current.get(name))
    elif mine != current and (mine or current):
        is_key = path.rpartition(".")[2] in ("primaryKey", "secondaryKey")
        yield (path, "•••", None) if is_key else (path, mine, current)


def _is_certificate(value: Any) -> bool:
    return isinstance(value, Mapping) and "certificate" in value


def _thumbprint(value: Any) -> str:
    if not _is_certificate(value):
        return ""
    if text := value["certificate"]:
        try:
            return read_certificate(text).sha256
        except Invalid:
            return "?"
    return str((value.get("info") or {}).get("sha256Thumbprint", ""))


def _shown(value: Any, t: Texts) -> str:
    if value is None:
        return t.plain("enrollments.unset")
    if _is_certificate(value):
        return _thumbprint(value)
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
