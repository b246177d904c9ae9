"""The connection: headers, SASL, open and close, frames to and from sessions. [AMQP 2.4]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from moorage.wire.amqp import conditions, frames
from moorage.wire.amqp.events import Closed, Event, Opened
from moorage.wire.amqp.fault import Fault
from moorage.wire.amqp.limits import Limits
from moorage.wire.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    Rejected,
    SaslCode,
    Transfer,
    decode_composite,
    encode_composite,
)
from moorage.wire.amqp.sasl import ClientExchange, ClientSasl, ServerExchange, ServerSasl
from moorage.wire.amqp.session import Session
from moorage.wire.amqp.transfer import TRANSFER_START, head_of, read_transfer
from moorage.wire.errors import Malformed

_DESCRIPTION_KEPT = 128  # bytes of an error's description where the peer's frames are small


class Connection:
    """One AMQP connection, without its socket.

    `receive` never raises for what the peer sent: a broken rule becomes output and a last event. After it, and after
    commands and `tick`, write what `take_output` gives; once `closed`, close the stream behind it.
    """

    def __init__(
        self,
        *,
        role: Literal["server", "client"] = "server",
        container_id: str,
        hostname: str | None = None,
        max_frame_size: int = 65_536,
        channel_max: int = 8_191,
        handle_max: int = 4_095,
        idle_timeout_ms: int | None = 240_000,
        properties: Mapping[str, Any] | None = None,
        sasl: ServerSasl | ClientSasl | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`sasl`: what a server offers, by default all that a hub does; how a client presents itself, None for no SASL.

        Raises ValueError when the open frame would not fit the 512 bytes that every peer takes.
        """
        self.role = role
        self.handle_max = handle_max
        self.limits = limits or Limits()
        self.context: Any = None  # the adapter's
        self.closed = False
        self.remote: Open | None = None
        self._open = Open(
            container_id=container_id,
            hostname=hostname,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_time_out=idle_timeout_ms,
            properties=properties,
        )
        self._open_frame = frames.encode_frame(encode_composite(self._open))
        if len(self._open_frame) > frames.MIN_MAX_FRAME_SIZE:
            raise ValueError(f"an open frame of {len(self._open_frame)} bytes")
        self._peer_max_frame_size = frames.MIN_MAX_FRAME_SIZE

        self._held = bytearray()  # received and not read yet
        self._wanted = 0  # bytes that the next thing to read takes, as far as known
        self._read: Callable[[bytes, int], int] = self._read_header
        self._output: list[bytes] = []
        self._events: list[Event] = []

        self._server_sasl: ServerExchange | None = None
        self._client_sasl: ClientExchange | None = None
        self._offer = sasl if isinstance(sasl, ServerSasl) else ServerSasl()
        if role == "client" and isinstance(sasl, ClientSasl):
            self._client_sasl = ClientExchange(sasl)

        self._opened = False  # our open is out
        self._closing = False  # our close is out, all but the peer's is ignored
        self._started = False
        self._sessions: dict[int, Session] = {}  # by the peer's channel
        self._own_channels: dict[int, Session] = {}
        self._late_channels: set[int] = set()  # ended ones: what still comes for them is ignored
        self._unblocked: dict[Session, None] = {}  # those whose links may send again, in order
        self._links = 0
        self._reassembling = 0  # bytes of deliveries begun and not finished

        self._heard = False
        self._last_heard: float | None = None
        self._next_heartbeat: float | None = None

    # --- Bytes and time -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """What `data`, the next bytes of the stream, brought about. Any cut of the stream will do, none included."""
        if not self.closed:
            self._heard = True
            self._receive(data)
        return self._take_events()

    def take_output(self) -> bytes:
        """The bytes to send, once."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def tick(self, now: float) -> float | None:
        """Let time pass: `now` in seconds on any clock that never steps. The time to call again; None when closed.

        Sends an empty frame at each half of the peer's idle-time-out, and closes when the peer was silent
        for two of ours. Call it first when the connection is made, and write the output after it. [AMQP 2.4.5]
        """
        if self.closed:
            return None
        due = [self._check_silence(now), self._beat(now)]
        return None if self.closed else min([each for each in due if each is not None], default=None)

    def eof(self) -> list[Event]:
        """The stream is gone: the events that are still owed, Closed the last of them."""
        if not self.closed:
            self._gone(None, by_peer=True)
        return self._take_events()

    def _take_events(self) -> list[Event]:
        events = self._events
        self._events = []
        return events

    def _receive(self, data: bytes) -> None:
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data = bytes(self._held)
            self._held = bytearray()
        self._wanted = at = 0
        try:
            while not self.closed:
                here = at
                at = self._read(data, here)
                if at == here:
                    break
            if not self.closed:
                self._hold(data, at)
        except Fault as fault:
            fault.close_scope()
        except Malformed as error:
            self._fail(Error(conditions.DECODE_ERROR, error.reason))
        # Once for all that was read: a peer that opens and shuts its window has each link told once, not each time.
        for session in self._unblocked:
            session._resume()
        self._unblocked.clear()

    def _hold(self, data: bytes, at: int) -> None:
        if at < len(data):
            self._held += data[at:]
        if self._deciding and len(self._held) > self.limits.held:
            raise Fault(self, conditions.RESOURCE_LIMIT_EXCEEDED, "too much sent ahead of the SASL verdict")

    def _check_silence(self, now: float) -> float | None:
        if not self._open.idle_time_out:
            return None
        limit = self._open.idle_time_out / 500  # what is advertised is half of what is granted
        if self._heard or self._last_heard is None:
            self._heard = False
            self._last_heard = now
        if now - self._last_heard >= limit:
            self._fail(Error(conditions.CONNECTION_FORCED, f"nothing was received for {limit:.0f} seconds"))
        return now + limit / 4

    def _beat(self, now: float) -> float | None:
        if self.remote is None:
            return now + 1  # look again when the peer may have told its own
        if self.closed or not self.remote.idle_time_out:
            return None
        interval = self.remote.idle_time_out / 2000
        if self._next_heartbeat is None or now >= self._next_heartbeat:
            if not self._closing:
                self._output.append(frames.HEARTBEAT)
            self._next_heartbeat = now + interval
        return self._next_heartbeat

    # --- Commands -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """A client's first words. A server needs none: it answers."""
        if self.role == "client" and not self._started:
            self._started = True
            if self._client_sasl:
                self._output.append(frames.SASL_HEADER)
            else:
                self._send_open(with_header=True)

    def begin(self) -> Session:
        """Start a session; SessionBegun brings the answer, links may be attached without waiting for it.

        Raises RuntimeError before Opened, and when the peer allows no more sessions.
        """
        if self.remote is None:
            raise RuntimeError("the connection is not open yet")
        channel = self._free_channel(0)
        if channel > min(self.remote.channel_max, self._open.channel_max):
            raise RuntimeError(f"the peer allows no more than {channel} sessions")
        session = Session(self, channel)
        self._own_channels[channel] = session
        self._write(channel, session._begin(None))
        return session

    def close(self, error: Error | None = None) -> None:
        """End the connection with all it carries; Closed comes with the peer's answer, at once if it never opened."""
        if self.closed or self._closing:
            return
        if self.remote is None:
            self._fail(error)
        else:
            self._send_close(error)

    def sasl_challenge(self, challenge: bytes) -> None:
        """Server: ask the peer for a further response. Raises ValueError past the 512 bytes of a SASL frame."""
        if self._server_sasl and self._server_sasl.deciding and not self.closed:
            self._output.append(self._server_sasl.challenge(challenge))

    def sasl_outcome(self, code: SaslCode, additional_data: bytes | None = None) -> None:
        """Server: the verdict. What the peer sent ahead of it is read by the next `receive`, of b"" if need be.

        After any code but OK the connection is closed.
        """
        if self._server_sasl and self._server_sasl.deciding and not self.closed:
            self._output.append(self._server_sasl.outcome(code, additional_data))
            self._read = self._read_header
            if code != SaslCode.OK:
                self._gone(_refused(code), by_peer=False)

    def sasl_response(self, response: bytes) -> None:
        """Client: answer a challenge. Raises ValueError past the 512 bytes of a SASL frame."""
        if self._client_sasl and not self.closed:
            self._output.append(self._client_sasl.response(response))

    # --- Facts ----------------------------------------------------------------------------------------------

    @property
    def sasl_mechanism(self) -> str | None:
        """The mechanism in use; None when the peer came without SASL."""
        exchange = self._server_sasl or self._client_sasl
        return exchange.mechanism if exchange else None

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._own_channels.values())

    @property
    def _deciding(self) -> bool:
        return self._server_sasl is not None and self._server_sasl.deciding

    # --- Headers --------------------------------------------------------------------------------------------

    def _read_header(self, data: bytes, at: int) -> int:
        """A protocol header: of SASL or of AMQP itself. [AMQP 2.2]"""
        header = data[at : at + frames.HEADER_SIZE]
        known = [each for each in self._expected_headers() if each.startswith(header)]
        if not known:
            self._refuse_header(header)
            return at
        if len(header) < frames.HEADER_SIZE:
            self._wanted = frames.HEADER_SIZE
            return at
        self._accept_header(header)
        return at + frames.HEADER_SIZE

    def _expected_headers(self) -> tuple[bytes, ...]:
        exchange = self._server_sasl or self._client_sasl
        if exchange is not None:
            return (frames.AMQP_HEADER,) if exchange.code is SaslCode.OK else (frames.SASL_HEADER,)
        if self.role == "client":
            return (frames.AMQP_HEADER,)
        return (frames.SASL_HEADER,) if self._offer.required else (frames.SASL_HEADER, frames.AMQP_HEADER)

    def _refuse_header(self, header: bytes) -> None:
        if self.role == "server":
            self._output.append(self._expected_headers()[0])  # what we would have taken [AMQP 2.2]
        error = Error(conditions.FRAMING_ERROR, f"{header!r} is not a protocol header of ours")
        self._gone(error, by_peer=False)

    def _accept_header(self, header: bytes) -> None:
        if header == frames.AMQP_HEADER:
            if self.role == "server":
                self._output.append(frames.AMQP_HEADER)
            self._read = self._read_frames
        else:
            if self.role == "server":
                self._server_sasl = ServerExchange(self._offer)
                self._output.append(self._server_sasl.greeting())
            self._read = self._read_sasl

    # --- SASL -----------------------------------------------------------------------------------------------

    def _read_sasl(self, data: bytes, at: int) -> int:
        """One SASL frame. While the adapter decides nothing is read: what comes next depends on the verdict."""
        if self._deciding or len(data) - at < frames.FRAME_HEADER_SIZE:
            return at
        size: int
        size, offset, kind, _ = frames.FRAME_HEADER.unpack_from(data, at)
        self._check_frame(size, offset, kind, frames.SASL, self.limits.sasl_frame)
        if len(data) - at < size:
            self._wanted = size
            return at
        performative, _ = decode_composite(data, at + 4 * offset, at + size)
        if self._server_sasl:
            self._events.append(self._server_sasl.receive(performative))
        elif self._client_sasl:
            self._client_heard(self._client_sasl, performative)
        return at + size

    def _client_heard(self, exchange: ClientExchange, performative: Any) -> None:
        event, answer = exchange.receive(performative)
        self._events.append(event)
        self._output.append(answer)
        if exchange.code is SaslCode.OK:
            self._read = self._read_header
            self._send_open(with_header=True)
        elif exchange.code is not None:
            self._gone(_refused(exchange.code), by_peer=True)

    # --- Frames ---------------------------------------------------------------------------------------------

    def _check_frame(self, size: int, offset: int, kind: int, expected: int, limit: int) -> None:
        if not frames.FRAME_HEADER_SIZE <= size <= limit:
            raise Fault(self, conditions.FRAMING_ERROR, f"a frame of {size} bytes, the limit is {limit}")
        if offset < 2 or 4 * offset > size:
            why = f"a frame of {size} bytes whose data begins at {4 * offset}"
            raise Fault(self, conditions.FRAMING_ERROR, why)
        if kind != expected:
            raise Fault(self, conditions.FRAMING_ERROR, f"a frame of type {kind} out of place")

    def _read_frames(self, data: bytes, at: int) -> int:
        """All whole frames from `at` on. [AMQP 2.3]"""
        end = len(data)
        limit = self._open.max_frame_size
        unpack = frames.FRAME_HEADER.unpack_from
        sessions = self._sessions
        while end - at >= frames.FRAME_HEADER_SIZE and not self.closed:
            size, offset, kind, channel = unpack(data, at)
            if size > limit or size < 8 or offset != 2 or kind:
                self._check_frame(size, offset, kind, frames.AMQP, limit)
            stop = at + size
            if stop > end:
                self._wanted = size
                break
            body = at + 4 * offset
            try:
                if data.startswith(TRANSFER_START, body, stop) and channel in sessions:
                    sessions[channel]._on_transfer(data, stop, read_transfer(data, body + 3, stop))
                elif body < stop:  # else a heartbeat
                    self._read_frame(channel, data, body, stop)
            except Fault as fault:
                fault.close_scope()
            at = stop
        return at

    def _read_frame(self, channel: int, data: bytes, at: int, end: int) -> None:
        performative, payload = decode_composite(data, at, end)
        kind = type(performative)
        if self._closing and kind is not Close:
            return
        if kind in _CONNECTION_FRAMES:
            _CONNECTION_FRAMES[kind](self, channel, performative)
            return
        if kind not in _SESSION_FRAMES:
            raise Fault(self, conditions.NOT_ALLOWED, f"a {kind.__name__.lower()} is no frame")
        session = self._session(channel)
        if session is None:
            return
        if kind is Transfer:
            session._on_transfer(data, end, head_of(performative, payload))
        else:
            session._receive(performative)

    def _session(self, channel: int) -> Session | None:
        """The session that the peer calls `channel`; None for one ended a while ago."""
        self._check_open("a session's frame")
        session = self._sessions.get(channel)
        if session is None and channel not in self._late_channels:
            raise Fault(self, conditions.NOT_ALLOWED, f"no session has begun on channel {channel}")
        return session

    def _check_open(self, what: str) -> None:
        if self.remote is None:
            raise Fault(self, conditions.ILLEGAL_STATE, f"{what} before open")

    # --- Open and close -------------------------------------------------------------------------------------

    def _on_open(self, channel: int, remote: Open) -> None:
        if self.remote is not None:
            raise Fault(self, conditions.ILLEGAL_STATE, "a second open")
        if remote.max_frame_size < frames.MIN_MAX_FRAME_SIZE:
            raise Fault(self, conditions.INVALID_FIELD, f"max-frame-size {remote.max_frame_size}")
        if max(len(remote.container_id), len(remote.hostname or "")) > self.limits.name:
            raise Fault(self, conditions.INVALID_FIELD, "a container-id or hostname past all measure")
        if 0 < (remote.idle_time_out or 0) < self.limits.idle_time_out:
            raise Fault(self, conditions.NOT_ALLOWED, f"an idle-time-out of {remote.idle_time_out} ms")
        self.remote = remote
        self._peer_max_frame_size = min(remote.max_frame_size, self._open.max_frame_size)
        self._send_open(with_header=False)
        self._events.append(Opened(remote))

    def _send_open(self, *, with_header: bool) -> None:
        if not self._opened:
            self._opened = True
            if with_header:
                self._output.append(frames.AMQP_HEADER)
            self._output.append(self._open_frame)

    def _on_close(self, channel: int, close: Close) -> None:
        self._check_open("close")
        by_peer = not self._closing
        if by_peer:
            self._send_close(None)
        self._gone(close.error, by_peer)

    def _send_close(self, error: Error | None) -> None:
        self._write(0, Close(error=error))
        self._closing = True
        self._sessions.clear()  # deaf to all but the peer's close

    def _fail(self, error: Error | None) -> None:
        """End the connection on our side: with open and close, where the peer speaks AMQP already. [AMQP 2.4.6]"""
        if (self._opened or self._read == self._read_frames) and not self._closing:
            self._send_open(with_header=False)
            self._send_close(error)
        self._gone(error, by_peer=False)

    def _gone(self, error: Error | None, by_peer: bool) -> None:
        self._closing = True
        self._sessions.clear()
        for session in self.sessions:
            session._gone(error, by_peer)
        self._own_channels.clear()
        self._held.clear()
        self.closed = True
        self._events.append(Closed(error, by_peer))

    # --- Sessions -------------------------------------------------------------------------------------------

    def _on_begin(self, channel: int, begin: Begin) -> None:
        self._check_open("begin")
        if channel > self._open.channel_max:
            why = f"channel {channel}, the highest is {self._open.channel_max}"
            raise Fault(self, conditions.FRAMING_ERROR, why)
        if channel in self._sessions:
            raise Fault(self, conditions.NOT_ALLOWED, f"a session has begun on channel {channel} already")
        if begin.remote_channel is None:
            session = self._answer_begin(channel)
        else:
            session = self._answered_begin(begin.remote_channel)
        self._late_channels.discard(channel)
        self._sessions[channel] = session
        session._begun(begin)

    def _answer_begin(self, channel: int) -> Session:
        session = Session(self, self._free_channel(channel))
        self._own_channels[session.channel] = session
        self._write(session.channel, session._begin(channel))
        return session

    def _answered_begin(self, own_channel: int) -> Session:
        session = self._own_channels.get(own_channel)
        if session is None or session.answered:
            why = f"no session waits for an answer on channel {own_channel}"
            raise Fault(self, conditions.NOT_ALLOWED, why)
        return session

    def _on_end(self, channel: int, end: End) -> None:
        session = self._session(channel)
        if session is not None:
            session._ended(end)
            del self._sessions[channel]
            del self._own_channels[session.channel]
            self._late_channels.add(channel)

    def _free_channel(self, wanted: int) -> int:
        if wanted not in self._own_channels:
            return wanted
        return next(channel for channel in range(0x10000) if channel not in self._own_channels)

    # --- Out ------------------------------------------------------------------------------------------------

    def _write(self, channel: int, performative: Any) -> bool:
        """Send a performative; False when it is too large for the peer's frames, however short its error is made."""
        if self._closing or self.closed:
            return True
        limit = self._peer_max_frame_size - frames.FRAME_HEADER_SIZE
        for attempt in _shorter(performative):
            body = encode_composite(attempt)
            if len(body) <= limit:
                self._output.append(frames.encode_frame(body, channel=channel))
                return True
        return False

    def _check_reassembly(self) -> None:
        if self._reassembling > self.limits.reassembly:
            why = f"over {self.limits.reassembly} bytes of deliveries begun and not finished"
            raise Fault(self, conditions.RESOURCE_LIMIT_EXCEEDED, why)


