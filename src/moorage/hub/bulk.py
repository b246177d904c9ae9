"""Many identities in one request: how an item is read and done, and how its failure is told. [hub-service 5.5]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.errors import Invalid, MoorageError
from moorage.hub.device_identity import read_settings
from moorage.hub.ids import ANY_ETAG, check_id
from moorage.hub.module_identity import read_module_settings
from moorage.hub.session import name_of
from moorage.hub.twin import read_initial_twin

if TYPE_CHECKING:
    from moorage.hub.identity import Identities

MAX_BULK = 100

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
    """An item of a request names a device or module that an earlier item of it names too."""


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


class Bulk:
    """One request: its items in their order, each by itself."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._modules = identities.modules
        self._seen: set[str] = set()

    async def run(self, items: Sequence[object]) -> BulkResult:
        """None of the items stops the others. Raises Invalid when the request as a whole cannot be read."""
        errors: list[BulkError] = []
        for item in read_items(items):
            try:
                await self._do(item)
            except MoorageError as error:
                errors.append(bulk_error(item, error))
        return BulkResult(errors)

    async def _do(self, item: Mapping[str, Any]) -> None:
        device_id, module_id = item_ids(item, self._seen)
        mode = item_mode(item)
        if_match = item_etag(item, mode)
        if mode.startswith("updateTwin"):
            await self._identities.patch_twin(device_id, item, if_match, module_id=module_id)
        elif module_id is None:
            await self._do_device(device_id, item, mode, if_match)
        else:
            await self._do_module(device_id, module_id, item, mode, if_match)

    async def _do_device(self, device_id: str, item: Mapping[str, Any], mode: str, if_match: str) -> None:
        identities = self._identities
        if mode.startswith("delete"):
            await identities.delete(device_id, if_match)
        elif mode == "create" or (_may_create(mode) and not await identities.exists(device_id)):
            await identities.create(read_settings(device_id, item), read_initial_twin("", item))
        else:
            await identities.update(read_settings(device_id, item), if_match)

    async def _do_module(
        self, device_id: str, module_id: str, item: Mapping[str, Any], mode: str, if_match: str
    ) -> None:
        if mode.startswith("delete"):
            await self._modules.delete(device_id, module_id, if_match)
            return
        settings = read_module_settings(device_id, module_id, item)
        if mode == "create" or (_may_create(mode) and not await self._modules.exists(device_id, module_id)):
            await self._modules.create(settings, read_initial_twin("", item))
        else:
            await self._modules.update(settings, if_match)


def read_items(items: Sequence[object]) -> Sequence[Mapping[str, Any]]:
    """Raises Invalid when they are too many, or one of them is no JSON object."""
    if len(items) > MAX_BULK:
        raise Invalid("", f"a bulk request has up to {MAX_BULK} items, this one {len(items)}")
    objects = [item for item in items if isinstance(item, Mapping)]
    if len(objects) < len(items):
        raise Invalid("", "an item of the bulk request is not a JSON object")
    return objects


def item_ids(item: Mapping[str, Any], seen: set[str]) -> tuple[str, str | None]:
    """The ids of the device and, if the item is about one, of the module. Raises Invalid, DefinedTwice."""
    device_id = check_id(item.get("id"), "id")
    module_id = item.get("moduleId") or None
    if module_id is not None:
        check_id(module_id, "moduleId")
    name = name_of(device_id, module_id)
    if name in seen:
        raise DefinedTwice("id", f"the request names '{name}' more than once")
    seen.add(name)
    return device_id, module_id


def _may_create(mode: str) -> bool:
    return mode.startswith("createOrUpdate")


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
