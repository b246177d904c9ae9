"""A disk that is full or fails: the caller is told, nothing that was kept suffers, and the log goes on when it can."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator

import pytest

from moorage.errors import StorageFull, Unavailable
from moorage.interfaces import EventHead, Start, StartProperty
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import File, MemoryFile, MemoryFiles
from moorage.messaging.segment_format import LogUnusable
from moorage.wire.amqp.message import Message

SEGMENT_SIZE = 1500


class StandingClock:
    def now(self) -> int:
        return 1_772_452_800_000_000

    def monotonic(self) -> float:
        return 0.0


class FaultyFiles(MemoryFiles):
    """Fails the calls named in `faults` with the error given there. `room` is how many bytes may still be written."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, int] = {}
        self.room: int | None = None
        self.syncs: list[str] = []
        self.is_locked = False

    def call(self, name: str) -> None:
        if name in self.faults:
            code = self.faults[name]
            raise OSError(code, os.strerror(code))

    def lock(self) -> None:
        self.is_locked = True

    def unlock(self) -> None:
        self.is_locked = False

    def create(self, name: str) -> File:
        self.call("create of index" if name.endswith(".index") else "create")
        return FaultyFile(self, name, super().create(name))

    def open(self, name: str) -> File:
        return FaultyFile(self, name, super().open(name))

    def remove(self, name: str) -> None:
        self.call("remove")
        super().remove(name)

    @property
    def segments(self) -> list[str]:
        return sorted(name for name in self.names() if name.endswith(".segment"))


class FaultyFile:
    def __init__(self, files: FaultyFiles, name: str, file: File) -> None:
        self._files = files
        self._name = name
        self._file = file

    def size(self) -> int:
        return self._file.size()

    def read(self, size: int, position: int) -> bytes:
        self._files.call("read")
        return self._file.read(size, position)

    def write(self, data: bytes, position: int) -> None:
        self._files.call("write")
        room = self._files.room
        if room is not None:
            self._files.room = max(room - len(data), 0)
            self._file.write(data[:room], position)
            if len(data) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        self._file.write(data, position)

    def truncate(self, size: int) -> None:
        self._files.call("truncate")
        self._file.truncate(size)

    def sync(self) -> None:
        self._files.call("sync")
        self._files.syncs.append(self._name)

    def close(self) -> None:
        pass


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def log(files: FaultyFiles) -> AsyncIterator[EmbeddedEventLog]:
    log = EmbeddedEventLog(files, StandingClock(), segment_size=SEGMENT_SIZE)
    log.start()
    yield log
    await log.close()


async def append(log: EmbeddedEventLog, *bodies: bytes) -> Exception | None:
    prepared = log.prepare(EventHead(scope=1, partition=0, partition_key="pump-7", annotations=()))
    done = asyncio.get_running_loop().create_future()
    log.append([(prepared, body) for body in bodies], done.set_result)
    error: Exception | None = await done
    return error


def bodies(log: EmbeddedEventLog) -> list[bytes]:
    found: list[bytes] = []
    cursor = log.find(1, 0, Start(StartProperty.FIRST))
    while True:
        events, following = log.read(1, 0, cursor, limit=100)
        if not events:
            return found
        assert [event.sequence_number for event in events] == list(range(cursor, following))
        found += [Message.decode(event.message).payload for event in events]
        cursor = following


async def after_restart(log: EmbeddedEventLog, files: FaultyFiles) -> list[bytes]:
    await log.close()
    again = EmbeddedEventLog(files, StandingClock(), segment_size=SEGMENT_SIZE)
    again.start()
    try:
        return bodies(again)
    finally:
        await again.close()


@pytest.mark.parametrize("room", [0, 1, 40, 300])
async def test_a_full_disk_refuses_and_later_takes_again(
    log: EmbeddedEventLog, files: FaultyFiles, room: int
) -> None:
    assert await append(log, b"a") is None
    files.room = room
    for _ in range(2):
        assert isinstance(await append(log, b"lost" * 100, b"lost"), StorageFull)
        assert bodies(log) == [b"a"]
    files.room = None
    assert await append(log, b"b") is None
    assert bodies(log) == [b"a", b"b"]
    assert len(files.segments) == 1
    assert await after_restart(log, files) == [b"a", b"b"]


async def test_everyone_in_a_failed_commit_is_told_in_order(
    log: EmbeddedEventLog, files: FaultyFiles
) -> None:
    told: list[tuple[int, type[Exception]]] = []
    files.faults["write"] = errno.EIO
    results = await asyncio.gather(*(append(log, b"x") for _ in range(4)))
    told += [(number, type(result)) for number, result in enumerate(results) if result is not None]
    assert told == [(number, Unavailable) for number in range(4)]
    assert log.metrics.failed_commits == 1
    assert (log.metrics.events, log.metrics.commits) == (0, 0)


