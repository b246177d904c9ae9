"""One MQTT connection from its first packet on: DPS and hub are told apart by the user name of CONNECT.

The conversation owns what both dialects share: decoding, the deadline for CONNECT, keep-alive, and what a fault on
the wire leads to. What a packet means is the dialect's affair, DISCONNECT included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from moorage.credentials.decision import Finding
from moorage.errors import Invalid, MoorageError
from moorage.interfaces import ByteStream
from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ServerConnection

log = logging.getLogger("moorage.mqtt")

KEEP_ALIVE_MISSED = "keep-alive missed"
SERVER_STOP = "server stop"
TURNS = 2  # of the event loop, between whose callbacks it surely reads: uvloop has one more turn of them before it does
KEEP_ALIVE_CAP = 1767.0  # seconds; also what a client that asks for none gets [hub-device 3.3]

MAX_REQUEST_ID = 1024  # characters; clients send a UUID or a number, and a response topic has to hold it

UNACCEPTABLE_PROTOCOL, SERVER_UNAVAILABLE = 1, 3  # CONNACK return codes [MQTT 3.1.1, 3.2.2.3]


class Dialect(Protocol):
    """What follows CONNECT."""

    @property
    def holds_back(self) -> bool:
        """The dialect has paused reading: the silence of the device is then not its own."""
        ...

    def handle(self, events: Sequence[packets.Event]) -> None:
        """The packets of one read, in order. Behind DISCONNECT nothing comes: the dialect closes the stream."""
        ...

    def end(self, cause: str | MoorageError) -> None:
        """Answer what came so far, then close. An error is a refusal, and leaves a decision record."""
        ...

    def drained(self) -> None:
        """What waits outward has run low again."""
        ...

    def closed(self, reason: str) -> None: ...


class Accepted(Protocol):
    """A dialect's answer to CONNECT: None after a refusal, which it has sent and recorded itself."""

    def __call__(
        self, stream: ByteStream, connect: packets.Connect
    ) -> Coroutine[Any, Any, Dialect | None]: ...


ChooseDialect = Callable[[packets.Connect], Accepted]
NoteRefusal = Callable[[Finding, MoorageError], None]


def request_id(topic: str) -> str | None:
    """The `$rid` of a request topic, byte for byte as the device wrote it; None without one. Raises Invalid."""
    for pair in topic.partition("?")[2].split("&"):
        if pair.startswith("$rid="):
            if len(pair) > MAX_REQUEST_ID:
                raise Invalid("$rid", f"is longer than {MAX_REQUEST_ID} characters")
            return pair[5:]
    return None


def _log_refusal(finding: Finding, error: MoorageError) -> None:
    """Where no decision records are kept."""
    log.warning(
        "connection refused",
        extra={"tracking_id": finding.tracking_id, "address": finding.address, "reason": str(error)},
    )


