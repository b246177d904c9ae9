"""Finding, reading and retention across segments, held against a plain list of all that was written."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.interfaces import EventHead, PartitionState, Start, StartProperty
from moorage.messaging.event_format import EventTemplate
from moorage.messaging.files import File, MemoryFiles
from moorage.messaging.journal import OPEN_SEGMENTS, READ_SIZE, Journal
from moorage.messaging.segment_format import PartitionKey
from moorage.wire.amqp.message import Message

NOW = 1_772_452_800_000_000
SECOND = 1_000_000
KEYS: list[PartitionKey] = [(1, 0), (1, 1), (2, 0)]
TEMPLATE = EventTemplate(EventHead(scope=1, partition=0, partition_key="pump-7", annotations=()))


def open_journal(files: MemoryFiles, *, segment_size: int = 2000, segment_age: int = 10**15) -> Journal:
    return Journal(files, NOW, segment_size=segment_size, segment_age=segment_age)


def write(journal: Journal, events: list[tuple[PartitionKey, bytes]], now: int = NOW) -> None:
    """One commit."""
    commit = journal.commit(now)
    prepared = [((journal.partition(key), TEMPLATE), body) for key, body in events]
    commit.fill(deque([(prepared, lambda error: None)]))
    journal.writer.write(commit)
    journal.publish(commit)


@dataclass
class Written:
    """The events of one partition as they were appended; `begin` is the first that retention has left."""

    times: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    begin: int = 0


class Model:
    def __init__(self) -> None:
        self.written = {key: Written() for key in KEYS}

    def add(self, events: list[tuple[PartitionKey, bytes]], now: int) -> None:
        for key, body in events:
            self.written[key].times.append(now)
            self.written[key].bodies.append(body)

    def matches(self, journal: Journal) -> None:
        for key, written in self.written.items():
            events, cursor = [], 0
            while cursor < len(written.bodies):
                found, cursor = journal.read(key, cursor, 5)
                events += found
            assert [event.sequence_number for event in events] == list(
                range(written.begin, len(written.bodies))
            )
            assert [Message.decode(event.message).payload for event in events] == written.bodies[
                written.begin :
            ]
            assert [event.enqueued_time for event in events] == written.times[written.begin :]
            state = journal.state(key)
            assert state.begin_sequence_number == written.begin
            assert state.last_sequence_number == len(written.bodies) - 1
            assert state.last_enqueued_time == (written.times[-1] if written.times else None)
            if events:
                assert state.last_offset == events[-1].offset
            self._seeks_match(journal, key, {event.sequence_number: event.offset for event in events})

    def _seeks_match(self, journal: Journal, key: PartitionKey, offsets: dict[int, int]) -> None:
        written = self.written[key]
        for time in {*written.times, NOW - 1, NOW + 10**9}:
            late = [number for number, found in enumerate(written.times) if found >= time]
            expected = max(late[0] if late else len(written.times), written.begin)
            assert journal.seek(key, Start(StartProperty.ENQUEUED_TIME, time, inclusive=True)) == expected
            assert journal.seek(key, Start(StartProperty.ENQUEUED_TIME, time - 1)) == expected
        for number, offset in offsets.items():
            assert journal.seek(key, Start(StartProperty.OFFSET, offset)) == number + 1
            assert journal.seek(key, Start(StartProperty.OFFSET, offset, inclusive=True)) == number
            assert journal.seek(key, Start(StartProperty.SEQUENCE_NUMBER, number)) == number + 1
        assert journal.seek(key, Start(StartProperty.OFFSET, 0)) == written.begin
        assert journal.seek(key, Start(StartProperty.SEQUENCE_NUMBER, -1)) == written.begin


commits = st.lists(
    st.tuples(
        st.integers(-5, 20),  # seconds since the one before: clocks are set back too
        st.lists(
            st.tuples(st.sampled_from(KEYS), st.sampled_from([b"", b"x" * 40, b"x" * 900])),
            min_size=1,
            max_size=8,
        ),
    ),
    max_size=20,
)


@settings(max_examples=60)
@given(
    commits=commits, retention=st.none() | st.integers(0, 100), max_size=st.none() | st.integers(0, 20_000)
)
def test_a_journal_holds_what_was_written(
    commits: list[tuple[int, list[tuple[PartitionKey, bytes]]]], retention: int | None, max_size: int | None
) -> None:
    files, model, now = MemoryFiles(), Model(), NOW
    journal = open_journal(files)
    for step, events in commits:
        now += step * SECOND
        write(journal, events, now)
        model.add(events, now)
    model.matches(journal)
    kept_for = 10**15 if retention is None else retention * SECOND
    dropped = journal.expire(now, retention=kept_for, max_size=max_size)
    journal.writer.remove(dropped)
    for key, written in model.written.items():
        written.begin = journal.state(key).begin_sequence_number
    model.matches(journal)
    journal.close()
    model.matches(open_journal(files))


@settings(max_examples=20)
@given(counts=st.lists(st.integers(200, 700), min_size=1, max_size=5), step=st.sampled_from([-3, 1]))
def test_times_are_found_among_many_events(counts: list[int], step: int) -> None:
    journal = open_journal(MemoryFiles(), segment_size=100_000)
    times: list[int] = []
    for number, count in enumerate(counts):
        now = NOW + (number if step > 0 else number % 2 * step) * SECOND
        write(journal, [(KEYS[0], b"")] * count, now)
        times += [now] * count
    for time in set(times):
        assert journal.seek(KEYS[0], Start(StartProperty.ENQUEUED_TIME, time, inclusive=True)) == next(
            number for number, found in enumerate(times) if found >= time
        )


@pytest.mark.parametrize("property", [StartProperty.SEQUENCE_NUMBER, StartProperty.OFFSET])
def test_past_the_end_there_is_no_start(property: StartProperty) -> None:
    journal = open_journal(MemoryFiles())
    write(journal, [(KEYS[0], b"a"), (KEYS[1], b"b")])
    state = journal.state(KEYS[0])
    last = state.last_offset if property is StartProperty.OFFSET else state.last_sequence_number
    assert journal.seek(KEYS[0], Start(property, last)) == 1
    with pytest.raises(Invalid, match=f"the last one of the partition is {last}"):
        journal.seek(KEYS[0], Start(property, last + 1))


# --- Reading without holding much --------------------------------------------------------------------------


def test_one_read_ends_after_a_megabyte() -> None:
    journal = open_journal(MemoryFiles(), segment_size=1 << 26)
    write(journal, [(KEYS[0], b"x" * 100_000)] * 60)
    events, cursor = journal.read(KEYS[0], 0, 1000)
    assert len(events) == cursor < 60
    assert READ_SIZE <= sum(len(event.message) for event in events) < 2 * READ_SIZE


class CountingFiles(MemoryFiles):
    """Counts the files that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open_files = 0

    def open(self, name: str) -> File:
        return CountedFile(self, super().open(name))

    def create(self, name: str) -> File:
        return CountedFile(self, super().create(name))


