"""A WebSocket unwrapped to a byte stream: what its binary frames carry, one after another, is what a Stream receives.

The protocol itself is the library's sans-I/O half. Messages have no meaning here: packets may span frames, frames may
carry several, and what is written within one turn leaves as one frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from websockets.exceptions import NegotiationError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from moorage.net.stream import Stream

if TYPE_CHECKING:
    from moorage.net.http import HttpServer

# The library's own log tells of every opening and closing, with the peer's words in it: less of that.
log = logging.getLogger("moorage.net.websocket")
log.setLevel(logging.WARNING)

CLOSE_TIMEOUT = 5.0  # seconds to wait for the peer's half of the closing handshake
SEND_AT = 65_536  # bytes written within one turn that are worth a frame of their own


class WebSocketFailure(ConnectionError):
    """The WebSocket cannot go on; the text says why."""


def accept(transport: asyncio.Transport, head: bytes, rest: bytes, server: HttpServer) -> None:
    """Answer the upgrade request `head`; `rest` came behind it. A refusal is an answer too, and closes."""
    machine = ServerProtocol(
        select_subprotocol=_select_from(server),
        max_size=server.max_websocket_message,
        logger=log,
    )
    machine.receive_data(head)
    for event in machine.events_received():
        if isinstance(event, Request):
            machine.send_response(machine.accept(event))
    if machine.subprotocol is None:
        for data in machine.data_to_send():
            transport.write(data)
        transport.close()
        return
    target = server.websockets[machine.subprotocol.lower()]
    stream = Stream(target.name, target.open_conversation, outward_limit=server.outward_limit)
    WebSocketTransport(transport, machine, stream, server.outward_limit).begin(rest)


def _select_from(server: HttpServer) -> Any:
    def select(machine: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol:
        """The first sub-protocol offered that is served, as the client spells it."""
        for name in offered:
            if name.lower() in server.websockets:
                return name
        raise NegotiationError(f"offer one of the sub-protocols {', '.join(sorted(server.websockets))}")

    return select


class WebSocketTransport(asyncio.Transport, asyncio.Protocol):
    """A protocol towards the connection, a transport towards the stream."""

    def __init__(
        self, transport: asyncio.Transport, machine: ServerProtocol, stream: Stream, outward_limit: int
    ) -> None:
        super().__init__()
        self._outward_limit = outward_limit
        self._transport = transport
        self._machine = machine
        self._stream: asyncio.Protocol = stream
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._failure: Exception | None = None
        self._in_turn = False
        self._pinged = False  # the machine answers pings by itself, so that nobody else counts what waits
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, rest: bytes) -> None:
        self._transport.set_protocol(self)
        self._send()  # the response to the upgrade
        self._stream.connection_made(self)
        if rest:
            self.data_received(rest)

    # --- towards the connection

    def data_received(self, data: bytes) -> None:
        if self._machine.state is State.CLOSED or self._machine.eof_sent:
            return
        self._in_turn = True
        try:
            self._machine.receive_data(data)
            self._deliver(self._machine.events_received())
        finally:
            self._in_turn = False
            self.send_frame()
            self._send()
        if self._pinged and self._transport.get_write_buffer_size() > self._outward_limit:
            self._failure = WebSocketFailure(f"over {self._outward_limit} bytes wait unsent")
            self.abort()

    def eof_received(self) -> None:
        self.send_frame()
        self._stream.eof_received()

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._stream.connection_lost(self._failure or error)

    def stopping(self) -> None:
        stopping = getattr(self._stream, "stopping", None)
        if stopping is not None:
            stopping()
        else:
            self.close()

    # --- towards the stream

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._stream = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._stream

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._closing:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._unsent_size + self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if not self._unsent and not self._in_turn:
            self._loop.call_soon(self.send_frame)
        self._unsent.append(bytes(data))
        self._unsent_size += len(data)
        if self._unsent_size >= SEND_AT:
            self.send_frame()

    def close(self) -> None:
        """Say goodbye, and give the peer a moment to do the same. [RFC 6455 7.1.1]"""
        if self._closing:
            return
        self.send_frame()
        self._closing = True
        if self._machine.state is State.OPEN:
            self._machine.send_close(1000)
            self._send()
            self._transport.resume_reading()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.close)
        else:
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    # --- steps

    def send_frame(self) -> None:
        """What was written since the last time, as one binary frame."""
        unsent = self._unsent
        if not unsent:
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        self._unsent_size = 0
        if self._machine.state is State.OPEN:
            self._machine.send_binary(data)
            self._send()

    def _deliver(self, events: Sequence[object]) -> None:
        pieces = []
        text = False
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.TEXT:
                text = True
                break
            if event.opcode in (Opcode.BINARY, Opcode.CONT):
                pieces.append(event.data)
            elif event.opcode is Opcode.PING:
                self._pinged = True
        if pieces and not self._closing:
            self._stream.data_received(b"".join(pieces))
        if text:
            self._machine.fail(1003, "binary frames only")  # [RFC 6455 7.4.1]
            self._failure = WebSocketFailure("text frame")
        elif self._machine.parser_exc is not None:
            self._failure = WebSocketFailure(str(self._machine.parser_exc))

    def _send(self) -> None:
        """Pass on what the machine wants sent, and close where it is done."""
        data = self._machine.data_to_send()
        if data:
            self._transport.write(b"".join(data))
            if SEND_EOF in data:
                self._transport.close()
