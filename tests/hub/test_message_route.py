from __future__ import annotations

from typing import Any

import pytest

from moorage.errors import Invalid, NotSupported
from moorage.hub.instance import KIND, Hub
from moorage.hub.message_route import Route, Source, fallback_view, read_route, route_view


def hub(*routes: Route, fallback: bool = True) -> Hub:
    return Hub(
        scope=2,
        name="hub",
        host_names=("localhost",),
        advertised_host="localhost",
        routes=routes,
        fallback_route=fallback,
        created=0,
    )


TWINS = Route(name="twins", source=Source.TWIN_CHANGE)


def test_a_new_hub_has_telemetry_and_nothing_else() -> None:
    assert hub().takes == {Source.DEVICE_MESSAGES}


def test_telemetry_goes_by_a_route_or_by_the_fallback() -> None:
    own = Route(name="all", source=Source.DEVICE_MESSAGES)
    assert hub(own, fallback=False).takes_telemetry
    assert not hub(TWINS, fallback=False).takes_telemetry
    assert not hub(Route(name="all", source=Source.DEVICE_MESSAGES, enabled=False), fallback=False).takes
    assert hub(TWINS).takes == {Source.DEVICE_MESSAGES, Source.TWIN_CHANGE}


def test_routes_are_kept_with_the_hub_and_older_hubs_have_none() -> None:
    kept = hub(TWINS, Route(name="x", source=Source.LIFECYCLE, enabled=False), fallback=False)
    document = KIND.to_document(kept)
    assert KIND.from_document(document) == kept
    del document["routes"], document["fallbackRoute"]
    older = KIND.from_document(document)
    assert (older.routes, older.fallback_route) == ((), True)


def test_a_route_as_azure_writes_it() -> None:
    view = route_view(TWINS)
    assert view == {
        "name": "twins",
        "source": "TwinChangeEvents",
        "condition": "true",
        "endpointNames": ["events"],
        "isEnabled": True,
    }
    assert read_route("twins", view) == TWINS
    assert read_route("twins", {"source": "twinchangeevents"}) == TWINS
    assert read_route("t", {"source": "DeviceMessages", "isEnabled": False}) == Route(
        name="t", source=Source.DEVICE_MESSAGES, enabled=False
    )
    assert fallback_view(enabled=False) | {"isEnabled": True} == {
        "name": "$fallback",
        "source": "DeviceMessages",
        "condition": "true",
        "endpointNames": ["events"],
        "isEnabled": True,
    }


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("", {"source": "DeviceMessages"}),
        ("a b", {"source": "DeviceMessages"}),
        ("$fallback", {"source": "DeviceMessages"}),
        ("x" * 65, {"source": "DeviceMessages"}),
        ("a", {}),
        ("a", {"source": "Invalid"}),
        ("a", {"source": 1}),
        ("a", {"source": "DeviceMessages", "name": "b"}),
        ("a", {"source": "DeviceMessages", "isEnabled": "yes"}),
        ("a", {"source": "DeviceMessages", "endpointNames": []}),
        ("a", {"source": "DeviceMessages", "endpointNames": ["events", "more"]}),
        ("a", {"source": "DeviceMessages", "endpointNames": "events"}),
        ("a", {"source": "DeviceMessages", "condition": 1}),
    ],
)
def test_what_is_no_route(name: str, document: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read_route(name, document)


@pytest.mark.parametrize(
    ("what", "document"),
    [
        ("endpoints", {"source": "DeviceMessages", "endpointNames": ["storage"]}),
        ("conditions", {"source": "DeviceMessages", "condition": "level = 'hot'"}),
        ("DigitalTwinChangeEvents", {"source": "DigitalTwinChangeEvents"}),
        ("deviceJobLifecycleEvents", {"source": "deviceJobLifecycleEvents"}),
        ("MqttBrokerMessages", {"source": "MqttBrokerMessages"}),
    ],
)
def test_what_azure_routes_too_is_refused_by_name(what: str, document: dict[str, Any]) -> None:
    with pytest.raises(NotSupported, match=what):
        read_route("a", document)