class CountedFile:
    def __init__(self, files: CountingFiles, file: File) -> None:
        files.open_files += 1
        self._files = files
        self.size, self.read, self.write = file.size, file.read, file.write
        self.truncate, self.sync = file.truncate, file.sync

    def close(self) -> None:
        self._files.open_files -= 1


def test_few_segments_are_open_at_once() -> None:
    files = CountingFiles()
    journal = open_journal(files, segment_size=1)
    for number in range(60):
        write(journal, [(KEYS[0], b"%d" % number)])
    for cursor in [*range(60), *range(59, -1, -1)]:
        [event], _ = journal.read(KEYS[0], cursor, 1)
        assert Message.decode(event.message).payload == b"%d" % cursor
        assert files.open_files <= OPEN_SEGMENTS + 2  # the last one is open twice: to write, to read
    journal.expire(NOW, retention=10**15, max_size=1)
    journal.close()
    assert files.open_files == 0


# --- Retention ---------------------------------------------------------------------------------------------


def remaining(journal: Journal) -> int:
    state = journal.state(KEYS[0])
    return state.last_sequence_number + 1 - state.begin_sequence_number


def test_segments_go_when_their_newest_event_is_past_retention() -> None:
    files = MemoryFiles()
    journal = open_journal(files, segment_size=1)
    for number in range(5):
        write(journal, [(KEYS[0], b"x")], NOW + number * SECOND)
    for late, left in ((9, 5), (10, 4), (12, 2), (13, 1), (99, 1)):
        dropped = journal.expire(NOW + late * SECOND, retention=10 * SECOND, max_size=None)
        journal.writer.remove(dropped)
        assert remaining(journal) == left
    assert remaining(open_journal(files)) == 1


def test_segments_go_while_all_are_too_large() -> None:
    files = MemoryFiles()
    journal = open_journal(files, segment_size=1000)
    for _ in range(20):
        write(journal, [(KEYS[0], b"x" * 400)])
    journal.writer.remove(journal.expire(NOW, retention=10**15, max_size=5000))
    assert 3000 < journal.size <= 5000
    assert sum(files.open(name).size() for name in files.names() if name.endswith(".segment")) == journal.size


def test_numbering_outlives_all_events() -> None:
    """An aged segment is closed by a commit without events, so that the last events can expire too."""
    files = MemoryFiles()
    journal = open_journal(files, segment_age=60 * SECOND)
    write(journal, [(KEYS[0], b"a"), (KEYS[0], b"b"), (KEYS[1], b"c")])
    before = journal.state(KEYS[0])
    later = NOW + 60 * SECOND
    assert not journal.is_aged(later - 1)
    assert journal.is_aged(later)
    write(journal, [], later)
    journal.writer.remove(journal.expire(later, retention=30 * SECOND, max_size=None))
    for log in (journal, open_journal(files)):
        assert log.state(KEYS[0]) == PartitionState(2, 1, before.last_offset, NOW)
        assert log.read(KEYS[0], 0, 10) == ([], 2)
        assert log.seek(KEYS[0], Start(StartProperty.ENQUEUED_TIME, NOW, inclusive=True)) == 2
    reopened = open_journal(files)
    write(reopened, [(KEYS[0], b"d")], later)
    [event], _ = reopened.read(KEYS[0], 0, 10)
    assert event.sequence_number == 2
    assert event.offset > before.last_offset


def test_a_clock_that_was_ahead_does_not_keep_events_for_ever() -> None:
    year = 365 * 86_400 * SECOND
    journal = open_journal(MemoryFiles(), segment_size=1)
    write(journal, [(KEYS[0], b"from next year")], NOW + year)
    write(journal, [(KEYS[0], b"now")], NOW)
    write(journal, [(KEYS[0], b"later")], NOW + SECOND)
    journal.expire(NOW + 5 * SECOND, retention=10 * SECOND, max_size=None)
    assert remaining(journal) == 3
    journal.expire(NOW + 11 * SECOND, retention=10 * SECOND, max_size=None)
    assert remaining(journal) == 1


def test_a_segment_from_a_clock_that_was_ahead_is_closed() -> None:
    journal = open_journal(MemoryFiles(), segment_age=60 * SECOND)
    write(journal, [(KEYS[0], b"x")])
    assert journal.is_aged(NOW - SECOND)
