"""Device identities: who may connect to a hub, and what their callers decide of them. [hub-service 5.2, 5.3]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.errors import Invalid
from moorage.hub.authentication import Authentication, read_authentication
from moorage.hub.ids import check_id
from moorage.hub.session import ABSENT, Presence
from moorage.hub.twin import json_object, timestamp
from moorage.interfaces import Kind

ENABLED = "enabled"
DISABLED = "disabled"

SCOPE_PREFIX = "ms-azure-iot-edge://"

_MAX_STATUS_REASON = 128
_MAX_PARENTS = 100


class InvalidDeviceScope(Invalid):
    """A scope that belongs to no edge device of the hub. [hub-service 5.3]"""


@dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """A device that may connect. `generation_id` tells it from an earlier one of the same id.

    `device_scope` is the device's own scope when it is an edge device, else that of its parent.
    `status_updated_time` is in microseconds, None while the status has never been changed.
    """

    device_id: str
    generation_id: str
    etag: str
    status: str = ENABLED
    status_reason: str | None = None
    status_updated_time: int | None = None
    authentication: Authentication
    iot_edge: bool = False
    device_scope: str | None = None
    parent_scopes: tuple[str, ...] = ()

    @property
    def own_scope(self) -> str | None:
        """That of an edge device, which others have for a parent."""
        return self.device_scope if self.iot_edge else None

    @property
    def name(self) -> str:
        return self.device_id

    @property
    def module_id(self) -> None:
        return None

    @property
    def resource(self) -> str:
        """Below `{host}/devices/`, what a token for the device is for. [hub-device 2.2]"""
        return self.device_id

    def scope_view(self) -> dict[str, Any]:
        scope = {"deviceScope": self.device_scope} if self.device_scope else {}
        return {**scope, "parentScopes": list(self.parent_scopes)}


def _to_document(identity: DeviceIdentity) -> dict[str, Any]:
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "status": identity.status,
        "statusReason": identity.status_reason,
        "statusUpdatedTime": identity.status_updated_time,
        "authentication": identity.authentication.view(),
        "iotEdge": identity.iot_edge,
        "deviceScope": identity.device_scope,
        "parentScopes": list(identity.parent_scopes),
    }


def _from_document(document: dict[str, Any]) -> DeviceIdentity:
    return DeviceIdentity(
        device_id=document["deviceId"],
        generation_id=document["generationId"],
        etag=document["etag"],
        status=document["status"],
        status_reason=document["statusReason"],
        status_updated_time=document["statusUpdatedTime"],
        authentication=Authentication.from_view(document["authentication"]),
        iot_edge=document["iotEdge"],
        device_scope=document["deviceScope"],
        parent_scopes=tuple(document["parentScopes"]),
    )


KIND: Kind[DeviceIdentity] = Kind(
    name="device_identity",
    key=lambda identity: identity.device_id,
    to_document=_to_document,
    from_document=_from_document,
    index={"status": lambda identity: [identity.status]},
)
"""Kept under the scope of the hub, by device id."""


def identity_view(identity: DeviceIdentity, presence: Presence = ABSENT) -> dict[str, Any]:
    """As clients read it. [hub-service 5.2]"""
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": presence.state,
        "status": identity.status,
        "statusReason": identity.status_reason,
        "connectionStateUpdatedTime": timestamp(presence.changed_at),
        "statusUpdatedTime": timestamp(identity.status_updated_time),
        "lastActivityTime": timestamp(presence.last_activity),
        "cloudToDeviceMessageCount": presence.queued,
        "authentication": identity.authentication.view(),
        "capabilities": {"iotEdge": identity.iot_edge},
        **identity.scope_view(),
    }


# --- What a caller may decide ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """The part of a device identity that its caller decides; what was left out has its default."""

    device_id: str
    authentication: Authentication
    status: str = ENABLED
    status_reason: str | None = None
    iot_edge: bool = False
    parent_scopes: tuple[str, ...] = ()


def read_settings(device_id: str, document: object) -> IdentitySettings:
    """From the JSON of a device, whose `deviceId`, if it has one, must be `device_id`. Raises Invalid.

    Members the hub decides are passed over. [hub-service 5.2]
    """
    if not isinstance(document, Mapping):
        raise Invalid("", "the device is not a JSON object")
    check_id(device_id, "deviceId")
    if document.get("deviceId") not in (None, device_id):
        raise Invalid("deviceId", f"it differs from the '{device_id}' of the address")
    iot_edge = _read_iot_edge(document.get("capabilities"))
    return IdentitySettings(
        device_id=device_id,
        authentication=read_authentication(document.get("authentication")),
        status=_read_status(document.get("status")),
        status_reason=_read_status_reason(document.get("statusReason")),
        iot_edge=iot_edge,
        parent_scopes=_read_parent_scopes(document, iot_edge),
    )


def _read_status(value: object) -> str:
    if value is None:
        return ENABLED
    if not isinstance(value, str) or value.lower() not in (ENABLED, DISABLED):
        raise Invalid("status", f"it is {ENABLED} or {DISABLED}")
    return value.lower()


def _read_status_reason(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _MAX_STATUS_REASON):
        raise Invalid("statusReason", f"it is a string of up to {_MAX_STATUS_REASON} characters")
    if value and any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("statusReason", "it holds half of a surrogate pair")
    return value or None


def _read_iot_edge(capabilities: object) -> bool:
    edge = json_object("capabilities", capabilities).get("iotEdge")
    if edge is not None and not isinstance(edge, bool):
        raise Invalid("capabilities.iotEdge", "it is true or false")
    return bool(edge)


def _read_parent_scopes(document: Mapping[str, Any], iot_edge: bool) -> tuple[str, ...]:
    """`parentScopes`; for a leaf `deviceScope` says it first, which for an edge device is its own."""
    scopes = document.get("parentScopes")
    if not iot_edge and document.get("deviceScope") is not None:
        scopes = [document["deviceScope"]]
    if scopes is None:
        return ()
    if not isinstance(scopes, list) or len(scopes) > _MAX_PARENTS:
        raise Invalid("parentScopes", f"it is an array of up to {_MAX_PARENTS} scopes")
    if not all(isinstance(scope, str) for scope in scopes):
        raise Invalid("parentScopes", "a scope is a string")
    return tuple(filter(None, scopes))
