"""Twins by Microsoft's clients: `azure-iot-device` reports and is told, `IoTHubRegistryManager` desires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.device.aio import IoTHubDeviceClient as AsynchronousClient
from azure.iot.device.exceptions import ClientError
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import Twin, TwinProperties  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError

from tests.support.devices import device_client, sas_device, service_error
from tests.support.mqtt import hub_client
from tests.support.services import Hub

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)
WITHIN = 10  # seconds


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


def desired(properties: Any, **tags: Any) -> Twin:
    return Twin(tags=tags or None, properties=TwinProperties(desired=properties))


def values(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if not name.startswith("$")}


def set_status(registry: IoTHubRegistryManager, device_id: str, status: str) -> None:
    device = registry.get_device(device_id)
    keys = device.authentication.symmetric_key
    registry.update_device_with_sas(device_id, device.etag, keys.primary_key, keys.secondary_key, status)


@contextmanager
def listening(client: IoTHubDeviceClient | IoTHubModuleClient) -> Iterator[Queue[dict[str, Any]]]:
    """What the client's handler is told; it is subscribed once this begins."""
    told: Queue[dict[str, Any]] = Queue()
    client.on_twin_desired_properties_patch_received = told.put
    yield told


@transports
def test_reported_and_desired_properties(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str, websockets: bool
) -> None:
    with (
        device_client(sas_device(hub, device_id), websockets=websockets) as client,
        listening(client) as told,
    ):
        client.patch_twin_reported_properties({"fw": "1.2", "fan": {"speed": 1}, "log": ["a", {"b": 1.5}]})
        client.patch_twin_reported_properties({"fan": {"speed": None, "on": True}, "fw": None})

        seen = registry.get_twin(device_id)
        assert values(seen.properties.reported) == {"fan": {"on": True}, "log": ["a", {"b": 1.5}]}
        assert seen.properties.reported["$version"] == 3
        assert set(seen.properties.reported["$metadata"]) == {"$lastUpdated", "fan", "log"}
        assert seen.connection_state == "Connected"

        registry.update_twin(device_id, desired({"period": 5, "when": "2026-01-02T03:04:05Z"}, site="A"))
        assert told.get(timeout=WITHIN) == {"period": 5, "when": "2026-01-02T03:04:05Z", "$version": 2}
        registry.update_twin(device_id, desired({"when": None}))
        assert told.get(timeout=WITHIN) == {"when": None, "$version": 3}
        registry.replace_twin(device_id, desired({"other": {"deep": [1]}}))
        assert told.get(timeout=WITHIN) == {"other": {"deep": [1]}, "$version": 4}

        document = client.get_twin()
        assert document["desired"] == {"other": {"deep": [1]}, "$version": 4}
        assert document["reported"]["$version"] == 3


def test_what_a_device_may_not_report(hub: Hub, device_id: str) -> None:
    with device_client(sas_device(hub, device_id)) as client:
        patches: list[Any] = [{"$version": 7}, {"a": [None]}, {"a": "x" * 5000}, {"a.b": 1}, {"a": 2**60}]
        for patch in patches:
            with pytest.raises(ClientError) as raised:
                client.patch_twin_reported_properties(patch)
            assert "400" in service_error(raised.value)
        client.patch_twin_reported_properties({"sound": 1})
        assert client.get_twin()["reported"] == {"sound": 1, "$version": 2}


