"""What the records promise because they are on a disk; the rest is in contracts/test_records.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import StorageFull, Unavailable
from moorage.interfaces import Expect, Kind, Put
from moorage.store import commit
from moorage.store.sqlite import MOST_KEPT, SqliteStore
from moorage.store.table import Table

Buoy = Callable[..., Any]


async def fill(path: Path, kind: Kind[Any], buoy: Buoy, count: int) -> None:
    store = SqliteStore.open(path, kinds=[kind])
    await store.apply([Put(kind, 1, buoy(f"n{number:04}", log="x" * 500)) for number in range(count)])
    await store.close()


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path, buoys: Kind[Any], buoy: Buoy) -> None:
    await fill(tmp_path / "r.sqlite3", buoys, buoy, 10)
    store = SqliteStore.open(tmp_path / "r.sqlite3", kinds=[buoys])
    assert await store.records(buoys, 1).get("n0007") == buoy("n0007", log="x" * 500)
    assert await store.records(buoys, 1).count("light", "r") == 10
    await store.close()


async def test_closing_commits_what_waits_and_leaves_one_file(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy
) -> None:
    path = tmp_path / "r.sqlite3"
    store = SqliteStore.open(path, kinds=[buoys])
    puts = [asyncio.create_task(store.records(buoys, 1).put(buoy(f"n{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*puts)
    assert os.listdir(tmp_path) == ["r.sqlite3"]
    store = SqliteStore.open(path, kinds=[buoys])
    assert await store.records(buoys, 1).count() == 50
    await store.close()


async def test_of_a_kind_with_few_records_what_was_read_is_kept_until_it_may_be_untrue(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(buoys, few=True)
    store = SqliteStore.open(tmp_path / "r.sqlite3", kinds=[few])
    records = store.records(few, 1)
    await records.put(buoy("n1", log="old"))
    looked: list[str] = []
    read = store.read

    def reading(sql: str, parameters: tuple[str | int, ...]) -> list[Any]:
        looked.append(sql)
        return read(sql, parameters)

    monkeypatch.setattr(store, "read", reading)

    for _ in range(3):
        assert await records.get("n1") == buoy("n1", log="old")
        assert (await records.page(limit=10)).records == [buoy("n1", log="old")]
    assert len(looked) == 2

    # Whoever asked for the change has left; it is made all the same, and nobody reads what was before.
    leaving = asyncio.create_task(records.put(buoy("n1", log="new"), expect=Expect.ANY))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await records.get("n1") == buoy("n1", log="old")
    await records.put(buoy("n2"))
    assert await records.get("n1") == buoy("n1", log="new")
    assert list((await records.page(limit=10)).records) == [buoy("n1", log="new"), buoy("n2")]

    for number in range(200):  # as many questions as somebody may think of
        assert await records.get(f"nobody-{number}") is None
    kept = store.kept(few.name)
    assert kept is not None
    assert len(kept) <= MOST_KEPT
    await store.close()
    with pytest.raises(Unavailable):
        await records.get("n1")


async def test_nobody_else_reads_the_files(tmp_path: Path, buoys: Kind[Any], buoy: Buoy) -> None:
    store = SqliteStore.open(tmp_path / "r.sqlite3", kinds=[buoys])
    await store.records(buoys, 1).put(buoy("n1"))
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in os.listdir(tmp_path)}
    assert modes == {"r.sqlite3": 0o600, "r.sqlite3-wal": 0o600, "r.sqlite3-shm": 0o600}
    await store.close()


async def test_no_read_grows_with_the_number_of_records(tmp_path: Path, buoys: Kind[Any], buoy: Buoy) -> None:
    path = tmp_path / "r.sqlite3"
    await fill(path, buoys, buoy, 1)
    table = Table(buoys)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for sql in (table.get, table.find, table.first_page, table.next_page, table.count_by_index):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", ["1"] * sql.count("?"))]
            assert plan
            assert all(step.startswith("SEARCH") for step in plan), (sql, plan)


async def test_a_kind_without_a_table_is_refused_at_once(tmp_path: Path, buoys: Kind[Any]) -> None:
    unknown: Kind[Any] = Kind(name="lighthouse", **{k: v for k, v in vars(buoys).items() if k != "name"})
    with pytest.raises(ValueError, match="lighthouse"):
        SqliteStore.open(tmp_path / "r.sqlite3", kinds=[unknown])


async def log_size(path: Path, kind: Kind[Any], buoy: Buoy) -> int:
    """Bytes that the write-ahead log takes after many commits."""
    store = SqliteStore.open(path, kinds=[kind])
    records = store.records(kind, 1)
    for number in range(0, 2000, 20):
        await asyncio.gather(*(records.put(buoy(f"n{number + k}", log="x" * 2000)) for k in range(20)))
    size = path.with_name(f"{path.name}-wal").stat().st_size
    await store.close()
    return size


async def test_the_write_ahead_log_starts_over_once_it_is_copied(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "CHECKPOINT_AFTER", 10**9)
    never = await log_size(tmp_path / "never.sqlite3", buoys, buoy)
    monkeypatch.setattr(commit, "CHECKPOINT_AFTER", 100)
    often = await log_size(tmp_path / "often.sqlite3", buoys, buoy)
    assert often < never / 3


# --- When the disk is full -----------------------------------------------------------------------------------


@contextlib.contextmanager
def no_file_grows_past(size: int) -> Iterator[None]:
    """A full disk, as far as this process can tell."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
