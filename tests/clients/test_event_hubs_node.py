"""The built-in endpoint read by Microsoft's `@azure/event-hubs` for Node."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import pytest

from moorage.credentials.sas import new_key
from tests.support.devices import device_client, sas_device
from tests.support.events import Telemetry, payload
from tests.support.node_worker import NodeError, NodeWorker
from tests.support.services import Hub, with_key

pytestmark = [pytest.mark.clients, pytest.mark.node]

Event = Mapping[str, Any]
PARTITIONS = ["0", "1", "2", "3"]
SENT = 6


class Reader:
    """One subscription: the events that it was handed, those of one device."""

    def __init__(self, worker: NodeWorker, name: str, device_id: str) -> None:
        self._worker, self._name, self._device_id = worker, name, device_id

    def take(self, count: int, *, within: float = 15.0) -> list[Event]:
        taken: list[Event] = []
        while len(taken) < count:
            event = self._worker.news(self._name, "event", within=within)
            if event["systemProperties"]["iothub-connection-device-id"] == self._device_id:
                taken.append(event)
        return taken

    def error(self) -> Mapping[str, Any]:
        error: Mapping[str, Any] = self._worker.news(self._name, "error")
        return error


Read = Callable[..., Any]


@pytest.fixture
def read(worker: NodeWorker, env: Mapping[str, str], device_id: str) -> Read:
    """Opens a reader: from the start of all partitions unless it is told otherwise."""
    numbers = itertools.count()

    @contextmanager
    def opened(
        partition: str | None = None, *, group: str = "$Default", at: object = None, **options: Any
    ) -> Iterator[Reader]:
        name = f"{device_id}-{next(numbers)}"
        options = {"startPosition": at or {"offset": "-1"}, **options}
        asked: dict[str, Any] = {"name": name, "group": group, "login": env["EVENTHUB_CONNECTION_STRING"]}
        if partition is not None:
            asked["partition"] = partition
        worker.ask("event_hubs.open", **asked, options=options)
        try:
            yield Reader(worker, name, device_id)
        finally:
            worker.ask("event_hubs.close", name=name)

    return opened


class Source:
    """What our device has sent, as the reader of all tests has seen it; `send` adds to it."""

    def __init__(self, hub: Hub, telemetry: Telemetry, device_id: str) -> None:
        self._telemetry, self._device = telemetry, sas_device(hub, device_id)
        self.bodies: list[str] = []
        self.events: list[Any] = []
        self.send(SENT)

    def send(self, count: int) -> None:
        with device_client(self._device) as client:
            for _ in range(count):
                self.bodies.append(f"{self._device.device_id} {len(self.bodies)}")
                client.send_message(self.bodies[-1])
        self.events = self._telemetry.of(self._device.device_id, len(self.bodies))

    @property
    def partition(self) -> str:
        return str(crc32(self._device.device_id.encode()) % len(PARTITIONS))


@pytest.fixture
def source(hub: Hub, telemetry: Telemetry, device_id: str) -> Source:
    return Source(hub, telemetry, device_id)


def bodies(events: Sequence[Event]) -> list[str]:
    return [event["body"] for event in events]


def milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_the_endpoint_and_its_partitions(worker: NodeWorker, env: Mapping[str, str], source: Source) -> None:
    login = env["EVENTHUB_CONNECTION_STRING"]
    described = worker.ask("event_hubs.describe", login=login, group="$Default")

    assert described["endpoint"]["name"] == "moorage"
    assert described["endpoint"]["partitionIds"] == PARTITIONS
    assert [partition["partitionId"] for partition in described["partitions"]] == PARTITIONS
    ours = described["partitions"][int(source.partition)]
    last = source.events[-1]
    assert (ours["isEmpty"], ours["beginningSequenceNumber"]) == (False, 0)
    assert ours["lastEnqueuedSequenceNumber"] >= last.sequence_number
    assert int(ours["lastEnqueuedOffset"]) >= int(last.offset)


def test_where_a_reader_begins(read: Read, source: Source) -> None:
    third = source.events[3]
    time = milliseconds(third.enqueued_time)
    after = [payload(event).decode() for event in source.events if milliseconds(event.enqueued_time) > time]
    cases = [
        ({"offset": "-1"}, source.bodies),
        ({"offset": third.offset}, source.bodies[4:]),
        ({"offset": third.offset, "isInclusive": True}, source.bodies[3:]),
        ({"sequenceNumber": third.sequence_number}, source.bodies[4:]),
        ({"sequenceNumber": third.sequence_number, "isInclusive": True}, source.bodies[3:]),
        ({"enqueuedOn": time}, after),
    ]
    for position, expected in cases:
        with read(source.partition, at=position) as reader:
            assert bodies(reader.take(len(expected))) == expected, position


def test_a_reader_from_the_latest_sees_only_what_comes_then(read: Read, source: Source) -> None:
    options = {"at": {"offset": "@latest"}, "trackLastEnqueuedEventProperties": True}
    with read(source.partition, **options) as reader:
        first = first_seen(reader, source)
        source.send(2)
        events = [first, *reader.take(len(source.bodies) - 1 - source.bodies.index(first["body"]))]

    assert bodies(events) == source.bodies[-len(events) :]
    assert len(source.bodies) - len(events) >= SENT
    assert events[-1]["last"]["sequenceNumber"] >= events[-1]["sequenceNumber"]


def first_seen(reader: Reader, source: Source) -> Event:
    """Send until the reader stands, which it does not tell, and one arrives: that one."""
    for _ in range(100):
        source.send(1)
        with suppress(AssertionError):
            return reader.take(1, within=0.3)[0]
    raise AssertionError("the reader sees nothing")


def test_two_consumer_groups_over_all_partitions(
    read: Read, source: Source, own_groups: tuple[str, str]
) -> None:
    """Owners in both, each with all partitions to itself: neither is in the other's way."""
    with read(group=own_groups[0], ownerLevel=5) as first, read(group=own_groups[1], ownerLevel=1) as second:
        assert bodies(first.take(SENT)) == source.bodies
        assert bodies(second.take(SENT)) == source.bodies


def test_an_owner_takes_the_partition(read: Read, source: Source, own_groups: tuple[str, str]) -> None:
    with read(source.partition, group=own_groups[0], ownerLevel=1) as older:
        older.take(SENT)
        with read(source.partition, group=own_groups[0], ownerLevel=2) as newer:
            newer.take(SENT)
            assert older.error()["code"] == "ReceiverDisconnectedError"
            with read(source.partition, group=own_groups[0], ownerLevel=1) as late:
                assert late.error()["code"] == "ReceiverDisconnectedError"


def test_a_wrong_key_and_a_group_that_is_not_there(
    worker: NodeWorker, env: Mapping[str, str], read: Read
) -> None:
    login = with_key(env["EVENTHUB_CONNECTION_STRING"], new_key())
    with pytest.raises(NodeError) as refused:
        worker.ask("event_hubs.describe", login=login, group="$Default")
    assert refused.value.code == "UnauthorizedError"

    with read("0", group="no-such-group") as reader:
        assert "no-such-group" in reader.error()["message"]
