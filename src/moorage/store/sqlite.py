"""Records in SQLite.

Writes go to a thread that commits them together (see `commit`). Reads run on the event loop's own thread, on
a connection of their own: in WAL mode they wait for no writer and see the last commit, and a commit shows
only once it is synced, so that nothing read can be lost again. A lookup takes about 10 µs, less than a hop to
another thread and back.

What was read of kinds with few records is kept until something is written to them. It is let go of on the loop,
when the commit is durable and before its caller hears of it: so nobody who was told of a change reads what was before.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakValueDictionary

from moorage.errors import Unavailable
from moorage.interfaces import Change, Clear, Delete, Expect, Kind, Page, Put, Record, Records, TwinSearch
from moorage.store.commit import (
    Checkpoints,
    Commits,
    CommitsHere,
    GroupCommits,
    Settled,
    Transactions,
    nothing,
)
from moorage.store.database import connect, fault, open_database
from moorage.store.table import Table, Write

if TYPE_CHECKING:
    from moorage.store.twin_search import Scans

T = TypeVar("T", bound=Record)

MOST_KEPT = 64  # answers of one kind in memory, each of so many records at the most


class SqliteStore:
    """All records of one server, in one file or in memory. Every call is made on the event loop's thread."""

    def __init__(
        self, path: Path | None, kinds: Sequence[Kind[Any]], commits: Commits, reader: sqlite3.Connection
    ) -> None:
        self._path = path
        self._tables = {kind.name: Table(kind) for kind in kinds}
        self._kept: dict[str, dict[tuple[str | int, ...], list[Any]]] = {
            kind.name: {} for kind in kinds if kind.few
        }
        self._commits = commits
        self._reader = reader
        self._scans: Scans | None = None
        self._turns: WeakValueDictionary[tuple[str, int, str], asyncio.Lock] = WeakValueDictionary()
        self._closed = False

    @classmethod
    def open(cls, path: Path | None, *, kinds: Sequence[Kind[Any]]) -> SqliteStore:
        """The records in `path`, created or migrated first; without a path in memory, kept until `close`.

        To be called while the loop runs. Raises StorageFull, and Unavailable, the file unchanged, when it is
        damaged, another program's, or of a newer release.
        """
        with ExitStack() as opened:
            writer = opened.enter_context(closing(open_database(path)))
            _check_tables(writer, kinds)
            transactions = Transactions(writer, path)
            if path is None:
                opened.pop_all()
                return cls(path, kinds, CommitsHere(transactions), writer)
            writer.execute("PRAGMA wal_autocheckpoint = 0")  # left to Checkpoints
            # It is the loop that would wait; but readers wait only while another process recovers the log.
            reader = opened.enter_context(closing(connect(path, busy_seconds=0.2)))
            reader.execute("PRAGMA query_only = 1")
            checkpoints = Checkpoints(path)
            opened.pop_all()
        return cls(path, kinds, GroupCommits(transactions, checkpoints), reader)

    def records(self, kind: Kind[T], scope: int) -> Records[T]:
        return SqliteRecords(self, kind, scope)

    def twin_search(self, scope: int) -> TwinSearch:
        from moorage.store.twin_search import (  # with the first query, not at the start
            Scans,
            SqliteTwinSearch,
        )

        self.check_open()
        if self._scans is None:
            self._scans = Scans(self._path, self._reader)
        return SqliteTwinSearch(self._scans, scope)

    def turn(self, kind: Kind[Any], scope: int, key: str) -> asyncio.Lock:
        """It is kept for as long as somebody has it or waits."""
        record = kind.name, scope, key
        lock = self._turns.get(record)
        if lock is None:
            self._turns[record] = lock = asyncio.Lock()
        return lock

    async def apply(self, changes: Sequence[Change]) -> None:
        """All or none; a later change sees what earlier ones did. Cancelled, they may still be kept."""
        self.check_open()
        writes = [write for change in changes for write in self._writes(change)]
        if writes:
            await self._commits.commit(writes, self._forgetting(changes))

    def _forgetting(self, changes: Sequence[Change]) -> Settled:
        """What lets go of all that `changes` may make untrue."""
        if any(isinstance(change, Clear) for change in changes):
            touched = list(self._kept.values())
        else:
            names = {change.kind.name for change in changes if not isinstance(change, Clear)}
            touched = [self._kept[name] for name in names & self._kept.keys()]
        if not touched:
            return nothing

        def forget() -> None:
            for kept in touched:
                kept.clear()

        return forget

    def _writes(self, change: Change) -> list[Write]:
        if isinstance(change, Clear):
            return [table.clear(change.scope) for table in self._tables.values()]
        return [self.table(change.kind.name).write(change)]

    async def close(self) -> None:
        """Commit what waits, fold the write-ahead log into the file and let go of it."""
        if not self._closed:
            self._closed = True
            if self._scans is not None:
                self._scans.close()
            self._reader.close()
            await self._commits.close()

    def table(self, kind_name: str) -> Table:
        return self._tables[kind_name]

    def kept(self, kind_name: str) -> dict[tuple[str | int, ...], list[Any]] | None:
        """The answers in memory, by statement and parameters; None for a kind of many records."""
        return self._kept.get(kind_name)

    def read(self, sql: str, parameters: tuple[str | int, ...]) -> list[Any]:
        """All rows at once: a statement left half read would keep the write-ahead log from starting over."""
        self.check_open()
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise fault(error, self._path) from error
        except UnicodeEncodeError:
            return []  # half a surrogate pair: nothing can have been kept under that

    def check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


