"""AMQP 1.0 without I/O, both roles: bytes in, events out; commands in, bytes out.

Theory. A `Connection` carries `Session`s, a session carries links, a link carries messages one way: a `Sender` ours, a
`Receiver` the peer's. `Connection.receive` takes whatever a read brought and gives what happened, in order; commands
on the objects within those events queue bytes, and `take_output` hands them over. Nothing waits, nothing reads a
clock: time comes in through `tick`.

    types           values ⇄ bytes                    performatives   the composite types as dataclasses
    message         messages ⇄ bytes                  transfer        the one performative that must be fast
    frames, sasl    what comes before `open`          events          what `receive` gives
    connection      headers, frames, open and close   session, link   windows, credit, deliveries
    conditions      the names of errors               limits, fault   what a peer may ask for, and what breaks

What the engine does by itself: it answers headers, open, begin, end, detach and close; keeps the session's window open;
numbers deliveries, consecutively per session; cuts large messages to the peer's frames and joins the peer's; keeps a
receiver's credit at `keep_credit`; sends `post`ed messages once credit comes; sends empty frames while the peer wants a
sign of life. What a peer may ask for is bounded (`Limits`), and what breaks a rule ends the smallest thing that
it can: the link, the session, or the connection, with the condition that AMQP names for it.

What it leaves to the adapter: the verdict on SASL; whether a link is accepted, refused or detached; the outcome of
each delivery received; how much is sent unsettled before outcomes come back; the answer to a drain (`drained`).

What it will not do: resume links or deliveries after a detach (a link that comes back is new), transactions, sending a
message before all of it is there, TLS within AMQP, checking a peer's windows (ours is topped up before it
could be passed, credit is what holds a peer back), or refusing a message over the peer's max-message-size.

All fields of a performative are written, nulls at the end as well, and as list8 or list32: azure-eventhub reads
them by position.

A server that answers an attach, and sends three messages as soon as it may:

    connection = Connection(container_id="DeviceGateway_1")

    def received(data: bytes) -> bytes:
        for event in connection.receive(data):
            match event:
                case SaslInit(mechanism="PLAIN", initial_response=response):
                    known = parse_plain(response).user == "service@sas.root.hub"
                    connection.sasl_outcome(SaslCode.OK if known else SaslCode.AUTH)
                case SaslInit():
                    connection.sasl_outcome(SaslCode.OK)
                case LinkAttached(link=Sender(source=Source(address="events")) as link):
                    link.accept()
                    link.context = [Message(body=Data.of(text)).encode() for text in (b"a", b"b", b"c")]
                case LinkAttached(link=Receiver() as link):
                    link.accept()
                    link.keep_credit(100)
                case LinkAttached(link=link):
                    link.refuse(Error(conditions.NOT_FOUND, "No such address"))
                case CreditChanged(link=Sender(live=True) as link):
                    link.context = link.context[len(link.send_many(link.context)) :]
                case DeliveryReceived(link=link, delivery_id=delivery_id, message=message):
                    print(Message.decode(message).payload)
                    link.settle(delivery_id)
        return connection.take_output()  # and if connection.closed: close the stream behind it

Two things to know: after a verdict on SASL call `receive(b"")` once, for the peer may have sent more ahead of it; and
an event can be about a link that an event before it has ended, so look at `live` where that matters.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moorage.wire.amqp import conditions
    from moorage.wire.amqp.conditions import link_redirect
    from moorage.wire.amqp.connection import Connection
    from moorage.wire.amqp.events import (
        Closed,
        CreditChanged,
        DeliveryReceived,
        DispositionReceived,
        Event,
        LinkAttached,
        LinkDetached,
        Opened,
        SaslChallenge,
        SaslInit,
        SaslMechanisms,
        SaslOutcome,
        SaslResponse,
        SessionBegun,
        SessionEnded,
    )
    from moorage.wire.amqp.limits import Limits
    from moorage.wire.amqp.link import Link, NoCredit, Receiver, Sender
    from moorage.wire.amqp.message import AmqpSequence, AmqpValue, Data, Message
    from moorage.wire.amqp.performatives import (
        ACCEPTED,
        RCV_FIRST,
        RCV_SECOND,
        RELEASED,
        SND_MIXED,
        SND_SETTLED,
        SND_UNSETTLED,
        Accepted,
        Attach,
        Error,
        Header,
        MessageId,
        Modified,
        Open,
        Outcome,
        Properties,
        Received,
        Rejected,
        Released,
        SaslCode,
        Source,
        Target,
    )
    from moorage.wire.amqp.sasl import ClientSasl, Plain, ServerSasl, parse_plain
    from moorage.wire.amqp.session import Session
    from moorage.wire.amqp.types import (
        Array,
        Byte,
        Char,
        Described,
        Float,
        Int,
        Long,
        Short,
        Symbol,
        Timestamp,
        UByte,
        UInt,
        ULong,
        UShort,
    )

__all__ = [
    "ACCEPTED",
    "RCV_FIRST",
    "RCV_SECOND",
    "RELEASED",
    "SND_MIXED",
    "SND_SETTLED",
    "SND_UNSETTLED",
    "Accepted",
    "AmqpSequence",
    "AmqpValue",
    "Array",
    "Attach",
    "Byte",
    "Char",
    "ClientSasl",
    "Closed",
    "Connection",
    "CreditChanged",
    "Data",
    "DeliveryReceived",
    "Described",
    "DispositionReceived",
    "Error",
    "Event",
    "Float",
    "Header",
    "Int",
    "Limits",
    "Link",
    "LinkAttached",
    "LinkDetached",
    "Long",
    "Message",
    "MessageId",
    "Modified",
    "NoCredit",
    "Open",
    "Opened",
    "Outcome",
    "Plain",
    "Properties",
    "Received",
    "Receiver",
    "Rejected",
    "Released",
    "SaslChallenge",
    "SaslCode",
    "SaslInit",
    "SaslMechanisms",
    "SaslOutcome",
    "SaslResponse",
    "Sender",
    "ServerSasl",
    "Session",
    "SessionBegun",
    "SessionEnded",
    "Short",
    "Source",
    "Symbol",
    "Target",
    "Timestamp",
    "UByte",
    "UInt",
    "ULong",
    "UShort",
    "conditions",
    "link_redirect",
    "parse_plain",
]

# From what much stands on to what stands on much: looking for a name imports no more than it has to.
_HOMES = (
    "types",
    "conditions",
    "performatives",
    "message",
    "limits",
    "link",
    "sasl",
    "session",
    "events",
    "connection",
)


def __getattr__(name: str) -> Any:
    """A name is fetched when it is first asked for: the log needs the types alone, and a server that has just
    started speaks no AMQP yet. [PEP 562]"""
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if name == home:
                return module
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
