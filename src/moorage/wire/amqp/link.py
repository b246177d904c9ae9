"""Links: one direction of messages each, seen from our end. [AMQP 2.6]"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar, cast

from moorage.wire.amqp import conditions
from moorage.wire.amqp.events import CreditChanged, DeliveryReceived, LinkDetached
from moorage.wire.amqp.fault import Fault
from moorage.wire.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    SENDER,
    UINT_MAX,
    Attach,
    Detach,
    Error,
    Flow,
    Outcome,
    Source,
    Target,
)
from moorage.wire.amqp.transfer import Tail, TransferTemplate, encode_delivery

if TYPE_CHECKING:
    from moorage.wire.amqp.session import Session

MAX_MESSAGE_SIZE = 1_048_576  # bytes; what we take and say unless told otherwise
_HALF = 1 << 31  # serial numbers further apart than this count as behind [RFC 1982]


class NoCredit(RuntimeError):
    """`send` was called on a link whose `sendable` is 0."""


class _State(Enum):
    ATTACH_RECEIVED = auto()  # the adapter owes accept or refuse
    ATTACH_SENT = auto()
    ATTACHED = auto()
    DETACH_SENT = auto()  # the peer's frames for it are still on their way, and ignored
    DETACHED = auto()


_ATTACHED = (
    _State.ATTACHED
)  # looked up for each transfer: a name is three times as fast as an enum's attribute


class Link:
    """What Sender and Receiver share. Commands to a link that is gone do nothing."""

    ROLE: ClassVar[bool]

    def __init__(self, session: Session, name: str, handle: int, remote: Attach | None) -> None:
        self.session = session
        self.name = name
        self.handle = handle
        self.remote = remote  # the peer's attach, once it has come
        self.context: Any = None  # the adapter's
        self.drain = False
        self._state = _State.ATTACH_SENT if remote is None else _State.ATTACH_RECEIVED
        self._announced = False  # LinkAttached has been given out, LinkDetached not yet
        self._max_message_size = MAX_MESSAGE_SIZE
        self._delivery_count = 0
        self._credit = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} on channel {self.session.channel}, {self._state.name}>"

    @property
    def live(self) -> bool:
        """Both ends have attached and neither has detached; session and connection are alive too."""
        return self._state is _ATTACHED and self.session.live

    @property
    def credit(self) -> int:
        """Deliveries that may still come under the credit last given."""
        return max(0, self._credit)

    @property
    def source(self) -> Source | None:
        """Where the peer says the messages come from; None before its attach, or when it gave none."""
        return self.remote.source if self.remote else None

    @property
    def target(self) -> Target | None:
        """Where the peer says the messages go; None too for a transaction coordinator."""
        target = self.remote.target if self.remote else None
        return target if isinstance(target, Target) else None

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties in the peer's attach."""
        return (self.remote.properties if self.remote else None) or {}

    def accept(
        self,
        *,
        source: Source | None = None,
        target: Target | None = None,
        snd_settle_mode: int | None = None,
        rcv_settle_mode: int | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        properties: Mapping[str, Any] | None = None,
        offered_capabilities: Sequence[str] = (),
    ) -> None:
        """Answer the peer's attach; what is None is echoed. Both termini of the answer are there, as clients insist."""
        if self._state is not _State.ATTACH_RECEIVED or self.remote is None:
            return
        asked = self.remote
        self._state = _State.ATTACHED
        self._max_message_size = max_message_size
        self.session._write(
            Attach(
                name=self.name,
                handle=self.handle,
                role=self.ROLE,
                snd_settle_mode=asked.snd_settle_mode if snd_settle_mode is None else snd_settle_mode,
                rcv_settle_mode=asked.rcv_settle_mode if rcv_settle_mode is None else rcv_settle_mode,
                source=source or asked.source or Source(_address_of(asked.target)),
                target=target or asked.target or Target(_address_of(asked.source)),
                initial_delivery_count=0 if self.ROLE == SENDER else None,
                max_message_size=max_message_size,
                offered_capabilities=tuple(offered_capabilities),
                properties=properties,
            )
        )
        self._attached()

    def refuse(self, error: Error) -> None:
        """Answer the peer's attach with one without termini, and detach at once. [AMQP 2.6.3]"""
        if self._state is _State.ATTACH_RECEIVED:
            self._answer_without_termini()
            self.detach(error)

    def detach(self, error: Error | None = None, *, closed: bool = True) -> None:
        """End the link; LinkDetached comes with the peer's answer."""
        if self._state is _State.ATTACH_RECEIVED:
            self._answer_without_termini()
        if self._state in (_State.ATTACHED, _State.ATTACH_SENT):
            self._state = _State.DETACH_SENT
            self._forget()
            self.session._write(Detach(handle=self.handle, closed=closed, error=error))

    def _answer_without_termini(self) -> None:
        self._state = _State.ATTACHED
        self.session._write(
            Attach(
                name=self.name,
                handle=self.handle,
                role=self.ROLE,
                initial_delivery_count=0 if self.ROLE == SENDER else None,
            )
        )

    def _answered(self, attach: Attach) -> None:
        """The peer's attach in answer to ours."""
        self.remote = attach
        if self._state is _State.ATTACH_SENT:
            self._state = _State.ATTACHED
            self._attached()

    def _detached(self, detach: Detach) -> None:
        """The peer's detach: the first, or the answer to ours."""
        by_peer = self._state is not _State.DETACH_SENT
        if self._state is _State.ATTACH_RECEIVED:
            self._answer_without_termini()
        if by_peer:
            self.session._write(Detach(handle=self.handle, closed=detach.closed))
        self._gone(detach.closed, detach.error, by_peer)

    def _gone(self, closed: bool, error: Error | None, by_peer: bool) -> None:
        self._state = _State.DETACHED
        self._forget()
        self._tell(closed, error, by_peer)

    def _fail(self, error: Error) -> None:
        """The peer broke a rule of links; what it still sends here is ignored."""
        if self._state not in (_State.DETACH_SENT, _State.DETACHED):
            self.detach(error)
            self._tell(True, error, by_peer=False)

    def _tell(self, closed: bool, error: Error | None, by_peer: bool) -> None:
        if self._announced:
            self._announced = False
            self.session._tell(LinkDetached(cast("Sender | Receiver", self), closed, error, by_peer))

    def _attached(self) -> None:
        """Both ends have attached."""

    def _flowed(self, flow: Flow) -> None:
        """The peer's flow for this link."""

    def _forget(self) -> None:
        """Let go of what is underway: the link carries nothing more."""
        self._credit = 0
        self.session._forget(self)


