"""What one MQTT connection has subscribed to, and keeps for the next one of its session. [hub-device 3.2, 3.5]

A subscription counts at once. The device is told of it when a session that is to outlive its connection has kept it:
what SUBACK has granted is found again, over a restart of the server too. Only the connection that the device has now
keeps anything: one that was taken over would bring back what a clean session has just forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from moorage.errors import MoorageError
from moorage.hub.session import Principal
from moorage.hub.stored_session import StoredSession, StoredSessions
from moorage.wire.mqtt import packets

MAX_SUBSCRIPTIONS = 5  # of one connection [hub-device 3.4]


class TopicFamily(Protocol):
    """Topics that belong together, and whoever publishes there."""

    def subscribe(self, topic_filter: str, qos: int) -> int | None:
        """The QoS granted; None for a filter of another family."""
        ...

    def unsubscribe(self, topic_filter: str) -> None: ...


class KeptSession(NamedTuple):
    """What a device finds of its last connection: unless it wants a `clean` session, what it had subscribed to."""

    clean: bool
    subscriptions: Mapping[str, int]


NOTHING_KEPT = KeptSession(clean=True, subscriptions={})


async def kept_session(sessions: StoredSessions, principal: Principal, *, clean: bool) -> KeptSession:
    """What is left of the last connection; within its turn. A clean session forgets it, durably. Raises Unavailable."""
    stored = await sessions.get(principal.name)
    if clean:
        if stored is not None:
            await sessions.delete(principal.name)
        return NOTHING_KEPT
    if stored is None or stored.generation_id != principal.generation_id:
        return KeptSession(clean=False, subscriptions={})
    return KeptSession(clean=False, subscriptions=stored.subscriptions)


class Subscriptions:
    """By topic filter, with the QoS granted."""

    def __init__(
        self,
        families: Sequence[TopicFamily],
        principal: Principal,
        sessions: StoredSessions,
        *,
        clean: bool,
        live: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        lost: Callable[[MoorageError], object],
        overtaken: Callable[[], object],
    ) -> None:
        """`live` says whether this is the connection that the device has now; `spawn` runs a coroutine to its end.

        `lost` is told when something could not be kept, `overtaken` when it was not because that came too late.
        """
        self._families = families
        self._principal = principal
        self._sessions = sessions
        self._clean = clean
        self._live = live
        self._spawn = spawn
        self._lost = lost
        self._overtaken = overtaken
        self._granted: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._granted)

    def resume(self, subscriptions: Mapping[str, int]) -> None:
        """Those of the session's last connection are in force again."""
        for topic_filter, qos in subscriptions.items():
            self._grant(topic_filter, qos)

    def subscribe(self, filters: Sequence[tuple[str, int]], done: Callable[[Sequence[int]], object]) -> None:
        """`done(codes)` is called with what SUBACK says, now or once it is durable."""
        before = dict(self._granted)
        codes = [self._grant(topic_filter, qos) for topic_filter, qos in filters]
        self._keep(before, lambda: done(codes))

    def unsubscribe(self, filters: Sequence[str], done: Callable[[], object]) -> None:
        before = dict(self._granted)
        for topic_filter in filters:
            self._granted.pop(topic_filter, None)
            for family in self._families:
                family.unsubscribe(topic_filter)
        self._keep(before, done)

    def _grant(self, topic_filter: str, qos: int) -> int:
        """The QoS granted; REFUSED for what is not for this device, or one too many."""
        if len(self._granted) >= MAX_SUBSCRIPTIONS and topic_filter not in self._granted:
            return packets.REFUSED
        for family in self._families:
            granted = family.subscribe(topic_filter, qos)
            if granted is not None:
                self._granted[topic_filter] = granted
                return granted
        return packets.REFUSED

    def _keep(self, before: Mapping[str, int], done: Callable[[], object]) -> None:
        if self._clean or self._granted == before:
            done()
        else:
            self._spawn(self._store(done))

    async def _store(self, done: Callable[[], object]) -> None:
        async with self._sessions.turn(self._principal.name):
            if not self._live():
                self._overtaken()
                return
            try:
                await self._sessions.put(StoredSession.of(self._principal, self._granted))
            except MoorageError as error:
                self._lost(error)
            else:
                done()