class MqttConversation:
    """Drives one connection: an `interfaces.Conversation`."""

    def __init__(
        self,
        stream: ByteStream,
        choose: ChooseDialect,
        *,
        connect_timeout: float,
        note_refusal: NoteRefusal = _log_refusal,
    ) -> None:
        """`note_refusal` is told of those who are refused before it is known which dialect they speak."""
        self._stream = stream
        self._choose = choose
        self._note_refusal = note_refusal
        self._wire = ServerConnection()
        self._dialect: Dialect | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: list[packets.Event] = []  # what came in while CONNECT was being judged
        self._fault: MoorageError | None = None  # what was wrong behind that
        self._over: str | None = None  # why, once the connection is gone
        self._allowance = 0.0
        self._deadline = stream.call_later(connect_timeout, lambda: stream.abort("no CONNECT in time"))

    def received(self, data: bytes) -> None:
        try:
            events = self._wire.receive(data)
        except Malformed as fault:
            self._handle(fault.events)
            self._broken(Invalid("packet", fault.reason))
        else:
            self._handle(events)

    def _handle(self, events: Sequence[packets.Event]) -> None:
        if not events:
            return
        if self._dialect is not None:
            self._dialect.handle(events)
        elif self._connecting is not None:
            self._waiting += events
        else:
            self._begin(events)

    def _broken(self, error: MoorageError) -> None:
        """The peer broke the protocol. Before CONNECT it hears nothing of it. [MQTT-3.1.4-1]"""
        if self._dialect is not None:
            self._dialect.end(error)
        elif self._connecting is not None:
            self._fault = error
        else:
            self._note_refusal(self._finding(""), error)
            self._stream.close(str(error))

    def drained(self) -> None:
        if self._dialect is not None:
            self._dialect.drained()

    def stopping(self) -> None:
        if self._dialect is not None:
            self._dialect.end(SERVER_STOP)  # MQTT 3.1.1 has no word for it
        else:
            self._stream.close(SERVER_STOP)

    def closed(self, reason: str) -> None:
        self._over = reason
        if self._dialect is not None:
            self._dialect.closed(reason)
        else:
            log.debug("connection closed", extra={"tracking_id": self._stream.tracking_id, "reason": reason})

    # --- CONNECT ------------------------------------------------------------------------------------------

    def _begin(self, events: Sequence[packets.Event]) -> None:
        connect, *self._waiting = events
        if not isinstance(connect, packets.Connect):
            raise TypeError(f"the wire let {type(connect).__name__} come first")
        self._deadline.cancel()
        # A device may send on before CONNACK, though not without bound.
        self._stream.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(connect))

    async def _connect(self, connect: packets.Connect) -> None:
        if not connect.supported:
            name, level = connect.protocol_name, connect.protocol_level
            error = Invalid("protocol", f"{name} level {level} is not MQTT 3.1.1")
            self._refuse(connect, error, UNACCEPTABLE_PROTOCOL)  # [MQTT-3.1.2-2]
            return
        try:
            dialect = await self._choose(connect)(self._stream, connect)
        except Exception:
            log.exception("connect failed", extra={"tracking_id": self._stream.tracking_id})
            self._refuse(connect, MoorageError("internal error"), SERVER_UNAVAILABLE)
            return
        if dialect is not None:
            self._go_on(dialect, connect.keep_alive)

    def _refuse(self, connect: packets.Connect, error: MoorageError, code: int) -> None:
        self._note_refusal(self._finding(connect.client_id), error)
        self._stream.write(packets.encode_connack(code, session_present=False))
        self._stream.close(str(error))

    def _finding(self, subject: str) -> Finding:
        stream = self._stream
        return Finding.from_peer(stream.peer, stream.tracking_id, "connect", subject)

    def _go_on(self, dialect: Dialect, keep_alive: int) -> None:
        """Serve the device from here on, with what it sent ahead of CONNACK; it may even be gone again."""
        self._dialect, self._connecting = dialect, None
        waiting, self._waiting = self._waiting, []
        if waiting:
            dialect.handle(waiting)
        if self._fault is not None:
            dialect.end(self._fault)
        if self._over is not None:
            dialect.closed(self._over)
            return
        if not dialect.holds_back:
            self._stream.resume_reading()
        self._allowance = min(keep_alive * 1.5 or KEEP_ALIVE_CAP, KEEP_ALIVE_CAP)
        self._stream.call_later(self._allowance, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        """[MQTT-3.1.2-24] One timer a connection, moved on lazily: re-arming it at each packet would cost more."""
        left = self._stream.last_received + self._allowance - self._stream.time()
        if self._dialect is not None and self._dialect.holds_back:
            left = self._allowance
        if left > 0:
            self._stream.call_later(left, self._check_keep_alive)
        else:
            self._judge_silence(self._stream.last_received, turns=TURNS)

    def _judge_silence(self, last_received: float, turns: int) -> None:
        """Cut the device if nothing comes in so many turns more: after a stall of ours its input may wait unread."""
        if self._stream.last_received != last_received:
            self._check_keep_alive()
        elif turns:
            self._stream.call_later(0, lambda: self._judge_silence(last_received, turns - 1))
        else:
            self._stream.abort(f"{KEEP_ALIVE_MISSED}: nothing received for {self._allowance:g} s")