class SqliteRecords(Generic[T]):
    """The records of one kind within one scope."""

    def __init__(self, store: SqliteStore, kind: Kind[T], scope: int) -> None:
        self._store = store
        self._kind = kind
        self._scope = scope
        self._table = store.table(kind.name)
        self._kept = store.kept(kind.name)

    async def get(self, key: str) -> T | None:
        found = self._read(self._table.get, key)
        return found[0] if found else None

    async def find(self, index: str, value: str) -> Sequence[T]:
        self._table.check_index(index)
        return self._read(self._table.find, index, value)

    async def page(
        self, *, after: str | None = None, limit: int, where: tuple[str, str] | None = None
    ) -> Page[T]:
        if limit < 1:
            raise ValueError(f"a page of {limit} records")
        table = self._table
        if where is None:
            sql = table.first_page if after is None else table.next_page
        else:
            table.check_index(where[0])
            sql = table.first_page_found if after is None else table.next_page_found
        records = self._read(sql, *(where or ()), *(() if after is None else (after,)), limit + 1)
        if len(records) <= limit:
            return Page(records, None)
        records.pop()
        return Page(records, self._kind.key(records[-1]))

    async def count(self, index: str | None = None, value: str | None = None) -> int:
        """All of them, or those whose `index` holds `value`; 3 ms for 100,000."""
        if index is None or value is None:
            rows = self._store.read(self._table.count, (self._scope,))
        else:
            self._table.check_index(index)
            rows = self._store.read(self._table.count_by_index, (self._scope, index, value))
        return int(rows[0][0]) if rows else 0

    async def put(self, record: T, *, expect: Expect | str = Expect.ABSENT) -> T:
        await self._store.apply([Put(self._kind, self._scope, record, expect)])
        return record

    async def delete(self, key: str, *, expect: Expect | str = Expect.PRESENT) -> None:
        await self._store.apply([Delete(self._kind, self._scope, key, expect)])

    def _read(self, sql: str, *parameters: str | int) -> list[T]:
        if self._kept is None:
            return self._read_rows(sql, *parameters)
        self._store.check_open()
        asked = (sql, self._scope, *parameters)
        found = self._kept.get(asked)
        if found is None:
            found = self._read_rows(sql, *parameters)
            if len(found) <= MOST_KEPT:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                self._kept[asked] = found
        return list(found)

    def _read_rows(self, sql: str, *parameters: str | int) -> list[T]:
        rows = self._store.read(sql, (self._scope, *parameters))
        return [self._kind.from_document(json.loads(document)) for (document,) in rows]


def _check_tables(db: sqlite3.Connection, kinds: Sequence[Kind[Any]]) -> None:
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for kind in kinds:
        if not {kind.name, f"{kind.name}_index"} <= tables:
            raise ValueError(f"no migration makes a table for the kind {kind.name!r}")
