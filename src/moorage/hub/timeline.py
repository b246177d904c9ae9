"""What was seen of the connections of devices and modules: each beginning, and each end with its cause.

Kept in memory, so many of each device and so many in all, beside the decisions: those tell who was let in and who was
not, this what became of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from moorage.credentials.rings import Rings
from moorage.hub.session import Ending, Session
from moorage.interfaces import Clock


class ConnectionChange(NamedTuple):
    """A connection of `name` in the hub of `scope` that began, or that ended (`ending`) after `seconds`.

    `time` is in microseconds; `tracking_id` is that of the connection, as in its decisions and in the log.
    """

    time: int
    scope: int
    name: str
    tracking_id: str
    door: str
    address: str
    ending: Ending | None = None
    seconds: float | None = None

    @property
    def connected(self) -> bool:
        return self.ending is None


class Timeline:
    """The newest changes of every hub."""

    def __init__(self, *, per_name: int = 100, in_all: int = 100_000, latest: int = 1000) -> None:
        self._rings: Rings[tuple[int, str], ConnectionChange] = Rings(per_subject=per_name, in_all=in_all)
        self._latest: deque[ConnectionChange] = deque(maxlen=latest)
        self.added = 0  # ever; the place behind the newest change

    def add(self, change: ConnectionChange) -> None:
        self._latest.append(change)
        self._rings.add((change.scope, change.name), change)
        self.added += 1

    def of(self, scope: int, name: str) -> list[ConnectionChange]:
        """Those of one device or module, oldest first."""
        return self._rings.of((scope, name))

    def latest(self, scope: int, count: int) -> list[ConnectionChange]:
        """Up to `count` of the hub, newest first."""
        return list(islice((each for each in reversed(self._latest) if each.scope == scope), count))

    def since(self, place: int) -> Iterator[ConnectionChange]:
        """Those of all hubs that were added after the first `place` ones and are not forgotten, oldest first."""
        first = self.added - len(self._latest)
        return islice(self._latest, max(place - first, 0), None)


class TimelineOfHub:
    """Writes down what the sessions of one hub tell: a `session.Observer`."""

    def __init__(self, timeline: Timeline, scope: int, clock: Clock) -> None:
        self._timeline = timeline
        self._scope = scope
        self._clock = clock

    def opened(self, session: Session) -> None:
        self._timeline.add(self._change(session, self._clock.now(), None, None))

    def ended(self, session: Session, ending: Ending) -> None:
        now = self._clock.now()
        self._timeline.add(self._change(session, now, ending, (now - session.connected_at) / 1_000_000))

    def _change(
        self, session: Session, time: int, ending: Ending | None, seconds: float | None
    ) -> ConnectionChange:
        peer = session.peer
        door, address = (peer.door, peer.address) if peer is not None else ("", "")
        return ConnectionChange(
            time, self._scope, session.name, session.tracking_id, door, address, ending, seconds
        )
