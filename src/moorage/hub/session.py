"""Who is connected to this hub, on this node: one live connection an identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from moorage.interfaces import Clock

TAKEN_OVER = "the device connected again, which ends its older connection"
"""Why a session ends when a newer one opens; on the wire 400027 where there is a word for it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who proved to be whom. `auth_scope` is "device" (its own proof) or "hub" (a shared access policy).

    `auth_type` is "sas" or "x509". `expires_at` is the expiry of the token in microseconds, None for a
    certificate.
    """

    device_id: str
    generation_id: str
    auth_scope: str
    auth_type: str
    expires_at: int | None = None


@dataclass(slots=True, eq=False)
class Session:
    """One authenticated connection of a device. Times are in microseconds.

    `close(reason)` ends the connection; it may call `Sessions.close` in turn. `model_id` is the model the
    device announced, "" without one. The adapter moves `last_activity` on with what it receives.
    """

    principal: Principal
    connected_at: int
    close: Callable[[str], None]
    model_id: str = ""
    last_activity: int = 0

    def __post_init__(self) -> None:
        self.last_activity = self.last_activity or self.connected_at

    @property
    def device_id(self) -> str:
        return self.principal.device_id


class Presence(NamedTuple):
    """What the views of a device tell about its connection; None for a time at which nothing happened yet."""

    connected: bool = False
    changed_at: int | None = None
    last_activity: int | None = None
    model_id: str = ""

    @property
    def state(self) -> str:
        return "Connected" if self.connected else "Disconnected"


ABSENT = Presence()


class Sessions:
    """The live sessions of one hub."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, Session] = {}
        self._ended: dict[str, Presence] = {}  # devices seen since the start and now away
        self.drops = 0
        """How often a device was dropped; whoever read an identity sees by it whether to read again."""

    def __len__(self) -> int:
        return len(self._live)

    def open(self, session: Session) -> None:
        """Make `session` the device's connection. An older one is closed."""
        older = self._live.get(session.device_id)
        self._live[session.device_id] = session
        self._ended.pop(session.device_id, None)
        if older is not None:
            older.close(TAKEN_OVER)

    def close(self, session: Session) -> None:
        """The connection has ended. Nothing happens when it was not the device's current one any more."""
        if self._live.get(session.device_id) is session:
            del self._live[session.device_id]
            self._ended[session.device_id] = Presence(
                connected=False,
                changed_at=self._clock.now(),
                last_activity=session.last_activity,
                model_id=session.model_id,
            )

    def connected(self, device_id: str) -> Session | None:
        return self._live.get(device_id)

    def drop(self, device_id: str, reason: str) -> None:
        """End the device's connection, if there is one."""
        self.drops += 1
        session = self._live.get(device_id)
        if session is not None:
            self.close(session)
            session.close(reason)

    def drop_all(self, reason: str) -> None:
        """End every connection, and that of whoever is just being judged."""
        self.drops += 1
        for device_id in list(self._live):
            self.drop(device_id, reason)

    def forget(self, device_id: str) -> None:
        """The identity is gone: no later one of that name inherits what was seen of it."""
        self._ended.pop(device_id, None)

    def presence(self, device_id: str) -> Presence:
        session = self._live.get(device_id)
        if session is None:
            return self._ended.get(device_id, ABSENT)
        return Presence(True, session.connected_at, session.last_activity, session.model_id)
