"""What was acknowledged survives a power cut at any moment.

The log runs on files that note every call. The notes are cut at a random point and the disk is rebuilt as a power cut
there could have left it: all that was synced, and a random part of what was not. A log opened on it must hold
every acknowledged event, in its place, and go on numbering behind it. The same with the syncs taken out must
lose events, or the test would prove nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random

import pytest

from moorage.interfaces import EventHead, Start, StartProperty
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import File, MemoryFile

KEYS = [(1, 0), (1, 1), (2, 0), (70_000, 31)]
SEGMENT_SIZE = 6_000
SECTOR = 512


# --- Notes of what was asked of the disk, and of what was promised ------------------------------------------


@dataclass(frozen=True)
class Write:
    inode: int
    position: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    inode: int
    size: int


@dataclass(frozen=True)
class Sync:
    inode: int


@dataclass(frozen=True)
class Create:
    name: str
    inode: int


@dataclass(frozen=True)
class Rename:
    name: str
    new_name: str


@dataclass(frozen=True)
class Remove:
    name: str


@dataclass(frozen=True)
class SyncFolder:
    pass


@dataclass(frozen=True)
class Promised:
    """All events of the partition before sequence number `end` were acknowledged, or shown to a reader."""

    key: tuple[int, int]
    end: int


@dataclass(frozen=True)
class Expired:
    """Retention has dropped the events of the partition before sequence number `begin`."""

    key: tuple[int, int]
    begin: int


Note = Write | Truncate | Sync | Create | Rename | Remove | SyncFolder | Promised | Expired


@dataclass
class Disk:
    """Names and contents, as they are or as they would be after a power cut."""

    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)


class RecordingFile:
    def __init__(self, files: RecordingFiles, inode: int) -> None:
        self._notes = files.notes
        self._syncs = files.syncs_files
        self._inode = inode
        self._file = files.inodes[inode]

    def size(self) -> int:
        return self._file.size()

    def read(self, size: int, position: int) -> bytes:
        return self._file.read(size, position)

    def write(self, data: bytes, position: int) -> None:
        self._notes.append(Write(self._inode, position, data))
        self._file.write(data, position)

    def truncate(self, size: int) -> None:
        self._notes.append(Truncate(self._inode, size))
        self._file.truncate(size)

    def sync(self) -> None:
        if self._syncs:
            self._notes.append(Sync(self._inode))

    def close(self) -> None:
        pass


class RecordingFiles:
    """Files in memory that note every change and every sync.

    They start from `disk`, as it is after `notes` when these are given: a process that was killed there loses nothing
    of what it had written, but what it had not synced is still not synced.
    """

    def __init__(
        self, disk: Disk, notes: Sequence[Note] = (), *, syncs_files: bool = True, syncs_folder: bool = True
    ) -> None:
        self.notes = list(notes)
        self.syncs_files = syncs_files
        self.syncs_folder = syncs_folder
        now = apply(disk, notes)
        self.names_now = now.names
        self.inodes = {inode: MemoryFile(content) for inode, content in now.contents.items()}

    def lock(self) -> None:
        pass

    def unlock(self) -> None:
        pass

    def names(self) -> list[str]:
        return list(self.names_now)

    def create(self, name: str) -> File:
        inode = max(self.inodes, default=0) + 1
        self.inodes[inode] = MemoryFile()
        self.names_now[name] = inode
        self.notes.append(Create(name, inode))
        return RecordingFile(self, inode)

    def open(self, name: str) -> File:
        if name not in self.names_now:
            raise FileNotFoundError(name)
        return RecordingFile(self, self.names_now[name])

    def rename(self, name: str, new_name: str) -> None:
        self.names_now[new_name] = self.names_now.pop(name)
        self.notes.append(Rename(name, new_name))

    def remove(self, name: str) -> None:
        if name not in self.names_now:
            raise FileNotFoundError(name)
        del self.names_now[name]
        self.notes.append(Remove(name))

    def sync(self) -> None:
        if self.syncs_folder:
            self.notes.append(SyncFolder())


# --- The disk after the cut --------------------------------------------------------------------------------


def cut_power(before: Disk, notes: Sequence[Note], random: Random) -> Disk:
    """What the disk may hold when the power goes after `notes`.

    What was not synced survives in part: of the changes of names a beginning, and of the removals in it any; of the
    changes of each file on its own a beginning, the last one torn at any byte, or any of their sectors.
    """
    disk = Disk(dict(before.names), dict(before.contents))
    renamed: list[Create | Rename | Remove] = []
    changed: dict[int, list[Write | Truncate]] = defaultdict(list)
    for note in notes:
        match note:
            case Create() | Rename() | Remove():
                renamed.append(note)
            case SyncFolder():
                _change_names(disk, renamed)
                renamed.clear()
            case Write() | Truncate():
                changed[note.inode].append(note)
            case Sync(inode):
                disk.contents[inode] = _changed(disk.contents.get(inode, b""), changed.pop(inode, []))
    survived = renamed[: random.randint(0, len(renamed))]
    _change_names(
        disk, [change for change in survived if not isinstance(change, Remove) or random.random() < 0.5]
    )
    for inode, changes in changed.items():
        disk.contents[inode] = _changed(
            disk.contents.get(inode, b""), random.choice([_torn, _sectors])(changes, random)
        )
    return disk


def apply(before: Disk, notes: Sequence[Note]) -> Disk:
    """What a disk that is not cut off from power holds after `notes`."""
    changed = {note.inode for note in notes if isinstance(note, Write | Truncate)}
    return cut_power(before, [*notes, SyncFolder(), *map(Sync, changed)], Random(0))


def _change_names(disk: Disk, changes: Sequence[Create | Rename | Remove]) -> None:
    for change in changes:
        match change:
            case Create(name, inode):
                disk.names[name] = inode
                disk.contents.setdefault(inode, b"")
            case Rename(name, new_name):
                disk.names[new_name] = disk.names.pop(name)
            case Remove(name):
                del disk.names[name]


def _changed(content: bytes, changes: Sequence[Write | Truncate]) -> bytes:
    file = MemoryFile(content)
    for change in changes:
        match change:
            case Write(_, position, data):
                file.write(data, position)
            case Truncate(_, size):
                file.truncate(size)
    return file.read(file.size(), 0)


def _torn(changes: Sequence[Write | Truncate], random: Random) -> list[Write | Truncate]:
    """A beginning of `changes`; a write that is the last of it may be torn at any byte."""
    kept = list(changes[: random.randint(0, len(changes))])
    if kept and isinstance(last := kept[-1], Write):
        kept[-1] = Write(last.inode, last.position, last.data[: random.randint(0, len(last.data))])
    return kept


def _sectors(changes: Sequence[Write | Truncate], random: Random) -> list[Write | Truncate]:
    """Any sectors of the writes; between them the file has holes, which read as zeros."""
    kept: list[Write | Truncate] = []
    for change in changes:
        if isinstance(change, Truncate):
            kept.append(change)
            continue
        for start in range(0, len(change.data), SECTOR):
            if random.random() < 0.5:
                data = change.data[start : start + SECTOR]
                kept.append(Write(change.inode, change.position + start, data))
    return kept


# --- A busy log --------------------------------------------------------------------------------------------


class SteadyClock:
    """A second passes at every look."""

    def __init__(self) -> None:
        self.time = 1_800_000_000_000_000

    def now(self) -> int:
        self.time += 1_000_000
        return self.time

    def monotonic(self) -> float:
        return self.time / 1_000_000


def head(key: tuple[int, int]) -> EventHead:
    scope, partition = key
    return EventHead(scope=scope, partition=partition, partition_key="pump", annotations=(("iothub-x", "y"),))


class Work:
    """Appends that are numbered by their place, and the record of what of them was promised."""

    def __init__(self, random: Random, clock: SteadyClock) -> None:
        self.appended: dict[tuple[int, int], list[bytes]] = {key: [] for key in KEYS}
        self.random = random
        self.clock = clock
        self.count = 0

    def copy(self) -> Work:
        work = Work(self.random, self.clock)
        work.appended = {key: list(bodies) for key, bodies in self.appended.items()}
        return work

    def open(self, files: RecordingFiles) -> EmbeddedEventLog:
        log = EmbeddedEventLog(
            files,
            self.clock,
            segment_size=SEGMENT_SIZE,
            segment_age=timedelta(seconds=40),
            retention=timedelta(seconds=120),
        )
        log.start()
        return log

    async def run(self, log: EmbeddedEventLog, notes: list[Note], *, rounds: int) -> None:
        prepared = {key: log.prepare(head(key)) for key in KEYS}
        self._note_shown(log, notes)
        for _ in range(rounds):
            waiting = []
            for _ in range(self.random.randint(1, 4)):
                done = asyncio.get_running_loop().create_future()
                waiting.append(done)
                events = []
                for key in self.random.choices(KEYS, k=self.random.randint(1, 6)):
                    body = b"%d " % self.count + b"x" * self.random.choice([0, 90, 1500])
                    self.count += 1
                    self.appended[key].append(body)
                    events.append((prepared[key], body))
                ends = {key: len(bodies) for key, bodies in self.appended.items()}
                log.append(events, partial(self._acknowledged, notes, ends, done))
            await asyncio.gather(*waiting)
            self._note_shown(log, notes)
            if self.random.random() < 0.2:
                log.expire()
                for key in KEYS:
                    notes.append(Expired(key, log.state(*key).begin_sequence_number))

    def _note_shown(self, log: EmbeddedEventLog, notes: list[Note]) -> None:
        for key in KEYS:
            notes.append(Promised(key, log.find(*key, Start(StartProperty.LATEST))))

    def _acknowledged(
        self,
        notes: list[Note],
        ends: dict[tuple[int, int], int],
        done: asyncio.Future[None],
        error: Exception | None,
    ) -> None:
        if error is not None:
            done.set_exception(error)
            return
        for key, end in ends.items():
            notes.append(Promised(key, end))
        done.set_result(None)


class Lost(Exception):
    """What the log had promised is not there."""


@contextmanager
def losing() -> Iterator[None]:
    """Whatever goes wrong in reading a rebuilt disk is a loss."""
    try:
        yield
    except Exception as error:
        raise Lost(str(error)) from error


async def reconcile(work: Work, files: RecordingFiles, notes: Sequence[Note]) -> int:
    """Open a log on `files` and hold it against what `notes` promise; `work.appended` is cut to what it has.

    Returns how many events were promised. Raises Lost.
    """
    promised: dict[tuple[int, int], int] = {}
    expired: dict[tuple[int, int], int] = {}
    for note in notes:
        match note:
            case Promised(key, end):
                promised[key] = max(end, promised.get(key, 0))
            case Expired(key, begin):
                expired[key] = begin
    with losing():
        log = work.open(files)
        try:
            for key in KEYS:
                found = _read_all(log, key)
                state = log.state(*key)
                end = state.last_sequence_number + 1
                if end < promised.get(key, 0) or state.begin_sequence_number > expired.get(key, 0):
                    raise Lost(f"{key} has {state}, promised was {promised.get(key, 0)}")
                if found != work.appended[key][state.begin_sequence_number : end]:
                    raise Lost(f"{key} holds other events than were appended")
                del work.appended[key][end:]
            await _goes_on(log)
        finally:
            await log.close()
    return sum(promised.values())


def _read_all(log: EmbeddedEventLog, key: tuple[int, int]) -> list[bytes]:
    bodies: list[bytes] = []
    cursor = log.find(*key, Start(StartProperty.FIRST))
    last_offset = -1
    while True:
        events, following = log.read(*key, cursor, limit=7)
        if not events:
            return bodies
        for event in events:
            if event.sequence_number != cursor or event.offset <= last_offset:
                raise Lost(f"{key}: {event[:3]} at {cursor}, behind offset {last_offset}")
            cursor, last_offset = cursor + 1, event.offset
            bodies.append(_body(event.message))
        if cursor != following:
            raise Lost(f"{key}: cursor {following}, not {cursor}")


def _body(message: bytes) -> bytes:
    """What follows the data section's constructor."""
    short, long = message.rfind(b"\x00\x53\x75\xa0"), message.rfind(b"\x00\x53\x75\xb0")
    return message[short + 5 :] if short > long else message[long + 8 :]


