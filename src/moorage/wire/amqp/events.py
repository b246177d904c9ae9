"""What can happen on a connection, in the order in which it did. `Event` is any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from moorage.wire.amqp.performatives import DeliveryState, Error, Open, SaslCode

if TYPE_CHECKING:
    from moorage.wire.amqp.link import Receiver, Sender
    from moorage.wire.amqp.session import Session


# --- SASL, to a server --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaslInit:
    """The peer chose a mechanism, one of those offered. Answer with `sasl_outcome` or `sasl_challenge`."""

    mechanism: str
    initial_response: bytes | None
    hostname: str | None


@dataclass(frozen=True, slots=True)
class SaslResponse:
    """The answer to a challenge. Answer with `sasl_outcome` or the next `sasl_challenge`."""

    response: bytes


# --- SASL, to a client --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaslMechanisms:
    """What the server offers; the engine has chosen already."""

    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SaslChallenge:
    """Answer with `sasl_response`."""

    challenge: bytes


@dataclass(frozen=True, slots=True)
class SaslOutcome:
    """The verdict; when it is not OK, Closed follows."""

    code: SaslCode
    additional_data: bytes | None


# --- Connection, sessions, links ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer's open has come; a server's own is already on its way."""

    open: Open


@dataclass(frozen=True, slots=True)
class SessionBegun:
    session: Session


@dataclass(frozen=True, slots=True)
class LinkAttached:
    """The peer attached a link: answer with `accept` or `refuse`. Or it answered ours.

    A refusal of ours comes as an answer without the terminus of the peer's side, and LinkDetached right after it.
    """

    link: Sender | Receiver


@dataclass(frozen=True, slots=True)
class CreditChanged:
    """More, or less, may be sent than before, or the peer asks for a drain: look at `sendable` and `drain`."""

    link: Sender | Receiver


class DeliveryReceived(NamedTuple):
    """One whole message, still encoded. Unless `settled`, it waits for `link.settle`.

    A tuple, as is DispositionReceived: they come by the hundred thousand, and frozen dataclasses are slow to make.
    """

    link: Receiver
    delivery_id: int
    tag: bytes
    message: bytes
    settled: bool
    message_format: int


class DispositionReceived(NamedTuple):
    """The outcome of a delivery that we had not settled, told once; or that the peer settled it.

    When `settled`, the delivery is forgotten. Else a Sender with `auto_settle` has settled it in turn, and one without
    it owes a `link.settle`. For a Receiver it is always settled: the sender's last word to `settle(…, settled=False)`.
    """

    link: Sender | Receiver
    delivery_id: int
    tag: bytes
    state: DeliveryState | None
    settled: bool


@dataclass(frozen=True, slots=True)
class LinkDetached:
    """A link is gone. Exactly one for each LinkAttached, also when session or connection go."""

    link: Sender | Receiver
    closed: bool
    error: Error | None
    by_peer: bool


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session is gone, its links were told before. Exactly one for each SessionBegun."""

    session: Session
    error: Error | None
    by_peer: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over; always the last event. Write what `take_output` holds, then close the stream."""

    error: Error | None
    by_peer: bool


Event = (
    SaslInit
    | SaslResponse
    | SaslMechanisms
    | SaslChallenge
    | SaslOutcome
    | Opened
    | SessionBegun
    | LinkAttached
    | CreditChanged
    | DeliveryReceived
    | DispositionReceived
    | LinkDetached
    | SessionEnded
    | Closed
)
