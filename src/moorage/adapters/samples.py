"""What a server has counted, looked at every other second and kept for some minutes: for plots of how it fares.

A look reads what is counted anyway, so that nothing is done for a message, a connection or a registration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

KEPT = 150  # five minutes, at a look every two seconds


class HubCounted(NamedTuple):
    """`events` are all that the hub's log ever took in."""

    devices: int
    events: int


class Counted(NamedTuple):
    """At one moment. `assigned`, `failed` and a hub's events only grow; the rest is what is open now. Hubs by scope."""

    assigned: int
    failed: int
    connections: int
    hubs: Mapping[int, HubCounted]


class Sample(NamedTuple):
    at: float  # by the monotonic clock, seconds
    counted: Counted


class Samples:
    def __init__(self, count: Callable[[], Counted], monotonic: Callable[[], float]) -> None:
        self._count = count
        self._monotonic = monotonic
        self._kept: deque[Sample] = deque(maxlen=KEPT)

    def take(self) -> None:
        self._kept.append(self._look())

    def all(self) -> list[Sample]:
        """Oldest first; the last one is of now."""
        return [*self._kept, self._look()]

    def _look(self) -> Sample:
        return Sample(self._monotonic(), self._count())
