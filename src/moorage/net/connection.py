"""One accepted connection: a protocol towards its socket, a transport towards whatever serves it.

Being both in one object saves a layer per connection and lets a protocol be exchanged (an HTTP connection becomes a
WebSocket) without the door losing count of it. `PlainConnection` leaves the bytes alone, `tls.TlsConnection` adds TLS.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

log = logging.getLogger("moorage.net.connection")

ProtocolFactory = Callable[[], asyncio.Protocol]


class Counters:
    """What became of connections since the start, at all doors."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0  # over a limit
        self.handshake_failures: Counter[str] = Counter()  # by reason


class Admission:
    """How many connections there may be, and are, at all doors together."""

    def __init__(self, max_connections: int, max_per_address: int | None) -> None:
        self.counters = Counters()
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._open = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more connection from `address` is let in; it then has to `leave`."""
        over = self._open >= self._max_connections or (
            self._max_per_address is not None and self._by_address[address] >= self._max_per_address
        )
        if over:
            self.counters.refused += 1
            return False
        self.counters.accepted += 1
        self._open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Door:
    """One way in: what its connections are served by, and which are open now. Timeouts are in seconds."""

    def __init__(
        self,
        name: str,
        protocol: ProtocolFactory,
        admission: Admission,
        *,
        handshake_timeout: float,
        close_timeout: float,
    ) -> None:
        self.name = name
        self.protocol = protocol
        self.admission = admission
        self.handshake_timeout = handshake_timeout
        self.close_timeout = close_timeout
        self.loop = asyncio.get_running_loop()
        self.closed = False  # nobody is let in any more, not even who was accepted just before
        self.open: set[Connection] = set()
        self.emptied = asyncio.Event()
        self.emptied.set()

    def enter(self, connection: Connection) -> bool:
        if self.closed or not self.admission.enter(connection.address):
            return False
        self.open.add(connection)
        self.emptied.clear()
        return True

    def leave(self, connection: Connection) -> None:
        self.admission.leave(connection.address)
        self.open.discard(connection)
        if not self.open:
            self.emptied.set()


class Connection(asyncio.Transport, asyncio.BaseProtocol):
    """What plain and TLS connections have in common: admission, closing, and everything that is merely passed on.

    Closing is in steps, so that the last words arrive: send what is pending, end our direction, drop what still comes
    until the peer ends its own. A socket closed with unread bytes in it would be reset, and the peer could lose
    what it had not read yet. `close_timeout` ends the wait.
    """

    __slots__ = ("_closing", "_door", "_peer_ended", "_protocol", "_raw", "_reading", "_timer", "address")

    def __init__(self, door: Door) -> None:
        super().__init__()
        self.address = ""
        self._door = door
        self._raw: asyncio.Transport
        self._protocol: asyncio.Protocol | None = None  # None before it is served, and after
        self._reading = True
        self._closing = False
        self._peer_ended = False
        self._timer: asyncio.TimerHandle | None = None

    # --- towards the socket

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._set_timer(None)
        if self in self._door.open:
            self._door.leave(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # --- towards the protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        if self._reading and not self._closing:
            self._reading = False
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._say_goodbye()
            self._leave()

    def abort(self) -> None:
        self._closing = True
        self._raw.abort()

    # --- for the door

    def stop(self) -> None:
        """The server stops: let the protocol finish in its own way where it has one, `stopping()`."""
        if self._closing:
            self._set_timer(self._door.loop.call_later(self._door.close_timeout, self._raw.abort))
        elif self._protocol is None:
            self.abort()
        elif (stopping := getattr(self._protocol, "stopping", None)) is not None:
            stopping()
        else:
            self.close()

    # --- for the two kinds

    def _enter(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the connection is let in; otherwise it is closed already."""
        self._raw = cast(asyncio.Transport, transport)
        peername = self._raw.get_extra_info("peername")
        self.address = str(peername[0]) if isinstance(peername, tuple) and peername else ""
        if self._door.enter(self):
            return True
        self.abort()
        return False

    def _say_goodbye(self) -> None:
        """Hand the raw transport all that is still to be sent."""

    def _serve(self) -> None:
        self._protocol = self._door.protocol()
        self._protocol.connection_made(self)

    def _end_of_peer(self) -> None:
        """The peer will send nothing more. Its half is enough only for a protocol that says so."""
        self._peer_ended = True
        if not self._closing and self._protocol is not None and not self._protocol.eof_received():
            self.close()

    def _leave(self) -> None:
        self._closing = True
        if self._raw.is_closing():
            return
        if self._peer_ended:
            self._raw.close()
            if not self._raw.get_write_buffer_size():
                return
        else:
            try:
                self._raw.write_eof()
            except (OSError, RuntimeError):  # reset in the meantime
                self._raw.abort()
                return
            if not self._reading:
                self._raw.resume_reading()
        self._set_timer(self._door.loop.call_later(self._door.close_timeout, self._raw.abort))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _upper_failed(self) -> None:
        """The protocol raised: that is our fault, and costs this connection only."""
        log.exception("connection failed", extra={"door": self._door.name, "address": self.address})
        self.abort()


class PlainConnection(Connection, asyncio.Protocol):
    """Bytes as they are."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._enter(transport):
            try:
                self._serve()
            except Exception:
                self._upper_failed()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._protocol is None:
            return
        try:
            self._protocol.data_received(data)
        except Exception:
            self._upper_failed()

    def eof_received(self) -> bool:
        try:
            self._end_of_peer()
        except Exception:
            self._upper_failed()
        return not self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._raw.write(data)
