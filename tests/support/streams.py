"""Connections without a network, and a time that only moves when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from moorage.interfaces import OpenConversation, Peer

START = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z, in microseconds
HIGH_MARK = 65_536  # bytes waiting unsent from which on a conversation is told when they are gone

T = TypeVar("T")


@dataclass(eq=False)
class ManualTimer:
    due: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualTime:
    """A Clock, and the time of all streams made on it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._timers: list[ManualTimer] = []

    def now(self) -> int:
        return START + round(self._seconds * 1_000_000)

    def monotonic(self) -> float:
        return self._seconds

    def call_later(self, seconds: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self._seconds + seconds, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and everything happen that is due meanwhile, each thing at its time."""
        end = self._seconds + seconds
        while due := [each for each in self._timers if not each.cancelled and each.due <= end]:
            first = min(due, key=lambda timer: timer.due)
            self._timers.remove(first)
            self._seconds = max(self._seconds, first.due)
            first.callback()
        self._timers = [each for each in self._timers if not each.cancelled]
        self._seconds = end

    async def until(self, condition: Callable[[], T], what: str = "what was to come") -> T:
        """Let tasks and threads work until `condition()` is true; its value."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10
        turns = 0
        while not (value := condition()):
            assert loop.time() < deadline, f"{what} did not come"
            turns += 1
            await asyncio.sleep(0 if turns < 5 else 0.0005)  # other threads want to run too
            self.advance(0)
        return value


class FakeStream:
    """A ByteStream whose network is the test.

    What the conversation writes is in `take()`, unless the peer has stopped reading (`stalled`): then it waits,
    and past `outward_limit` the connection is cut, as `net` does it. What `feed` brings while reading is
    paused comes when it goes on.
    """

    def __init__(
        self,
        time: ManualTime,
        open_conversation: OpenConversation,
        *,
        peer: Peer,
        tracking_id: str = "ab" * 16,
        outward_limit: int = 1 << 20,
    ) -> None:
        self.peer = peer
        self.tracking_id = tracking_id
        self.last_received = time.monotonic()
        self.reading = True
        self.stalled = False
        self.reason: str | None = None  # of the end, once it has been decided
        self.over = False  # the conversation knows that it is over
        self.late = b""  # written behind the end, and lost
        self._time = time
        self._outward_limit = outward_limit
        self._timers: list[ManualTimer] = []
        self._sent = bytearray()
        self._unsent = bytearray()
        self._congested = False
        self._held = bytearray()
        self._conversation = open_conversation(self)

    # --- the ByteStream

    def write(self, data: bytes) -> None:
        if self.reason is not None:
            self.late += data
            return
        if not self.stalled:
            self._sent += data
            return
        self._unsent += data
        self._congested = self._congested or len(self._unsent) > HIGH_MARK
        if len(self._unsent) > self._outward_limit:
            self.abort(f"over {self._outward_limit} bytes wait unsent")

    @property
    def pending(self) -> int:
        return len(self._unsent)

    def close(self, reason: str) -> None:
        if self.reason is None:
            self._sent += self._unsent
            self._end(reason)

    def abort(self, reason: str) -> None:
        if self.reason is None:
            self._end(reason)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        asyncio.get_running_loop().call_soon(self._deliver, b"")

    def time(self) -> float:
        return self._time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> ManualTimer:
        timer = self._time.call_later(seconds, callback)
        timer.cancelled = self.reason is not None
        self._timers.append(timer)
        return timer

    # --- the peer

    def feed(self, data: bytes) -> None:
        """What the peer sends."""
        self._deliver(data)

    def take(self) -> bytes:
        """What has come to the peer since the last time."""
        data = bytes(self._sent)
        self._sent.clear()
        return data

    def read_on(self) -> None:
        """The peer reads again."""
        self.stalled = False
        self._sent += self._unsent
        self._unsent.clear()
        if self._congested and self.reason is None:
            self._congested = False
            self._conversation.drained()

    def lose(self) -> None:
        """The peer is gone."""
        self.abort("closed by peer")

    def stop(self) -> None:
        """The server stops."""
        self._conversation.stopping()

    # --- steps

    def _deliver(self, data: bytes) -> None:
        self._held += data
        if self.reading and self._held and self.reason is None:
            held = bytes(self._held)
            self._held.clear()
            self.last_received = self._time.monotonic()
            self._conversation.received(held)

    def _end(self, reason: str) -> None:
        self.reason = reason
        for timer in self._timers:
            timer.cancel()
        asyncio.get_running_loop().call_soon(self._lost)

    def _lost(self) -> None:
        self.over = True
        self._conversation.closed(self.reason or "")
