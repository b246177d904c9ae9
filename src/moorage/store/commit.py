"""Writing with one sync for everybody who waits.

A commit costs a sync of the disk, about 0.2 ms, whatever its size, and as much again in handing the interpreter
to and fro. So one thread commits, and whatever queued up while it was busy becomes its next transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from moorage.errors import MoorageError
from moorage.store.database import connect, fault
from moorage.store.table import Write

Outcome = Exception | None
"""What became of one caller's writes: None when they are durable, else why nothing of them was kept."""

Settled = Callable[[], object]
"""Called on the event loop's thread when it is decided what has become of writes, before their caller hears of it."""

_Waiting = tuple[Sequence[Write], "asyncio.Future[None]", Settled]

CHECKPOINT_AFTER = 500  # writes, of some eight pages with index rows: the write-ahead log stays near 20 MB

GATHER = 4  # turns of the event loop: no time when it is idle; under load a turn is long and others join
GATHER_SECONDS = 0.05  # at the most, where each few turns bring another

log = logging.getLogger("moorage.store")


def nothing() -> None: ...


class Commits(Protocol):
    async def commit(self, writes: Sequence[Write], settled: Settled = nothing) -> None:
        """All or none of `writes`, durable on return. `settled` is called for a caller who was cancelled too."""
        ...

    async def close(self) -> None: ...


class Transactions:
    """The connection that writes."""

    def __init__(self, db: sqlite3.Connection, path: Path | None) -> None:
        self._db = db
        self._path = path

    def commit(self, callers: Sequence[Sequence[Write]]) -> list[Outcome]:
        """One transaction for all callers; each one's writes stand or fall by themselves."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._run(writes) for writes in callers]
            self._db.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            # An exception each, for whoever raises one adds to its traceback.
            return [fault(error, self._path) if isinstance(error, sqlite3.Error) else error for _ in callers]
        return outcomes

    def _run(self, writes: Sequence[Write]) -> Outcome:
        if len(writes) == 1:  # has nothing to undo: a write is refused before it changes anything
            return self._try(writes)
        self._db.execute("SAVEPOINT caller")
        outcome = self._try(writes)
        if outcome is not None:
            self._db.execute("ROLLBACK TO caller")
        self._db.execute("RELEASE caller")
        return outcome

    def _try(self, writes: Sequence[Write]) -> Outcome:
        try:
            for write in writes:
                write(self._db)
        except MoorageError as error:
            return error
        return None

    def _roll_back(self) -> None:
        """SQLite has ended the transaction itself after some errors, a full disk among them."""
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def checkpoint(self) -> None:
        _checkpoint(self._db, self._path)

    def close(self) -> None:
        """As the last connection this also folds the write-ahead log into the database and removes it."""
        self._db.close()


class CommitsHere:
    """In memory there is no sync to share: the transaction runs at once, on the event loop."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def commit(self, writes: Sequence[Write], settled: Settled = nothing) -> None:
        await asyncio.sleep(0)  # as with a disk, others run while a write is under way
        [outcome] = self._transactions.commit([writes])
        settled()
        if outcome is not None:
            raise outcome

    async def close(self) -> None:
        self._transactions.close()


class GroupCommits:
    """A thread that commits, in one transaction, everything that queued up since its last one.

    The loop hands over at once what comes until `GATHER` turns have brought nobody. The thread would else take the
    first write alone; and each commit has the loop give way at every statement, and takes the pages out of its
    reader's memory.
    """

    def __init__(self, transactions: Transactions, checkpoints: Checkpoints) -> None:
        self._transactions = transactions
        self._checkpoints = checkpoints
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Waiting] = []
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()  # None: close
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="moorage-records", daemon=True)
        self._thread.start()

    async def commit(self, writes: Sequence[Write], settled: Settled = nothing) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._gather, GATHER, 0, self._loop.time() + GATHER_SECONDS)
        self._gathered.append((writes, done, settled))
        await done

    def _gather(self, turns: int, before: int, until: float) -> None:
        """Once a turn, for as many turns as are left or until that time; `before` is how many had come a turn ago."""
        count = len(self._gathered)
        turns = GATHER if count > before else turns
        if turns > 1 and self._loop.time() < until:
            self._loop.call_soon(self._gather, turns - 1, count, until)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._queue.put(gathered)

    async def close(self) -> None:
        self._hand_over()
        self._queue.put(None)
        await self._closed
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting, closing = self._take()
            if waiting:
                outcomes = self._transactions.commit([writes for writes, _, _ in waiting])
                self._call(_resolve, waiting, outcomes)
                count = sum(len(writes) for writes, _, _ in waiting)
                self._checkpoints.after_commit(self._transactions, count)
        self._checkpoints.close()
        self._transactions.close()
        self._call(self._closed.set_result, None)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Wait for the first, then take all there are; true when the store is to close after them."""
        waiting: list[_Waiting] = []
        taken = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while taken is not None:
                waiting += taken
                taken = self._queue.get_nowait()
        return waiting, taken is None

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended without close(): nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)


class Checkpoints:
    """Copies the write-ahead log into the database, the bulk of it beside the commits.

    The log starts over only at a moment when all of it has been copied. Under a steady load that does not
    happen by itself, so the committing thread copies the few pages added while the bulk was under way.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = connect(path)
        self._bulk: threading.Thread | None = None
        self._writes = 0

    def after_commit(self, transactions: Transactions, writes: int) -> None:
        """On the committing thread, between two transactions."""
        self._writes += writes
        if self._bulk is not None:
            if not self._bulk.is_alive():
                self._bulk = None
                transactions.checkpoint()
        elif self._writes >= CHECKPOINT_AFTER:
            self._writes = 0
            self._bulk = threading.Thread(
                target=_checkpoint, args=(self._db, self._path), name="moorage-checkpoint", daemon=True
            )
            self._bulk.start()

    def close(self) -> None:
        if self._bulk is not None:
            self._bulk.join()
        self._db.close()


def _checkpoint(db: sqlite3.Connection, path: Path | None) -> None:
    """Copy what can be copied without waiting for anybody; the rest stays in the log until the next time."""
    try:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error as error:
        log.warning("checkpoint failed", extra={"reason": str(fault(error, path))})


def _resolve(waiting: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    for (_, done, settled), outcome in zip(waiting, outcomes, strict=True):
        settled()
        if done.done():  # cancelled meanwhile
            continue
        if outcome is None:
            done.set_result(None)
        else:
            done.set_exception(outcome)
