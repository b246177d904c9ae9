from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import Conflict, Unavailable
from moorage.interfaces import Kind, Put
from moorage.store.commit import GATHER, Checkpoints, GroupCommits, Outcome, Transactions
from moorage.store.database import connect, open_database
from moorage.store.table import Table, Write

Buoy = Callable[..., Any]
PutBuoy = Callable[[str], Write]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.sqlite3"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(path)) as opened:
        yield opened


@pytest.fixture
def put(buoys: Kind[Any], buoy: Buoy) -> PutBuoy:
    table = Table(buoys)
    return lambda name: table.write(Put(buoys, 1, buoy(name)))


def names(path: Path) -> list[str]:
    with closing(connect(path)) as db:
        return [name for (name,) in db.execute("SELECT key FROM device_identity ORDER BY key")]


def test_any_number_of_callers_share_one_commit(db: sqlite3.Connection, path: Path, put: PutBuoy) -> None:
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    outcomes = Transactions(db, path).commit([[put(f"n{number}")] for number in range(100)])
    db.set_trace_callback(None)
    assert outcomes == [None] * 100
    assert statements.count("COMMIT") == 1
    assert len(names(path)) == 100


def test_a_caller_refused_takes_nobody_along(db: sqlite3.Connection, path: Path, put: PutBuoy) -> None:
    outcomes = Transactions(db, path).commit(
        [[put("a")], [put("b1"), put("a"), put("b2")], [put("c1"), put("c2")], [put("a")]]
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, type(None), Conflict]
    assert names(path) == ["a", "c1", "c2"]


def test_a_write_that_fails_in_an_unforeseen_way_fails_its_transaction_only(
    db: sqlite3.Connection, path: Path, put: PutBuoy
) -> None:
    def stumble(db: sqlite3.Connection) -> None:
        raise RuntimeError("stumbled")

    transactions = Transactions(db, path)
    assert [str(outcome) for outcome in transactions.commit([[put("a")], [stumble]])] == ["stumbled"] * 2
    assert transactions.commit([[put("b")]]) == [None]
    assert names(path) == ["b"]


def test_a_database_held_by_another_program_is_unavailable_until_let_go(
    db: sqlite3.Connection, path: Path, put: PutBuoy
) -> None:
    with closing(connect(path)) as other, closing(connect(path, busy_seconds=0.02)) as ours:
        other.execute("BEGIN IMMEDIATE")
        [outcome] = Transactions(ours, path).commit([[put("a")]])
        assert isinstance(outcome, Unavailable)
        assert "held by another program" in str(outcome)
        other.execute("COMMIT")
        assert Transactions(ours, path).commit([[put("a")]]) == [None]


class HeldUp(Transactions):
    """Transactions that note their sizes and of which the first waits until it is let go."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        super().__init__(db, path)
        self.started = threading.Event()
        self.go = threading.Event()
        self.sizes: list[int] = []

    def commit(self, callers: Sequence[Sequence[Write]]) -> list[Outcome]:
        self.started.set()
        self.go.wait(10)
        self.sizes.append(len(callers))
        return super().commit(callers)


async def test_whoever_comes_during_a_commit_joins_the_next(path: Path, put: PutBuoy) -> None:
    transactions = HeldUp(open_database(path), path)
    commits = GroupCommits(transactions, Checkpoints(path))
    first = asyncio.create_task(commits.commit([put("first")]))
    await asyncio.to_thread(transactions.started.wait, 10)
    others = [asyncio.create_task(commits.commit([put(f"n{number}")])) for number in range(99)]
    await asyncio.sleep(0)
    transactions.go.set()
    await asyncio.gather(first, *others)
    assert transactions.sizes == [1, 99]
    await commits.close()


async def test_what_comes_within_a_few_turns_is_one_transaction(path: Path, put: PutBuoy) -> None:
    transactions = HeldUp(open_database(path), path)
    transactions.go.set()
    commits = GroupCommits(transactions, Checkpoints(path))
    tasks = []
    for number in range(GATHER):
        tasks.append(asyncio.create_task(commits.commit([put(f"n{number}")])))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert transactions.sizes == [GATHER]
    await commits.close()


async def test_a_transaction_is_put_off_while_others_join(path: Path, put: PutBuoy) -> None:
    transactions = HeldUp(open_database(path), path)
    transactions.go.set()
    commits = GroupCommits(transactions, Checkpoints(path))
    tasks = []
    for number in range(3 * GATHER):
        tasks.append(asyncio.create_task(commits.commit([put(f"n{number}")])))
        for _ in range(GATHER - 1):
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert transactions.sizes == [3 * GATHER]
    await commits.close()


async def test_but_not_for_ever(path: Path, put: PutBuoy) -> None:
    transactions = HeldUp(open_database(path), path)
    transactions.go.set()
    commits = GroupCommits(transactions, Checkpoints(path))
    first = asyncio.create_task(commits.commit([put("first")]))
    others: list[asyncio.Task[None]] = []
    async with asyncio.timeout(30):
        while not first.done():
            others.append(asyncio.create_task(commits.commit([put(f"n{len(others)}")])))
            await asyncio.sleep(0)
    await asyncio.gather(*others)
    assert len(transactions.sizes) > 1
    await commits.close()


async def test_closing_waits_for_what_came_before(path: Path, put: PutBuoy) -> None:
    transactions = HeldUp(open_database(path), path)
    commits = GroupCommits(transactions, Checkpoints(path))
    task = asyncio.create_task(commits.commit([put("last")]))
    await asyncio.sleep(0)
    closing_task = asyncio.create_task(commits.close())
    await asyncio.sleep(0)
    assert not closing_task.done()
    transactions.go.set()
    await closing_task
    await task
    assert names(path) == ["last"]
