"""What a log finds in its folder: what a crash leaves is mended, what is damaged or too new is refused untouched."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.interfaces import EventHead
from moorage.messaging.event_format import EventTemplate
from moorage.messaging.files import MemoryFiles
from moorage.messaging.journal import Journal
from moorage.messaging.recovery import recover
from moorage.messaging.segment import write_index
from moorage.messaging.segment_format import (
    FIRST_OF_COMMIT,
    Damaged,
    LogUnusable,
    NewerFormat,
    Run,
    encode_record,
)
from moorage.wire.amqp.message import Message

NOW = 1_772_452_800_000_000
KEY = (1, 0)
TEMPLATE = EventTemplate(EventHead(scope=1, partition=0, partition_key="pump-7", annotations=()))


def open_journal(files: MemoryFiles, *, segment_size: int = 1 << 20) -> Journal:
    return Journal(files, NOW, segment_size=segment_size, segment_age=10**15)


def write(journal: Journal, *bodies: bytes) -> None:
    """One commit."""
    partition = journal.partition(KEY)
    commit = journal.commit(NOW)
    commit.fill(deque([([((partition, TEMPLATE), body) for body in bodies], lambda error: None)]))
    journal.writer.write(commit)
    journal.publish(commit)


def bodies(journal: Journal) -> list[bytes]:
    found: list[bytes] = []
    cursor = 0
    while True:
        events, cursor = journal.read(KEY, cursor, 100)
        if not events:
            return found
        assert [event.sequence_number for event in events] == list(range(cursor - len(events), cursor))
        found += [Message.decode(event.message).payload for event in events]


def snapshot(files: MemoryFiles) -> dict[str, bytes]:
    return {name: content(files, name) for name in files.names()}


def content(files: MemoryFiles, name: str) -> bytes:
    file = files.open(name)
    return file.read(file.size(), 0)


def restore(names: dict[str, bytes]) -> MemoryFiles:
    files = MemoryFiles()
    for name, data in names.items():
        files.create(name).write(data, 0)
    return files


COMMITS = [[b"a", b"b" * 300], [b"c"], [b"d", b"e" * 300, b"f"]]


def one_segment() -> tuple[dict[str, bytes], list[int]]:
    """A folder with COMMITS in one segment, and where each of them ends."""
    files = MemoryFiles()
    journal = open_journal(files)
    ends = []
    for commit in COMMITS:
        write(journal, *commit)
        ends.append(journal.size)
    journal.close()
    return snapshot(files), ends


SNAPSHOT, ENDS = one_segment()
[SEGMENT] = SNAPSHOT
EVENTS = [body for commit in COMMITS for body in commit]


def several_segments() -> MemoryFiles:
    """COMMITS in a segment each."""
    files = MemoryFiles()
    journal = open_journal(files, segment_size=1)
    for commit in COMMITS:
        write(journal, *commit)
    journal.close()
    return files


def refuses(files: MemoryFiles, error: type[LogUnusable], match: str) -> None:
    before = snapshot(files)
    with pytest.raises(error, match=match):
        open_journal(files)
    assert snapshot(files) == before


# --- The last segment --------------------------------------------------------------------------------------


@given(size=st.integers(ENDS[0], ENDS[2]))
def test_a_torn_tail_is_cut_off(size: int) -> None:
    """Wherever the last write ends: the whole records in front are kept, and new ones follow them."""
    files = restore(SNAPSHOT)
    files.open(SEGMENT).truncate(size)
    journal = open_journal(files)
    kept = bodies(journal)
    assert kept == EVENTS[: len(kept)]
    assert len(kept) >= sum(len(commit) for commit, end in zip(COMMITS, ENDS, strict=True) if end <= size)
    assert files.open(SEGMENT).size() == journal.size
    write(journal, b"next")
    assert bodies(open_journal(files)) == [*kept, b"next"]


@given(position=st.integers(0, ENDS[2] - 1), flip=st.integers(1, 255))
def test_no_changed_byte_is_ever_read(position: int, flip: int) -> None:
    """In the last commit it is cut off as torn, anywhere before it is damage."""
    files = restore(SNAPSHOT)
    file = files.open(SEGMENT)
    [byte] = file.read(1, position)
    file.write(bytes([byte ^ flip]), position)
    if position < ENDS[1]:
        refuses(files, LogUnusable, SEGMENT)
    else:
        kept = bodies(open_journal(files))
        assert kept == EVENTS[: len(kept)]
        assert 3 <= len(kept) < 6


@given(garbage=st.binary(max_size=2000))
def test_garbage_behind_the_last_commit_is_cut_off(garbage: bytes) -> None:
    files = restore(SNAPSHOT)
    files.open(SEGMENT).write(garbage, ENDS[2])
    assert bodies(open_journal(files)) == EVENTS
    assert snapshot(files) == SNAPSHOT


def test_a_hole_in_the_last_commit_is_no_damage() -> None:
    """Without a sync a disk may write the end of a commit and not its start."""
    files = restore(SNAPSHOT)
    files.open(SEGMENT).write(bytes(50), ENDS[1])
    assert bodies(open_journal(files)) == [b"a", b"b" * 300, b"c"]


def test_a_payload_that_looks_like_a_commit_proves_nothing() -> None:
    files = restore(SNAPSHOT)
    journal = open_journal(files)
    message = TEMPLATE.message(7, bytes(50), 7, b"")
    write(journal, encode_record(bytes(6), FIRST_OF_COMMIT, 7, NOW, message, 0))
    files.open(SEGMENT).write(bytes(8), ENDS[2])
    assert bodies(open_journal(files)) == EVENTS


def test_the_numbering_may_have_no_gap() -> None:
    """Sound records that are not in their place were never written so."""
    files = restore(SNAPSHOT)
    whole = content(files, SEGMENT)
    files.create(SEGMENT).write(whole[: ENDS[0]] + whole[ENDS[1] :], 0)
    refuses(files, Damaged, "sequence number 3, not 2")


# --- Several segments --------------------------------------------------------------------------------------


def test_segments_are_read_as_one_log() -> None:
    files = several_segments()
    assert len([name for name in files.names() if name.endswith(".segment")]) == 4
    assert bodies(open_journal(files)) == EVENTS


def test_a_missing_index_is_made_anew() -> None:
    files = several_segments()
    open_journal(files)
    expected = snapshot(files)
    for name in files.names():
        if name.endswith(".index"):
            files.remove(name)
    assert bodies(open_journal(files)) == EVENTS
    assert snapshot(files) == expected


@given(data=st.data())
def test_a_torn_index_is_made_anew(data: st.DataObject) -> None:
    files = several_segments()
    open_journal(files)
    for name in files.names():
        if name.endswith(".index"):
            file = files.open(name)
            file.truncate(data.draw(st.integers(0, file.size() - 1)))
    assert bodies(open_journal(files)) == EVENTS


def test_a_missing_segment_is_damage() -> None:
    files = several_segments()
    files.remove(sorted(name for name in files.names() if name.endswith(".segment"))[1])
    refuses(files, Damaged, "a segment behind it is missing")


def test_a_shortened_segment_is_damage() -> None:
    files = several_segments()
    file = files.open(sorted(files.names())[-2])
    file.truncate(file.size() - 1)
    refuses(files, Damaged, "of [0-9]+")


def test_a_renamed_segment_is_damage() -> None:
    files = restore(SNAPSHOT)
    files.rename(SEGMENT, "00000000000000000001.segment")
    refuses(files, Damaged, "its header is that of 00000000000000000000")


def test_a_bad_record_in_a_closed_segment_without_index_is_damage() -> None:
    files = several_segments()
    second = sorted(name for name in files.names() if name.endswith(".segment"))[1]
    file = files.open(second)
    file.write(b"\xff", file.size() - 1)
    refuses(files, Damaged, f"{second}.*fails its checksum.*restore the log's folder from a backup")


def test_a_bad_record_in_a_closed_segment_is_not_read() -> None:
    files = several_segments()
    open_journal(files)  # makes the indexes
    third = sorted(name for name in files.names() if name.endswith(".segment"))[2]
    file = files.open(third)
    file.write(b"\xff", file.size() - 1)
    journal = open_journal(files)
    assert len(journal.read(KEY, 0, 100)[0]) == 2
    with pytest.raises(Damaged):
        journal.read(KEY, 2, 1)
    assert len(journal.read(KEY, 3, 9)[0]) == 3


def test_an_index_that_leads_to_another_record_is_not_believed() -> None:
    files = several_segments()
    first = recover(files).segments[1]
    [run] = first.runs.values()
    swapped = Run(run.first_sequence, NOW, [*reversed(run.positions)], run.marks)
    write_index(files, first, {KEY: swapped})
    with pytest.raises(Damaged):
        bodies(open_journal(files))


def test_what_lies_behind_the_end_of_a_closed_segment_is_no_part_of_the_log() -> None:
    """A sync failed there, and the truncation did not reach the disk either."""
    files = several_segments()
    for name in sorted(files.names())[:-1]:
        if name.endswith(".segment"):
            file = files.open(name)
            file.write(content(files, name)[-80:], file.size())
    assert bodies(open_journal(files)) == EVENTS


def test_leftovers_are_removed() -> None:
    files = restore(SNAPSHOT)
    files.create("00000000000000000999.segment.new")
    files.create("00000000000000000999.index")
    files.create("lock")
    assert bodies(open_journal(files)) == EVENTS
    assert sorted(files.names()) == [SEGMENT, "lock"]


# --- Formats to come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".segment", ".index"])
def test_a_newer_format_is_refused(suffix: str) -> None:
    files = several_segments()
    open_journal(files)
    name = sorted(name for name in files.names() if name.endswith(suffix))[1]
    files.open(name).write(b"\x00\x02", 8)
    refuses(files, NewerFormat, f"{name} has format 2, this release reads up to 1: start the newer release")


def test_a_file_of_another_kind_is_refused() -> None:
    files = restore(SNAPSHOT)
    files.open(SEGMENT).write(b"SQLite", 0)
    refuses(files, Damaged, "does not begin like a file of the log")
