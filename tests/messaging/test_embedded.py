"""Who waits for which write, who is told what and when; opening and closing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from moorage.errors import Unavailable
from moorage.interfaces import EventHead
from moorage.messaging.embedded import COMMIT_BOUNDS, EmbeddedEventLog
from moorage.messaging.files import DiskFiles, File, MemoryFiles
from moorage.messaging.journal import COMMIT_SIZE
from moorage.messaging.segment_format import LogUnusable, NewerFormat
from moorage.wire.amqp.message import Message

NOON = 1_772_452_800_000_000
SECOND = 1_000_000
PATIENCE = 20  # seconds after which a test that waits for another thread gives up


class SetClock:
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / SECOND


class GatedFiles(MemoryFiles):
    """A sync of a file waits at the gate, once it is shut, and tells when it has come there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.gate.set()
        self.at_gate = Event()
        self.syncs = 0

    def create(self, name: str) -> File:
        return GatedFile(self, super().create(name))

    def open(self, name: str) -> File:
        return GatedFile(self, super().open(name))

    async def someone_waits(self) -> None:
        assert await asyncio.to_thread(self.at_gate.wait, PATIENCE)
        self.at_gate.clear()


class GatedFile:
    def __init__(self, files: GatedFiles, file: File) -> None:
        self._files = files
        self.size, self.read, self.write = file.size, file.read, file.write
        self.truncate, self.close = file.truncate, file.close

    def sync(self) -> None:
        self._files.at_gate.set()
        if not self._files.gate.wait(PATIENCE):
            raise TimeoutError
        self._files.syncs += 1


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def files() -> GatedFiles:
    return GatedFiles()


@pytest.fixture
async def log(files: GatedFiles, clock: SetClock) -> AsyncIterator[EmbeddedEventLog]:
    log = EmbeddedEventLog(files, clock)
    log.start()
    files.at_gate.clear()
    files.syncs = 0
    yield log
    files.gate.set()
    await log.close()


def head(partition: int = 0) -> EventHead:
    return EventHead(scope=1, partition=partition, partition_key="pump-7", annotations=())


def append(log: EmbeddedEventLog, *bodies: bytes, partition: int = 0) -> asyncio.Future[Exception | None]:
    prepared = log.prepare(head(partition))
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    log.append([(prepared, body) for body in bodies], done.set_result)
    return done


def payloads(log: EmbeddedEventLog) -> list[bytes]:
    events, _ = log.read(1, 0, 0, limit=1000)
    return [Message.decode(event.message).payload for event in events]


# --- Group commit ------------------------------------------------------------------------------------------


async def test_one_sync_serves_all_of_a_turn(log: EmbeddedEventLog, files: GatedFiles) -> None:
    assert await asyncio.gather(*(append(log, b"x") for _ in range(10))) == [None] * 10
    assert (files.syncs, log.metrics.commits, log.metrics.events) == (1, 1, 10)


async def test_who_comes_during_a_sync_joins_the_next(log: EmbeddedEventLog, files: GatedFiles) -> None:
    files.gate.clear()
    first = append(log, b"first")
    await files.someone_waits()
    others = [append(log, b"%d" % number) for number in range(5)]
    assert not first.done()
    assert (log.waiting, payloads(log)) == (5, [])
    files.gate.set()
    await asyncio.gather(first, *others)
    assert (files.syncs, log.metrics.commits) == (2, 2)
    assert payloads(log) == [b"first", b"0", b"1", b"2", b"3", b"4"]


async def test_a_slow_disk_has_the_next_commit_before_the_first_is_told(
    log: EmbeddedEventLog, files: GatedFiles, clock: SetClock
) -> None:
    waiting: list[int] = []
    files.gate.clear()
    first = append(log, b"first")
    first.add_done_callback(lambda _: waiting.append(log.waiting))
    await files.someone_waits()
    second = append(log, b"second")
    clock.time += SECOND
    files.gate.set()
    await asyncio.gather(first, second)
    assert waiting == [0]


async def test_on_a_quick_disk_whoever_is_told_can_join_the_next_commit(
    log: EmbeddedEventLog, files: GatedFiles
) -> None:
    later: list[asyncio.Future[Exception | None]] = []
    files.gate.clear()
    first = append(log, b"first")
    first.add_done_callback(lambda _: later.append(append(log, b"third")))
    await files.someone_waits()
    second = append(log, b"second")
    files.gate.set()
    await asyncio.gather(first, second)
    await asyncio.gather(*later)
    assert (files.syncs, log.metrics.commits) == (2, 2)
    assert payloads(log) == [b"first", b"second", b"third"]


async def test_an_append_without_events_costs_no_sync(log: EmbeddedEventLog, files: GatedFiles) -> None:
    assert await append(log) is None
    assert (files.syncs, log.metrics.commits) == (0, 0)


async def test_a_commit_takes_only_so_much(log: EmbeddedEventLog) -> None:
    body = bytes(262_144)
    count = 2 * COMMIT_SIZE // len(body) + 2
    await asyncio.gather(*(append(log, body) for _ in range(count)))
    assert log.metrics.commits == 3
    assert log.state(1, 0).last_sequence_number == count - 1


