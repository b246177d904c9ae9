"""The bytes of the journal's files, format 1.

All integers are big-endian, all times microseconds since 1970 UTC. The journal is one run of bytes cut into
segments. An event's offset is its position in that run; a segment is named by the position at which it begins.

    segment  = header, then records
    header   = magic 8, version u16, reserved u16, size u32, salt u32, partitions u32, base i64, created i64,
               newest before i64; a numbering per partition; crc32 u32 of all this
    record   = size u32, crc32 u32, scope u32, partition u16, flags u16, sequence number i64, time i64;
               AMQP message

The header repeats where the numbering of every partition stood, so that older segments can be deleted. `size`
is that of the whole header or record. A record's checksum covers what follows it and starts from the
segment's salt: neither what another file left on a reused block nor a payload made to look like a record will
pass for one.

A commit is one write followed by one sync, and its first record is flagged. Since the next commit is written
only after that sync, a record that starts a commit proves all before it durable: a bad record with such a one
behind it is damage, without it is what a crash left of the last write.

Beside every closed segment lies an index, which can be rebuilt from it:

    index    = magic 8, version u16, reserved u16, partitions u32, base i64, end i64; a run per partition;
               crc32 u32 of all this
    run      = scope u32, partition u16, reserved u16, first sequence number i64, records u32, marks u32;
               position u32 of each record; mark i64 for every 256th record
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from moorage.errors import Unavailable
from moorage.messaging.event_format import MESSAGE_START
from moorage.messaging.files import File

VERSION = 1
SEGMENT_MAGIC = b"MOORLOG\n"
INDEX_MAGIC = b"MOORIDX\n"
FIRST_OF_COMMIT = 0x0001
NEVER = -(2**63)  # earlier than the time of any event
BLOCK = 256 * 1024  # bytes asked of the disk at once

PartitionKey = tuple[int, int]
"""Scope and partition."""


class LogUnusable(Unavailable):
    """The log cannot be opened. Nothing in its folder has been changed; the message says what to do."""


class NewerFormat(LogUnusable):
    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"{name} has format {version}, this release reads up to {VERSION}: "
            "start the newer release of Moorage that wrote it, or use another data folder"
        )


class Damaged(LogUnusable):
    """What was durable once is not as it was written. An old segment's records show it only when they are read."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"{name} is damaged: {why}. Check the disk, then restore the log's folder from a backup; "
            "or move the folder away to start with an empty log (readers then have to drop their checkpoints)"
        )


class Numbering(NamedTuple):
    """Where a partition stands. `newest_time` is that of its newest event, which after a clock was set back
    need not be the last."""

    next_sequence: int = 0
    last_offset: int = -1
    last_time: int = NEVER
    newest_time: int = NEVER


START = Numbering()


# --- Header -----------------------------------------------------------------------------------------------

_PREFIX = struct.Struct(">8sH")  # magic and version: in this place in every version to come
_HEADER = struct.Struct(">8sHHIIIqqq")
_NUMBERING = struct.Struct(">IHHqqqq")
_CHECKSUM = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """`newest_before` is the newest time in the segment before this one, NEVER without events."""

    base: int
    created: int
    salt: int
    newest_before: int
    numbering: Mapping[PartitionKey, Numbering]

    @property
    def size(self) -> int:
        return _HEADER.size + len(self.numbering) * _NUMBERING.size + _CHECKSUM.size

    @property
    def name(self) -> str:
        return f"{self.base:020d}"

    def first_sequence(self, key: PartitionKey) -> int:
        """The sequence number of the partition's first event in this segment or a later one."""
        return self.numbering.get(key, START).next_sequence


def encode_header(header: SegmentHeader) -> bytes:
    content = _HEADER.pack(
        SEGMENT_MAGIC,
        VERSION,
        0,
        header.size,
        header.salt,
        len(header.numbering),
        header.base,
        header.created,
        header.newest_before,
    ) + b"".join(
        _NUMBERING.pack(scope, partition, 0, *numbering)
        for (scope, partition), numbering in header.numbering.items()
    )
    return content + _CHECKSUM.pack(crc32(content))


