"""Many device identities in one request: how an item is read, and how its failure is told. [hub-service 5.5]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from moorage.errors import Invalid, MoorageError

ANY_ETAG = "*"

_MODES = {
    mode.lower(): mode
    for mode in (
        "create",
        "update",
        "updateIfMatchETag",
        "delete",
        "deleteIfMatchETag",
        "updateTwin",
        "updateTwinIfMatchETag",
        "createOrUpdate",
        "createOrUpdateIfMatchETag",
    )
}


class DefinedTwice(Invalid):
    """An item of a bulk request names a device that an earlier item of it names too."""


class BulkError(NamedTuple):
    """Why one item was not done; `operation` is its import mode."""

    device_id: str
    module_id: str | None
    operation: str
    error: MoorageError


@dataclass(frozen=True, slots=True)
class BulkResult:
    """Items are independent: those without an error have been done, durably."""

    errors: Sequence[BulkError]

    @property
    def is_successful(self) -> bool:
        return not self.errors


def item_mode(item: Mapping[str, Any]) -> str:
    """The import mode as it is spelled in the documents, whatever the case it came in."""
    mode = item.get("importMode") or "createOrUpdate"
    if not isinstance(mode, str) or mode.lower() not in _MODES:
        raise Invalid("importMode", f"it is one of {', '.join(_MODES.values())}")
    return _MODES[mode.lower()]


def item_etag(item: Mapping[str, Any], mode: str) -> str:
    if not mode.endswith("IfMatchETag"):
        return ANY_ETAG
    names = ("twinETag", "twinEtag") if mode.startswith("updateTwin") else ("eTag", "etag", "ETag")
    etag = next((item[name] for name in names if item.get(name)), None)
    if not isinstance(etag, str):
        raise Invalid(names[0], f"{mode} needs an etag")
    return etag.strip('"')


def bulk_error(item: Mapping[str, Any], error: MoorageError) -> BulkError:
    device_id, module_id, mode = item.get("id"), item.get("moduleId"), item.get("importMode")
    return BulkError(
        device_id=device_id if isinstance(device_id, str) else "",
        module_id=module_id if isinstance(module_id, str) else None,
        operation=_MODES.get(mode.lower(), mode) if isinstance(mode, str) else "createOrUpdate",
        error=error,
    )
