"""A hub in memory, at a time that only moves when a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from moorage.app import KINDS
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import Sessions
from moorage.interfaces import Clock, Store
from moorage.store.sqlite import SqliteStore

START = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z


class SetClock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1e6


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def advance(clock: SetClock) -> Callable[[float], None]:
    """Move the time on by so many seconds."""

    def move(seconds: float) -> None:
        clock.time += int(seconds * 1_000_000)

    return move


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = SqliteStore.open(None, kinds=KINDS)
    yield opened
    await opened.close()


@pytest.fixture
def hub() -> Hub:
    return Hub(
        scope=7,
        name="hub",
        host_names=("localhost", "127.0.0.1"),
        advertised_host="localhost",
        created=START,
    )


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


@pytest.fixture
def identities(hub: Hub, store: Store, clock: Clock, sessions: Sessions) -> Identities:
    return Identities(hub, store, clock, sessions)
