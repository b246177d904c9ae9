"""One segment as readers see it: its durable part, found through the runs of its index."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple
from zlib import crc32

from moorage.interfaces import StoredEvent
from moorage.messaging.files import File, Files
from moorage.messaging.segment_format import (
    BLOCK,
    CHECKED_FROM,
    NEVER,
    RECORD,
    START,
    Damaged,
    PartitionKey,
    Record,
    Run,
    Runs,
    SegmentHeader,
    encode_index,
    read_index,
    scan,
)

SEGMENT_SUFFIX = ".segment"
INDEX_SUFFIX = ".index"

log = logging.getLogger("moorage.messaging")

_MESSAGE_FROM = RECORD.size - CHECKED_FROM
_unpack_record = RECORD.unpack_from
_LAST_RECORD = 4096  # bytes: what a read allows for the last record it wants, whose size is not known before


class Segment:
    """`end` is the size of the durable part, `newest` the newest time in it (NEVER without events).

    Runs and file of a closed segment are loaded when first asked for, and can be dropped again.
    """

    def __init__(
        self, files: Files, header: SegmentHeader, *, end: int, newest: int = NEVER, runs: Runs | None = None
    ) -> None:
        self.header = header
        self.end = end
        self.newest = newest
        self._files = files
        self._runs = runs
        self._file: File | None = None

    @property
    def name(self) -> str:
        return self.header.name + SEGMENT_SUFFIX

    @property
    def index_name(self) -> str:
        return self.header.name + INDEX_SUFFIX

    @property
    def is_empty(self) -> bool:
        return self.end == self.header.size

    @property
    def runs(self) -> Runs:
        """Raises Damaged."""
        if self._runs is None:
            self._runs = self._load_runs()
        return self._runs

    def _load_runs(self) -> Runs:
        with suppress(FileNotFoundError), closing(self._files.open(self.index_name)) as file:
            runs = read_index(file, self.index_name, self.header.base, self.end)
            if runs is not None:
                return runs
        return self.rebuild_runs()

    def rebuild_runs(self) -> Runs:
        """The runs as the records of this closed segment give them. Raises Damaged."""
        with closing(self._files.open(self.name)) as file:
            scanned = scan_runs(file, self.name, self.header, self.end)
        if scanned.end != self.end:
            raise Damaged(self.name, f"the record at byte {scanned.end} fails its checksum")
        return scanned.runs

    def extend(self, key: PartitionKey, positions: Sequence[int], time: int) -> None:
        """Records that have become durable; only in the segment that is being written."""
        run = self.runs.get(key)
        if run is None:
            run = self.runs[key] = first_run(self.header, key)
        run.extend(positions, time)

    def read(self, key: PartitionKey, cursor: int, limit: int) -> list[StoredEvent]:
        """One to `limit` events of the partition from sequence number `cursor` on, which this segment has.

        At most a block's worth, or one event that is longer. Raises Damaged.
        """
        run = self.runs[key]
        if self._file is None:
            self._file = self._files.open(self.name)
        positions = run.positions
        first = cursor - run.first_sequence
        start = positions[first]
        stop = bisect_left(positions, start + BLOCK, first, min(first + limit, len(positions)))
        block = self._file.read(positions[stop - 1] - start + _LAST_RECORD, start)
        events = self._events(block, start, positions[first:stop], cursor)
        if not events and len(block) >= RECORD.size:  # the first is longer than what was read
            block = self._file.read(RECORD.unpack_from(block)[0], start)
            events = self._events(block, start, positions[first : first + 1], cursor)
        if not events:
            raise Damaged(self.name, f"the record at byte {start} fails its checksum")
        return events

    def _events(self, block: bytes, start: int, positions: Sequence[int], sequence: int) -> list[StoredEvent]:
        """The events at `positions`, up to the first that is not sound or not wholly in `block`.

        `block` is what the file holds from `start` on, `sequence` the first event's sequence number.
        """
        base, salt = self.header.base, self.header.salt
        events: list[StoredEvent] = []
        for position in positions:
            at = position - start
            if len(block) - at < RECORD.size:
                break
            size, checksum, _, _, _, found, time = _unpack_record(block, at)
            record = block[at + CHECKED_FROM : at + size]
            if crc32(record, salt) != checksum or found != sequence or len(block) - at < size:
                break
            events.append(StoredEvent(sequence, base + position, time, record[_MESSAGE_FROM:]))
            sequence += 1
        return events

    def unload(self) -> None:
        """Drop the runs and close the file."""
        self._runs = None
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Scanned(NamedTuple):
    """What a scan found: `end` is the position behind the last sound record, `newest` the newest time."""

    runs: Runs
    last: dict[PartitionKey, Record]
    end: int
    newest: int


def first_run(header: SegmentHeader, key: PartitionKey) -> Run:
    """An empty run that continues the numbering of the segments before."""
    before = header.numbering.get(key, START)
    return Run(before.next_sequence, before.newest_time)


def scan_runs(file: File, name: str, header: SegmentHeader, end: int) -> Scanned:
    """Scan up to `end`, or to the first unsound record. Raises Damaged at a gap in the numbering."""
    runs: Runs = {}
    last: dict[PartitionKey, Record] = {}
    reached, newest = header.size, NEVER
    for record in scan(file, header.size, end, header.salt):
        run = runs.get(record.key)
        if run is None:
            run = runs[record.key] = first_run(header, record.key)
        if record.sequence != run.next_sequence:
            raise Damaged(
                name, f"byte {record.position} has sequence number {record.sequence}, not {run.next_sequence}"
            )
        run.extend((record.position,), record.time)
        last[record.key] = record
        reached = record.position + record.size
        newest = max(newest, record.time)
    return Scanned(runs, last, reached, newest)


def write_index(files: Files, segment: Segment, runs: Runs) -> None:
    """Write the index of a closed segment, whose runs are `runs`.

    Neither synced nor needed: one that is missing, or fails its checksum, is made anew from the records.
    """
    content = encode_index(segment.header, segment.end, runs)
    try:
        with closing(files.create(segment.index_name)) as file:
            file.write(content, 0)
    except OSError as error:
        log.warning("index not written", extra={"segment": segment.name, "reason": str(error)})
        with suppress(OSError):
            files.remove(segment.index_name)
