"""What a device has subscribed to, kept from one connection to the next. [hub-device 3.2]"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from moorage.hub.session import Principal
from moorage.interfaces import Expect, Kind, Store


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """`subscriptions` are what the device listens to, in its protocol's words, each with the quality it was granted.

    `generation_id` is that of the device: no later one of its name finds the session.
    """

    name: str
    device_id: str
    generation_id: str
    subscriptions: Mapping[str, int] = field(default_factory=dict)
    etag: str = ""

    @classmethod
    def of(cls, principal: Principal, subscriptions: Mapping[str, int]) -> StoredSession:
        return cls(
            name=principal.name,
            device_id=principal.device_id,
            generation_id=principal.generation_id,
            subscriptions=dict(subscriptions),
        )


KIND: Kind[StoredSession] = Kind(
    name="stored_session",
    key=lambda session: session.name,
    to_document=lambda session: {
        "name": session.name,
        "deviceId": session.device_id,
        "generationId": session.generation_id,
        "subscriptions": dict(session.subscriptions),
    },
    from_document=lambda document: StoredSession(
        name=document["name"],
        device_id=document["deviceId"],
        generation_id=document["generationId"],
        subscriptions=document["subscriptions"],
    ),
    index={"device": lambda session: [session.device_id], "name": lambda session: [session.name]},
)
"""Kept under the scope of the hub, by the name of the device or module."""

MAX_WITHOUT = 50_000  # names remembered


class StoredSessions:
    """Those of one hub. Who was found to have none is remembered: a device that keeps none says so at each connect."""

    def __init__(self, store: Store, scope: int) -> None:
        self._store = store
        self._scope = scope
        self._records = store.records(KIND, scope)
        self._without: set[str] = set()

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """A connection that begins finds all that the one before it has kept, which keeps nothing behind that.

        Who begins has its turn from `get` on until it is the connection of the device, who keeps something has it
        for the `put`.
        """
        return self._store.turn(KIND, self._scope, name)

    async def get(self, name: str) -> StoredSession | None:
        if name in self._without:
            return None
        stored = await self._records.get(name)
        if stored is None:
            if len(self._without) >= MAX_WITHOUT:
                self._without.clear()
            self._without.add(name)
        return stored

    async def put(self, stored: StoredSession) -> None:
        """Durable on return."""
        try:
            await self._records.put(stored, expect=Expect.ANY)
        finally:  # afterwards: somebody may have looked meanwhile
            self._without.discard(stored.name)

    async def delete(self, name: str) -> None:
        """Durable on return; there may be none."""
        await self._records.delete(name, expect=Expect.ANY)
