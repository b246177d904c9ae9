"""What every event log keeps, whatever it is made of: the promise `moorage.interfaces.EventLog`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from moorage.errors import Invalid
from moorage.interfaces import EventHead, EventLog, PartitionState, Start, StartProperty, StoredEvent
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import DiskFiles, MemoryFiles
from moorage.wire.amqp.message import Message

NOON = 1_772_452_800_000_000
SECOND = 1_000_000

Reopen = Callable[[], Awaitable[EventLog]]


class SetClock:
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / SECOND


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["embedded on disk", "embedded in memory"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> AsyncIterator[Reopen]:
    """Opens the log; called again it closes it first, as a restart does."""
    in_memory = MemoryFiles()
    opened: list[EmbeddedEventLog] = []

    async def restart() -> EventLog:
        if opened:
            await opened.pop().close()
        files = in_memory if request.param == "embedded in memory" else DiskFiles(tmp_path / "log")
        log = EmbeddedEventLog(files, clock)
        log.start()
        opened.append(log)
        return log

    yield restart
    for log in opened:
        await log.close()


@pytest.fixture
async def log(reopen: Reopen) -> EventLog:
    return await reopen()


def head(scope: int = 1, partition: int = 0) -> EventHead:
    annotations = (("iothub-connection-device-id", "pump-7"),)
    return EventHead(scope=scope, partition=partition, partition_key="pump-7", annotations=annotations)


async def append(log: EventLog, *bodies: bytes, scope: int = 1, partition: int = 0) -> None:
    """Returns when the bodies are durable."""
    done = asyncio.get_running_loop().create_future()
    prepared = log.prepare(head(scope, partition))
    log.append([(prepared, body) for body in bodies], done.set_result)
    assert await done is None


def payloads(events: Sequence[StoredEvent]) -> list[bytes]:
    return [Message.decode(event.message).payload for event in events]


def everything(log: EventLog, scope: int = 1, partition: int = 0) -> list[StoredEvent]:
    cursor = log.find(scope, partition, Start(StartProperty.FIRST))
    events, _ = log.read(scope, partition, cursor, limit=1000)
    return events


# --- Appending ---------------------------------------------------------------------------------------------


async def test_an_event_comes_back_with_its_place(log: EventLog, clock: SetClock) -> None:
    await append(log, b"8.5")
    [event] = everything(log)
    message = Message.decode(event.message)
    assert message.payload == b"8.5"
    assert message.message_annotations == {
        "x-opt-sequence-number": 0,
        "x-opt-enqueued-time": NOON // 1000,
        "iothub-enqueuedtime": NOON // 1000,
        "x-opt-offset": str(event.offset),
        "x-opt-partition-key": "pump-7",
        "iothub-connection-device-id": "pump-7",
    }
    assert (event.sequence_number, event.enqueued_time) == (0, NOON)


async def test_done_is_called_later_and_in_the_order_of_the_appends(log: EventLog) -> None:
    calls: list[int] = []

    def done(number: int, error: Exception | None) -> None:
        assert error is None
        calls.append(number)

    last = asyncio.get_running_loop().create_future()
    prepared = log.prepare(head())
    for number in range(5):
        events = [(prepared, b"x")] * (number % 3)  # some without any event
        log.append(events, partial(done, number))
    log.append([(prepared, b"last")], last.set_result)
    assert calls == []
    assert await last is None
    assert calls == [0, 1, 2, 3, 4]


async def test_what_is_done_can_be_read(log: EventLog) -> None:
    for number in range(20):
        body = b"%d" % number
        await append(log, body)
        assert payloads(everything(log))[-1] == body


async def test_what_is_not_done_cannot_be_read(log: EventLog) -> None:
    seen: list[int] = []
    done = asyncio.get_running_loop().create_future()
    log.append([(log.prepare(head()), b"x")], done.set_result)
    seen.append(len(everything(log)))
    await done
    seen.append(len(everything(log)))
    assert seen == [0, 1]


async def test_sequence_numbers_are_dense_in_each_partition_of_each_hub(log: EventLog) -> None:
    places = [(1, 0), (1, 1), (2, 0), (70_000, 31)]
    for number in range(10):
        for place in places:
            await append(log, b"%d" % number, scope=place[0], partition=place[1])
    for place in places:
        events = everything(log, *place)
        assert [event.sequence_number for event in events] == list(range(10))
        assert payloads(events) == [b"%d" % number for number in range(10)]
        offsets = [event.offset for event in events]
        assert offsets == sorted(set(offsets))


async def test_a_restart_keeps_events_and_numbering(reopen: Reopen) -> None:
    log = await reopen()
    await append(log, b"a", b"b")
    before, state = everything(log), log.state(1, 0)
    log = await reopen()
    assert everything(log) == before
    assert log.state(1, 0) == state
    await append(log, b"c")
    assert [event.sequence_number for event in everything(log)] == [0, 1, 2]


# --- Reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_reading_on_from_the_cursor_misses_and_repeats_nothing(log: EventLog, limit: int) -> None:
    bodies = [b"%d" % number for number in range(25)]
    await append(log, *bodies)
    cursor = log.find(1, 0, Start(StartProperty.FIRST))
    found: list[bytes] = []
    while True:
        events, cursor = log.read(1, 0, cursor, limit=limit)
        if not events:
            break
        assert len(events) <= limit
        found += payloads(events)
    assert found == bodies
    await append(log, b"newer")
    events, _ = log.read(1, 0, cursor, limit=limit)
    assert payloads(events) == [b"newer"]


async def test_large_events_come_whole(log: EventLog) -> None:
    bodies = [bytes([number]) * 262_144 for number in range(8)]
    await append(log, *bodies)
    cursor, found = 0, list[bytes]()
    while len(found) < len(bodies):
        events, cursor = log.read(1, 0, cursor, limit=1000)
        assert events
        found += payloads(events)
    assert found == bodies


async def test_a_partition_nobody_wrote_to_is_empty(log: EventLog) -> None:
    assert log.state(1, 3) == PartitionState(0, -1, -1, None)
    for property in StartProperty:
        cursor = log.find(1, 3, Start(property, -1))
        assert log.read(1, 3, cursor, limit=10) == ([], cursor)


async def test_state_tells_first_and_last(log: EventLog, clock: SetClock) -> None:
    await append(log, b"a", b"b")
    clock.time += SECOND
    await append(log, b"c")
    last = everything(log)[-1]
    assert log.state(1, 0) == PartitionState(0, 2, last.offset, NOON + SECOND)


# --- Where to start ----------------------------------------------------------------------------------------


async def found_from(log: EventLog, start: Start) -> list[bytes]:
    events, _ = log.read(1, 0, log.find(1, 0, start), limit=100)
    return payloads(events)


async def test_start_at_first_and_latest(log: EventLog) -> None:
    await append(log, b"a", b"b")
    assert await found_from(log, Start(StartProperty.FIRST)) == [b"a", b"b"]
    latest = log.find(1, 0, Start(StartProperty.LATEST))
    assert log.read(1, 0, latest, limit=10) == ([], latest)
    await append(log, b"c")
    events, _ = log.read(1, 0, latest, limit=10)
    assert payloads(events) == [b"c"]


async def test_start_at_a_sequence_number(log: EventLog) -> None:
    await append(log, b"a", b"b", b"c")
    number = StartProperty.SEQUENCE_NUMBER
    assert await found_from(log, Start(number, -1)) == [b"a", b"b", b"c"]
    assert await found_from(log, Start(number, 0)) == [b"b", b"c"]
    assert await found_from(log, Start(number, 1, inclusive=True)) == [b"b", b"c"]
    assert await found_from(log, Start(number, 2)) == []
    with pytest.raises(Invalid):
        log.find(1, 0, Start(number, 3))


async def test_start_at_an_offset(log: EventLog) -> None:
    await append(log, b"a", b"b", b"c", partition=1)  # offsets are no numbers of one partition
    await append(log, b"a", b"b", b"c")
    offset = StartProperty.OFFSET
    first, second, third = (event.offset for event in everything(log))
    assert await found_from(log, Start(offset, -1)) == [b"a", b"b", b"c"]
    assert await found_from(log, Start(offset, 0)) == [b"a", b"b", b"c"]
    assert await found_from(log, Start(offset, first)) == [b"b", b"c"]
    assert await found_from(log, Start(offset, second, inclusive=True)) == [b"b", b"c"]
    assert await found_from(log, Start(offset, second - 1)) == [b"b", b"c"]
    assert await found_from(log, Start(offset, third)) == []
    with pytest.raises(Invalid):
        log.find(1, 0, Start(offset, third + 1))


async def test_start_at_a_time(log: EventLog, clock: SetClock) -> None:
    for body in (b"a", b"b", b"c"):
        await append(log, body)
        clock.time += SECOND
    time = StartProperty.ENQUEUED_TIME
    assert await found_from(log, Start(time, NOON - 1)) == [b"a", b"b", b"c"]
    assert await found_from(log, Start(time, NOON)) == [b"b", b"c"]
    assert await found_from(log, Start(time, NOON + SECOND, inclusive=True)) == [b"b", b"c"]
    assert await found_from(log, Start(time, NOON + 3600 * SECOND)) == []


async def test_a_time_shown_by_an_event_leads_behind_it(log: EventLog, clock: SetClock) -> None:
    """Readers know times in milliseconds only."""
    clock.time = NOON + 123_456
    await append(log, b"a")
    clock.time += SECOND
    await append(log, b"b")
    shown = Message.decode(everything(log)[0].message).message_annotations
    assert shown is not None
    start = Start(StartProperty.ENQUEUED_TIME, shown["x-opt-enqueued-time"] * 1000)
    assert await found_from(log, start) == [b"b"]


# --- Watching ----------------------------------------------------------------------------------------------


async def test_watchers_wake_when_there_is_something_to_read(log: EventLog) -> None:
    seen: list[list[bytes]] = []
    end = log.watch(1, 0, lambda: seen.append(payloads(everything(log))))
    await append(log, b"elsewhere", partition=1)
    await append(log, b"a")
    await append(log, b"b")
    assert seen == [[b"a"], [b"a", b"b"]]
    end()
    await append(log, b"c")
    assert len(seen) == 2
    end()  # once more does no harm


async def test_a_watcher_may_end_itself(log: EventLog) -> None:
    ends: list[Callable[[], None]] = []
    wakes: list[str] = []

    def wake_once() -> None:
        wakes.append("once")
        ends[0]()

    ends.append(log.watch(1, 0, wake_once))
    log.watch(1, 0, lambda: wakes.append("each"))
    await append(log, b"a")
    await append(log, b"b")
    assert wakes == ["once", "each", "each"]


async def test_settled_is_when_every_append_was_told(reopen: Reopen) -> None:
    log = await reopen()
    told: list[Exception | None] = []
    prepared = log.prepare(head())
    for _ in range(3):
        log.append([(prepared, b"x")], told.append)
        await log.settled()
    assert told == [None, None, None]
    await log.settled()  # nothing waits
