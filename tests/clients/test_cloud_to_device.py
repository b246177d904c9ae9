"""Cloud-to-device messages from a back end by Microsoft's `azure-iot-hub`, which sends them over uamqp."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from azure.iot.hub import IoTHubHttpRuntimeManager, IoTHubRegistryManager  # type: ignore[import-untyped]

from tests.support.decisions import refusal
from tests.support.devices import put_device
from tests.support.services import Hub

pytestmark = pytest.mark.clients


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