def _refused(code: SaslCode) -> Error:
    return Error(conditions.UNAUTHORIZED_ACCESS, f"the SASL verdict was {code.name}")


def _shorter(performative: Any) -> list[Any]:
    """`performative`, then the same with less and less of its error: a close that cannot be sent would help nobody."""
    if (
        isinstance(performative, Disposition)
        and isinstance(performative.state, Rejected)
        and performative.state.error
    ):
        errors = _shorter_errors(performative.state.error)
        return [replace(performative, state=Rejected(error)) for error in errors]
    if isinstance(performative, (Detach, End, Close)) and performative.error:
        errors = _shorter_errors(performative.error)
        return [*(replace(performative, error=error) for error in errors), replace(performative, error=None)]
    return [performative]


def _shorter_errors(error: Error) -> list[Error]:
    short = (error.description or "").encode()[:_DESCRIPTION_KEPT].decode(errors="ignore")
    return [error, replace(error, description=short), replace(error, description=short, info=None)]


_SESSION_FRAMES = frozenset((Attach, Flow, Transfer, Disposition, Detach))

_CONNECTION_FRAMES: dict[type, Callable[[Connection, int, Any], None]] = {
    Open: Connection._on_open,
    Begin: Connection._on_begin,
    End: Connection._on_end,
    Close: Connection._on_close,
}
