"""The bytes of the journal's files: what is written comes back, and what was changed is not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorage.messaging.files import MemoryFile
from moorage.messaging.segment_format import (
    FIRST_OF_COMMIT,
    MARK_EVERY,
    NEVER,
    Damaged,
    NewerFormat,
    Numbering,
    PartitionKey,
    Record,
    Run,
    SegmentHeader,
    commit_follows,
    encode_address,
    encode_header,
    encode_index,
    encode_record,
    read_header,
    read_index,
    scan,
)

SALT = 0xC0FFEE

i64 = st.integers(-(2**63), 2**63 - 1)
places = st.integers(0, 2**63 - 1)
keys = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
headers = st.builds(
    SegmentHeader,
    base=places,
    created=i64,
    salt=st.integers(0, 2**32 - 1),
    newest_before=i64,
    numbering=st.dictionaries(keys, st.builds(Numbering, places, i64, i64, i64), max_size=6),
)
HEADER = SegmentHeader(0, 0, SALT, NEVER, {(1, 0): Numbering(7, 600, 5, 5)})


def damage(content: bytes, position: int, flip: int) -> MemoryFile:
    changed = bytearray(content)
    changed[position] ^= flip
    return MemoryFile(bytes(changed))


# --- Headers -----------------------------------------------------------------------------------------------


@given(header=headers, behind=st.binary(max_size=50))
def test_a_header_comes_back(header: SegmentHeader, behind: bytes) -> None:
    encoded = encode_header(header)
    assert len(encoded) == header.size
    assert read_header(MemoryFile(encoded + behind), "x") == header


@given(position=st.integers(0, len(encode_header(HEADER)) - 1), flip=st.integers(1, 255))
def test_a_changed_header_is_refused(position: int, flip: int) -> None:
    with pytest.raises((Damaged, NewerFormat)):
        read_header(damage(encode_header(HEADER), position, flip), "x")


@given(size=st.integers(0, len(encode_header(HEADER)) - 1))
def test_a_header_cut_short_is_refused(size: int) -> None:
    with pytest.raises(Damaged):
        read_header(MemoryFile(encode_header(HEADER)[:size]), "x")


def test_a_newer_version_is_named() -> None:
    content = bytearray(encode_header(HEADER))
    content[8:10] = b"\x00\x02"
    with pytest.raises(NewerFormat, match=r"00\.segment has format 2, this release reads up to 1"):
        read_header(MemoryFile(bytes(content)), "00.segment")


# --- Records -----------------------------------------------------------------------------------------------

records = st.tuples(keys, st.integers(0, 2**16 - 1), places, i64, st.binary(max_size=400))
RecordFields = tuple[PartitionKey, int, int, int, bytes]


def encode(fields: RecordFields, salt: int = SALT) -> bytes:
    key, flags, sequence, time, message = fields
    return encode_record(encode_address(key), flags, sequence, time, message, salt)


@given(written=st.lists(records, max_size=8), start=st.integers(0, 20), behind=st.binary(max_size=40))
def test_a_scan_gives_every_record_up_to_the_first_bad_one(
    written: list[RecordFields], start: int, behind: bytes
) -> None:
    encoded = [encode(fields) for fields in written]
    file = MemoryFile(bytes(start) + b"".join(encoded) + behind)
    position = start
    expected = []
    for (key, flags, sequence, time, _), record in zip(written, encoded, strict=True):
        expected.append(Record(position, len(record), key, flags, sequence, time))
        position += len(record)
    assert list(scan(file, start, file.size(), SALT)) == expected


@given(fields=records, flip=st.integers(1, 255), place=st.floats(0, 1, exclude_max=True))
def test_a_changed_record_is_not_sound(fields: RecordFields, flip: int, place: float) -> None:
    encoded = encode(fields)
    file = damage(encoded, int(place * len(encoded)), flip)
    assert list(scan(file, 0, file.size(), SALT)) == []


@given(fields=records, salt=st.integers(0, 2**32 - 1))
def test_a_record_of_another_segment_is_not_sound(fields: RecordFields, salt: int) -> None:
    assume(salt != SALT)
    encoded = encode(fields, salt)
    assert list(scan(MemoryFile(encoded), 0, len(encoded), SALT)) == []


@pytest.mark.parametrize("size", [255_000, 262_100, 300_000])
def test_records_longer_than_a_block_are_scanned(size: int) -> None:
    encoded = [encode(((1, 0), 0, number, 0, bytes(size))) for number in range(5)]
    file = MemoryFile(b"".join(encoded))
    assert [record.sequence for record in scan(file, 0, file.size(), SALT)] == [0, 1, 2, 3, 4]


MESSAGE = b"\x00\x53\x72\xd1 and so on"


@pytest.mark.parametrize(
    ("flags", "salt", "follows"),
    [(FIRST_OF_COMMIT, SALT, True), (0, SALT, False), (FIRST_OF_COMMIT, SALT + 1, False)],
)
@pytest.mark.parametrize("between", [b"", MESSAGE, bytes(1000), MESSAGE * 20])
def test_a_later_commit_is_found_behind_a_bad_record(
    flags: int, salt: int, follows: bool, between: bytes
) -> None:
    later = encode(((1, 0), flags, 8, 0, MESSAGE), salt)
    file = MemoryFile(b"bad" + between + encode(((1, 0), FIRST_OF_COMMIT, 7, 0, b"?")) + later)
    assert commit_follows(file, 0, file.size(), SALT) is follows


# --- Runs and the index ------------------------------------------------------------------------------------

batches = st.lists(st.tuples(st.integers(1, 700), st.integers(-50, 50)), max_size=8)


def grown(batches: list[tuple[int, int]]) -> tuple[Run, list[int]]:
    """A run, and the time of each of its records."""
    run, times = Run(100, -10), list[int]()
    for count, time in batches:
        start = len(times)
        run.extend(range(start, start + count), time)
        times += [time] * count
    return run, times


@given(batches=batches)
def test_marks_hold_the_newest_time_so_far(batches: list[tuple[int, int]]) -> None:
    run, times = grown(batches)
    expected = [max([-10, *times[:index]]) for index in range(0, len(times), MARK_EVERY)]
    assert list(run.marks) == expected
    assert run.newest_time == max([-10, *times])


@given(batches=batches, time=st.integers(-60, 60))
def test_a_time_is_looked_for_at_or_before_its_first_event(batches: list[tuple[int, int]], time: int) -> None:
    run, times = grown(batches)
    first = next((index for index, found in enumerate(times) if found >= time), None)
    if first is not None:
        start = run.before_time(time) - run.first_sequence
        assert start <= first
        if time > -10:  # otherwise an event before the run was as late
            assert first - start <= MARK_EVERY


@given(batches=st.dictionaries(keys, batches, max_size=4))
def test_an_index_comes_back(batches: dict[PartitionKey, list[tuple[int, int]]]) -> None:
    runs = {key: grown(of_key)[0] for key, of_key in batches.items()}
    found = read_index(MemoryFile(encode_index(HEADER, 999, runs)), "x", HEADER.base, 999)
    assert found is not None
    assert found.keys() == runs.keys()
    for key, run in runs.items():
        assert found[key].first_sequence == run.first_sequence
        assert found[key].positions == run.positions
        assert found[key].marks == run.marks


INDEX = encode_index(HEADER, 999, {(1, 0): grown([(300, 3), (20, 4)])[0]})


@given(position=st.integers(0, len(INDEX) - 1), flip=st.integers(1, 255))
def test_a_changed_index_is_not_used(position: int, flip: int) -> None:
    file = damage(INDEX, position, flip)
    if position in (8, 9):  # its version
        with pytest.raises(NewerFormat):
            read_index(file, "x", HEADER.base, 999)
    else:
        assert read_index(file, "x", HEADER.base, 999) is None


@given(size=st.integers(0, len(INDEX) - 1))
def test_an_index_cut_short_is_not_used(size: int) -> None:
    assert read_index(MemoryFile(INDEX[:size]), "x", HEADER.base, 999) is None


@pytest.mark.parametrize(("base", "end"), [(1, 999), (0, 1000)])
def test_the_index_of_another_segment_is_not_used(base: int, end: int) -> None:
    assert read_index(MemoryFile(INDEX), "x", base, end) is None
