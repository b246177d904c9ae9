"""Power cuts: run a program while its writes are recorded, then rebuild the disk as a cut at any point may leave it.

What a program has synced is there after a cut. Of the rest each 512-byte sector of each file may be there or not,
whatever the order of the writes, and the length of a file and the names in a folder may be any since their last sync.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SECTOR = 512
HEAD = struct.Struct("=IIQQ")  # struct head of recorder.c
MISSING = "no C compiler (gcc): the recorder of power cuts cannot be built"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that the program did; `kind` as recorder.c has it."""

    kind: str
    file: int
    offset: int
    length: int
    data: bytes

    @property
    def names(self) -> list[str]:
        return os.fsdecode(self.data).split("\n")


@dataclass(slots=True)
class File:
    """What is surely on the disk, and what has been done since, in order. A truncation has no data."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Entry] = field(default_factory=list)
    settled: int = 0  # how many were pending once and no longer are

    def settle(self, upto: int) -> None:
        for entry in self.pending[: upto - self.settled]:
            resize(self.durable, length_after(len(self.durable), entry))
            self.durable[entry.offset : entry.offset + len(entry.data)] = entry.data
        del self.pending[: max(0, upto - self.settled)]
        self.settled = max(self.settled, upto)

    def after_cut(self, chance: random.Random, keep: float) -> bytes:
        """The content, each sector as one of the pending writes to it left it, or none."""
        lengths = [len(self.durable)]
        for entry in self.pending:
            lengths.append(length_after(lengths[-1], entry))
        image = bytearray(self.durable)
        resize(image, max(lengths))
        lost: set[int] = set()  # sectors of which the disk has seen its last
        for entry in self.pending:
            end = len(image) if entry.kind == "T" else entry.offset + len(entry.data)
            for sector in range(entry.offset // SECTOR, -(-end // SECTOR)):
                if sector in lost or chance.random() >= keep:
                    lost.add(sector)
                    continue
                start, stop = max(entry.offset, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                image[start:stop] = (
                    bytes(stop - start)
                    if entry.kind == "T"
                    else entry.data[start - entry.offset : stop - entry.offset]
                )
        resize(image, lengths[-1] if keep == 1.0 else chance.choice(lengths))
        return bytes(image)


def length_after(length: int, entry: Entry) -> int:
    return entry.offset if entry.kind == "T" else max(length, entry.offset + len(entry.data))


def resize(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


class Disk:
    """The folder as far as it has been recorded: now, and as a cut may leave it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[int, File | None] = {}  # by number; None for a folder
        self.folders: dict[int, str] = {}  # the path of an open folder, by number
        self.names: dict[str, int] = {root: 0}  # path → file; 0 for a folder
        self.durable_names = dict(self.names)
        self.pending_names: list[
            tuple[str, dict[str, int | None]]
        ] = []  # folder, what each path comes to name
        self.syncs: dict[int, tuple[int, list[tuple[str, dict[str, int | None]]]]] = {}
        self.said: list[str] = []

    def add(self, entry: Entry) -> None:
        match entry.kind:
            case "C":
                self.files[entry.file] = File()
                self._name(entry.names[0], {entry.names[0]: entry.file})
            case "O":
                raise AssertionError(f"{entry.names[0]} was there before the recording")
            case "M":
                self._name(entry.names[0], {entry.names[0]: 0})
            case "U":
                self._name(entry.names[0], {entry.names[0]: None})
            case "R":
                old, new = entry.names
                self._name(new, {old: None, new: self.names[old]})
            case "d":
                self.folders[entry.file] = entry.names[0]
            case "W" | "T":
                self._file(entry).pending.append(entry)
            case "S":
                self._begin_sync(entry)
            case "E":
                self._end_sync(entry)
            case "A":
                self.said += os.fsdecode(entry.data).splitlines()

    def _file(self, entry: Entry) -> File:
        file = self.files[entry.file]
        assert file is not None
        return file

    def _name(self, path: str, change: dict[str, int | None]) -> None:
        self.pending_names.append((os.path.dirname(path), change))
        rename(self.names, change)

    def _begin_sync(self, entry: Entry) -> None:
        if entry.file in self.folders:
            changes = [change for change in self.pending_names if change[0] == self.folders[entry.file]]
            self.syncs[entry.offset] = (0, changes)
        else:
            file = self._file(entry)
            self.syncs[entry.offset] = (file.settled + len(file.pending), [])

    def _end_sync(self, entry: Entry) -> None:
        upto, changes = self.syncs.pop(entry.offset)
        if entry.file not in self.folders:
            self._file(entry).settle(upto)
        for change in changes:
            if any(change is pending for pending in self.pending_names):
                rename(self.durable_names, change[1])
        self.pending_names = [
            pending for pending in self.pending_names if not any(pending is change for change in changes)
        ]

    def now(self) -> dict[str, bytes]:
        """Path → content, as the program sees it."""
        return self._content(self.names, random.Random(0), 1.0)

    def after_cut(self, chance: random.Random) -> dict[str, bytes]:
        """Path → content, as a power cut now may leave it."""
        keep = chance.choice([0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
        names = dict(self.durable_names)
        kept = {folder: chance.randint(0, len(self.pending_names)) for folder, _ in self.pending_names}
        for (
            folder,
            change,
        ) in self.pending_names:  # of each folder the first few: its changes keep their order
            if kept[folder] > 0:
                kept[folder] -= 1
                rename(names, change)
        return self._content(names, chance, keep)

    def _content(self, names: dict[str, int], chance: random.Random, keep: float) -> dict[str, bytes]:
        content = {}
        for path, number in sorted(names.items()):
            file = self.files.get(number)
            if file is not None and os.path.dirname(path) in names:
                content[os.path.relpath(path, self.root)] = file.after_cut(chance, keep)
        return content


def rename(names: dict[str, int], change: Mapping[str, int | None]) -> None:
    for path, number in change.items():
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


@dataclass(frozen=True)
class Recording:
    """A program's run. `folder` holds what it left there."""

    root: str
    entries: Sequence[Entry]

    def cuts(self, count: int, *, seed: int, into: Path) -> Iterator[tuple[Path, list[str]]]:
        """`count` power cuts, in order of time: the folder rebuilt, and the lines that the program had said.

        Half of them come right after it has said something, when a lost promise would show most easily.
        """
        chance = random.Random(seed)
        spoken = [number for number, entry in enumerate(self.entries, 1) if entry.kind == "A"]
        points = sorted(
            chance.choice(spoken) if half % 2 else chance.randint(0, len(self.entries))
            for half in range(count)
        )
        disk = Disk(self.root)
        done = 0
        for number, point in enumerate(points):
            for entry in self.entries[done:point]:
                disk.add(entry)
            done = point
            folder = into / f"cut-{number}"
            write_folder(folder, disk.after_cut(chance))
            yield folder, list(disk.said)
            shutil.rmtree(folder)


def write_folder(folder: Path, content: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def read_entries(trace: Path) -> list[Entry]:
    data = trace.read_bytes()
    entries = []
    position = 0
    while position < len(data):
        kind, file, offset, length = HEAD.unpack_from(data, position)
        position += HEAD.size
        entries.append(Entry(chr(kind), file, offset, length, data[position : position + length]))
        position += length
    return entries


class Recorder:
    """Runs programs with recorder.c loaded into them."""

    def __init__(self, library: Path, work: Path) -> None:
        self.library = library
        self.work = work

    def run(
        self,
        program: Path,
        *arguments: str,
        ignore: str = "-shm",
        full: Path | None = None,
        timeout: float = 60,
    ) -> Recording:
        """Run `python program FOLDER SAID arguments…` to its end and read the record of it.

        The program keeps its files in FOLDER, which is empty, and appends to SAID, with a write each, what it may be
        held to from then on.
        """
        folder = Path(os.path.realpath(self.work)) / "folder"
        folder.mkdir()
        said, trace = folder.with_name("said"), folder.with_name("trace")
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.library),
            "RECORDER_FOLDER": str(folder),
            "RECORDER_SAID": str(said),
            "RECORDER_TRACE": str(trace),
            "RECORDER_IGNORE": ignore,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if full is not None:
            environment["RECORDER_FULL"] = str(full)
        command = [sys.executable, str(program), str(folder), str(said), *arguments]
        subprocess.run(command, env=environment, check=True, timeout=timeout)
        recording = Recording(str(folder), read_entries(trace))
        check_complete(recording, folder, ignore)
        return recording


def check_complete(recording: Recording, folder: Path, ignore: str) -> None:
    """What was recorded must come to what is there, or some way of writing has gone unseen."""
    disk = Disk(recording.root)
    for entry in recording.entries:
        disk.add(entry)
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(ignore)
    }
    assert disk.now() == found


@pytest.fixture(scope="session")
def recorder_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", library, source, "-lpthread"], check=True
    )
    return library


@pytest.fixture
def recorder(recorder_library: Path, tmp_path: Path) -> Recorder:
    return Recorder(recorder_library, tmp_path)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    here = Path(__file__).parent
    if sys.platform == "linux" and shutil.which("gcc"):
        return
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=MISSING))