async def test_after_a_failed_sync_the_file_is_not_trusted_again(
    log: EmbeddedEventLog, files: FaultyFiles
) -> None:
    assert await append(log, b"a") is None
    [given_up] = files.segments
    files.faults["sync"] = errno.EIO
    assert isinstance(await append(log, b"lost"), Unavailable)
    files.faults.clear()
    files.syncs.clear()
    assert await append(log, b"b") is None
    assert given_up not in files.syncs
    assert len(files.segments) == 2
    assert bodies(log) == [b"a", b"b"]
    assert await after_restart(log, files) == [b"a", b"b"]


async def test_a_file_that_cannot_be_truncated_is_given_up(log: EmbeddedEventLog, files: FaultyFiles) -> None:
    assert await append(log, b"a") is None
    files.room = 100
    files.faults["truncate"] = errno.EIO
    assert isinstance(await append(log, b"lost"), StorageFull)
    files.room = None
    assert await append(log, b"b") is None
    assert len(files.segments) == 2
    assert files.open(files.segments[0]).size() > 100
    assert await after_restart(log, files) == [b"a", b"b"]


@pytest.mark.parametrize("fault", ["create", "write", "sync"])
async def test_a_segment_that_cannot_be_begun_is_tried_again(
    log: EmbeddedEventLog, files: FaultyFiles, fault: str
) -> None:
    assert await append(log, b"a" * SEGMENT_SIZE) is None
    files.faults[fault] = errno.ENOSPC
    for _ in range(2):
        assert isinstance(await append(log, b"lost"), StorageFull)
    files.faults.clear()
    assert await append(log, b"b") is None
    assert not [name for name in files.names() if name.endswith(".new")]
    assert await after_restart(log, files) == [b"a" * SEGMENT_SIZE, b"b"]


async def test_a_segment_whose_first_commit_fails_is_begun_again(
    log: EmbeddedEventLog, files: FaultyFiles
) -> None:
    assert await append(log, b"a" * SEGMENT_SIZE) is None
    files.room = 200  # enough for a header
    assert isinstance(await append(log, b"lost" * 100), StorageFull)
    assert len(files.segments) == 2
    files.room = None
    assert await append(log, b"b") is None
    assert len(files.segments) == 2
    assert await after_restart(log, files) == [b"a" * SEGMENT_SIZE, b"b"]


async def test_a_log_without_indexes_is_whole(log: EmbeddedEventLog, files: FaultyFiles) -> None:
    expected = [b"%d" % number * 500 for number in range(8)]
    files.faults["create of index"] = errno.ENOSPC
    for body in expected:
        assert await append(log, body) is None
    assert len(files.segments) > 2
    assert not [name for name in files.names() if name.endswith(".index")]
    assert bodies(log) == expected
    assert await after_restart(log, files) == expected


async def test_what_cannot_be_removed_is_tried_again_in_order(files: FaultyFiles) -> None:
    log = EmbeddedEventLog(files, StandingClock(), segment_size=200, max_size=4000)
    log.start()
    for _ in range(3):
        for _ in range(20):
            assert await append(log, b"x" * 400) is None
        files.faults["remove"] = errno.EACCES
        log.expire()
        assert await append(log, b"x" * 400) is None  # behind the removal on the writer's thread
    kept = bodies(log)
    await log.close()
    assert len(files.segments) > 60
    files.faults.clear()
    again = EmbeddedEventLog(files, StandingClock(), segment_size=200, max_size=4000)
    again.start()
    again.expire()
    assert again.size <= 4000
    assert bodies(again) == kept[-len(bodies(again)) :]
    await again.close()


async def test_a_disk_that_cannot_be_read_is_unavailable(log: EmbeddedEventLog, files: FaultyFiles) -> None:
    assert await append(log, b"a") is None
    files.faults["read"] = errno.EIO
    with pytest.raises(Unavailable, match="cannot be read"):
        log.read(1, 0, 0, limit=10)
    files.faults.clear()
    assert bodies(log) == [b"a"]


@pytest.mark.parametrize("fault", ["create", "write", "sync"])
async def test_a_log_that_cannot_be_made_says_so(files: FaultyFiles, fault: str) -> None:
    files.faults[fault] = errno.ENOSPC
    log = EmbeddedEventLog(files, StandingClock())
    with pytest.raises(LogUnusable, match=r"cannot be opened: .*No space left"):
        log.start()
    assert not files.is_locked
    await log.close()
    files.faults.clear()
    log.start()
    assert await append(log, b"a") is None
    await log.close()


def test_the_fault_injection_itself() -> None:
    files = FaultyFiles()
    file = files.create("a")
    files.room = 3
    with pytest.raises(OSError, match="No space"):
        file.write(b"12345", 0)
    assert isinstance(files._files["a"], MemoryFile)
    assert file.read(10, 0) == b"123"
