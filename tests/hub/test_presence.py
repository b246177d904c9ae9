"""When devices and modules connected and were heard of, over restarts and crashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from moorage.errors import Unavailable
from moorage.hub import presence
from moorage.hub.device_identity import read_settings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import read_module_settings
from moorage.hub.presence import ACTIVITY_EVERY, Presences
from moorage.hub.session import Cause, Ending, Presence, Principal, Session, Sessions
from moorage.interfaces import Change, Clock, Kind, PutAll, Store, TwinSearch
from tests.hub.conftest import START
from tests.support.sessions import ClosingLink

SECOND = 1_000_000
GOODBYE = Ending(Cause.DISCONNECT)


class Counted:
    """A store that counts what is in each commit, and can be full."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits: list[int] = []
        self.full = False
        self.meanwhile: Callable[[], object] | None = None  # happens once, while a commit is under way

    def records(self, kind: Kind[Any], scope: int) -> Any:
        return self._store.records(kind, scope)

    def twin_search(self, scope: int) -> TwinSearch:
        return self._store.twin_search(scope)

    def turn(self, kind: Kind[Any], scope: int, key: str) -> AbstractAsyncContextManager[None]:
        return self._store.turn(kind, scope, key)

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise Unavailable("full")
        self.commits.append(sum(len(each.records) if isinstance(each, PutAll) else 1 for each in changes))
        await self._store.apply(changes)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()


@pytest.fixture
def counted(store: Store) -> Counted:
    return Counted(store)


@pytest.fixture
def presences(hub: Hub, counted: Counted, clock: Clock, sessions: Sessions) -> Presences:
    return Presences(hub.scope, counted, clock, sessions)


def connect(sessions: Sessions, clock: Clock, name: str, model_id: str = "") -> Session:
    device_id, _, module_id = name.partition("/")
    principal = Principal(device_id, "1", "device", "sas", module_id=module_id or None)
    session = Session(principal, clock.now(), ClosingLink(), model_id=model_id)
    sessions.open(session)
    return session


def restarted(hub: Hub, store: Store, clock: Clock) -> Presences:
    """What another server makes of the records."""
    return Presences(hub.scope, store, clock, Sessions(clock))


async def test_who_went_away_is_known_after_a_restart(
    presences: Presences,
    sessions: Sessions,
    hub: Hub,
    store: Store,
    clock: Clock,
    advance: Callable[[float], None],
) -> None:
    session, module = connect(sessions, clock, "d1", "dtmi:a;1"), connect(sessions, clock, "d1/m")
    advance(5)
    session.last_activity = clock.now()
    advance(5)
    sessions.close(session, GOODBYE)
    sessions.close(module, GOODBYE)
    await presences.keep()
    for known in (presences, restarted(hub, store, clock)):
        assert await known.of("d1") == Presence(False, START + 10 * SECOND, START + 5 * SECOND, "dtmi:a;1")
        assert await known.of("d1/m") == Presence(False, START + 10 * SECOND, START)
        assert await known.of("d2") == Presence()


async def test_who_was_connected_at_a_crash_counts_as_away_since_it_was_last_heard_of(
    presences: Presences,
    sessions: Sessions,
    hub: Hub,
    store: Store,
    clock: Clock,
    advance: Callable[[float], None],
) -> None:
    session = connect(sessions, clock, "d1")
    await presences.keep()
    advance(ACTIVITY_EVERY + 1)
    session.last_activity = clock.now()
    heard = clock.now()
    await presences.keep()
    advance(3600)
    for _ in range(2):
        assert await restarted(hub, store, clock).of("d1") == Presence(False, heard, heard)


async def test_a_thousand_messages_are_no_write_and_a_minute_is_one(
    presences: Presences, sessions: Sessions, counted: Counted, clock: Clock, advance: Callable[[float], None]
) -> None:
    busy = [connect(sessions, clock, f"d{number}") for number in range(3)]
    connect(sessions, clock, "idle")
    await presences.keep()
    assert counted.commits == [4], "one commit for all of them"
    for _ in range(30):
        advance(1)
        for session in busy:
            session.last_activity = clock.now()
        await presences.keep()
    assert counted.commits == [4]
    for _ in range(60):
        advance(1)
        busy[0].last_activity = clock.now()
        await presences.keep()
    assert counted.commits == [4, 3]


async def test_a_crowd_is_written_in_batches(
    presences: Presences, sessions: Sessions, counted: Counted, clock: Clock
) -> None:
    for number in range(2500):
        connect(sessions, clock, f"d{number}")
    await presences.keep()
    assert counted.commits == [200] * 12 + [100]