def read_header(file: File, name: str) -> SegmentHeader:
    """Raises NewerFormat, Damaged."""
    start = file.read(_HEADER.size, 0)
    _check_prefix(start, SEGMENT_MAGIC, name)
    if len(start) < _HEADER.size:
        raise Damaged(name, "its header is cut off")
    _, _, _, size, salt, count, base, created, newest_before = _HEADER.unpack(start)
    content = file.read(size, 0)
    if size != _HEADER.size + count * _NUMBERING.size + _CHECKSUM.size or not _holds_checksum(content, size):
        raise Damaged(name, "its header fails the checksum")
    numbering = {
        (scope, partition): Numbering(*fields)
        for scope, partition, _, *fields in _NUMBERING.iter_unpack(content[_HEADER.size : -_CHECKSUM.size])
    }
    return SegmentHeader(base, created, salt, newest_before, numbering)


def _check_prefix(content: bytes, magic: bytes, name: str) -> None:
    if len(content) < _PREFIX.size or not content.startswith(magic):
        raise Damaged(name, "it does not begin like a file of the log")
    version = _PREFIX.unpack_from(content)[1]
    if version > VERSION:
        raise NewerFormat(name, version)


def _holds_checksum(content: bytes, size: int) -> bool:
    if len(content) != size:
        return False
    end = size - _CHECKSUM.size
    return bool(_CHECKSUM.unpack_from(content, end)[0] == crc32(memoryview(content)[:end]))


# --- Records ----------------------------------------------------------------------------------------------

RECORD = struct.Struct(">IIIHHqq")
CHECKED_FROM = 8  # the checksum covers what follows it
_RECORD_START = struct.Struct(">II")
_RECORD_REST = struct.Struct(">6sHqq")
_ADDRESS = struct.Struct(">IH")


def encode_address(key: PartitionKey) -> bytes:
    return _ADDRESS.pack(*key)


def encode_record(address: bytes, flags: int, sequence: int, time: int, message: bytes, salt: int) -> bytes:
    rest = _RECORD_REST.pack(address, flags, sequence, time)
    start = _RECORD_START.pack(len(message) + RECORD.size, crc32(message, crc32(rest, salt)))
    return b"".join((start, rest, message))


class Record(NamedTuple):
    """A sound record met in a scan, without its message. `position` is that in the file."""

    position: int
    size: int
    key: PartitionKey
    flags: int
    sequence: int
    time: int


def scan(file: File, position: int, end: int, salt: int) -> Iterator[Record]:
    """The records from `position` on, up to `end` or to the first one that is not sound."""
    block, block_position = b"", position
    while position + RECORD.size <= end:
        at = position - block_position
        if len(block) - at < RECORD.size:
            block, block_position, at = file.read(BLOCK, position), position, 0
            if len(block) < RECORD.size:
                return
        size, checksum, scope, partition, flags, sequence, time = RECORD.unpack_from(block, at)
        if not RECORD.size <= size <= end - position:
            return
        if len(block) - at < size:
            block, block_position, at = file.read(max(BLOCK, size), position), position, 0
        if crc32(block[at + CHECKED_FROM : at + size], salt) != checksum:
            return
        yield Record(position, size, (scope, partition), flags, sequence, time)
        position += size


def commit_follows(file: File, bad: int, end: int, salt: int) -> bool:
    """Whether a sound record behind the bad one at `bad` starts a commit; then `bad` was durable once."""
    rest = file.read(end - bad, bad)
    found = rest.find(MESSAGE_START, RECORD.size + 1)
    while found >= 0:
        at = found - RECORD.size
        size, checksum, _, _, flags, _, _ = RECORD.unpack_from(rest, at)
        if (
            flags & FIRST_OF_COMMIT
            and RECORD.size <= size <= len(rest) - at
            and crc32(rest[at + CHECKED_FROM : at + size], salt) == checksum
        ):
            return True
        found = rest.find(MESSAGE_START, found + 1)
    return False


