"""When devices and modules connected and were heard of, kept without a write for each message. [hub-service 5.2]

What began or ended is written every few seconds, many devices at once, and of each only what came of it: a connection
that was over soon is one write. A connection that goes on is written once a minute. So a crash loses some seconds of
beginnings and ends and a minute of activity, which nobody was told was kept. Whoever was connected then counts as away
since it was last heard of.

In memory is what was not written yet, and who is connected; the rest is looked up when somebody asks, so that neither
the start nor the memory grows with all the devices that were ever seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.errors import MoorageError
from moorage.hub.session import Presence, Sessions
from moorage.interfaces import Change, Clock, Delete, DeleteBelow, Expect, Kind, PutAll, Store

ACTIVITY_EVERY = 60.0  # seconds
MAX_BATCH = (
    200  # records in one commit, a millisecond of the loop: a crowd that comes at once holds up nobody
)


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


def forgotten_with_modules(scope: int, device_id: str) -> list[Change]:
    """For the commit that deletes a device, and with it its modules."""
    return [forgotten(scope, device_id), DeleteBelow(KIND, scope, device_id)]


class Presences:
    """Those of one hub: what its sessions have seen, and what is kept of earlier ones."""

    def __init__(self, scope: int, store: Store, clock: Clock, sessions: Sessions) -> None:
        self._scope = scope
        self._store = store
        self._records = store.records(KIND, scope)
        self._clock = clock
        self._sessions = sessions
        self._swept = clock.monotonic()
        self._heard_until = clock.now()
        self.paused = False
        """While a hub is deleted: nothing is to be written below it any more."""

    async def of(self, name: str) -> Presence:
        """That of a device or module, as its views tell it."""
        seen = self._sessions.presence(name)
        if seen.changed_at is not None:
            return seen
        kept = await self._records.get(name)
        return seen if kept is None else _since_the_crash(kept.presence)._replace(queued=seen.queued)

    async def keep(self) -> None:
        """Make durable what has changed. Raises Unavailable, StorageFull; it is all written the next time then."""
        if self._clock.monotonic() - self._swept >= ACTIVITY_EVERY:
            self._sweep()
        changed = self._sessions.changed
        while changed and not self.paused:
            names = [changed.pop() for _ in range(min(len(changed), MAX_BATCH))]
            now = {name: self._sessions.presence(name) for name in names}
            try:
                await self._store.apply(self._changes(now))
            except MoorageError:
                changed.update(names)
                raise
            for name, presence in now.items():
                self._sessions.written(name, presence)

    def _sweep(self) -> None:
        """Whoever was heard of since the last sweep is to be written."""
        heard = self._sessions.heard_since(self._heard_until)
        self._swept, self._heard_until = self._clock.monotonic(), self._clock.now()
        self._sessions.changed.update(heard)

    def _changes(self, presences: Mapping[str, Presence]) -> list[Change]:
        """What is known of nobody has been deleted meanwhile."""
        kept: list[KeptPresence] = []
        gone: list[Change] = []
        for name, presence in presences.items():
            if presence.changed_at is None:
                gone.append(forgotten(self._scope, name))
            else:
                kept.append(KeptPresence(name, presence))
        return [PutAll(KIND, self._scope, kept), *gone] if kept else gone


def _since_the_crash(presence: Presence) -> Presence:
    """Of somebody not seen since the server started: who was connected then went when it was last heard of."""
    if not presence.connected:
        return presence
    return presence._replace(
        connected=False, changed_at=max(presence.changed_at or 0, presence.last_activity or 0)
    )
