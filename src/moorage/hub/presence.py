"""When devices and modules connected and were heard of, kept without a write for each message. [hub-service 5.2]

What began or ended is written once a second, all of it in one commit; a connection that goes on, once a minute. So a
crash loses a second of beginnings and ends and a minute of activity. Whoever was connected then counts as away since
it was last heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.errors import MoorageError
from moorage.hub.session import Presence, Sessions
from moorage.interfaces import Change, Clock, Delete, Expect, Kind, Put, Store

ACTIVITY_EVERY = 60.0  # seconds
MAX_BATCH = 1000  # records in one commit, so that a crowd that comes at once holds up nobody else
_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class KeptPresence:
    """`name` is that of the device or module. There are no versions of it: the newest is the only one."""

    name: str
    presence: Presence

    @property
    def etag(self) -> str:
        return ""


def _to_document(kept: KeptPresence) -> dict[str, Any]:
    presence = kept.presence
    return {
        "name": kept.name,
        "connected": presence.connected,
        "changedAt": presence.changed_at,
        "lastActivity": presence.last_activity,
        "modelId": presence.model_id,
    }


def _from_document(document: Mapping[str, Any]) -> KeptPresence:
    presence = Presence(
        document["connected"], document["changedAt"], document["lastActivity"], document["modelId"]
    )
    return KeptPresence(document["name"], presence)


KIND: Kind[KeptPresence] = Kind(
    name="presence",
    key=lambda kept: kept.name,
    to_document=_to_document,
    from_document=_from_document,
    index={},
)
"""Kept under the scope of the hub, by the name of the device or module."""


def forgotten(scope: int, name: str) -> Delete:
    """For the commit that makes or deletes an identity: a new one inherits nothing, also not over a crash."""
    return Delete(KIND, scope, name, Expect.ANY)


class Presences:
    """Those of one hub, taken from its sessions and given back to them after a restart."""

    def __init__(self, scope: int, store: Store, clock: Clock, sessions: Sessions) -> None:
        self._scope = scope
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._swept = clock.monotonic()
        self._heard_until = clock.now()
        self.paused = False
        """While a hub is deleted: nothing is to be written below it any more."""

    async def open(self) -> None:
        """Take up what is kept, before anybody connects."""
        records, after = self._store.records(KIND, self._scope), None
        while True:
            page = await records.page(after=after, limit=_PAGE)
            for kept in page.records:
                self._sessions.restore(kept.name, _since_the_crash(kept.presence))
            if (after := page.next) is None:
                return

    async def keep(self) -> None:
        """Make durable what has changed. Raises Unavailable, StorageFull; it is all written the next time then."""
        if self._clock.monotonic() - self._swept >= ACTIVITY_EVERY:
            self._sweep()
        changed = self._sessions.changed
        while changed and not self.paused:
            names = [changed.pop() for _ in range(min(len(changed), MAX_BATCH))]
            try:
                await self._store.apply([self._change(name) for name in names])
            except MoorageError:
                changed.update(names)
                raise

    def _sweep(self) -> None:
        """Whoever was heard of since the last sweep is to be written."""
        heard = self._sessions.heard_since(self._heard_until)
        self._swept, self._heard_until = self._clock.monotonic(), self._clock.now()
        self._sessions.changed.update(heard)

    def _change(self, name: str) -> Change:
        presence = self._sessions.presence(name)
        if presence.changed_at is None:
            return forgotten(self._scope, name)
        return Put(KIND, self._scope, KeptPresence(name, presence), Expect.ANY)


def _since_the_crash(presence: Presence) -> Presence:
    """Nobody is connected when a server starts; who had not been away before, went when it was last heard of."""
    if not presence.connected:
        return presence
    return presence._replace(
        connected=False, changed_at=max(presence.changed_at or 0, presence.last_activity or 0)
    )
