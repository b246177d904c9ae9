"""The SASL layer: who speaks when, and the form of PLAIN. [AMQP 5.3]

The exchange knows no credentials. A server's adapter sees each response and decides: a challenge more, or the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from moorage.wire.amqp import frames
from moorage.wire.amqp.events import (
    Event,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
)
from moorage.wire.amqp.performatives import (
    Challenge,
    Init,
    Mechanisms,
    Response,
    SaslCode,
    SaslResult,
    encode_composite,
)
from moorage.wire.errors import Malformed

HUB_MECHANISMS = (
    "EXTERNAL",
    "MSSBCBS",
    "ANONYMOUS",
    "PLAIN",
)  # as a hub was seen to offer them, all together


@dataclass(frozen=True, slots=True)
class ServerSasl:
    """What a server offers. Unless `required`, a peer may leave out SASL altogether, as half the clients do."""

    mechanisms: Sequence[str] = HUB_MECHANISMS
    required: bool = False


@dataclass(frozen=True, slots=True)
class ClientSasl:
    """How a client presents itself."""

    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None

    @classmethod
    def plain(cls, user: str, password: str, *, hostname: str | None = None) -> ClientSasl:
        return cls("PLAIN", b"\0".join((b"", user.encode(), password.encode())), hostname)

    @classmethod
    def anonymous(cls, *, hostname: str | None = None) -> ClientSasl:
        return cls("ANONYMOUS", b"", hostname)


class Plain(NamedTuple):
    """The response of mechanism PLAIN. [RFC 4616 2]"""

    authorization_id: str
    user: str
    password: str


def parse_plain(response: bytes | None) -> Plain:
    """Raises Malformed unless there are three parts of UTF-8."""
    parts = (response or b"").split(b"\0")
    if len(parts) != 3:
        raise Malformed("a PLAIN response has three parts, each but the last followed by a zero byte")
    try:
        return Plain(*(part.decode("utf-8") for part in parts))
    except UnicodeDecodeError:
        raise Malformed("a PLAIN response is not UTF-8") from None


def _encode(performative: Any) -> bytes:
    frame = frames.encode_frame(encode_composite(performative), kind=frames.SASL)
    if len(frame) > frames.MIN_MAX_FRAME_SIZE:
        raise ValueError(f"a SASL frame of {len(frame)} bytes, peers take {frames.MIN_MAX_FRAME_SIZE}")
    return frame


class ServerExchange:
    """A server's side. `deciding` while the adapter owes an answer; nothing further is read then."""

    def __init__(self, offer: ServerSasl) -> None:
        self._offer = offer
        self.mechanism: str | None = None
        self.deciding = False
        self.code: SaslCode | None = None

    def greeting(self) -> bytes:
        return frames.SASL_HEADER + _encode(Mechanisms(mechanisms=tuple(self._offer.mechanisms)))

    def receive(self, performative: Any) -> Event:
        """Raises Malformed for what is not this server's turn to hear."""
        if isinstance(performative, Init) and self.mechanism is None:
            if performative.mechanism not in self._offer.mechanisms:
                raise Malformed(f"SASL mechanism {performative.mechanism[:32]!r} was not offered")
            self.mechanism = performative.mechanism
            self.deciding = True
            return SaslInit(performative.mechanism, performative.initial_response, performative.hostname)
        if isinstance(performative, Response) and self.mechanism is not None:
            self.deciding = True
            return SaslResponse(performative.response)
        raise Malformed(f"sasl-{type(performative).__name__.lower()} out of turn")

    def challenge(self, challenge: bytes) -> bytes:
        self.deciding = False
        return _encode(Challenge(challenge=challenge))

    def outcome(self, code: SaslCode, additional_data: bytes | None) -> bytes:
        self.deciding = False
        self.code = code
        return _encode(SaslResult(code=code, additional_data=additional_data))


class ClientExchange:
    """A client's side. `receive` gives an event, and the bytes to send in return."""

    def __init__(self, credentials: ClientSasl) -> None:
        self._credentials = credentials
        self.mechanism = credentials.mechanism
        self.code: SaslCode | None = None
        self._begun = False

    def receive(self, performative: Any) -> tuple[Event, bytes]:
        """Raises Malformed when the server does not offer our mechanism, or speaks out of turn."""
        if isinstance(performative, Mechanisms) and not self._begun:
            if self.mechanism not in performative.mechanisms:
                raise Malformed(f"SASL mechanism {self.mechanism} is not among those offered")
            self._begun = True
            return SaslMechanisms(performative.mechanisms), self._init()
        if isinstance(performative, Challenge) and self._begun:
            return SaslChallenge(performative.challenge), b""
        if isinstance(performative, SaslResult) and self._begun:
            if performative.code > SaslCode.SYS_TEMP:
                raise Malformed(f"SASL outcome {performative.code}")
            self.code = SaslCode(performative.code)
            return SaslOutcome(self.code, performative.additional_data), b""
        raise Malformed(f"sasl-{type(performative).__name__.lower()} out of turn")

    def response(self, response: bytes) -> bytes:
        return _encode(Response(response=response))

    def _init(self) -> bytes:
        given = self._credentials
        init = Init(
            mechanism=given.mechanism, initial_response=given.initial_response, hostname=given.hostname
        )
        # A token may need more than 512 bytes, and servers take it: so no limit here.
        return frames.encode_frame(encode_composite(init), kind=frames.SASL)
