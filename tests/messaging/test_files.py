"""Files on a disk and in memory behave alike; the folder on a disk is one process's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorage.messaging import files as files_module
from moorage.messaging.files import DiskFiles, Files, MemoryFiles


@pytest.fixture(params=["disk", "disk without pread", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    if request.param == "memory":
        return MemoryFiles()
    if request.param == "disk without pread":  # Windows
        monkeypatch.setattr(files_module, "_read_at", files_module._seek_and_read)
        monkeypatch.setattr(files_module, "_write_at", files_module._seek_and_write)
    return DiskFiles(tmp_path)


def content(files: Files, name: str) -> bytes:
    file = files.open(name)
    try:
        return file.read(1000, 0)
    finally:
        file.close()


def write(files: Files, name: str, data: bytes) -> None:
    file = files.create(name)
    file.write(data, 0)
    file.close()


def test_a_write_lands_at_its_position(files: Files) -> None:
    file = files.create("a")
    file.write(b"0123456789", 0)
    file.write(b"xy", 4)
    file.write(b"end", 12)
    file.sync()
    assert file.size() == 15
    assert file.read(100, 0) == b"0123xy6789\0\0end"
    file.close()


def test_a_read_ends_with_the_file(files: Files) -> None:
    file = files.create("a")
    file.write(b"0123456789", 0)
    assert file.read(4, 3) == b"3456"
    assert file.read(4, 8) == b"89"
    assert file.read(4, 10) == b""
    file.close()


def test_truncate_cuts_the_end_off(files: Files) -> None:
    file = files.create("a")
    file.write(b"0123456789", 0)
    file.truncate(3)
    assert (file.size(), file.read(100, 0)) == (3, b"012")
    file.close()


def test_names_come_and_go(files: Files) -> None:
    write(files, "a", b"old")
    write(files, "b", b"new")
    assert sorted(files.names()) == ["a", "b"]
    files.rename("b", "a")
    assert files.names() == ["a"]
    assert content(files, "a") == b"new"
    write(files, "a", b"")
    assert content(files, "a") == b""
    files.remove("a")
    files.sync()
    assert files.names() == []


def test_what_is_not_there_is_not_found(files: Files) -> None:
    with pytest.raises(FileNotFoundError):
        files.open("a")
    with pytest.raises(FileNotFoundError):
        files.remove("a")


@pytest.mark.parametrize("step", [1, 3, 7])
def test_short_writes_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A system call may do less than it was asked."""
    read_at, write_at = files_module._read_at, files_module._write_at
    monkeypatch.setattr(files_module, "_read_at", lambda f, size, at: read_at(f, min(size, step), at))
    monkeypatch.setattr(files_module, "_write_at", lambda f, data, at: write_at(f, data[:step], at))
    file = DiskFiles(tmp_path).create("a")
    file.write(b"0123456789", 0)
    assert file.read(9, 0) == b"012345678"
    assert file.read(100, 0) == b"0123456789"
    file.close()


def test_a_folder_is_made_and_every_new_name_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files_module, "_sync_folder", synced.append)
    files = DiskFiles(tmp_path / "data" / "log")
    files.lock()
    files.unlock()
    assert synced == [tmp_path, tmp_path / "data"]
    assert files.names() == ["lock"]


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    first, second = DiskFiles(tmp_path), DiskFiles(tmp_path)
    first.lock()
    with pytest.raises(BlockingIOError):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