async def test_with_a_full_disk_reading_goes_on_and_writing_once_there_is_room(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy
) -> None:
    path = tmp_path / "r.sqlite3"
    store = SqliteStore.open(path, kinds=[buoys])
    records = store.records(buoys, 1)
    kept = [await records.put(buoy(f"n{number:02}")) for number in range(20)]
    with no_file_grows_past(path.with_name("r.sqlite3-wal").stat().st_size + 1000):
        results = await asyncio.gather(
            *(records.put(buoy(f"refused-{number}", log="x" * 5000)) for number in range(20)),
            return_exceptions=True,
        )
        assert {type(result) for result in results} == {StorageFull}
        assert str(path) in str(results[0])
        assert (await records.page(limit=100)).records == kept
    await records.put(buoy("after", log="x" * 5000))
    assert await records.count() == 21
    await store.close()
    store = SqliteStore.open(path, kinds=[buoys])
    assert (await store.records(buoys, 1).page(limit=100)).records == [
        buoy("after", log="x" * 5000),
        *kept,
    ]
    await store.close()


# --- When the file is damaged ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"short", bytes(8192)])
async def test_what_is_not_a_database_is_refused_and_left_alone(
    tmp_path: Path, buoys: Kind[Any], content: bytes
) -> None:
    path = tmp_path / "r.sqlite3"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"r\.sqlite3 is damaged .*: stop the server and put a copy"):
        SqliteStore.open(path, kinds=[buoys])
    assert path.read_bytes() == content


async def test_a_file_cut_short_is_refused_and_left_alone(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy
) -> None:
    path = tmp_path / "r.sqlite3"
    await fill(path, buoys, buoy, 1000)
    content = path.read_bytes()[: 20 * 4096]
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="is damaged"):
        SqliteStore.open(path, kinds=[buoys])
    assert path.read_bytes() == content


async def test_damage_met_in_use_fails_that_call_and_says_so(
    tmp_path: Path, buoys: Kind[Any], buoy: Buoy
) -> None:
    path = tmp_path / "r.sqlite3"
    await fill(path, buoys, buoy, 1000)
    content = path.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    path.write_bytes(b"".join(b"\xff" * 4096 if b'"name":"n05' in page else page for page in pages))
    store = SqliteStore.open(path, kinds=[buoys])
    records = store.records(buoys, 1)
    with pytest.raises(Unavailable, match=r"r\.sqlite3 is damaged"):
        await records.page(limit=1000)
    with pytest.raises(Unavailable, match=r"r\.sqlite3 is damaged"):
        await store.apply([Put(buoys, 1, buoy(f"n{number:04}", "2"), "1") for number in range(1000)])
    assert await records.get("n0000") == buoy("n0000", log="x" * 500)
    await store.close()


async def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, buoys: Kind[Any]) -> None:
    with pytest.raises(Unavailable, match="cannot be"):
        SqliteStore.open(tmp_path, kinds=[buoys])
    with pytest.raises(Unavailable, match="cannot be"):
        SqliteStore.open(tmp_path / "missing" / "r.sqlite3", kinds=[buoys])
