"""Module identities: parts of a device that connect on their own, each with keys and a twin. [hub-service 5.4]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.errors import Invalid
from moorage.hub.authentication import Authentication, read_authentication
from moorage.hub.ids import check_id
from moorage.hub.session import ABSENT, Presence, name_of
from moorage.hub.twin import timestamp
from moorage.interfaces import Kind

MAX_MODULES = 50
"""Of one device. [hub-service 23]"""

_MAX_MANAGED_BY = 256

# --- The record ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModuleIdentity:
    """A module of a device. It has no status of its own: it may connect while its device may.

    `managed_by` is free text; who deploys modules marks those it looks after.
    """

    device_id: str
    module_id: str
    generation_id: str
    etag: str
    managed_by: str = ""
    authentication: Authentication

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)

    @property
    def resource(self) -> str:
        """Below `{host}/devices/`, what a token for the module is for. [hub-device 2.2]"""
        return f"{self.device_id}/modules/{self.module_id}"


def _to_document(identity: ModuleIdentity) -> dict[str, Any]:
    return {
        "deviceId": identity.device_id,
        "moduleId": identity.module_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "managedBy": identity.managed_by,
        "authentication": identity.authentication.view(),
    }


def _from_document(document: dict[str, Any]) -> ModuleIdentity:
    return ModuleIdentity(
        device_id=document["deviceId"],
        module_id=document["moduleId"],
        generation_id=document["generationId"],
        etag=document["etag"],
        managed_by=document["managedBy"],
        authentication=Authentication.from_view(document["authentication"]),
    )


KIND: Kind[ModuleIdentity] = Kind(
    name="module_identity",
    key=lambda identity: identity.name,
    to_document=_to_document,
    from_document=_from_document,
    index={"device": lambda identity: [identity.device_id]},
)
"""Kept under the scope of the hub, by `device/module`; by `device`, all of one."""


def module_view(identity: ModuleIdentity, presence: Presence = ABSENT) -> dict[str, Any]:
    """As clients read it. [hub-service 5.4]"""
    return {
        "moduleId": identity.module_id,
        "managedBy": identity.managed_by,
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": presence.state,
        "connectionStateUpdatedTime": timestamp(presence.changed_at),
        "lastActivityTime": timestamp(presence.last_activity),
        "cloudToDeviceMessageCount": presence.queued,
        "authentication": identity.authentication.view(),
    }


# --- What a caller may decide ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModuleSettings:
    """The part of a module identity that its caller decides; what was left out has its default."""

    device_id: str
    module_id: str
    authentication: Authentication
    managed_by: str = ""

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)


def read_module_settings(device_id: str, module_id: str, document: object) -> ModuleSettings:
    """From the JSON of a module, whose ids, if it has any, must be those given. Raises Invalid.

    Members the hub decides are passed over. [hub-service 5.4]
    """
    if not isinstance(document, Mapping):
        raise Invalid("", "the module is not a JSON object")
    for field, of_address in (("deviceId", device_id), ("moduleId", module_id)):
        check_id(of_address, field)
        if document.get(field) not in (None, of_address):
            raise Invalid(field, f"it differs from the '{of_address}' of the address")
    return ModuleSettings(
        device_id=device_id,
        module_id=module_id,
        authentication=read_authentication(document.get("authentication")),
        managed_by=_read_managed_by(document.get("managedBy")),
    )


def _read_managed_by(value: object) -> str:
    if value is not None and not (isinstance(value, str) and len(value) <= _MAX_MANAGED_BY):
        raise Invalid("managedBy", f"it is a string of up to {_MAX_MANAGED_BY} characters")
    if value and any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("managedBy", "it holds half of a surrogate pair")
    return value or ""
