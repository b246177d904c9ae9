"""Back ends that talk to devices by Microsoft's `azure-iothub` for Node, class `Client`: messages and feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.support.devices import put_device
from tests.support.node_worker import NodeError, NodeWorker
from tests.support.services import Hub

pytestmark = [pytest.mark.clients, pytest.mark.node]

transports = pytest.mark.parametrize(
    "transport",
    [pytest.param("Amqp", id="amqp"), pytest.param("AmqpWs", id="amqp-ws", marks=pytest.mark.port443)],
)

QUEUE = 50  # messages that may wait for a device
BATCH = 64  # records of feedback


class Service:
    """One client, by what its verbs are called in service.js."""

    def __init__(self, worker: NodeWorker, name: str) -> None:
        self._worker, self.name = worker, name

    def __call__(self, verb: str, **asked: Any) -> Any:
        return self._worker.ask(f"service.{verb}", name=self.name, **asked)

    def send(self, device_id: str, body: str, **members: Any) -> None:
        self("send", device=device_id, message={"body": body, **members})

    def told(self, news: str) -> Any:
        return self._worker.news(self.name, news)


OpenService = Callable[[str], Service]


@pytest.fixture
def open_service(worker: NodeWorker, env: Mapping[str, str], device_id: str) -> Iterator[OpenService]:
    opened: list[Service] = []

    def open(transport: str) -> Service:
        service = Service(worker, f"service-{device_id}-{len(opened)}")
        service("open", login=env["IOTHUB_CONNECTION_STRING"], transport=transport)
        opened.append(service)
        return service

    yield open
    for service in opened:
        service("close")


@transports
def test_messages_wait_for_the_device(
    hub: Hub, open_service: OpenService, device_id: str, transport: str
) -> None:
    put_device(hub, device_id)
    service = open_service(transport)

    service.send(device_id, "first", messageId="m-1")
    service.send(device_id, "second", properties={"a": "b"})

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
            service.send(device, "purge me", messageId=f"{device}-{number}", ack="full")

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
            service.send(device, body, **members)
        return refused.value.name

    assert refusal_of("nobody", "hello") == "DeviceNotFoundError"
    assert refusal_of(device_id, "x" * (64 * 1024 + 1)) == "MessageTooLargeError"
    assert refusal_of(device_id, "late", expiryTimeUtc=1000) == "ArgumentError"
    for number in range(QUEUE):
        service.send(device_id, str(number))
    assert refusal_of(device_id, "one too many") == "DeviceMaximumQueueDepthExceededError"
