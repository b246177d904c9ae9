"""The journal: one numbering and one run of bytes for all hubs and partitions, cut into segments.

No threads and no event loop in here, but two sides that may be on different threads: `JournalWriter` puts
commits on the disk, everything else belongs to the one thread that owns the journal. The way of a commit:

    commit = journal.commit(now)      where it will stand
    commit.fill(appends)              numbers, times and offsets are given, records encoded
    writer.write(commit)              durable, or OSError
    journal.publish(commit)           readers see it; after an error journal.discard(commit): it never was

and there is never more than one between `commit` and `publish` or `discard`.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress

from moorage.errors import Invalid
from moorage.interfaces import Done, PartitionState, Start, StartProperty, StoredEvent
from moorage.messaging.event_format import EventTemplate, stamp
from moorage.messaging.files import File, Files
from moorage.messaging.recovery import NEW_SUFFIX, recover
from moorage.messaging.segment import Segment
from moorage.messaging.segment_format import (
    FIRST_OF_COMMIT,
    MARK_EVERY,
    NEVER,
    START,
    Damaged,
    Numbering,
    PartitionKey,
    SegmentHeader,
    encode_address,
    encode_header,
    encode_record,
)

COMMIT_SIZE = 4 * 1024 * 1024  # bytes after which further appends wait for the next commit
READ_SIZE = 1024 * 1024  # bytes of messages after which one read ends
OPEN_SEGMENTS = 16  # closed segments whose index and file are held ready


class Partition:
    """Where one partition stands: durably, and with the commit that is under way."""

    __slots__ = ("address", "durable", "key", "next_sequence", "staged")

    def __init__(self, key: PartitionKey, durable: Numbering) -> None:
        self.key = key
        self.address = encode_address(key)
        self.durable = durable
        self.next_sequence = durable.next_sequence
        self.staged: list[int] = []  # positions of the records under way


PreparedEvent = tuple[Partition, EventTemplate]
Append = tuple[Sequence[tuple[PreparedEvent, bytes]], Done]


class Commit:
    """One write: the records of many appends, numbered, not yet durable.

    `begins` tells that its segment is a new one.
    """

    def __init__(self, segment: Segment, *, begins: bool, time: int) -> None:
        self.segment = segment
        self.begins = begins
        self.position = segment.end
        self.time = time
        self.data = b""
        self.events = 0
        self.touched: list[Partition] = []
        self.dones: list[Done] = []

    @property
    def is_empty(self) -> bool:
        """Nothing to write."""
        return not (self.data or self.begins)

    def fill(self, appends: deque[Append]) -> None:
        """Take appends from the front, until none is left or the commit is large enough."""
        base, salt, time = self.segment.header.base, self.segment.header.salt, self.time
        position, full = self.position, self.position + COMMIT_SIZE
        flags = FIRST_OF_COMMIT
        stamped = stamp(time)
        records: list[bytes] = []
        while appends and position < full:
            events, done = appends.popleft()
            self.dones.append(done)
            for (partition, template), body in events:
                sequence = partition.next_sequence
                staged = partition.staged
                if not staged:
                    self.touched.append(partition)
                message = template.message(sequence, stamped, base + position, body)
                record = encode_record(partition.address, flags, sequence, time, message, salt)
                staged.append(position)
                partition.next_sequence = sequence + 1
                records.append(record)
                position += len(record)
                flags = 0
        self.data = b"".join(records)
        self.events = len(records)


class JournalWriter:
    """The writing side: the file of the last segment. The calls may be made on a thread of their own."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._file: File | None = None
        self._doomed: deque[Segment] = deque()
        self.can_continue = False
        """Whether the next commit may go where the last segment ends; otherwise it has to begin a new one."""

    def resume(self, segment: Segment) -> None:
        self._file = self._files.open(segment.name)
        self.can_continue = True

    def write(self, commit: Commit) -> None:
        """Durable on return. After OSError nothing of `commit` was kept.

        When a write fails (the disk is full) it is taken back. When a sync fails the kernel may have dropped
        what it could not write and call the pages clean, so that a second sync would succeed: the segment is
        given up at its last durable byte and never synced again.
        """
        self.can_continue = False  # unless the end of the file is known again
        if commit.begins:
            self._begin(commit.segment)
        file = self._file
        if file is None:
            raise RuntimeError("the segment to go on with is not open")
        try:
            file.write(commit.data, commit.position)
        except OSError:
            with suppress(OSError):
                file.truncate(commit.position)
                file.sync()
                self.can_continue = not commit.begins
            raise
        try:
            file.sync()
        except OSError:
            with suppress(OSError):
                file.truncate(commit.position)
            raise
        self.can_continue = True

    def _begin(self, segment: Segment) -> None:
        """A segment file appears under its name only when its header is durable."""
        self.close()
        name = segment.name + NEW_SUFFIX
        file = self._files.create(name)
        try:
            with closing(file):
                file.write(encode_header(segment.header), 0)
                file.sync()
            self._files.rename(name, segment.name)
        except OSError:
            with suppress(OSError):
                self._files.remove(name)
            raise
        self._files.sync()
        self._file = self._files.open(segment.name)

    def remove(self, segments: Sequence[Segment]) -> None:
        """Remove the files, oldest first and each before the next, so that never a gap is left.

        What cannot be removed, and all after it, is tried again at the next call. Raises OSError.
        """
        self._doomed.extend(segments)
        while self._doomed:
            segment = self._doomed[0]
            with suppress(FileNotFoundError):
                self._files.remove(segment.name)
            self._files.sync()
            with suppress(FileNotFoundError):
                self._files.remove(segment.index_name)
            self._doomed.popleft()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Journal:
    """The owner's side: numbering, finding, reading, retention."""

    def __init__(self, files: Files, now: int, *, segment_size: int, segment_age: int) -> None:
        """Opens what is there. `segment_age` is in microseconds. Raises LogUnusable, OSError."""
        self._files = files
        self._segment_size = segment_size
        self._segment_age = segment_age
        recovered = recover(files)
        self._segments = recovered.segments
        self._partitions = {key: Partition(key, numbering) for key, numbering in recovered.numbering.items()}
        self._ready: dict[Segment, None] = {}  # closed ones whose index and file are at hand, last used last
        self.writer = JournalWriter(files)
        if self._segments:
            self.writer.resume(self._segments[-1])
        else:
            first = self.commit(now)
            self.writer.write(first)
            self.publish(first)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.end for segment in self._segments)

    def close(self) -> None:
        self.writer.close()
        for segment in self._segments:
            segment.unload()

    def partition(self, key: PartitionKey) -> Partition:
        partition = self._partitions.get(key)
        if partition is None:
            partition = self._partitions[key] = Partition(key, START)
        return partition

    # --- Writing ---

    def commit(self, now: int) -> Commit:
        """An empty commit at the end of the journal, in a new segment when it is time for one."""
        last = self._segments[-1] if self._segments else None
        if (
            last is None
            or not self.writer.can_continue
            or last.end >= self._segment_size
            or self.is_aged(now)
        ):
            segment, begins = self._new_segment(now, last), True
        else:
            segment, begins = last, False
        # Whole milliseconds, as the events show them: who reads on from a time shown must not see it again.
        return Commit(segment, begins=begins, time=now - now % 1000)

    def is_aged(self, now: int) -> bool:
        """Whether the last segment has events and is due to be closed, so that it can expire one day.

        Also when it was created later than `now`: the clock has been set back, and it might never be old.
        """
        last = self._segments[-1]
        return not last.is_empty and not 0 <= now - last.header.created < self._segment_age

    def _new_segment(self, now: int, last: Segment | None) -> Segment:
        header = SegmentHeader(
            base=last.header.base + last.end if last else 0,
            created=now,
            salt=int.from_bytes(os.urandom(4)),
            newest_before=last.newest if last else NEVER,
            numbering={
                key: partition.durable
                for key, partition in self._partitions.items()
                if partition.durable.next_sequence
            },
        )
        return Segment(self._files, header, end=header.size, runs={})

    def publish(self, commit: Commit) -> Segment | None:
        """Show readers what has become durable. Returns the segment that this has closed, if any."""
        segment = commit.segment
        closed = self._segments[-1] if commit.begins and self._segments else None
        if commit.begins:
            self._segments.append(segment)
        if closed:
            self._at_hand(closed)
        for partition in commit.touched:
            segment.extend(partition.key, partition.staged, commit.time)
            partition.durable = Numbering(
                partition.next_sequence,
                segment.header.base + partition.staged[-1],
                commit.time,
                max(partition.durable.newest_time, commit.time),
            )
            partition.staged.clear()
            segment.newest = max(segment.newest, commit.time)
        segment.end += len(commit.data)
        return closed

    def discard(self, commit: Commit) -> None:
        """Take the numbers back that the events of `commit` were given."""
        for partition in commit.touched:
            partition.next_sequence = partition.durable.next_sequence
            partition.staged.clear()

    # --- Reading ---

    def state(self, key: PartitionKey) -> PartitionState:
        partition = self._partitions.get(key)
        durable = partition.durable if partition else START
        return PartitionState(
            begin_sequence_number=self._begin(key),
            last_sequence_number=durable.next_sequence - 1,
            last_offset=durable.last_offset,
            last_enqueued_time=None if durable.last_time == NEVER else durable.last_time,
        )

    def read(self, key: PartitionKey, cursor: int, limit: int) -> tuple[list[StoredEvent], int]:
        """Up to `limit` events, fewer when they are large, and the cursor behind them.

        Raises Damaged, OSError.
        """
        cursor = max(cursor, self._begin(key))
        end = self._end(key)
        events: list[StoredEvent] = []
        size = 0
        while cursor < end and len(events) < limit and size < READ_SIZE:
            try:
                found = self._segment_with(key, cursor).read(key, cursor, limit - len(events))
            except Damaged:
                if events:
                    break  # these first
                raise
            events += found
            cursor += len(found)
            size += sum(len(event.message) for event in found)
        return events, cursor

    def seek(self, key: PartitionKey, start: Start) -> int:
        """The sequence number to read from. Raises Invalid when `start` is past the end, Damaged, OSError."""
        wanted = start.value if start.inclusive else start.value + 1  # the first that counts
        match start.property:
            case StartProperty.FIRST:
                return self._begin(key)
            case StartProperty.LATEST:
                return self._end(key)
            case StartProperty.SEQUENCE_NUMBER:
                return self._seek_sequence(key, wanted)
            case StartProperty.OFFSET:
                return self._seek_offset(key, wanted)
            case StartProperty.ENQUEUED_TIME:
                return self._seek_time(key, wanted)

    def _begin(self, key: PartitionKey) -> int:
        return self._segments[0].header.first_sequence(key)

    def _end(self, key: PartitionKey) -> int:
        partition = self._partitions.get(key)
        return partition.durable.next_sequence if partition else 0

    def _seek_sequence(self, key: PartitionKey, sequence: int) -> int:
        end = self._end(key)
        if sequence > end:
            raise Invalid("sequence number", f"the last one of the partition is {end - 1}")
        return max(sequence, self._begin(key))

    def _seek_offset(self, key: PartitionKey, offset: int) -> int:
        last = self.state(key).last_offset
        if offset > last + 1 and offset > 1:  # 0 is before the first event, as it may be on Azure
            raise Invalid("offset", f"the last one of the partition is {last}")
        index = bisect_right(self._segments, offset, key=lambda segment: segment.header.base) - 1
        if index < 0:
            return self._begin(key)
        segment = self._at_hand(self._segments[index])
        run = segment.runs.get(key)
        if run is None:
            return segment.header.first_sequence(key)
        return run.first_sequence + bisect_left(run.positions, offset - segment.header.base)

    def _seek_time(self, key: PartitionKey, time: int) -> int:
        count = len(self._segments)
        if self._newest_by(key, count) < time:
            return self._end(key)
        # The segment in which the first event of `time` or later came.
        index = bisect_left(range(1, count + 1), time, key=lambda number: self._newest_by(key, number))
        segment = self._segments[index]
        if self._newest_by(key, index) >= time:
            return segment.header.first_sequence(key)  # it came before the oldest event kept
        cursor = self._at_hand(segment).runs[key].before_time(time)
        while cursor < self._end(key):
            events, cursor = self.read(key, cursor, MARK_EVERY)
            for event in events:
                if event.enqueued_time >= time:
                    return event.sequence_number
        return cursor

    def _newest_by(self, key: PartitionKey, count: int) -> int:
        """The newest time of the partition, up to and with the first `count` segments."""
        if count < len(self._segments):
            return self._segments[count].header.numbering.get(key, START).newest_time
        partition = self._partitions.get(key)
        return partition.durable.newest_time if partition else NEVER

    def _segment_with(self, key: PartitionKey, sequence: int) -> Segment:
        last = self._segments[-1]
        if sequence >= last.header.first_sequence(key):
            return last
        index = bisect_right(self._segments, sequence, key=lambda segment: segment.header.first_sequence(key))
        return self._at_hand(self._segments[index - 1])

    def _at_hand(self, segment: Segment) -> Segment:
        """`segment`, noted as just used; the closed one that was not used for longest is unloaded."""
        if segment is not self._segments[-1]:
            self._ready.pop(segment, None)
            self._ready[segment] = None
            if len(self._ready) > OPEN_SEGMENTS:
                longest = next(iter(self._ready))
                del self._ready[longest]
                longest.unload()
        return segment

    # --- Retention ---

    def expire(self, now: int, *, retention: int, max_size: int | None) -> list[Segment]:
        """Drop the oldest segments: past `retention` (microseconds), or too much for `max_size` (bytes).

        Returns them, for the writer to remove their files. The last segment stays.
        """
        dropped = []
        excess = 0 if max_size is None else self.size - max_size
        while len(self._segments) > 1 and (excess > 0 or self._oldest_time(now) <= now - retention):
            oldest = self._segments.pop(0)
            excess -= oldest.end
            self._ready.pop(oldest, None)
            oldest.unload()
            dropped.append(oldest)
        return dropped

    def _oldest_time(self, now: int) -> int:
        """From when the oldest segment's age counts: its newest event.

        A clock that was ahead and has been set right must not keep it for ever: then it counts from its end.
        """
        oldest, following = self._segments[0], self._segments[1]
        return oldest.newest if oldest.newest <= now else following.header.created
