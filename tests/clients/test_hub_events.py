"""Events beside telemetry, read by Microsoft's `azure-eventhub` while its clients for devices and back ends cause them.

As the end-to-end tests of the Python SDK do it, whose twin tests watch reported properties by these events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import Twin, TwinProperties  # type: ignore[import-untyped]

from moorage.credentials.sas import new_key
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.commands import moorage, said
from tests.support.events import Telemetry, application_properties, payload, system_properties

pytestmark = pytest.mark.clients

ROUTES = {
    "twins": "TwinChangeEvents",
    "lives": "DeviceLifecycleEvents",
    "connections": "DeviceConnectionStateEvents",
}


@pytest.fixture
def routed(start_server: StartServer, enter_shell: EnterShell) -> RunningServer:
    """A server whose hub tells of everything."""
    server = start_server("--in-memory")
    enter_shell(server)
    for name, source in ROUTES.items():
        made = said(
            moorage(server, "hub", "message-route", "create", "--route-name", name, "-t", source.lower())
        )
        assert (made["source"], made["endpointNames"], made["isEnabled"]) == (source, ["events"], True)
    return server


@pytest.fixture
def events(routed: RunningServer) -> Iterator[Telemetry]:
    read = Telemetry(routed.env)
    yield read
    read.stop()


def told(event: EventData) -> tuple[str, Any]:
    """What it is, and the body."""
    properties, system = application_properties(event), system_properties(event)
    assert system["content-type"] == "application/json"
    assert system["content-encoding"] == "utf-8"
    assert system["user-id"] == properties["hubName"]
    assert system["correlation-id"]
    assert isinstance(system["iothub-enqueuedtime"], int)
    assert properties["deviceId"] == system["iothub-connection-device-id"]
    assert properties.get("moduleId") == system.get("iothub-connection-module-id")
    return f"{system['iothub-message-source']} {properties['opType']}", json.loads(payload(event))


def test_the_life_of_a_device_in_order(routed: RunningServer, events: Telemetry) -> None:
    registry = IoTHubRegistryManager.from_connection_string(routed.env["IOTHUB_CONNECTION_STRING"])
    primary, secondary = new_key(32), new_key(32)
    registry.create_device_with_sas("pump-7", primary, secondary, "enabled")
    registry.create_module_with_sas("pump-7", "camera", "", primary, secondary)
    client = IoTHubDeviceClient.create_from_connection_string(
        f"HostName={routed.address};DeviceId=pump-7;SharedAccessKey={primary}"
    )
    try:
        client.connect()
        client.patch_twin_reported_properties({"t": 20, "gone": 1})
        client.patch_twin_reported_properties({"t": 21, "gone": None})
        client.send_message("telemetry")
        registry.update_twin("pump-7", Twin(tags={"site": "A"}))
        registry.replace_twin("pump-7", Twin(properties=TwinProperties(desired={"speed": 3})))
    finally:
        client.shutdown()
    events.of("pump-7", 9)  # the disconnection among them
    registry.delete_device("pump-7")

    came = events.of("pump-7", 11)
    sequence = [event.sequence_number for event in came]
    assert sequence == sorted(sequence, key=lambda number: number or 0)
    assert payload(came[5]) == b"telemetry"
    assert system_properties(came[5])["iothub-message-source"] == "Telemetry"
    what = [told(event) for event in came if payload(event) != b"telemetry"]
    assert [kind for kind, _ in what] == [
        "deviceLifecycleEvents createDeviceIdentity",
        "deviceLifecycleEvents createModuleIdentity",
        "deviceConnectionStateEvents deviceConnected",
        "twinChangeEvents updateTwin",
        "twinChangeEvents updateTwin",
        "twinChangeEvents updateTwin",
        "twinChangeEvents replaceTwin",
        "deviceConnectionStateEvents deviceDisconnected",
        "deviceLifecycleEvents deleteModuleIdentity",
        "deviceLifecycleEvents deleteDeviceIdentity",
    ]
    bodies = [body for _, body in what]
    reported = bodies[4]["properties"]["reported"]
    assert (reported["t"], reported["gone"], reported["$version"]) == (21, None, 3)
    assert bodies[5] == {"version": bodies[4]["version"] + 1, "tags": {"site": "A"}}
    assert bodies[6]["properties"]["desired"]["speed"] == 3
    assert bodies[2]["sequenceNumber"] < bodies[7]["sequenceNumber"]
    assert bodies[9]["properties"]["reported"]["t"] == 21


def test_monitor_events_shows_them_and_routes_are_taken_away(routed: RunningServer) -> None:
    for noun in ("list", "show"):
        named = () if noun == "list" else ("--rn", "TWINS")
        found = said(moorage(routed, "hub", "message-route", noun, *named))
        assert "twins" in json.dumps(found)
    said(moorage(routed, "hub", "device-identity", "create", "-d", "shown"))
    seen = moorage(
        routed,
        "hub",
        "monitor-events",
        "-d",
        "shown",
        "--mc",
        "1",
        "--et",
        "0",
        "--timeout",
        "10",
        "-p",
        "app",
    )
    event = json.loads(seen.stdout)["event"]
    assert event["properties"]["application"]["opType"] == "createDeviceIdentity"
    assert (event["origin"], event["payload"]["deviceId"]) == ("shown", "shown")

    updated = said(moorage(routed, "hub", "message-route", "update", "--rn", "lives", "--enabled", "false"))
    assert (updated["source"], updated["isEnabled"]) == ("DeviceLifecycleEvents", False)
    assert said(moorage(routed, "hub", "message-route", "delete", "--rn", "twins")) is None
    left = said(moorage(routed, "hub", "message-route", "list"))
    assert [(each["name"], each["isEnabled"]) for each in left] == [("lives", False), ("connections", True)]
    off = said(moorage(routed, "hub", "message-route", "fallback", "set", "--enabled", "false"))
    assert off["isEnabled"] is False
    assert said(moorage(routed, "hub", "message-route", "fallback", "show")) == off
    silent = moorage(routed, "hub", "monitor-events", "-d", "nobody", "--timeout", "0.2")
    assert "the hub drops telemetry: its fallback route is disabled" in silent.stderr
    refused = moorage(
        routed, "hub", "message-route", "create", "--rn", "x", "-t", "DeviceMessages", "--en", "blob"
    )
    assert refused.returncode == 1
    assert "HTTP 501" in refused.stderr
    absent = moorage(routed, "hub", "message-route", "create", "--rn", "x", "-t", "DigitalTwinChangeEvents")
    assert "HTTP 501" in absent.stderr
