"""Message routes: which of a hub's messages and events go to which endpoint. [hub-service 15]

The built-in endpoint is the only one there is, and a route takes all of its source: conditions, endpoints of one's own
and enrichments are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moorage.errors import Invalid, NotSupported

BUILT_IN = "events"
EVERYTHING = "true"
FALLBACK = "$fallback"
MAX_ROUTES = 100  # of one hub [hub-service 23]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Source(StrEnum):
    """What a route takes."""

    DEVICE_MESSAGES = "DeviceMessages"  # telemetry
    TWIN_CHANGE = "TwinChangeEvents"
    LIFECYCLE = "DeviceLifecycleEvents"
    CONNECTION_STATE = "DeviceConnectionStateEvents"


# What Azure routes too, and there is nothing of here.
ABSENT = ("DigitalTwinChangeEvents", "DeviceJobLifecycleEvents", "MqttBrokerMessages")


@dataclass(frozen=True, kw_only=True)
class Route:
    name: str
    source: Source
    enabled: bool = True

    def to_document(self) -> dict[str, Any]:
        return {"name": self.name, "source": self.source.value, "enabled": self.enabled}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Route:
        return cls(name=document["name"], source=Source(document["source"]), enabled=document["enabled"])


def route_view(route: Route) -> dict[str, Any]:
    """As Azure's resource manager writes one."""
    return {
        "name": route.name,
        "source": route.source.value,
        "condition": EVERYTHING,
        "endpointNames": [BUILT_IN],
        "isEnabled": route.enabled,
    }


def fallback_view(enabled: bool) -> dict[str, Any]:
    return route_view(Route(name=FALLBACK, source=Source.DEVICE_MESSAGES, enabled=enabled))


def read_route(name: str, document: Mapping[str, Any]) -> Route:
    """From the JSON of a route; what is left out has Azure's default. Raises Invalid, NotSupported."""
    if not _NAME.fullmatch(name):
        raise Invalid("name", "a route's name has 1 to 64 ASCII letters, digits, '.', '-' and '_'")
    if document.get("name", name) != name:
        raise Invalid("name", f"it differs from the {name!r} of the address")
    _check_endpoints(document.get("endpointNames"))
    _check_condition(document.get("condition"))
    return Route(name=name, source=_read_source(document.get("source")), enabled=read_enabled(document))


def read_enabled(document: Mapping[str, Any]) -> bool:
    enabled = document.get("isEnabled", True)
    if not isinstance(enabled, bool):
        raise Invalid("isEnabled", "it is true or false")
    return enabled


def _read_source(value: object) -> Source:
    text = value.lower() if isinstance(value, str) else ""
    for source in Source:
        if source.value.lower() == text:
            return source
    if any(absent.lower() == text for absent in ABSENT):
        raise NotSupported(f"message routes of {value}", "nothing of that kind happens here")
    raise Invalid("source", f"it is one of {', '.join(Source)}")


def _check_endpoints(value: object) -> None:
    names = [BUILT_IN] if value is None else value
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise Invalid("endpointNames", "a route has one endpoint")
    if names[0].lower() != BUILT_IN:
        raise NotSupported("endpoints of one's own", f"a route leads to {BUILT_IN!r}, the built-in endpoint")


def _check_condition(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise Invalid("condition", "it is a string")
    if value.strip().lower() != EVERYTHING:
        raise NotSupported("conditions of routes", f"a route takes all of its source: {EVERYTHING!r}")
