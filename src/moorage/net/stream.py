"""One conversation over one transport: limits, timers, the reason of the end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable
from typing import cast

from moorage.interfaces import Conversation, OpenConversation, Peer, Timer

log = logging.getLogger("moorage.net.stream")

OUTWARD_LIMIT = 1 << 20  # bytes that may wait unsent on one connection

_process = os.urandom(8).hex()
_count = itertools.count(int.from_bytes(os.urandom(6), "big"))


def new_tracking_id() -> str:
    """32 hexadecimal digits: half names this run of the server, half counts. Unique, not a secret."""
    return f"{_process}{next(_count):016x}"


def peer_of(transport: asyncio.BaseTransport, door: str) -> Peer:
    """Who is at the other end of `transport`; the address is that of the host, without the port."""
    peername = transport.get_extra_info("peername")
    return Peer(
        address=str(peername[0]) if isinstance(peername, tuple) and peername else "",
        door=door,
        chain=transport.get_extra_info("peer_chain") or (),
        tls_version=transport.get_extra_info("tls_version") or "",
    )


class Stream(asyncio.Protocol):
    """A ByteStream (see interfaces.py) on any asyncio transport, driving the conversation opened on it.

    Whatever a conversation raises, in a timer too, is logged with the tracking id and costs this connection only.
    """

    __slots__ = (
        "_closing",
        "_congested",
        "_conversation",
        "_door",
        "_loop",
        "_open_conversation",
        "_outward_limit",
        "_reason",
        "_timers",
        "_transport",
        "last_received",
        "peer",
        "tracking_id",
    )

    def __init__(
        self, door: str, open_conversation: OpenConversation, *, outward_limit: int = OUTWARD_LIMIT
    ) -> None:
        self.peer: Peer
        self.tracking_id = new_tracking_id()
        self.last_received = 0.0
        self._door = door
        self._open_conversation = open_conversation
        self._outward_limit = outward_limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._conversation: Conversation | None = None
        self._congested = False  # between pause_writing and resume_writing
        self._closing = False
        self._reason = ""
        self._timers: list[_StreamTimer] = []  # one or two: a set would be five times as large

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(transport, self._door)
        self.last_received = self._loop.time()
        try:
            self._conversation = self._open_conversation(self)
        except Exception as error:
            self._failed(error)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._conversation is None:
            return
        self.last_received = self._loop.time()
        try:
            self._conversation.received(data)
        except Exception as error:
            self._failed(error)

    def eof_received(self) -> None:
        """Half a connection is of no use to a device protocol: send what is pending, and close."""
        self._end("closed by peer")

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        if not self._closing and self._conversation is not None:
            self.guard(self._conversation.drained)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"connection lost: {error}" if error else "closed by peer")
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            try:
                conversation.closed(self._reason)
            except Exception as fault:
                self._failed(fault)

    # --- ByteStream

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        self._transport.write(data)
        if self._congested and self.pending > self._outward_limit:
            self.abort(f"over {self._outward_limit} bytes wait unsent")

    @property
    def pending(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self, reason: str) -> None:
        if not self._closing:
            self._end(reason)
            self._transport.close()

    def abort(self, reason: str) -> None:
        self._end(reason)
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._closing:
            self._transport.resume_reading()

    def time(self) -> float:
        return self._loop.time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = _StreamTimer(self, callback)
        if not self._closing:
            self._timers.append(timer)
            timer.handle = self._loop.call_later(seconds, timer)
        return timer

    # --- for the door

    def stopping(self) -> None:
        if not self._closing and self._conversation is not None:
            self.guard(self._conversation.stopping)

    # --- steps

    def guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._failed(error)

    def forget(self, timer: _StreamTimer) -> None:
        if timer in self._timers:
            self._timers.remove(timer)

    def _end(self, reason: str) -> None:
        """Nothing is received from now on. The first reason given is the one that is kept."""
        self._closing = True
        self._reason = self._reason or reason
        while self._timers:
            self._timers.pop().cancel()

    def _failed(self, error: Exception) -> None:
        log.error(
            "conversation failed",
            exc_info=error,
            extra={"tracking_id": self.tracking_id, "door": self._door, "address": self.peer.address},
        )
        self.abort(f"internal error: {type(error).__name__}")


class _StreamTimer:
    """A timer that ends with its stream."""

    __slots__ = ("_callback", "_stream", "handle")

    def __init__(self, stream: Stream, callback: Callable[[], None]) -> None:
        self._stream = stream
        self._callback = callback
        self.handle: asyncio.TimerHandle | None = None

    def __call__(self) -> None:
        self._stream.forget(self)
        self._stream.guard(self._callback)

    def cancel(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        self._stream.forget(self)
