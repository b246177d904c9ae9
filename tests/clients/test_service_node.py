"""Back ends that talk to devices by Microsoft's `azure-iothub` for Node, class `Client`: messages and feedback."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import OpenService
from tests.support.devices import put_device
from tests.support.node_worker import NodeClient, NodeError
from tests.support.services import Hub

pytestmark = [pytest.mark.clients, pytest.mark.node]

transports = pytest.mark.parametrize(
    "transport",
    [pytest.param("Amqp", id="amqp"), pytest.param("AmqpWs", id="amqp-ws", marks=pytest.mark.port443)],
)

QUEUE = 50  # messages that may wait for a device
BATCH = 64  # records of feedback


def send(service: NodeClient, device_id: str, body: str, **members: Any) -> None:
    service("send", device=device_id, message={"body": body, **members})


@transports
def test_messages_wait_for_the_device(
    hub: Hub, open_service: OpenService, device_id: str, transport: str
) -> None:
    put_device(hub, device_id)
    service = open_service(transport)

    send(service, device_id, "first", messageId="m-1")
    send(service, device_id, "second", properties={"a": "b"})

    assert hub.get(f"/devices/{device_id}")["cloudToDeviceMessageCount"] == 2


@transports
def test_who_asked_is_told_what_became_of_a_message(
    hub: Hub, open_service: OpenService, device_id: str, transport: str
) -> None:
    """As many as fill a batch of feedback, which goes out at once then and not some seconds later."""
    service = open_service(transport)
    service("feedback")
    sent = {}
    for device in (f"{device_id}-a", f"{device_id}-b"):
        put_device(hub, device)
        for number in range(BATCH // 2):
            sent[f"{device}-{number}"] = device
            send(service, device, "purge me", messageId=f"{device}-{number}", ack="full")

    for device in (f"{device_id}-a", f"{device_id}-b"):
        purged = hub.call("DELETE", f"/devices/{device}/commands")
        assert (purged.status, purged.body["totalMessagesPurged"]) == (200, BATCH // 2)

    records = [service.told("feedback") for _ in range(BATCH)]
    assert {record["originalMessageId"]: record["deviceId"] for record in records} == sent
    assert {record["statusCode"] for record in records} == {"Purged"}


@transports
def test_what_may_not_be_sent(hub: Hub, open_service: OpenService, device_id: str, transport: str) -> None:
    put_device(hub, device_id)
    service = open_service(transport)

    def refusal_of(device: str, body: str, **members: Any) -> str | None:
        with pytest.raises(NodeError) as refused:
            send(service, device, body, **members)
        return refused.value.name

    assert refusal_of("nobody", "hello") == "DeviceNotFoundError"
    assert refusal_of(device_id, "x" * (64 * 1024 + 1)) == "MessageTooLargeError"
    assert refusal_of(device_id, "late", expiryTimeUtc=1000) == "ArgumentError"
    for number in range(QUEUE):
        send(service, device_id, str(number))
    assert refusal_of(device_id, "one too many") == "DeviceMaximumQueueDepthExceededError"