def _address_of(terminus: Any) -> Any:
    address = getattr(terminus, "address", None)
    return "" if address is None else address


class Sender(Link):
    """A link over which we send."""

    ROLE = SENDER

    def __init__(self, session: Session, name: str, handle: int, remote: Attach | None) -> None:
        super().__init__(session, name, handle, remote)
        self.auto_settle = True  # answer an unsettled outcome at once; else that is for `settle`
        self._posted: deque[bytes] = deque()
        self._templates = {
            settled: TransferTemplate(channel=session.channel, handle=handle, settled=settled)
            for settled in (True, False)
        }

    @property
    def sendable(self) -> int:
        """Messages that can be sent now. 0 also while something sent before waits for the peer's window."""
        return 0 if self._posted else self._room()

    def _room(self) -> int:
        return min(self._credit, self.session._transfers_allowed()) if self._state is _ATTACHED else 0

    def send_many(self, messages: Sequence[bytes], *, settled: bool = True) -> Sequence[int]:
        """Send as many of `messages`, each encoded, as may be sent now; the delivery ids of those, from the first on.

        The delivery tag of each is its id in 4 bytes, big-endian.
        """
        session = self.session
        first, count = session._next_delivery_id, min(len(messages), self.sendable)
        batch = messages if count == len(messages) else messages[:count]
        template = self._templates[settled]
        room = session._max_frame_size() - template.size
        if not count or first + count > UINT_MAX or max(map(len, batch)) > room:
            return self._send_each(batch, settled)
        session._send_pieces(template.frames(first, batch), count)
        session._next_delivery_id = first + count
        self._spend(count)
        ids = range(first, first + count)
        if not settled:
            session._sent.update({each: (self, each.to_bytes(4, "big"), False) for each in ids})
        return ids

    def _send_each(self, messages: Sequence[bytes], settled: bool) -> Sequence[int]:
        ids = []
        for message in messages:
            if not self.sendable:  # large ones use up the session's window sooner
                break
            ids.append(self.send(message, settled=settled))
        return ids

    def send(
        self, message: bytes, *, tag: bytes | None = None, settled: bool = True, message_format: int = 0
    ) -> int:
        """Send one encoded message of any size; its delivery id, which is the tag too unless one is given.

        Raises NoCredit when `sendable` is 0.
        """
        if not self.sendable:
            raise NoCredit(f"nothing may be sent on {self!r}")
        return self._send(message, tag, settled, message_format)

    def _send(self, message: bytes, tag: bytes | None, settled: bool, message_format: int) -> int:
        session = self.session
        delivery_id = session._take_delivery_id()
        if tag is None:
            tag = delivery_id.to_bytes(4, "big")
        self._spend(1)
        if not settled:
            session._sent[delivery_id] = (self, tag, False)
        for frame in encode_delivery(
            channel=session.channel,
            handle=self.handle,
            delivery_id=delivery_id,
            tag=tag,
            message_format=message_format,
            settled=settled,
            message=message,
            max_frame_size=session._max_frame_size(),
        ):
            session._send_transfer(self, frame)
        return delivery_id

    def _spend(self, count: int) -> None:
        self._credit -= count
        self._delivery_count = (self._delivery_count + count) & UINT_MAX

    def post(self, message: bytes) -> None:
        """Send one encoded message settled, now or as soon as the peer allows it; in order.

        For answers, of which there are no more than requests. Past the limit that may wait the link is detached.
        """
        if self._state in (_State.DETACH_SENT, _State.DETACHED):
            return
        self._posted.append(message)
        self._send_posted()
        if len(self._posted) > self.session.connection.limits.posted:
            why = f"more than {self.session.connection.limits.posted} messages wait for credit"
            self._fail(Error(conditions.RESOURCE_LIMIT_EXCEEDED, why))

    def _send_posted(self) -> None:
        while self._posted and self._room():
            self._send(self._posted.popleft(), None, True, 0)

    def settle(self, delivery_id: int, outcome: Outcome | None = None) -> None:
        """Settle our side of a delivery that was sent unsettled, and forget it."""
        self.session._settle_sent(self, delivery_id, outcome)

    def drained(self) -> None:
        """Nothing more is there to send: give the rest of a draining peer's credit back. [AMQP 2.6.7]"""
        if self.live and self.drain:
            self.drain = False
            self._spend(self._credit)
            self.session._send_flow(self)

    def _attached(self) -> None:
        self._send_posted()

    def _flowed(self, flow: Flow) -> None:
        if self._state in (_State.DETACH_SENT, _State.DETACHED):
            return
        if flow.link_credit is not None:
            # link-credit counts from the receiver's delivery-count, which may lag behind ours. [AMQP 2.6.7]
            known = flow.delivery_count or 0
            self._credit = max(0, flow.link_credit - ((self._delivery_count - known) & UINT_MAX))
        self.drain = flow.drain
        self._credit_changed()

    def _credit_changed(self) -> None:
        self._send_posted()
        self.session._tell(CreditChanged(self))

    def _forget(self) -> None:
        super()._forget()
        self._posted.clear()