async def test_what_could_not_be_written_is_written_later(
    presences: Presences, sessions: Sessions, counted: Counted, hub: Hub, store: Store, clock: Clock
) -> None:
    connect(sessions, clock, "d1")
    counted.full = True
    with pytest.raises(Unavailable):
        await presences.keep()
    counted.full = False
    await presences.keep()
    assert (await restarted(hub, store, clock).of("d1")).changed_at == START


async def test_a_connection_that_was_over_soon_is_one_write(
    presences: Presences, sessions: Sessions, counted: Counted, clock: Clock
) -> None:
    for _ in range(3):
        sessions.close(connect(sessions, clock, "d1"), GOODBYE)
    await presences.keep()
    assert counted.commits == [1]
    await presences.keep()
    assert counted.commits == [1]


async def test_who_is_away_is_remembered_until_it_is_written_and_looked_up_from_then_on(
    presences: Presences,
    sessions: Sessions,
    counted: Counted,
    clock: Clock,
    advance: Callable[[float], None],
) -> None:
    session = connect(sessions, clock, "d1")
    await presences.keep()
    sessions.close(session, GOODBYE)
    counted.full = True
    with pytest.raises(Unavailable):
        await presences.keep()
    away = Presence(False, START, START)
    assert sessions.presence("d1") == away == await presences.of("d1")
    counted.full = False
    await presences.keep()
    assert sessions.presence("d1") == Presence()
    assert await presences.of("d1") == away
    advance(1)
    connect(sessions, clock, "d1")
    assert (await presences.of("d1")).connected


async def test_what_happens_while_it_is_written_is_written_next(
    presences: Presences,
    sessions: Sessions,
    counted: Counted,
    hub: Hub,
    store: Store,
    clock: Clock,
    advance: Callable[[float], None],
) -> None:
    sessions.close(connect(sessions, clock, "d1"), GOODBYE)

    def comes_and_goes() -> None:
        advance(1)
        sessions.close(connect(sessions, clock, "d1"), GOODBYE)

    counted.meanwhile = comes_and_goes
    await presences.keep()
    assert counted.commits == [1, 1]
    assert (await presences.of("d1")).changed_at == START + SECOND
    assert (await restarted(hub, store, clock).of("d1")).changed_at == START + SECOND


async def test_nothing_is_inherited_by_a_later_identity(
    identities: Identities, sessions: Sessions, hub: Hub, store: Store, clock: Clock
) -> None:
    kept = store.records(presence.KIND, hub.scope)
    await identities.create(read_settings("d1", {}))
    await identities.modules.create(read_module_settings("d1", "m", {}))
    for name in ("d1", "d1/m"):
        connect(sessions, clock, name)
    await identities.presences.keep()
    assert await kept.count() == 2
    await identities.modules.delete("d1", "m")
    await identities.presences.keep()
    assert await kept.count() == 1
    await identities.delete("d1")
    assert await kept.count() == 0
    await identities.presences.keep()
    assert await kept.count() == 0

    # What a crash left between a deletion and the write after it goes with the next identity of that name.
    orphan = presence.KeptPresence("d1", Presence(False, START, START))
    await kept.put(orphan)
    await kept.put(presence.KeptPresence("d1/m", Presence(False, START, START)))
    await identities.create(read_settings("d1", {}))
    await identities.modules.create(read_module_settings("d1", "m", {}))
    assert await kept.count() == 0


async def test_what_an_earlier_run_has_kept_goes_with_the_identity(
    identities: Identities, hub: Hub, store: Store
) -> None:
    kept = store.records(presence.KIND, hub.scope)
    for device in ("d", "d1", "d10"):
        await identities.create(read_settings(device, {}))
        for module in ("a", "z"):
            await identities.modules.create(read_module_settings(device, module, {}))
    names = [f"{device}{module}" for device in ("d", "d1", "d10") for module in ("", "/a", "/z")]
    for name in names:
        await kept.put(presence.KeptPresence(name, Presence(True, START, START)))

    await identities.modules.delete("d1", "z")
    assert await kept.get("d1/z") is None
    await identities.delete("d1")

    left = [found.name for found in (await kept.page(limit=10)).records]
    assert left == [name for name in sorted(names) if not name.startswith(("d1/",)) and name != "d1"]


async def test_a_deleted_hub_is_written_no_more(
    presences: Presences, sessions: Sessions, counted: Counted, clock: Clock
) -> None:
    connect(sessions, clock, "d1")
    presences.paused = True
    await presences.keep()
    assert counted.commits == []
