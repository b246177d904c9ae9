"""Looking through twins in SQLite, beside the event loop and a bit at a time. [hub-service 8]

A statement looks at `BIT` twins at the most, some 25 ms. So it holds the write-ahead log back no longer than that, and
others have their turn between two bits. It runs in a thread and gives the interpreter free while it looks: of a bit
only what was found becomes Python, in one step where values are collected. `twin_search` and `module_twin_search`
have of each twin what is mostly asked for, kept by triggers: without the metadata a twin is read twice as fast.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path as File
from typing import Any, TypeVar

from moorage.errors import Throttled, Unavailable
from moorage.hub import device_identity, module_identity, twin
from moorage.hub.query.places import Form, InDocument, Record, canonical, place
from moorage.hub.query.tree import (
    UNDEFINED,
    All,
    Array,
    Comparison,
    Condition,
    Constant,
    Membership,
    Path,
    Source,
)
from moorage.interfaces import Columns, Found, Kind, Sought
from moorage.store.database import connect, fault
from moorage.store.twin_conditions import Conditions, Inexpressible, joined

BIT = 20_000  # twins looked at by one statement
COLLECTED = 5_000  # … that collects their values, which the event loop then adds up
WHOLE = 500  # … when each is to be judged by the caller
SCANNING = 2  # statements at a time
WAITING = 64  # bits that wait for one of these
SECONDS = 10.0  # for one bit
_AGAIN = 0.02  # seconds; who interrupts a statement that has not begun yet interrupts nothing

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_KINDS: dict[Source, dict[str, Kind[Any]]] = {
    Source.DEVICES: {"t": twin.KIND, "d": device_identity.KIND},
    Source.MODULES: {"t": twin.MODULE_KIND, "d": device_identity.KIND, "m": module_identity.KIND},
}
_ON = {
    "t": "t.scope = s.scope AND t.key = s.key",
    "m": "m.scope = s.scope AND m.key = s.key",
}
_DEVICE_ON = {
    Source.DEVICES: "d.scope = s.scope AND d.key = s.key",
    Source.MODULES: "d.scope = s.scope AND d.key = substr(s.key, 1, instr(s.key, '/') - 1)",
}
_BEFORE, _BEHIND = "/", "0"  # a module's key is its device's id, a slash and its own; '0' follows the slash


class Scans:
    """The connections that look through twins, and the threads that they do it in."""

    def __init__(self, path: File | None, here: sqlite3.Connection) -> None:
        """Without `path`, in memory, there is one connection alone, `here`, and it is the event loop's own."""
        self.bit = BIT if path is not None else BIT // 20
        self._path = path
        self._here = here
        self._free: list[sqlite3.Connection] = []
        self._open: list[sqlite3.Connection] = []
        self._turn = asyncio.Semaphore(SCANNING)
        self._waiting = 0
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: set[Future[Any]] = set()
        self._closed = False

    async def run(self, work: Work[T]) -> T:
        """Raises Throttled, Unavailable."""
        if self._path is None:
            await asyncio.sleep(0)
            return self._attempt(work, self._here)
        if self._waiting >= WAITING:
            raise Throttled("too many queries at once; try again")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run_aside(work)
        finally:
            self._turn.release()

    async def _run_aside(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        self._check_open()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(SCANNING, thread_name_prefix="moorage-query")
        db = self._free.pop() if self._free else self._connect()
        too_long = loop.call_later(SECONDS, db.interrupt)
        job = self._threads.submit(self._attempt, work, db)
        self._jobs.add(job)
        running = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while (
                not running.done()
            ):  # nobody waits any more, but the connection is in use until it has ended
                db.interrupt()
                await asyncio.wait([running], timeout=_AGAIN)
            raise
        finally:
            too_long.cancel()
            self._jobs.discard(job)
            self._free.append(db)

    def _connect(self) -> sqlite3.Connection:
        db = connect(self._path)
        db.execute("PRAGMA query_only = 1")
        self._open.append(db)
        return db

    def _attempt(self, work: Work[T], db: sqlite3.Connection) -> T:
        try:
            return work(db)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                self._check_open()
                raise Unavailable(
                    f"a part of the query took more than {SECONDS:.0f} s; ask for less"
                ) from None
            raise fault(error, self._path) from error

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")

    def close(self) -> None:
        """Cuts off what runs."""
        self._closed = True
        running = set(self._jobs)
        while running:
            for db in self._open:
                db.interrupt()
            running = wait(running, timeout=_AGAIN).not_done
        if self._threads is not None:
            self._threads.shutdown()
        for db in self._open:
            db.close()


class SqliteTwinSearch:
    """The twins of one scope."""

    def __init__(self, scans: Scans, scope: int) -> None:
        self._scans = scans
        self._scope = scope

    async def find(self, sought: Sought, *, after: str, limit: int) -> Found:
        scan = _Scan(sought, self._scope, after)
        look_at = self._scans.bit if scan.exact else min(WHOLE, self._scans.bit)
        return await self._scans.run(lambda db: scan.find(db, look_at, limit))

    async def columns(self, sought: Sought, paths: Sequence[Path], *, after: str) -> Columns | None:
        scan = _Scan(sought, self._scope, after)
        try:
            collected = _Collected(scan, paths)
        except Inexpressible:
            return None
        if not scan.exact:
            return None
        return await self._scans.run(lambda db: scan.columns(db, min(COLLECTED, self._scans.bit), collected))


class _Scan:
    """One bit of a search."""

    def __init__(self, sought: Sought, scope: int, after: str) -> None:
        self.source = Source(sought.source)
        self.table = f"{_KINDS[self.source]['t'].name}_search"
        self.conditions = Conditions(self.source, sought.connected)
        self._scope = self.conditions.bind(scope)
        self._after = self.conditions.bind(after)
        self._bounds = (scope, after)
        self._where = self.conditions.where(sought.condition)
        if self.source is Source.MODULES:
            self._where += self._of_device(sought.condition)
        self._by_key = bool(_device_ids(sought.condition, arrays=self.source is Source.DEVICES))

    @property
    def exact(self) -> bool:
        return self.conditions.exact

    def find(self, db: sqlite3.Connection, look_at: int, limit: int) -> Found:
        kinds = _KINDS[self.source]
        last = self._last(db, look_at)
        documents = ", ".join(f"{alias}.document" for alias in kinds)
        sql = f"SELECT s.key, {documents} {self._from(kinds)} {self._condition(last)} ORDER BY s.key LIMIT "
        sql += self.conditions.bind(limit)
        found = db.execute(sql, self.conditions.parameters).fetchall()
        rows = [
            tuple(
                kind.from_document(json.loads(text)) for kind, text in zip(kinds.values(), texts, strict=True)
            )
            for _, *texts in found
        ]
        return Found(rows, found[-1][0] if len(found) == limit else last, self.exact)

    def columns(self, db: sqlite3.Connection, look_at: int, collected: _Collected) -> Columns:
        last = self._last(db, look_at)
        arrays = "".join(f", group_concat({array})" for array in collected.sql)
        aliases = sorted(self.conditions.tables - {"s"})
        sql = f"SELECT count(*){arrays} {self._from(aliases)} {self._condition(last)}"
        count, *texts = db.execute(sql, self.conditions.parameters).fetchone()
        return Columns(count, collected.read(texts), last)

    def _last(self, db: sqlite3.Connection, look_at: int) -> str | None:
        """The key of the last twin that this bit looks at; None when there are no more than those."""
        if self._by_key:
            return None
        sql = f"SELECT key FROM {self.table} WHERE scope = ? AND key > ? ORDER BY key LIMIT 1 OFFSET ?"
        row = db.execute(sql, (*self._bounds, look_at - 1)).fetchone()
        return None if row is None else str(row[0])

    def _from(self, aliases: Sequence[str] | dict[str, Any]) -> str:
        """CROSS JOIN keeps the order: first what is searched, then what is looked up for what was found."""
        tables = f"FROM {self.table} s"
        for alias in ("d", "m", "t"):
            if alias in aliases or alias in self.conditions.tables:
                on = _DEVICE_ON[self.source] if alias == "d" else _ON[alias]
                tables += f" CROSS JOIN {_KINDS[self.source][alias].name} {alias} ON {on}"
        return tables

    def _condition(self, last: str | None) -> str:
        said = [f"s.scope = {self._scope}", f"s.key > {self._after}"]
        if last is not None:
            said.append(f"s.key <= {self.conditions.bind(last)}")
        if self._where:
            said.append(joined("AND", self._where))
        return f"WHERE {' AND '.join(said)}"

    def _of_device(self, condition: Condition | None) -> list[str]:
        """The modules of one device stand together: nobody looks through those of all others."""
        bind = self.conditions.bind
        return [
            f"s.key > {bind(f'{device_id}{_BEFORE}')} AND s.key < {bind(f'{device_id}{_BEHIND}')}"
            for device_id in _device_ids(condition)
        ]


class _Collected:
    """The values of some paths: what SQL collects of each document, JSON arrays between commas, and how it is read.

    Of several paths `json_extract` makes an array of the texts that stand in the document, read once for all of them.
    Raises Inexpressible.
    """

    def __init__(self, scan: _Scan, paths: Sequence[Path]) -> None:
        self._arrays: dict[str, list[str]] = {}  # what is in them, by the document that it is taken from
        self._at = [self._collect(scan, path) for path in paths]

    @property
    def sql(self) -> list[str]:
        return [
            f"json_extract({document}, {', '.join(found if len(found) > 1 else found * 2)})"
            if document
            else f"json_array({', '.join(found)})"
            for document, found in self._arrays.items()
        ]

    def read(self, texts: Sequence[str | None]) -> list[Sequence[Any]]:
        """A sequence for each path."""
        arrays = {
            document: list(zip(*json.loads(f"[{text or ''}]"), strict=True))
            for document, text in zip(self._arrays, texts, strict=True)
        }
        return [
            _told_apart(arrays[document][position] if arrays[document] else (), absent)
            for document, position, absent in self._at
        ]

    def _collect(self, scan: _Scan, path: Path) -> tuple[str, int, object]:
        """In which array the values stand, at which place, and what null means there."""
        operand, at = scan.conditions.operand(path), place(path, scan.source)
        document, found = "", operand.value
        absent: object = UNDEFINED
        if isinstance(at, InDocument) and operand.array is not None:
            if at.form is Form.UNLESS_EMPTY:
                raise Inexpressible
            document, found = operand.array
            below_scopes = "parentScopes" in at.parts[:-1]
            # No twin holds null, and no list of scopes does: there null is what is not there.
            if at.record is not Record.TWIN and at.form is Form.AS_KEPT and not below_scopes:
                absent = None
        elif operand.kinds in ((), ("object",)):
            raise Inexpressible
        array = self._arrays.setdefault(document, [])
        array.append(found)
        return document, len(array) - 1, absent


def _told_apart(column: Sequence[Any], absent: object) -> Sequence[Any]:
    if absent is None or None not in column:
        return column
    return [absent if value is None else value for value in column]


def _device_ids(condition: Condition | None, *, arrays: bool = False) -> list[object]:
    """Of the devices that alone are looked for, or whose modules are, if the condition says so; few at the most."""
    match condition:
        case Comparison("=", Path(parts), Constant(str(device_id))) if canonical(parts) == ("deviceId",):
            return [device_id]
        case Membership(Path(parts), Array(items), False) if arrays and canonical(parts) == ("deviceId",):
            return [item.value for item in items]
        case All(operands):
            return [device_id for operand in operands for device_id in _device_ids(operand, arrays=arrays)]
        case _:
            return []
