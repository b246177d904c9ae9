"""All that the log asks of a disk: a folder of files that are written at a position and synced.

`DiskFiles` is the real folder, `MemoryFiles` keeps nothing beyond the process. Tests put a recording layer in
between. Every call may raise OSError.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

LOCK_NAME = "lock"


class File(Protocol):
    """An open file. One handle belongs to one thread at a time; several handles may be open on one file."""

    def size(self) -> int: ...

    def read(self, size: int, position: int) -> bytes:
        """`size` bytes from `position`; fewer only where the file ends."""
        ...

    def write(self, data: bytes, position: int) -> None:
        """Write all of `data` at `position`; after an error any part of it may have been written."""
        ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Return when content and size survive a power cut. The name does so only after `Files.sync`."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """One folder, flat."""

    def lock(self) -> None:
        """Make the folder ready and this process its only user. BlockingIOError when another one has it."""
        ...

    def unlock(self) -> None: ...

    def names(self) -> list[str]: ...

    def create(self, name: str) -> File:
        """A new empty file, in place of any older one."""
        ...

    def open(self, name: str) -> File: ...

    def rename(self, name: str, new_name: str) -> None:
        """Takes the place of any file named `new_name`. Neither may be open (Windows refuses that)."""
        ...

    def remove(self, name: str) -> None: ...

    def sync(self) -> None:
        """Return when every create, rename and remove so far survives a power cut."""
        ...


# --- A folder on a disk -----------------------------------------------------------------------------------

_BINARY = getattr(os, "O_BINARY", 0)  # without it Windows translates line ends


class DiskFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, size: int, position: int) -> bytes:
        block = _read_at(self._descriptor, size, position)
        if len(block) == size or not block:
            return block
        blocks = [block]
        missing = size - len(block)
        while missing and (block := _read_at(self._descriptor, missing, position + size - missing)):
            blocks.append(block)
            missing -= len(block)
        return b"".join(blocks)

    def write(self, data: bytes, position: int) -> None:
        rest = memoryview(data)
        while rest:
            written = _write_at(self._descriptor, rest, position)
            rest = rest[written:]
            position += written

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        _sync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class DiskFiles:
    """The folder at `path`, made when missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def __str__(self) -> str:
        return str(self._path)

    def lock(self) -> None:
        _make_folder(self._path)
        descriptor = os.open(self._path / LOCK_NAME, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
        try:
            _lock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._path) if entry.is_file()]

    def create(self, name: str) -> File:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _BINARY
        return DiskFile(os.open(self._path / name, flags, 0o600))

    def open(self, name: str) -> File:
        return DiskFile(os.open(self._path / name, os.O_RDWR | _BINARY))

    def rename(self, name: str, new_name: str) -> None:
        os.replace(self._path / name, self._path / new_name)

    def remove(self, name: str) -> None:
        os.remove(self._path / name)

    def sync(self) -> None:
        _sync_folder(self._path)


def _make_folder(path: Path) -> None:
    """Like `mkdir -p`, but the folder's own name survives a power cut too."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    if sys.platform == "win32":  # cannot open a folder; NTFS journals its names
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _choose_sync() -> Callable[[int], object]:
    """What makes a file's content durable here. On macOS fsync leaves it in the drive's cache."""
    if sys.platform == "darwin":
        from fcntl import F_FULLFSYNC, fcntl

        def full_sync(descriptor: int) -> object:
            return fcntl(descriptor, F_FULLFSYNC)

        return full_sync
    return getattr(os, "fdatasync", os.fsync)


_sync = _choose_sync()


def _lock(descriptor: int) -> None:
    """Until the descriptor is closed, or the process ends in whatever way."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, "locked by another process") from error
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _seek_and_read(descriptor: int, size: int, position: int) -> bytes:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.read(descriptor, size)


def _seek_and_write(descriptor: int, data: memoryview, position: int) -> int:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.write(descriptor, data)


# Windows has neither; a handle belongs to one thread at a time, so that nothing comes between seek and read.
_read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)
_write_at: Callable[[int, memoryview, int], int] = getattr(os, "pwrite", _seek_and_write)


# --- Memory -----------------------------------------------------------------------------------------------


class MemoryFile:
    """A file whose handles are all the same object."""

    def __init__(self, content: bytes = b"") -> None:
        self._content = bytearray(content)

    def size(self) -> int:
        return len(self._content)

    def read(self, size: int, position: int) -> bytes:
        # A slice and no memoryview: one that another thread still held would keep the array from growing.
        return bytes(self._content[position : position + size])

    def write(self, data: bytes, position: int) -> None:
        if position > len(self._content):
            self._content.extend(bytes(position - len(self._content)))
        self._content[position : position + len(data)] = data

    def truncate(self, size: int) -> None:
        del self._content[size:]

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryFiles:
    """A folder that ends with the process; a log opened on it again finds everything."""

    def __init__(self) -> None:
        self._files: dict[str, MemoryFile] = {}

    def __str__(self) -> str:
        return "memory"

    def lock(self) -> None:
        pass

    def unlock(self) -> None:
        pass

    def names(self) -> list[str]:
        return list(self._files)

    def create(self, name: str) -> File:
        file = self._files[name] = MemoryFile()
        return file

    def open(self, name: str) -> File:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None

    def rename(self, name: str, new_name: str) -> None:
        self._files[new_name] = self._files.pop(name)

    def remove(self, name: str) -> None:
        if self._files.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def sync(self) -> None:
        pass
