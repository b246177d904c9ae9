"""Events that are not telemetry: what each looks like to the readers of the built-in endpoint. [hub-service 17]

Azure's documentation and the events that it shows as captured differ for modules; these follow the captured ones.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from moorage.hub.instance import Hub, partition_of
from moorage.hub.message_route import Source
from moorage.hub.telemetry import DEVICE_ID, MESSAGE_SCHEMA, MESSAGE_SOURCE, MODULE_ID
from moorage.hub.twin import Section, Twin, timestamp
from moorage.hub.twin_change import Operation, TwinChange
from moorage.interfaces import EventHead

# As the annotation writes what a route calls in capitals.
_SOURCES = {
    Source.TWIN_CHANGE: "twinChangeEvents",
    Source.LIFECYCLE: "deviceLifecycleEvents",
    Source.CONNECTION_STATE: "deviceConnectionStateEvents",
}


class Whom(NamedTuple):
    """The device or module that an event is about."""

    device_id: str
    module_id: str | None = None

    @property
    def noun(self) -> str:
        return "device" if self.module_id is None else "module"


class Notification(NamedTuple):
    """An event, whole but for what the log stamps."""

    head: EventHead
    body: bytes


def twin_changed(hub: Hub, change: TwinChange, now: int) -> Notification:
    """A replacement is told by all there is now, an update by what was written, null for what is gone."""
    if change.operation is Operation.REPLACE:
        return twin_replaced(hub, change.after, now)
    twin, time = change.after, timestamp(now)
    body: dict[str, Any] = {"version": twin.version}
    if change.tags is not None:
        body["tags"] = change.tags
    properties = {}
    for name, section, patch in (
        ("desired", twin.desired, change.desired),
        ("reported", twin.reported, change.reported),
    ):
        if patch is not None:
            properties[name] = _changed(section, patch)
            time = section.metadata["$lastUpdated"]
    if properties:
        body["properties"] = properties
    return _twin_change(hub, twin, time, "updateTwin", body)


def twin_replaced(hub: Hub, twin: Twin, now: int) -> Notification:
    return _twin_change(hub, twin, timestamp(now), "replaceTwin", _whole(twin))


def identity_created(hub: Hub, twin: Twin, now: int) -> Notification:
    return _lifecycle(hub, twin, now, "create")


def identity_deleted(hub: Hub, twin: Twin, now: int) -> Notification:
    """`twin` is the last there was."""
    return _lifecycle(hub, twin, now, "delete")


def connection_changed(hub: Hub, whom: Whom, now: int, *, connected: bool, sequence: str) -> Notification:
    """`sequence` has 64 hexadecimal digits and grows, as text, with each change of that device or module."""
    properties = {
        "opType": f"{whom.noun}{'Connected' if connected else 'Disconnected'}",
        MESSAGE_SCHEMA: "deviceConnectionStateNotification",
        "operationTimestamp": timestamp(now),
    }
    return _notification(hub, Source.CONNECTION_STATE, whom, properties, {"sequenceNumber": sequence})


def _twin_change(hub: Hub, twin: Twin, time: str, operation: str, body: Mapping[str, Any]) -> Notification:
    whom = Whom(twin.device_id, twin.module_id)
    properties = {
        "operationTimestamp": time,
        **_module(whom),
        MESSAGE_SCHEMA: "twinChangeNotification",
        "opType": operation,
    }
    return _notification(hub, Source.TWIN_CHANGE, whom, properties, body)


def _lifecycle(hub: Hub, twin: Twin, now: int, verb: str) -> Notification:
    whom = Whom(twin.device_id, twin.module_id)
    properties = {
        "operationTimestamp": timestamp(now),
        **_module(whom),
        "opType": f"{verb}{whom.noun.capitalize()}Identity",
        MESSAGE_SCHEMA: f"{whom.noun}LifecycleNotification",
    }
    return _notification(hub, Source.LIFECYCLE, whom, properties, _whole(twin))


def _module(whom: Whom) -> dict[str, str]:
    return {} if whom.module_id is None else {"moduleId": whom.module_id}


def _notification(
    hub: Hub, source: Source, whom: Whom, properties: Mapping[str, str], body: Mapping[str, Any]
) -> Notification:
    annotations = [(DEVICE_ID, whom.device_id), (MESSAGE_SOURCE, _SOURCES[source])]
    if whom.module_id is not None:
        annotations.insert(1, (MODULE_ID, whom.module_id))
    head = EventHead(
        scope=hub.scope,
        partition=partition_of(hub, whom.device_id),
        partition_key=whom.device_id,
        annotations=tuple(annotations),
        application_properties=(
            ("hubName", hub.name),
            ("deviceId", whom.device_id),
            *properties.items(),
        ),
        user_id=hub.name,
        correlation_id=secrets.token_hex(8),
        content_type="application/json",
        content_encoding="utf-8",
    )
    return Notification(head, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def _whole(twin: Twin) -> dict[str, Any]:
    return {
        "deviceId": twin.device_id,
        **({} if twin.module_id is None else {"moduleId": twin.module_id}),
        "etag": twin.service_etag,
        "version": twin.version,
        **({"tags": dict(twin.tags)} if twin.tags else {}),
        "properties": {"desired": twin.desired.view(), "reported": twin.reported.view()},
    }


def _changed(section: Section, patch: Mapping[str, Any]) -> dict[str, Any]:
    """What was written, with the metadata of that alone. A null stays, which says that the key is gone."""
    return {**patch, "$metadata": _stamps(section.metadata, patch), "$version": section.version}


def _stamps(metadata: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: stamp for name, stamp in metadata.items() if name.startswith("$")}
    below = {
        key: _stamps(metadata[key], value if isinstance(value, Mapping) else {})
        for key, value in patch.items()
        if key in metadata
    }
    return own | below