async def _goes_on(log: EmbeddedEventLog) -> None:
    """The next events get the next numbers, and offsets behind all others."""
    for key in KEYS:
        before = log.state(*key)
        done = asyncio.get_running_loop().create_future()
        log.append([(log.prepare(head(key)), b"next")], done.set_result)
        if (error := await done) is not None:
            raise error
        after = log.state(*key)
        if (
            after.last_sequence_number != before.last_sequence_number + 1
            or after.last_offset <= before.last_offset
        ):
            raise Lost(f"{key}: {before}, then {after}")


def choose_cut(notes: Sequence[Note], start: int, random: Random) -> int:
    """Anywhere from `start` on, and more often where it hurts: before a sync, and soon after the start."""
    syncs = [place for place in range(start, len(notes)) if isinstance(notes[place], Sync | SyncFolder)]
    soon = min(start + 12, len(notes))
    return random.choice(
        [random.randint(start, len(notes)), random.choice(syncs), random.randint(start, soon)]
    )


# --- The tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_every_acknowledged_event_survives_a_power_cut(seed: int) -> None:
    """Generations of a log, each begun on what a power cut or a kill has left; forty cuts are tried in each."""
    random = Random(seed)
    work = Work(random, SteadyClock())
    disk = Disk()
    promises: list[Note] = []  # from before the last power cut
    seen: list[Note] = []  # since then
    kept = 0
    for _ in range(4):
        files = RecordingFiles(disk, seen)
        log = work.open(files)
        await work.run(log, files.notes, rounds=18)
        await log.close()
        for _ in range(40):
            trial = files.notes[: choose_cut(files.notes, len(seen), random)]
            rebuilt = RecordingFiles(cut_power(disk, trial, random))
            kept += await reconcile(work.copy(), rebuilt, promises + trial)
        seen = files.notes[: choose_cut(files.notes, len(seen), random)]
        if random.random() < 0.5:
            disk = cut_power(disk, seen, random)
            promises += [note for note in seen if isinstance(note, Promised | Expired)]
            seen = []
        await reconcile(work, RecordingFiles(disk, seen), promises + seen)
    assert kept > 1000


@pytest.mark.parametrize(("syncs_files", "syncs_folder"), [(False, True), (True, False)])
async def test_a_log_whose_syncs_do_nothing_is_caught(syncs_files: bool, syncs_folder: bool) -> None:
    random = Random(0)
    work = Work(random, SteadyClock())
    files = RecordingFiles(Disk(), syncs_files=syncs_files, syncs_folder=syncs_folder)
    log = work.open(files)
    await work.run(log, files.notes, rounds=25)
    await log.close()
    losses = 0
    for _ in range(40):
        seen = files.notes[: random.randint(0, len(files.notes))]
        try:
            await reconcile(work.copy(), RecordingFiles(cut_power(Disk(), seen, random)), seen)
        except Lost:
            losses += 1
    assert losses > 5
