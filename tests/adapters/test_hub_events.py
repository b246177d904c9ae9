"""Events that are not telemetry, as they stand in the log: of twins, lives and connections. [hub-service 17]"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from moorage.credentials.sas import new_key
from moorage.errors import Invalid
from moorage.hub.authentication import Authentication
from moorage.hub.message_route import Route, Source
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.notifier import Notifier, NotifierMetrics
from moorage.hub.session import Cause, Ending, Principal, Session
from moorage.hub.twin import read_initial_twin
from moorage.hub.twins import Report
from moorage.wire.amqp import Message
from moorage.wire.mqtt.packets import ConnAck, PubAck
from tests.support.mqtt_peer import MqttPeer, connect, publish
from tests.support.sessions import ClosingLink
from tests.support.site import HUB_SCOPE, Site

Arrive = Callable[..., MqttPeer]
EVENTS = "devices/pump-7/messages/events/"


async def route(site: Site, *sources: Source, fallback: bool = True) -> None:
    routes = tuple(Route(name=source.name, source=source) for source in sources)
    await site.hubs.put(replace(site.hub, routes=routes, fallback_route=fallback))


def texts(values: Any) -> dict[str, Any]:
    return {str(name): value for name, value in (values or {}).items()}


def hub_annotations(message: Message) -> dict[str, Any]:
    """Without what the log stamps on every event."""
    found = texts(message.message_annotations)
    return {name: value for name, value in found.items() if name.startswith("iothub-connection")} | {
        "source": found["iothub-message-source"]
    }


def properties(message: Message) -> dict[str, Any]:
    return texts(message.application_properties)


def body(message: Message) -> Any:
    return json.loads(message.payload)


async def add_module(site: Site, device_id: str, module_id: str) -> None:
    settings = ModuleSettings(
        device_id=device_id, module_id=module_id, authentication=Authentication.symmetric(new_key(32))
    )
    await site.identities.modules.create(settings)


def session(site: Site, module_id: str | None = None) -> Session:
    principal = Principal("pump-7", "1", "device", "sas", module_id=module_id)
    return Session(principal, site.time.now(), ClosingLink())


LOST = Ending(Cause.NETWORK_LOST, "closed by peer")

# --- Life cycle ---------------------------------------------------------------------------------------------


async def test_without_a_route_nothing_is_told(site: Site) -> None:
    await site.add_device("pump-7")
    one = session(site)
    site.sessions.open(one)
    site.sessions.close(one, LOST)
    await site.identities.delete("pump-7")
    await site.log.settled()
    assert site.kept() == []


async def test_a_device_from_its_making_to_its_end(site: Site) -> None:
    await route(site, Source.LIFECYCLE)
    await site.add_device("pump-7")
    (made,) = site.kept()  # durable when the verb returns
    assert hub_annotations(made) == {
        "iothub-connection-device-id": "pump-7",
        "source": "deviceLifecycleEvents",
    }
    assert list(properties(made).items()) == [
        ("hubName", "hub"),
        ("deviceId", "pump-7"),
        ("operationTimestamp", "2027-01-15T08:00:00.0000000Z"),
        ("opType", "createDeviceIdentity"),
        ("iothub-message-schema", "deviceLifecycleNotification"),
    ]
    system = made.properties
    assert system is not None
    assert (system.content_type, system.content_encoding, system.user_id) == (
        "application/json",
        "utf-8",
        b"hub",
    )
    never = "0001-01-01T00:00:00Z"
    empty = {"$metadata": {"$lastUpdated": never}, "$version": 1}
    assert body(made) == {
        "deviceId": "pump-7",
        "etag": "AAAAAAAAAAE=",
        "version": 2,
        "properties": {"desired": empty, "reported": empty},
    }
    await site.identities.delete("pump-7")
    _, gone = site.kept()
    assert properties(gone)["opType"] == "deleteDeviceIdentity"
    assert body(gone) == body(made)
    assert gone.properties is not None
    assert gone.properties.correlation_id != system.correlation_id


async def test_a_module_and_the_modules_that_go_with_their_device(site: Site) -> None:
    await site.add_device("pump-7")
    await route(site, Source.LIFECYCLE)
    await add_module(site, "pump-7", "camera")
    (made,) = site.kept()
    assert hub_annotations(made) == {
        "iothub-connection-device-id": "pump-7",
        "iothub-connection-module-id": "camera",
        "source": "deviceLifecycleEvents",
    }
    assert properties(made) == {
        "hubName": "hub",
        "deviceId": "pump-7",
        "operationTimestamp": "2027-01-15T08:00:00.0000000Z",
        "moduleId": "camera",
        "opType": "createModuleIdentity",
        "iothub-message-schema": "moduleLifecycleNotification",
    }
    assert (body(made)["deviceId"], body(made)["moduleId"]) == ("pump-7", "camera")
    await site.identities.delete("pump-7")
    assert [properties(each)["opType"] for each in site.kept()[1:]] == [
        "deleteModuleIdentity",
        "deleteDeviceIdentity",
    ]


async def test_one_module_deleted_and_what_was_not_done_is_not_told(site: Site) -> None:
    await site.add_device("pump-7")
    await add_module(site, "pump-7", "camera")
    await route(site, Source.LIFECYCLE)
    with pytest.raises(Exception, match="exists"):
        await site.add_device("pump-7")
    with pytest.raises(Exception, match="etag"):
        await site.identities.delete("pump-7", "AAAA")
    await site.identities.modules.delete("pump-7", "camera")
    assert [properties(each)["opType"] for each in site.kept()] == ["deleteModuleIdentity"]


async def test_the_modules_of_an_edge_device_come_with_it(site: Site) -> None:
    await route(site, Source.LIFECYCLE)
    await site.add_device("gateway", iot_edge=True)
    told = [(properties(each)["opType"], properties(each).get("moduleId")) for each in site.kept()]
    assert told == [
        ("createDeviceIdentity", None),
        ("createModuleIdentity", "$edgeAgent"),
        ("createModuleIdentity", "$edgeHub"),
    ]


async def test_a_registration_tells_of_its_device_and_of_the_twin_it_replaces(site: Site) -> None:
    await route(site, Source.LIFECYCLE, Source.TWIN_CHANGE)
    identities = site.identities
    initial = read_initial_twin("initialTwin", {"tags": {"site": "A"}})
    for reset in (False, True, False):
        changes = await identities.provision(
            "pump-7", Authentication.symmetric(new_key(32)), initial_twin=initial, reset=reset
        )
        await site.telling_store.apply(changes)
    made, replaced = site.kept()
    assert properties(made)["opType"] == "createDeviceIdentity"
    assert (properties(replaced)["opType"], hub_annotations(replaced)["source"]) == (
        "replaceTwin",
        "twinChangeEvents",
    )
    assert (body(replaced)["deviceId"], body(replaced)["version"], body(replaced)["tags"]) == (
        "pump-7",
        3,
        {"site": "A"},
    )


# --- Twins --------------------------------------------------------------------------------------------------


async def test_what_a_service_patches(site: Site) -> None:
    await site.add_device("pump-7")
    await add_module(site, "pump-7", "camera")
    await route(site, Source.TWIN_CHANGE)
    site.time.advance(1)
    await site.identities.twins.patch(
        "pump-7",
        {"tags": {"site": "A"}, "properties": {"desired": {"fan": {"speed": 3}, "mode": "slow"}}},
        module_id="camera",
    )
    (told,) = site.kept()  # durable when the verb returns
    assert hub_annotations(told) == {
        "iothub-connection-device-id": "pump-7",
        "iothub-connection-module-id": "camera",
        "source": "twinChangeEvents",
    }
    at = "2027-01-15T08:00:01.0000000Z"
    assert list(properties(told).items()) == [
        ("hubName", "hub"),
        ("deviceId", "pump-7"),
        ("operationTimestamp", at),
        ("moduleId", "camera"),
        ("iothub-message-schema", "twinChangeNotification"),
        ("opType", "updateTwin"),
    ]
    stamp = {"$lastUpdated": at, "$lastUpdatedVersion": 2}
    assert body(told) == {
        "version": 3,
        "tags": {"site": "A"},
        "properties": {
            "desired": {
                "fan": {"speed": 3},
                "mode": "slow",
                "$metadata": {**stamp, "fan": {**stamp, "speed": stamp}, "mode": stamp},
                "$version": 2,
            }
        },
    }


async def test_an_update_has_what_was_written_alone_with_its_nulls(site: Site) -> None:
    await site.add_device("pump-7")
    twins = site.identities.twins
    await twins.report("pump-7", [Report({"t": 20, "gone": 1, "fan": {"on": True, "speed": 1}, "old": 1})])
    await route(site, Source.TWIN_CHANGE)
    site.time.advance(1)
    await twins.report("pump-7", [Report({"t": 21, "gone": None, "fan": {"speed": None}}), Report({"t": 22})])
    first, second = site.kept()
    stamp = {"$lastUpdated": "2027-01-15T08:00:01.0000000Z"}
    assert body(first) == {
        "version": 4,
        "properties": {
            "reported": {
                "t": 21,
                "gone": None,
                "fan": {"speed": None},
                "$metadata": {**stamp, "t": stamp, "fan": stamp},
                "$version": 3,
            }
        },
    }
    assert b'"gone":null' in first.payload
    assert body(second)["properties"]["reported"]["$version"] == 4
    await twins.patch("pump-7", {"tags": {"site": None}})
    assert body(site.kept()[2]) == {"version": 6, "tags": {"site": None}}


async def test_a_replacement_is_told_whole(site: Site) -> None:
    await site.add_device("pump-7")
    await site.identities.twins.report("pump-7", [Report({"t": 20})])
    await route(site, Source.TWIN_CHANGE)
    twin = await site.identities.twins.replace("pump-7", {"properties": {"desired": {"a": 1}}})
    (told,) = site.kept()
    assert properties(told)["opType"] == "replaceTwin"
    whole = body(told)
    assert list(whole) == ["deviceId", "etag", "version", "properties"]
    assert (whole["deviceId"], whole["etag"], whole["version"]) == ("pump-7", twin.service_etag, 4)
    assert whole["properties"]["desired"]["a"] == 1
    assert whole["properties"]["reported"]["t"] == 20
    assert whole["properties"]["reported"]["$metadata"]["t"]


async def test_a_change_that_is_refused_is_not_told(site: Site) -> None:
    await site.add_device("pump-7")
    await route(site, Source.TWIN_CHANGE)
    with pytest.raises(Invalid):
        await site.identities.twins.patch("pump-7", {"tags": {"a.b": 1}})
    await site.log.settled()
    assert site.kept() == []


async def test_who_changes_a_twin_waits_for_its_event(site: Site) -> None:
    await site.add_device("pump-7")
    await route(site, Source.TWIN_CHANGE)
    site.disk.hold()
    patching = asyncio.create_task(site.identities.twins.patch("pump-7", {"tags": {"a": 1}}))
    await site.time.until(lambda: site.disk.waiting, "the sync of the log")
    assert not patching.done()
    assert (await site.identities.twin("pump-7")).tags == {"a": 1}
    site.disk.release()
    await patching
    assert len(site.kept()) == 1


# --- Connections --------------------------------------------------------------------------------------------


async def test_connections_are_told_with_numbers_that_grow(site: Site, arrive: Arrive) -> None:
    key = await site.add_device("pump-7")
    await route(site, Source.CONNECTION_STATE)
    for _ in range(2):  # the second takes over
        peer = arrive()
        peer.send(connect("pump-7", site.device_token("pump-7", key)))
        await peer.expect(ConnAck)
    peer.stream.lose()
    await site.time.until(lambda: len(site.kept()) == 4, "all events")
    told = site.kept()
    assert [properties(each)["opType"] for each in told] == [
        "deviceConnected",
        "deviceDisconnected",
        "deviceConnected",
        "deviceDisconnected",
    ]
    assert hub_annotations(told[0]) == {
        "iothub-connection-device-id": "pump-7",
        "source": "deviceConnectionStateEvents",
    }
    assert list(properties(told[0]).items()) == [
        ("hubName", "hub"),
        ("deviceId", "pump-7"),
        ("opType", "deviceConnected"),
        ("iothub-message-schema", "deviceConnectionStateNotification"),
        ("operationTimestamp", "2027-01-15T08:00:00.0000000Z"),
    ]
    sequences = [body(each)["sequenceNumber"] for each in told]
    assert all(len(each) == 64 and int(each, 16) for each in sequences)
    assert sequences == sorted(set(sequences))
    assert all(set(body(each)) == {"sequenceNumber"} for each in told)


async def test_numbers_grow_over_a_restart(site: Site) -> None:
    await route(site, Source.CONNECTION_STATE)
    for _ in range(3):
        notifier = Notifier(
            lambda: site.hub, site.log, site.time, NotifierMetrics()
        )  # each run has a new one
        for _ in range(2):
            notifier.opened(session(site))
        await notifier.settled()
    sequences = [body(each)["sequenceNumber"] for each in site.kept()]
    assert len(sequences) == 6
    assert sequences == sorted(set(sequences))


async def test_the_connections_of_modules(site: Site) -> None:
    await route(site, Source.CONNECTION_STATE)
    camera = session(site, "camera")
    site.sessions.open(camera)
    site.sessions.close(camera, LOST)
    await site.log.settled()
    came, went = site.kept()
    assert hub_annotations(came)["iothub-connection-module-id"] == "camera"
    assert [properties(each)["opType"] for each in (came, went)] == ["moduleConnected", "moduleDisconnected"]


async def test_a_full_disk_loses_the_event_and_not_the_identity(site: Site) -> None:
    await route(site, Source.LIFECYCLE)
    site.disk.full_for = 1
    await site.add_device("pump-7")
    assert site.kept() == []
    assert (await site.identities.get("pump-7")).device_id == "pump-7"
    assert site.notifiers.metrics == NotifierMetrics(kept=0, lost=1)


# --- Telemetry that no route takes ----------------------------------------------------------------------------


async def test_without_a_route_telemetry_is_acknowledged_and_dropped(site: Site, arrive: Arrive) -> None:
    """On the connections that there are, at once."""
    key = await site.add_device("pump-7")
    peer = arrive()
    peer.send(connect("pump-7", site.device_token("pump-7", key)))
    await peer.expect(ConnAck)
    for fallback, message in ((True, b"1"), (False, b"2"), (True, b"3")):
        await route(site, fallback=fallback)
        peer.send(publish(EVENTS, message, int(message)))
        assert (await peer.expect(PubAck)).packet_id == int(message)
    assert site.payloads() == [b"1", b"3"]
    await route(site, Source.DEVICE_MESSAGES, fallback=False)
    peer.send(publish(EVENTS, b"4", 4))
    await peer.expect(PubAck)
    assert site.payloads() == [b"1", b"3", b"4"]


async def test_events_of_one_device_stay_in_order_with_its_telemetry(site: Site, arrive: Arrive) -> None:
    await route(site, Source.CONNECTION_STATE, Source.LIFECYCLE)
    key = await site.add_device("pump-7")
    peer = arrive()
    peer.send(connect("pump-7", site.device_token("pump-7", key)))
    await peer.expect(ConnAck)
    peer.send(publish(EVENTS, b"telemetry", 1))
    await peer.expect(PubAck)
    await site.identities.delete("pump-7")
    await site.time.until(lambda: len(site.kept()) == 5, "all events")
    told = [properties(each).get("opType", "telemetry") for each in site.kept()]
    assert told == [
        "createDeviceIdentity",
        "deviceConnected",
        "telemetry",
        "deleteDeviceIdentity",
        "deviceDisconnected",
    ]
    log = site.log
    assert sum(log.state(HUB_SCOPE, number).last_sequence_number >= 0 for number in range(4)) == 1
