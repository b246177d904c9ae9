"""Cloud-to-device messages by Microsoft's clients: `azure-iot-hub` sends over uamqp, `azure-iot-device` receives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from queue import Queue
from typing import Any
from urllib.parse import quote

import pytest
from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.aio import IoTHubDeviceClient as AsynchronousClient
from azure.iot.hub import IoTHubHttpRuntimeManager, IoTHubRegistryManager  # type: ignore[import-untyped]

from tests.support.decisions import refusal
from tests.support.devices import SasDevice, device_client, put_device, sas_device
from tests.support.mqtt import Plain, device_token, plain_client
from tests.support.services import Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

transports = pytest.mark.parametrize(
    "websockets",
    [pytest.param(False, id="mqtt"), pytest.param(True, id="websockets", marks=pytest.mark.port443)],
)


@pytest.fixture
def registry(env: Mapping[str, str]) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])


def waiting(hub: Hub, device_id: str) -> int:
    """Messages in the device's queue."""
    count: int = hub.get(f"/devices/{device_id}")["cloudToDeviceMessageCount"]
    return count


def test_messages_wait_in_the_queue_and_are_purged(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    put_device(hub, device_id)
    for number in range(3):
        registry.send_c2d_message(device_id, f"message {number}", {"number": str(number)})
    assert waiting(hub, device_id) == 3
    purged = hub.call("DELETE", f"/devices/{device_id}/commands")
    assert (purged.status, purged.body["totalMessagesPurged"]) == (200, 3)
    assert waiting(hub, device_id) == 0


def test_a_device_that_is_not_there(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    with pytest.raises(Exception, match="C2D message send failure"):
        registry.send_c2d_message(device_id, "x")
    assert refusal(hub, device_id)["error"] == f"no device named '{device_id}'"


def test_a_full_queue(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    put_device(hub, device_id)
    for _ in range(50):
        registry.send_c2d_message(device_id, "x")
    with pytest.raises(Exception, match="C2D message send failure"):
        registry.send_c2d_message(device_id, "one more")
    assert waiting(hub, device_id) == 50


def test_an_expiry_that_has_passed(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    put_device(hub, device_id)
    now = int(time.time() * 1000)
    registry.send_c2d_message(device_id, "x", {"expiryTimeUtc": now + 60_000})
    with pytest.raises(Exception, match="C2D message send failure"):
        registry.send_c2d_message(device_id, "x", {"expiryTimeUtc": now - 600_000})
    assert waiting(hub, device_id) == 1


def test_feedback_over_rest(env: Mapping[str, str]) -> None:
    """`azure-iot-hub` hands its caller nothing of a batch, and no lock: it shows that the paths are there."""
    runtime = IoTHubHttpRuntimeManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])
    assert runtime.receive_feedback_notification() is None


# --- To a device -----------------------------------------------------------------------------------------


class Inbox:
    """What a device client's handler is given, in order."""

    def __init__(self, client: IoTHubDeviceClient) -> None:
        self._messages: Queue[Message] = Queue()
        client.on_message_received = self._messages.put

    def next(self) -> Message:
        return self._messages.get(timeout=15)


@transports
def test_a_message_with_all_its_properties(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str, websockets: bool
) -> None:
    properties = {
        "messageId": "m-1",
        "correlationId": "c-1",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "expiryTimeUtc": int(time.time() * 1000) + 60_000,
        "iothub-ack": "full",
        "ü": "a/=&% +",
        "number": 7,
    }
    with device_client(sas_device(hub, device_id), websockets=websockets) as client:
        client.connect()
        inbox = Inbox(client)
        registry.send_c2d_message(device_id, '{"a": 1}', properties)
        message = inbox.next()
        assert message.data == b'{"a": 1}'
        assert (message.message_id, message.correlation_id) == ("m-1", "c-1")
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
        assert str(message.expiry_time_utc).endswith("Z")
        assert message.ack == "full"
        assert message.custom_properties == {"ü": "a/=&% +", "number": "7"}
        eventually(lambda: waiting(hub, device_id) == 0, what="the last PUBACK to be durable")


def test_messages_wait_for_a_device_that_is_away(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    device = sas_device(hub, device_id)
    for number in range(30):
        registry.send_c2d_message(device_id, str(number))
    with device_client(device) as client:
        client.connect()
        inbox = Inbox(client)
        assert [inbox.next().data for _ in range(30)] == [b"%d" % number for number in range(30)]
        eventually(lambda: waiting(hub, device_id) == 0, what="the last PUBACK to be durable")


def test_a_large_message_and_one_of_nothing(
    registry: IoTHubRegistryManager, hub: Hub, device_id: str
) -> None:
    large = "x" * 65_024
    with device_client(sas_device(hub, device_id)) as client:
        client.connect()
        inbox = Inbox(client)
        registry.send_c2d_message(device_id, large)
        registry.send_c2d_message(device_id, "")
        assert [inbox.next().data for _ in range(2)] == [large.encode(), b""]


async def test_the_asynchronous_client(registry: IoTHubRegistryManager, hub: Hub, device_id: str) -> None:
    client = AsynchronousClient.create_from_connection_string(sas_device(hub, device_id).connection_string())
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    await client.connect()
    try:
        client.on_message_received = arrived.put
        await asyncio.to_thread(registry.send_c2d_message, device_id, "hello", {"a": "b"})
        message = await asyncio.wait_for(arrived.get(), 15)
    finally:
        await client.shutdown()
    assert (message.data, message.custom_properties) == (b"hello", {"a": "b"})


# --- To a client without an SDK --------------------------------------------------------------------------


def plain(env: Mapping[str, str], device: SasDevice, **options: Any) -> AbstractContextManager[Plain]:
    user_name = f"{device.hostname}/{device.device_id}/?api-version=2021-04-12"
    return plain_client(env, device.device_id, user_name, device_token(device), **options)


def test_a_session_is_kept(
    registry: IoTHubRegistryManager, env: Mapping[str, str], hub: Hub, device_id: str
) -> None:
    """What waits follows CONNACK, before any SUBSCRIBE [hub-device 3.2]."""
    device = sas_device(hub, device_id)
    topic_filter = f"devices/{device_id}/messages/devicebound/#"
    with plain(env, device, clean_session=False) as client:
        assert client.connect() == 0
        assert not client.session_present
        assert client.subscribe(topic_filter, 1) == 1
    registry.send_c2d_message(device_id, "while away", {"messageId": "m"})
    with plain(env, device, clean_session=False) as client:
        assert client.connect() == 0
        assert client.session_present
        topic, payload = client.message()
        to = quote(f"/devices/{device_id}/messages/devicebound", safe="")
        assert topic == f"devices/{device_id}/messages/devicebound/%24.mid=m&%24.to={to}"
        assert payload == b"while away"
        eventually(lambda: waiting(hub, device_id) == 0, what="the last PUBACK to be durable")
    with plain(env, device, clean_session=True) as client:
        assert client.connect() == 0
        assert not client.session_present
    with plain(env, device, clean_session=False) as client:
        assert client.connect() == 0
        assert not client.session_present
