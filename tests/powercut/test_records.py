from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moorage.errors import Unavailable
from moorage.interfaces import Kind
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from tests.powercut.conftest import Recorder, Recording

PROGRAM = Path(__file__).with_name("keep_records.py")
FULL_DISK = Path(__file__).with_name("fill_disk.py")
SET = 6  # records that keep_records.py applies together


@pytest.fixture
def kinds() -> list[Kind[Any]]:
    return [
        Kind(
            name=name,
            key=lambda record: record["name"],
            to_document=dict,
            from_document=dict,
            index={"version": lambda record: [record["version"]]},
        )
        for name in ("device_identity", "linked_hub")
    ]


def promised(said: list[str]) -> tuple[dict[str, int], set[str], set[str], set[str]]:
    """Key → version put; keys that may be gone; keys that are; names of the sets applied."""
    put: dict[str, int] = {}
    words = [line.split() for line in said]
    for word in words:
        if word[0] == "put":
            put[word[1]] = int(word[2])
    doubtful, gone, applied = (
        {word[1] for word in words if word[0] == verb} for verb in ("deleting", "deleted", "applied")
    )
    return put, doubtful, gone, applied


def check_file(path: Path) -> None:
    """The file is sound, and every record is found by what it is now."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for table in ("device_identity", "linked_hub"):
            records = db.execute(f"SELECT scope, key, etag FROM {table} ORDER BY 1, 2").fetchall()
            found_by = db.execute(f"SELECT scope, key, value FROM {table}_index ORDER BY 1, 2").fetchall()
            assert records == found_by


async def check(path: Path, said: list[str], kinds: list[Kind[Any]]) -> None:
    """Open what a power cut left and hold it to what was said. Raises AssertionError, or Unavailable."""
    with closing(DataFolder.open(path)) as folder:
        store = SqliteStore.open(folder.records, kinds=kinds)
        try:
            await check_records(store, said, kinds)
        finally:
            await store.close()
        check_file(folder.records)


async def check_records(store: SqliteStore, said: list[str], kinds: list[Kind[Any]]) -> None:
    put, doubtful, gone, applied = promised(said)
    page = await store.records(kinds[0], 1).page(limit=10_000)
    versions = {record["name"]: record["version"] for record in page.records}
    for key, version in put.items():
        assert key in doubtful or versions.get(key, 0) >= version, f"{key} lost or set back"
    assert not gone & versions.keys(), "deleted records are back"
    parts: Counter[str] = Counter()
    for kind in kinds:
        page = await store.records(kind, 2).page(limit=10_000)
        parts.update(record["name"].rpartition("-")[0] for record in page.records)
    assert set(parts.values()) <= {SET}, "a set was applied in part"
    assert applied <= parts.keys(), "a set was lost"


async def check_cuts(recording: Recording, into: Path, kinds: list[Kind[Any]]) -> None:
    for folder, said in recording.cuts(300, seed=20, into=into):
        await check(folder, said, kinds)


async def test_no_power_cut_takes_back_what_was_acknowledged(
    recorder: Recorder, tmp_path: Path, kinds: list[Kind[Any]]
) -> None:
    recording = recorder.run(PROGRAM)
    assert sum(entry.kind == "A" for entry in recording.entries) > 300
    await check_cuts(recording, tmp_path, kinds)


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_without_the_sync_of_each_commit_a_power_cut_is_noticed(
    recorder: Recorder, tmp_path: Path, kinds: list[Kind[Any]], synchronous: str
) -> None:
    """The test above is worth something: it fails when SQLite is told to sync less, or not at all."""
    recording = recorder.run(PROGRAM, synchronous)
    with pytest.raises((AssertionError, Unavailable)):
        await check_cuts(recording, tmp_path, kinds)


async def test_a_full_disk_ends_writing_and_nothing_else(
    recorder: Recorder, tmp_path: Path, kinds: list[Kind[Any]]
) -> None:
    full = tmp_path / "full"
    recording = recorder.run(FULL_DISK, str(full), full=full)
    said = [
        line for entry in recording.entries if entry.kind == "A" for line in os.fsdecode(entry.data).split()
    ]
    assert said == ["kept"] * 50 + ["StorageFull"] * 50 + ["read"] * 50 + ["kept"] * 50
    folder = Path(recording.root)
    check_file(folder / "records.sqlite3")
    store = SqliteStore.open(folder / "records.sqlite3", kinds=kinds)
    keys = [record["name"] for record in (await store.records(kinds[0], 1).page(limit=1000)).records]
    assert keys == [f"n{number:03}" for number in range(100)]
    await store.close()
