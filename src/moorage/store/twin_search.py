"""Looking through twins in SQLite, beside the event loop and a bit at a time. [hub-service 8]

A statement looks at `BIT` twins at the most, some 15 ms: so it holds the write-ahead log back no longer than that. Who
searches has a thread for a turn of several bits, since handing over takes long where processors are busy; then others
have theirs. The interpreter is free while SQLite looks: of a bit only what was found becomes Python.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path as File
from typing import Any, TypeVar

from moorage.errors import Throttled, Unavailable
from moorage.hub.query.tree import Path
from moorage.interfaces import Add, Found, Reached, Sought
from moorage.store.database import connect, fault
from moorage.store.twin_conditions import Inexpressible
from moorage.store.twin_scan import Collected, Scan

BIT = 20_000  # twins looked at by one statement
COLLECTED = 5_000  # … that collects their values
WHOLE = 500  # … when each is to be judged by the caller
TURN = 0.05  # seconds that a search has a thread before others have it
SCANNING = 2  # searches at a time
WAITING = 64  # turns that wait for one of these
SECONDS = 10.0  # for one turn
_AGAIN = 0.02  # seconds; who interrupts a statement that has not begun yet interrupts nothing

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class Scans:
    """The connections that look through twins, and the threads that they do it in."""

    def __init__(self, path: File | None, here: sqlite3.Connection) -> None:
        """Without `path`, in memory, there is one connection alone, `here`, and it is the event loop's own."""
        self.bit = BIT if path is not None else BIT // 20
        self._seconds = TURN if path is not None else 0.0
        self._path = path
        self._here = here
        self._free: list[sqlite3.Connection] = []
        self._open: list[sqlite3.Connection] = []
        self._turn = asyncio.Semaphore(SCANNING)
        self._waiting = 0
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: set[Future[Any]] = set()
        self._closed = False

    def turn(self) -> Callable[[], bool]:
        """Tells, from now on, when it is over."""
        until = time.monotonic() + self._seconds
        return lambda: time.monotonic() >= until

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
        return await self._scans.run(lambda db: self._find(db, sought, after, limit))

    def _find(self, db: sqlite3.Connection, sought: Sought, after: str, limit: int) -> Found:
        rows: list[tuple[Any, ...]] = []
        turn = self._scans.turn()
        while True:
            scan = Scan(sought, self._scope, after)
            look_at = self._scans.bit if scan.exact else min(WHOLE, self._scans.bit)
            found = scan.find(db, look_at, limit - len(rows))
            rows += found.rows
            if found.next is None or len(rows) >= limit or not scan.exact or turn():
                return Found(rows, found.next, found.exact)
            after = found.next

    async def gather(
        self, sought: Sought, by: Sequence[Path], summed: Sequence[Path], add: Add, *, after: str
    ) -> Reached | None:
        try:
            first = Scan(sought, self._scope, after)
            Collected(first, by, summed)
        except Inexpressible:
            return None
        if not first.exact:
            return None
        return await self._scans.run(lambda db: self._gather(db, sought, by, summed, add, after))

    def _gather(
        self,
        db: sqlite3.Connection,
        sought: Sought,
        by: Sequence[Path],
        summed: Sequence[Path],
        add: Add,
        after: str,
    ) -> Reached:
        look_at = min(COLLECTED, self._scans.bit) if by or summed else self._scans.bit
        turn = self._scans.turn()
        while True:
            scan = Scan(sought, self._scope, after)
            reached = scan.gather(db, look_at, Collected(scan, by, summed), add)
            if reached is None or turn():
                return Reached(reached)
            after = reached

    async def aside(self, work: Callable[[], T]) -> T:
        return await self._scans.run(lambda _: work())