# --- Runs and the index -----------------------------------------------------------------------------------

MARK_EVERY = 256


class Run:
    """The records of one partition within one segment.

    `positions` are those of the records in the file. `marks[k]` is the newest time of the partition, earlier
    segments included, before record 256·k of the run: times may step back with the clock, marks never do.
    """

    __slots__ = ("first_sequence", "marks", "newest_time", "positions")

    def __init__(
        self, first_sequence: int, newest_time: int, positions: Sequence[int] = (), marks: Sequence[int] = ()
    ) -> None:
        self.first_sequence = first_sequence
        self.newest_time = newest_time  # kept up to date while the run grows
        self.positions = array("I", positions)
        self.marks = array("q", marks)

    @property
    def next_sequence(self) -> int:
        return self.first_sequence + len(self.positions)

    def extend(self, positions: Sequence[int], time: int) -> None:
        """Add records that all carry `time`."""
        marked = len(self.marks) * MARK_EVERY
        start = len(self.positions)
        self.positions.extend(positions)
        newest = max(self.newest_time, time)
        while marked < len(self.positions):
            self.marks.append(self.newest_time if marked == start else newest)
            marked += MARK_EVERY
        self.newest_time = newest

    def before_time(self, time: int) -> int:
        """A sequence number at or before that of the run's first event enqueued at `time` or later."""
        mark = bisect_left(self.marks, time)  # the first mark by which such an event had come
        return self.first_sequence + max(mark - 1, 0) * MARK_EVERY


Runs = dict[PartitionKey, Run]

_INDEX = struct.Struct(">8sHHIqq")
_RUN = struct.Struct(">IHHqII")


def encode_index(header: SegmentHeader, end: int, runs: Runs) -> bytes:
    """The index of the segment of `header`, `end` bytes long."""
    parts = [_INDEX.pack(INDEX_MAGIC, VERSION, 0, len(runs), header.base, end)]
    for (scope, partition), run in runs.items():
        parts.append(
            _RUN.pack(scope, partition, 0, run.first_sequence, len(run.positions), len(run.marks))
            + _big_endian(run.positions)
            + _big_endian(run.marks)
        )
    content = b"".join(parts)
    return content + _CHECKSUM.pack(crc32(content))


def indexes(file: File, name: str, base: int, end: int) -> bool:
    """Whether the index `name` is, by its first bytes, that of the segment at `base`. Raises NewerFormat."""
    start = file.read(_INDEX.size, 0)
    if len(start) < _INDEX.size or not start.startswith(INDEX_MAGIC):
        return False
    _check_prefix(start, INDEX_MAGIC, name)
    return _INDEX.unpack(start)[4:] == (base, end)


def read_index(file: File, name: str, base: int, end: int) -> Runs | None:
    """None when the index is not whole or not of this segment. Raises NewerFormat."""
    content = file.read(file.size(), 0)
    if not indexes(file, name, base, end) or not _holds_checksum(content, len(content)):
        return None
    runs: Runs = {}
    position = _INDEX.size
    for _ in range(_INDEX.unpack_from(content)[3]):
        scope, partition, _, first_sequence, count, marks = _RUN.unpack_from(content, position)
        positions_at = position + _RUN.size
        marks_at = positions_at + 4 * count
        position = marks_at + 8 * marks
        runs[scope, partition] = Run(
            first_sequence,
            NEVER,
            _from_big_endian("I", content[positions_at:marks_at]),
            _from_big_endian("q", content[marks_at:position]),
        )
    return runs


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _from_big_endian(typecode: str, content: bytes) -> array[int]:
    values: array[int] = array(typecode)
    values.frombytes(content)
    if sys.byteorder == "little":
        values.byteswap()
    return values