def test_what_changed_while_the_device_was_away(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    device = sas_device(hub, device_id)
    for period in (1, 2):
        with device_client(device) as client:
            assert client.get_twin()["desired"]["$version"] == 2 * period - 1
            with listening(client) as told:
                registry.update_twin(device_id, desired({"period": period}))
                # Where a session is kept, the client may first be told what it has missed.
                while (latest := told.get(timeout=WITHIN))["$version"] < 2 * period:
                    pass
                assert latest == {"period": period, "$version": 2 * period}
        registry.update_twin(device_id, desired({"away": period}))
    with device_client(device) as client:
        assert client.get_twin()["desired"] == {"period": 2, "away": 2, "$version": 5}


@pytest.mark.parametrize("how", ["by itself", "by the program"])
def test_a_program_that_comes_back_is_told_what_it_has_missed(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str, how: str
) -> None:
    """Its session is kept, its handler stays: the client reads the twin, and what has moved is a patch to it."""
    device = sas_device(hub, device_id)
    with device_client(device, connection_retry_interval=1) as client:
        assert client.get_twin()["desired"] == {
            "$version": 1
        }  # without it the client never hears its own question
        with listening(client) as told:
            registry.update_twin(device_id, desired({"period": 1}))
            assert told.get(timeout=WITHIN) == {"period": 1, "$version": 2}

            if how == "by itself":
                set_status(registry, device_id, "disabled")  # which ends the connection, and each one tried
                registry.update_twin(device_id, desired({"away": True}))
                set_status(registry, device_id, "enabled")
            else:
                client.disconnect()
                registry.update_twin(device_id, desired({"away": True}))
                client.connect()

            assert told.get(timeout=2 * WITHIN) == {"period": 1, "away": True, "$version": 3}
            registry.update_twin(device_id, desired({"period": 2}))
            assert told.get(timeout=WITHIN) == {"period": 2, "$version": 4}
            assert told.empty()


def test_etags_and_conditions(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    with device_client(sas_device(hub, device_id)) as client:
        read = registry.get_twin(device_id)
        client.patch_twin_reported_properties({"busy": True})
        written = registry.update_twin(device_id, desired({"a": 1}), read.etag)
        assert (written.etag, written.version) == ("AAAAAAAAAAI=", 4)
        for write in (registry.update_twin, registry.replace_twin):
            with pytest.raises(HttpOperationError) as raised:
                write(device_id, desired({"a": 2}), read.etag)
            assert raised.value.response.status_code == 412
        assert values(registry.get_twin(device_id).properties.desired) == {"a": 1}


def test_many_patches_at_once(hub: Hub, device_id: str) -> None:
    """By a client that sends on while it waits, as its asynchronous face does."""

    async def report() -> dict[str, Any]:
        client = AsynchronousClient.create_from_connection_string(
            sas_device(hub, device_id).connection_string()
        )
        try:
            await client.connect()
            await asyncio.gather(
                *(client.patch_twin_reported_properties({f"k{number}": number}) for number in range(50))
            )
            return await client.get_twin()
        finally:
            await client.shutdown()

    reported = asyncio.run(report())["reported"]
    assert reported == {**{f"k{number}": number for number in range(50)}, "$version": 51}


@transports
def test_a_module_twin(
    registry: IoTHubRegistryManager, env: Mapping[str, str], hub: Hub, device_id: str, websockets: bool
) -> None:
    sas_device(hub, device_id)
    module = registry.create_module_with_sas(device_id, "camera", "", "", "")
    key = module.authentication.symmetric_key.primary_key
    login = f"HostName={env['IOTHUB_HOSTNAME']};DeviceId={device_id};ModuleId=camera;SharedAccessKey={key}"
    client = IoTHubModuleClient.create_from_connection_string(login, websockets=websockets)
    try:
        with listening(client) as told:
            client.patch_twin_reported_properties({"zoom": 1})
            registry.update_module_twin(device_id, "camera", desired({"zoom": 2}, lens=50))
            assert told.get(timeout=WITHIN) == {"zoom": 2, "$version": 2}
            registry.replace_module_twin(device_id, "camera", desired({"iso": 100}))
            assert told.get(timeout=WITHIN) == {"iso": 100, "$version": 3}
            assert client.get_twin()["reported"] == {"zoom": 1, "$version": 2}
    finally:
        client.shutdown()

    seen = registry.get_module_twin(device_id, "camera")
    assert (values(seen.properties.reported), values(seen.properties.desired)) == ({"zoom": 1}, {"iso": 100})
    assert registry.get_twin(device_id).version == 2


# --- By the documented topics, without an SDK ----------------------------------------------------------------


def test_a_patch_under_a_version_and_without_a_request_id(
    env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    report = "$iothub/twin/PATCH/properties/reported/"
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        assert client.subscribe("$iothub/twin/res/#", 1) == 1
        answer = client.ask(f"{report}?$rid=1&$version=1", b'{"a": 1}')
        assert (answer.topic, answer.payload) == ("$iothub/twin/res/204/?$rid=1&$version=2", b"")
        answer = client.ask(f"{report}?$rid=2&$version=1", b'{"a": 2}')
        assert answer.topic == "$iothub/twin/res/412/?$rid=2"
        assert json.loads(answer.payload)["errorCode"] == 412001
        client.telemetry(report, b'{"a": 3}')
        assert hub.get(f"/twins/{device_id}")["properties"]["reported"]["a"] == 3, "as soon as PUBACK is here"


def test_desired_null_tells_each_key_that_is_gone(env: Mapping[str, str], hub: Hub, device_id: str) -> None:
    """Microsoft's clients for Node rely on it [hub-device 7.4]; those for Python cannot send it."""
    with hub_client(env, sas_device(hub, device_id)) as client:
        client.connect()
        client.subscribe("$iothub/twin/PATCH/properties/desired/#", 1)
        for document in ({"a": 1, "b": {"c": 1}}, None):
            hub.call("PATCH", f"/twins/{device_id}", {"properties": {"desired": document}})
        client.message()
        told = client.message()
    assert told.topic == "$iothub/twin/PATCH/properties/desired/?$version=3"
    assert json.loads(told.payload) == {"a": None, "b": None, "$version": 3}
