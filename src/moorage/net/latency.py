"""How far away another server is: the time that a TCP connection to it takes, measured now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

TRIES = 3  # connections of which the quickest counts: the others have waited for something
TIME_LIMIT = 3.0  # seconds for each
EVERY = 60.0  # seconds between two looks at the same server

STEADY = 0.2  # of the old value; what differs by less is the weather, and moves no devices
STEADY_MS = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """What is measured: `key` names it to whoever asks. What is `here`, in this server, is no way away."""

    key: int
    host: str
    port: int
    here: bool = False


async def connect_time(host: str, port: int, *, tries: int = TRIES) -> float | None:
    """Milliseconds until a connection stands, None when none does in time."""
    found = [await _once(host, port) for _ in range(tries)]
    return min((time for time in found if time is not None), default=None)


async def _once(host: str, port: int) -> float | None:
    time = asyncio.get_running_loop().time
    started = time()
    try:
        async with asyncio.timeout(TIME_LIMIT):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, UnicodeError):  # TimeoutError is one of them
        return None
    writer.transport.abort()
    return (time() - started) * 1000


class Latencies:
    """The latest measurements, by key, in milliseconds. `known` is alive: hand it on once, and look when needed."""

    def __init__(
        self,
        places: Callable[[], Awaitable[Sequence[Place]]],
        measure: Callable[[str, int], Awaitable[float | None]] = connect_time,
    ) -> None:
        self._places = places
        self._measure = measure
        self._known: dict[int, float] = {}

    @property
    def known(self) -> Mapping[int, float]:
        return self._known

    async def look(self) -> None:
        """Measure each place once more. One that does not answer keeps what was known: it may be restarting."""
        places = await self._places()
        found = await asyncio.gather(*(self._latency(place) for place in places))
        for place, latency in zip(places, found, strict=True):
            if latency is not None and self._differs(place.key, latency):
                self._known[place.key] = latency
        for gone in self._known.keys() - {place.key for place in places}:
            del self._known[gone]

    async def _latency(self, place: Place) -> float | None:
        return 0.0 if place.here else await self._measure(place.host, place.port)

    def _differs(self, key: int, latency: float) -> bool:
        known = self._known.get(key)
        return known is None or abs(latency - known) > max(STEADY_MS, known * STEADY)

    async def keep_looking(self, every: float = EVERY) -> None:
        while True:
            await self.look()
            await asyncio.sleep(every)