@dataclass(slots=True)
class _Partial:
    """A delivery of which more frames are to come."""

    delivery_id: int
    tag: bytes
    settled: bool
    message_format: int
    size: int = 0
    chunks: list[bytes] = field(default_factory=list)


class Receiver(Link):
    """A link over which the peer sends to us."""

    ROLE = RECEIVER

    def __init__(self, session: Session, name: str, handle: int, remote: Attach | None) -> None:
        super().__init__(session, name, handle, remote)
        self._delivery_count = (remote.initial_delivery_count or 0) if remote else 0
        self._granted_until = (
            self._delivery_count
        )  # highest count ever allowed: credit lowered later excuses what was underway
        self._window = 0  # of keep_credit
        self._unsettled = 0
        self._partial: _Partial | None = None

    @property
    def unsettled(self) -> int:
        """Deliveries received that are still to be settled."""
        return self._unsettled

    def keep_credit(self, window: int) -> None:
        """From now on let the peer have `window` deliveries underway or unsettled; the engine tops up at half.

        0 ends that: nothing more is granted.
        """
        self._window = window
        self._grant(max(0, window - self._unsettled))

    def flow(self, credit: int, *, drain: bool = False, echo: bool = False) -> None:
        """Let the peer send `credit` deliveries from now on, by hand; with `drain` it gives back what is over."""
        self._window = 0
        self.drain = drain
        self._grant(credit, echo=echo)

    def settle(
        self, delivery_ids: int | Iterable[int], outcome: Outcome = ACCEPTED, *, settled: bool = True
    ) -> None:
        """Tell the outcome of deliveries, in one disposition for each run of consecutive ids, and forget them.

        With settled=False they stay until the sender settles them: rcv-settle-mode second in full. [AMQP 2.6.12]
        Ids that are not ours to settle are passed over.
        """
        ids = (delivery_ids,) if isinstance(delivery_ids, int) else delivery_ids
        self.session._settle_received(self, ids, outcome, settled)

    def _grant(self, credit: int, *, echo: bool = False) -> None:
        self._credit = credit
        until = (self._delivery_count + credit) & UINT_MAX
        if (until - self._granted_until) & UINT_MAX < _HALF:
            self._granted_until = until
        if self.live:
            self.session._send_flow(self, echo=echo)

    def _top_up(self) -> None:
        missing = self._window - self._unsettled - self.credit
        if missing > 0 and missing * 2 >= self._window and self.live:
            self._grant(self.credit + missing)

    def _attached(self) -> None:
        if self.remote and self.remote.initial_delivery_count is not None:
            self._delivery_count = self._granted_until = self.remote.initial_delivery_count
        if self._credit:
            self._grant(self._credit)

    def _flowed(self, flow: Flow) -> None:
        """The sender's view: its delivery-count is the true one, and moves ahead when it gives credit back."""
        if flow.delivery_count is None or not self.live:
            return
        given_back = (flow.delivery_count - self._delivery_count) & UINT_MAX
        if given_back > self.credit:
            return
        self._delivery_count = flow.delivery_count
        self._credit -= given_back
        drained = self.drain and not self.credit
        if drained:
            self.drain = False
        if drained or given_back:
            self.session._tell(CreditChanged(self))

    def _received(self, delivery_id: int | None, tag: bytes | None, tail: Tail, payload: bytes) -> None:
        """One transfer. [AMQP 2.6.14]"""
        if self._state is not _ATTACHED:
            return
        partial = self._partial
        if partial is None:
            if delivery_id is None:
                raise Fault(self.session, conditions.INVALID_FIELD, "a delivery begins without a delivery-id")
            if self._delivery_count == self._granted_until:
                raise Fault(self, conditions.TRANSFER_LIMIT_EXCEEDED, "more deliveries than credit")
            self._delivery_count = (self._delivery_count + 1) & UINT_MAX
            self._credit -= 1
            if tail.plain:
                self._deliver(delivery_id, tag or b"", payload, tail.settled, tail.message_format)
                return
            partial = self._partial = _Partial(delivery_id, tag or b"", tail.settled, tail.message_format)
        elif delivery_id is not None and delivery_id != partial.delivery_id:
            raise Fault(self.session, conditions.NOT_ALLOWED, "a delivery begins before the last is complete")
        self._continue(partial, tail, payload)

    def _continue(self, partial: _Partial, tail: Tail, payload: bytes) -> None:
        if tail.aborted:
            self._drop_partial()
            self._top_up()
            return
        partial.chunks.append(payload)
        partial.size += len(payload)
        partial.settled |= tail.settled  # any of its transfers may say so [AMQP 2.7.5]
        self.session.connection._reassembling += len(payload)
        if not tail.more:
            self._drop_partial()
            message = b"".join(partial.chunks)
            self._deliver(partial.delivery_id, partial.tag, message, partial.settled, partial.message_format)
        elif partial.size > self._max_message_size:
            raise Fault(self, conditions.MESSAGE_SIZE_EXCEEDED, f"over {self._max_message_size} bytes")
        else:
            self.session.connection._check_reassembly()

    def _deliver(
        self, delivery_id: int, tag: bytes, message: bytes, settled: bool, message_format: int
    ) -> None:
        if len(message) > self._max_message_size:
            raise Fault(self, conditions.MESSAGE_SIZE_EXCEEDED, f"over {self._max_message_size} bytes")
        session = self.session
        session.connection._events.append(
            DeliveryReceived(self, delivery_id, tag, message, settled, message_format)
        )
        if not settled:
            session._received[delivery_id] = (self, tag)
            self._unsettled += 1
        elif (self._credit + self._unsettled) * 2 <= self._window:
            self._top_up()

    def _settled(self, count: int) -> None:
        self._unsettled -= count
        if self._window:
            self._top_up()

    def _drop_partial(self) -> None:
        if self._partial is not None:
            self.session.connection._reassembling -= self._partial.size
            self._partial = None

    def _forget(self) -> None:
        super()._forget()
        self._drop_partial()
        self._unsettled = 0
