"""When devices and modules connected and were heard of, over restarts and crashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from moorage.interfaces import Change, Clock, Kind, Store, TwinSearch
from tests.hub.conftest import START
from tests.support.sessions import ClosingLink

SECOND = 1_000_000
GOODBYE = Ending(Cause.DISCONNECT)


class Counted:
    """A store that counts commits, and can be full."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits: list[int] = []
        self.full = False

    def records(self, kind: Kind[Any], scope: int) -> Any:
        return self._store.records(kind, scope)

    def twin_search(self, scope: int) -> TwinSearch:
        return self._store.twin_search(scope)

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise Unavailable("full")
        self.commits.append(len(changes))
        await self._store.apply(changes)


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


async def restarted(hub: Hub, store: Store, clock: Clock) -> Sessions:
    """What another server makes of the records."""
    sessions = Sessions(clock)
    await Presences(hub.scope, store, clock, sessions).open()
    return sessions


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
    again = await restarted(hub, store, clock)
    assert again.presence("d1") == Presence(False, START + 10 * SECOND, START + 5 * SECOND, "dtmi:a;1")
    assert again.presence("d1/m") == Presence(False, START + 10 * SECOND, START)
    assert again.presence("d2") == Presence()
    again.forget_device("d1")
    assert again.presence("d1/m") == Presence(), "modules are known by their device"


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
        again = await restarted(hub, store, clock)
        assert again.presence("d1") == Presence(False, heard, heard)
    assert len(again) == 0


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
    assert counted.commits == [1000, 1000, 500]


async def test_what_could_not_be_written_is_written_later(
    presences: Presences, sessions: Sessions, counted: Counted, hub: Hub, store: Store, clock: Clock
) -> None:
    connect(sessions, clock, "d1")
    counted.full = True
    with pytest.raises(Unavailable):
        await presences.keep()
    counted.full = False
    await presences.keep()
    assert (await restarted(hub, store, clock)).presence("d1").changed_at == START


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

    # What a crash left between a deletion and the second after it goes with the next identity of that name.
    orphan = presence.KeptPresence("d1", Presence(False, START, START))
    await kept.put(orphan)
    await kept.put(presence.KeptPresence("d1/m", Presence(False, START, START)))
    await identities.create(read_settings("d1", {}))
    await identities.modules.create(read_module_settings("d1", "m", {}))
    assert await kept.count() == 0


async def test_a_deleted_hub_is_written_no_more(
    presences: Presences, sessions: Sessions, counted: Counted, clock: Clock
) -> None:
    connect(sessions, clock, "d1")
    presences.paused = True
    await presences.keep()
    assert counted.commits == []
