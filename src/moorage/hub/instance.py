"""A hub: its internal id, the names it answers to, and what was fixed when it was created."""

from __future__ import annotations

import secrets
import zlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from moorage.credentials.sas import host_name
from moorage.errors import Invalid
from moorage.hub.cloud_to_device import CloudToDeviceSettings
from moorage.hub.message_route import Route, Source
from moorage.interfaces import Kind

DEFAULT_CONSUMER_GROUP = "$Default"
_MAX_PARTITIONS = 32
_PARTITION_HASHES = frozenset({"crc32-v1"})


@dataclass(frozen=True, kw_only=True)
class Hub:
    """`scope` is the immutable internal id that every key and log address of the hub starts with.

    `host_names` are all the names the hub answers to, in lower case without a port, `advertised_host` the one
    it is called in answers. `partition_count` and `partition_hash` never change: they place every event kept.
    `entity` is the Event Hubs-compatible name (`EntityPath`). `created` is in microseconds. `fallback_route` takes the
    telemetry that none of `routes` takes. Without `device_sas` no key of a device opens a connection, without
    `module_sas` none of a module; the keys of policies do all the same.
    """

    scope: int
    name: str
    host_names: tuple[str, ...]
    advertised_host: str
    partition_count: int = 4
    partition_hash: str = "crc32-v1"
    entity: str = "moorage"
    consumer_groups: tuple[str, ...] = (DEFAULT_CONSUMER_GROUP,)
    routes: tuple[Route, ...] = ()
    fallback_route: bool = True
    created: int
    cloud_to_device: CloudToDeviceSettings = field(default_factory=CloudToDeviceSettings)
    device_sas: bool = True
    module_sas: bool = True
    etag: str = field(default_factory=lambda: Hub.new_etag())

    def __post_init__(self) -> None:
        if not 1 <= self.partition_count <= _MAX_PARTITIONS:
            raise Invalid("partitionCount", f"a hub has 1 to {_MAX_PARTITIONS} partitions")
        if self.partition_hash not in _PARTITION_HASHES:
            raise Invalid("partitionHash", f"'{self.partition_hash}' is not known to this release")
        if any(name != host_name(name) for name in self.host_names):
            raise Invalid("hostNames", "they are written in lower case and without a port")
        if self.advertised_host not in self.host_names:
            raise Invalid("advertisedHost", f"'{self.advertised_host}' is not one of the hub's host names")
        if DEFAULT_CONSUMER_GROUP not in self.consumer_groups:
            raise Invalid("consumerGroups", f"'{DEFAULT_CONSUMER_GROUP}' cannot be left out")

    @staticmethod
    def new_etag() -> str:
        return secrets.token_hex(8)

    def answers_to(self, host: str) -> bool:
        """Whether `host`, in any case and with or without a port, is one of the hub's names."""
        return host_name(host) in self.host_names

    def consumer_group(self, name: str) -> str | None:
        """The group of that name as it was created, or None; names compare without regard to case."""
        return next((group for group in self.consumer_groups if group.lower() == name.lower()), None)

    @cached_property
    def takes(self) -> frozenset[Source]:
        """The sources of what is kept for the readers of the built-in endpoint. [hub-service 15]"""
        routed = {route.source for route in self.routes if route.enabled}
        return frozenset(routed | {Source.DEVICE_MESSAGES} if self.fallback_route else routed)

    @cached_property
    def takes_telemetry(self) -> bool:
        return Source.DEVICE_MESSAGES in self.takes


def partition_of(hub: Hub, device_id: str) -> int:
    """The partition of all events of one device: `crc32-v1` is the CRC-32 of the id in UTF-8, modulo."""
    return zlib.crc32(device_id.encode()) % hub.partition_count


def _to_document(hub: Hub) -> dict[str, Any]:
    return {
        "scope": hub.scope,
        "name": hub.name,
        "hostNames": list(hub.host_names),
        "advertisedHost": hub.advertised_host,
        "partitionCount": hub.partition_count,
        "partitionHash": hub.partition_hash,
        "entity": hub.entity,
        "consumerGroups": list(hub.consumer_groups),
        "routes": [route.to_document() for route in hub.routes],
        "fallbackRoute": hub.fallback_route,
        "created": hub.created,
        "cloudToDevice": asdict(hub.cloud_to_device),
        "deviceSas": hub.device_sas,
        "moduleSas": hub.module_sas,
        "etag": hub.etag,
    }


def _from_document(document: dict[str, Any]) -> Hub:
    return Hub(
        scope=document["scope"],
        name=document["name"],
        host_names=tuple(document["hostNames"]),
        advertised_host=document["advertisedHost"],
        partition_count=document["partitionCount"],
        partition_hash=document["partitionHash"],
        entity=document["entity"],
        consumer_groups=tuple(document["consumerGroups"]),
        routes=tuple(map(Route.from_document, document.get("routes", ()))),
        fallback_route=document.get("fallbackRoute", True),
        created=document["created"],
        cloud_to_device=CloudToDeviceSettings(**document.get("cloudToDevice", {})),  # older ones have none
        device_sas=document.get("deviceSas", True),
        module_sas=document.get("moduleSas", True),
        etag=document["etag"],
    )


KIND: Kind[Hub] = Kind(
    name="hub",
    key=lambda hub: str(hub.scope),
    to_document=_to_document,
    from_document=_from_document,
    index={},
)
"""Hubs themselves are kept under scope 0."""