async def test_metrics_count_what_was_written(
    log: EmbeddedEventLog, files: GatedFiles, clock: SetClock
) -> None:
    files.gate.clear()
    done = append(log, b"a", b"b")
    await files.someone_waits()
    clock.time += 3_000  # microseconds
    files.gate.set()
    await done
    metrics = log.metrics
    assert (metrics.events, metrics.commits, metrics.failed_commits) == (2, 1, 0)
    assert 200 < metrics.bytes < log.size
    assert metrics.commit_seconds == pytest.approx(0.003, abs=1e-6)
    assert [bound for bound, count in zip(COMMIT_BOUNDS, metrics.commit_buckets, strict=True) if count] == [
        0.005
    ]


# --- What goes wrong ---------------------------------------------------------------------------------------


async def test_a_callback_that_fails_keeps_nobody_from_being_told(log: EmbeddedEventLog) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    told: list[str] = []

    def fail(error: Exception | None = None) -> None:
        told.append("failing")
        raise ValueError("mine")

    log.watch(1, 0, fail)
    log.watch(1, 0, partial(told.append, "woken"))
    log.append([(log.prepare(head()), b"x")], fail)
    assert await append(log, b"y") is None
    assert await append(log) is None
    assert told == ["failing", "failing", "woken"]
    assert [str(context["exception"]) for context in reported] == ["mine", "mine"]


async def test_what_cannot_be_encoded_costs_its_commit_only(log: EmbeddedEventLog) -> None:
    assert await append(log, b"a") is None
    neighbour, broken = append(log, b"lost"), append(log, b"lost", "no bytes")  # type: ignore[arg-type]
    assert isinstance(await neighbour, Unavailable)
    assert isinstance(await broken, Unavailable)
    assert await append(log, b"b") is None
    assert payloads(log) == [b"a", b"b"]
    assert log.state(1, 0).last_sequence_number == 1


# --- Opening and closing -----------------------------------------------------------------------------------


async def test_close_writes_what_waits(files: GatedFiles, clock: SetClock) -> None:
    log = EmbeddedEventLog(files, clock)
    log.start()
    files.at_gate.clear()
    files.gate.clear()
    first = append(log, b"a")
    await files.someone_waits()
    second = append(log, b"b")
    closing = asyncio.create_task(log.close())
    files.gate.set()
    await closing
    assert (first.result(), second.result()) == (None, None)
    again = EmbeddedEventLog(files, clock)
    again.start()
    assert payloads(again) == [b"a", b"b"]
    await again.close()


async def test_after_close_nothing_is_kept(log: EmbeddedEventLog) -> None:
    prepared = log.prepare(head())
    await log.close()
    await log.close()
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    log.append([(prepared, b"x")], done.set_result)
    assert not done.done()
    assert isinstance(await done, Unavailable)


async def test_a_log_that_was_never_started_closes(clock: SetClock) -> None:
    await EmbeddedEventLog(MemoryFiles(), clock).close()


async def test_a_folder_in_use_is_refused(tmp_path: Path, clock: SetClock) -> None:
    log = EmbeddedEventLog(DiskFiles(tmp_path / "log"), clock)
    log.start()
    other = EmbeddedEventLog(DiskFiles(tmp_path / "log"), clock)
    with pytest.raises(LogUnusable, match="in use by another process"):
        other.start()
    await log.close()
    other.start()
    await other.close()


async def test_a_folder_that_was_refused_is_given_back(tmp_path: Path, clock: SetClock) -> None:
    segment = tmp_path / "00000000000000000000.segment"
    segment.write_bytes(b"MOORLOG\n\x00\x07")
    log = EmbeddedEventLog(DiskFiles(tmp_path), clock)
    with pytest.raises(NewerFormat):
        log.start()
    segment.unlink()
    log.start()
    await log.close()


# --- Retention ---------------------------------------------------------------------------------------------


async def test_events_of_a_quiet_log_expire(files: GatedFiles, clock: SetClock) -> None:
    log = EmbeddedEventLog(
        files, clock, retention=timedelta(hours=2), segment_age=timedelta(minutes=30), segment_size=1 << 20
    )
    log.start()
    assert await append(log, b"old") is None
    clock.time += 3 * 3600 * SECOND
    log.expire()  # closes the segment
    assert await append(log) is None
    log.expire()  # drops it
    assert await append(log, b"new") is None
    assert payloads(log) == [b"new"]
    assert log.state(1, 0).begin_sequence_number == 1
    assert log.metrics.expired_segments == 1
    await log.close()
    assert len([name for name in files.names() if name.endswith(".segment")]) == 1


async def test_a_log_stays_below_its_size(files: GatedFiles, clock: SetClock) -> None:
    log = EmbeddedEventLog(files, clock, max_size=100_000)
    log.start()
    for _ in range(50):
        assert await append(log, bytes(10_000)) is None
        log.expire()
        assert log.size <= 100_000
    assert log.state(1, 0).begin_sequence_number > 30
    await log.close()


async def test_a_reader_behind_retention_goes_on_with_the_oldest(files: GatedFiles, clock: SetClock) -> None:
    log = EmbeddedEventLog(files, clock, max_size=40_000)
    log.start()
    for number in range(20):
        assert await append(log, b"%d" % number + bytes(5_000)) is None
    log.expire()
    begin = log.state(1, 0).begin_sequence_number
    events, cursor = log.read(1, 0, 0, limit=1)
    assert begin > 0
    assert [event.sequence_number for event in events] == [begin]
    assert cursor == begin + 1
    await log.close()
