"""New keys for many devices and modules in one request. [hub-service 5.6]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from moorage.errors import Invalid, MoorageError
from moorage.hub.authentication import SAS, Authentication
from moorage.hub.bulk import item_ids, read_items

if TYPE_CHECKING:
    from moorage.hub.identity import Identities

_RENEWED = {"primarykey": (True, False), "secondarykey": (False, True), "both": (True, True)}


class UnknownPolicyKey(Invalid):
    """The request asks for a key that there is not."""


class NoKeys(Invalid):
    """The device or module authenticates by something else than keys."""


class RotatedKeys(NamedTuple):
    """The new keys of one device or module; one that was not renewed is None."""

    device_id: str
    module_id: str | None
    primary: str | None
    secondary: str | None


class RegenerationError(NamedTuple):
    """Why the keys of one device or module stayed as they were."""

    device_id: str
    module_id: str | None
    error: MoorageError


@dataclass(frozen=True, slots=True)
class Regeneration:
    """What was done, durably, and what was not; `policy_key` as the caller wrote it."""

    policy_key: str
    rotated: Sequence[RotatedKeys]
    errors: Sequence[RegenerationError]


async def regenerate(identities: Identities, document: Mapping[str, Any]) -> Regeneration:
    """By `{"policyKey": …, "devices": [{"id": …, "moduleId": …}]}`, whose items are independent.

    A live connection goes on until it has to prove itself again [hub-device 2.5]. Raises Invalid when the request
    as a whole cannot be read.
    """
    policy_key = document.get("policyKey")
    if not isinstance(policy_key, str) or policy_key.lower() not in _RENEWED:
        raise UnknownPolicyKey("policyKey", "it is primaryKey, secondaryKey or both")
    items = document.get("devices")
    if not isinstance(items, list) or not items:
        raise Invalid("devices", "it is an array of {id, moduleId}")
    rotated: list[RotatedKeys] = []
    errors: list[RegenerationError] = []
    seen: set[str] = set()
    for item in read_items(items):
        try:
            device_id, module_id = item_ids(item, seen)
            keys = await _rotate(identities, device_id, module_id, *_RENEWED[policy_key.lower()])
            rotated.append(RotatedKeys(device_id, module_id, *keys))
        except MoorageError as error:
            errors.append(RegenerationError(_text(item.get("id")) or "", _text(item.get("moduleId")), error))
    return Regeneration(policy_key, rotated, errors)


async def _rotate(
    identities: Identities, device_id: str, module_id: str | None, primary: bool, secondary: bool
) -> tuple[str | None, str | None]:
    """The new keys, None for one that stays."""

    def renewed(known: Authentication) -> Authentication:
        if known.type != SAS:
            raise NoKeys("authentication.type", f"it is {known.type}, which has no keys")
        return Authentication.symmetric(
            None if primary else known.primary_key, None if secondary else known.secondary_key
        )

    if module_id is None:
        kept = await identities.renew(device_id, renewed)
    else:
        kept = await identities.modules.renew(device_id, module_id, renewed)
    return kept.primary_key if primary else None, kept.secondary_key if secondary else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
