"""Sessions: numbered transfers in both directions, and the links that share them. [AMQP 2.5]"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from moorage.wire.amqp import conditions
from moorage.wire.amqp.events import DispositionReceived, Event, LinkAttached, SessionBegun, SessionEnded
from moorage.wire.amqp.fault import Fault
from moorage.wire.amqp.link import Link, Receiver, Sender
from moorage.wire.amqp.performatives import (
    ACCEPTED,
    RCV_FIRST,
    RECEIVER,
    SENDER,
    SND_MIXED,
    UINT_MAX,
    Accepted,
    Attach,
    Begin,
    DeliveryState,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Outcome,
    Rejected,
    Released,
    Source,
    Target,
)
from moorage.wire.amqp.transfer import Head

if TYPE_CHECKING:
    from moorage.wire.amqp.connection import Connection

INCOMING_WINDOW = 5_000  # transfer frames; topped up at half, for link credit is what holds a peer back
_LOW_WINDOW = INCOMING_WINDOW // 2
FIRST_OUTGOING_ID = 1
_HALF = 1 << 31


class _State(Enum):
    BEGIN_SENT = auto()
    MAPPED = auto()
    END_SENT = auto()  # all but the peer's end is ignored
    ENDED = auto()


_MAPPED = _State.MAPPED  # looked up for each transfer: a name is three times as fast as an enum's attribute


class Session:
    """One session. Commands to a session that is gone do nothing."""

    def __init__(self, connection: Connection, channel: int) -> None:
        self.connection = connection
        self.channel = channel  # the one we send on
        self.context: Any = None  # the adapter's
        self._state = _State.BEGIN_SENT
        self._announced = False  # SessionBegun has been given out, SessionEnded not yet
        # Windows count transfer frames, ids are serial numbers. [AMQP 2.5.6]
        self._next_incoming_id: int | None = None
        self._incoming_window = INCOMING_WINDOW
        self._next_outgoing_id = FIRST_OUTGOING_ID
        self._remote_incoming_window = 0
        self._remote_handle_max = UINT_MAX
        # Frames of deliveries begun, for which the peer's window is too small.
        self._waiting: deque[tuple[Sender, bytes]] = deque()
        # Delivery ids are consecutive over all links of a session: some clients drop the connection at a gap.
        self._next_delivery_id = 0
        # What is unsettled: by us, with whether its outcome was told already; from the peer.
        self._sent: dict[int, tuple[Sender, bytes, bool]] = {}
        self._received: dict[int, tuple[Receiver, bytes]] = {}
        self._by_handle: dict[int, Sender | Receiver] = {}  # the peer's handle
        self._by_own_handle: dict[int, Sender | Receiver] = {}
        # Attaches of ours that wait for an answer, by name and the peer's role.
        self._awaiting: dict[tuple[str, bool], Sender | Receiver] = {}
        self._late_handles: set[int] = set()  # detached ones: what still comes for them is ignored

    def __repr__(self) -> str:
        return f"<Session on channel {self.channel}, {self._state.name}>"

    @property
    def live(self) -> bool:
        """Both ends have begun, neither has ended, nor closed the connection."""
        return self._state is _MAPPED and not self.connection._closing

    @property
    def answered(self) -> bool:
        """The peer's begin has come."""
        return self._next_incoming_id is not None

    @property
    def links(self) -> tuple[Sender | Receiver, ...]:
        return tuple(self._by_own_handle.values())

    # --- Commands -------------------------------------------------------------------------------------------

    def attach_sender(
        self,
        name: str,
        target: Target,
        *,
        source: Source | None = None,
        snd_settle_mode: int = SND_MIXED,
        rcv_settle_mode: int = RCV_FIRST,
        max_message_size: int | None = None,
        properties: Mapping[str, Any] | None = None,
        desired_capabilities: Sequence[str] = (),
    ) -> Sender:
        """Ask for a link over which we send; LinkAttached brings the answer. May be called before SessionBegun."""
        link = Sender(self, name, self._free_handle(), None)
        attach = Attach(
            name=name,
            handle=link.handle,
            role=SENDER,
            snd_settle_mode=snd_settle_mode,
            rcv_settle_mode=rcv_settle_mode,
            source=source or Source(""),
            target=target,
            initial_delivery_count=0,
            max_message_size=max_message_size,
            desired_capabilities=tuple(desired_capabilities),
            properties=properties,
        )
        self._ask(link, attach)
        return link

    def attach_receiver(
        self,
        name: str,
        source: Source,
        *,
        target: Target | None = None,
        snd_settle_mode: int = SND_MIXED,
        rcv_settle_mode: int = RCV_FIRST,
        max_message_size: int | None = None,
        properties: Mapping[str, Any] | None = None,
        desired_capabilities: Sequence[str] = (),
    ) -> Receiver:
        """Ask for a link over which the peer sends; credit given at once goes out with the answer."""
        link = Receiver(self, name, self._free_handle(), None)
        if max_message_size is not None:
            link._max_message_size = max_message_size
        attach = Attach(
            name=name,
            handle=link.handle,
            role=RECEIVER,
            snd_settle_mode=snd_settle_mode,
            rcv_settle_mode=rcv_settle_mode,
            source=source,
            target=target or Target(""),
            max_message_size=link._max_message_size,
            desired_capabilities=tuple(desired_capabilities),
            properties=properties,
        )
        self._ask(link, attach)
        return link

    def settle(self, delivery_ids: Iterable[int], outcome: Outcome = ACCEPTED) -> None:
        """Settle deliveries received over any link of this session, in one disposition per run of consecutive ids."""
        self._settle_received(None, delivery_ids, outcome, True)

    def end(self, error: Error | None = None) -> None:
        """End the session with all its links; SessionEnded comes with the peer's answer."""
        if self._state in (_State.BEGIN_SENT, _State.MAPPED):
            self.connection._write(self.channel, End(error=error))
            self._state = _State.END_SENT
            self._waiting.clear()

    # --- What the connection asks of a session --------------------------------------------------------------

    def _begun(self, begin: Begin) -> None:
        """The peer's begin: the first one, or the answer to ours."""
        self._announced = True
        self._next_incoming_id = begin.next_outgoing_id
        self._remote_incoming_window = begin.incoming_window
        self._remote_handle_max = begin.handle_max
        if self._state is _State.BEGIN_SENT:
            self._state = _State.MAPPED
        self._tell(SessionBegun(self))

    def _begin(self, remote_channel: int | None) -> Begin:
        return Begin(
            remote_channel=remote_channel,
            next_outgoing_id=FIRST_OUTGOING_ID,
            incoming_window=INCOMING_WINDOW,
            outgoing_window=UINT_MAX,
            handle_max=self.connection.handle_max,
        )

    def _receive(self, performative: Any) -> None:
        if self._state is _MAPPED:
            _HANDLERS[type(performative)](self, performative)

    def _ended(self, end: End) -> None:
        by_peer = self._state is not _State.END_SENT
        if by_peer:
            self._write(End())
        self._gone(end.error, by_peer)

    def _gone(self, error: Error | None, by_peer: bool) -> None:
        self._state = _State.ENDED
        self._tell_gone(error, by_peer)
        self.connection._links -= len(self._by_own_handle)
        self._by_handle.clear()
        self._by_own_handle.clear()

    def _fail(self, error: Error) -> None:
        """The peer broke a rule of sessions; all it still sends here is ignored. [AMQP 2.5.5]"""
        if self._state is _State.MAPPED:
            self.end(error)
            self._tell_gone(error, by_peer=False)

    def _tell_gone(self, error: Error | None, by_peer: bool) -> None:
        for link in self.links:
            link._gone(True, error, by_peer)
        if self._announced:
            self._announced = False
            self._tell(SessionEnded(self, error, by_peer))

    # --- Links ----------------------------------------------------------------------------------------------

    def _ask(self, link: Sender | Receiver, attach: Attach) -> None:
        if self._state not in (_State.BEGIN_SENT, _State.MAPPED):
            link._gone(True, None, by_peer=False)
            return
        if link.handle > self._remote_handle_max:
            raise ValueError(f"the peer allows no more than {len(self._by_own_handle)} links in a session")
        self._add(link)
        self._awaiting[link.name, not attach.role] = link
        self._write(attach)

    def _free_handle(self, wanted: int = 0) -> int:
        if wanted not in self._by_own_handle:
            return wanted
        return next(handle for handle in range(UINT_MAX) if handle not in self._by_own_handle)

    def _on_attach(self, attach: Attach) -> None:
        connection = self.connection
        if attach.handle > connection.handle_max:
            why = f"handle {attach.handle}, the highest is {connection.handle_max}"
            raise Fault(connection, conditions.FRAMING_ERROR, why)
        if attach.handle in self._by_handle:
            raise Fault(self, conditions.HANDLE_IN_USE, f"handle {attach.handle} is attached already")
        if len(attach.name) > connection.limits.name:
            raise Fault(self, conditions.INVALID_FIELD, f"a link name of {len(attach.name)} characters")
        self._late_handles.discard(attach.handle)
        link = self._awaiting.pop((attach.name, attach.role), None)
        if link is not None:
            self._by_handle[attach.handle] = link
            link._answered(attach)
        else:
            link = self._new_link(attach)
        link._announced = True
        self._tell(LinkAttached(link))

    def _new_link(self, attach: Attach) -> Sender | Receiver:
        connection = self.connection
        handle = self._free_handle(attach.handle)
        if handle > self._remote_handle_max or connection._links >= connection.limits.links:
            raise Fault(self, conditions.RESOURCE_LIMIT_EXCEEDED, "too many links")
        kind = Sender if attach.role == RECEIVER else Receiver
        link = kind(self, attach.name, handle, attach)
        self._by_handle[attach.handle] = link
        self._add(link)
        return link

    def _add(self, link: Sender | Receiver) -> None:
        self._by_own_handle[link.handle] = link
        self.connection._links += 1

    def _link(self, handle: int) -> Sender | Receiver | None:
        """The link that the peer calls `handle`; None for one detached a while ago."""
        link = self._by_handle.get(handle)
        if link is None and handle not in self._late_handles:
            raise Fault(self, conditions.UNATTACHED_HANDLE, f"no link is attached at handle {handle}")
        return link

    def _on_detach(self, detach: Detach) -> None:
        link = self._link(detach.handle)
        if link is None:
            return
        link._detached(detach)
        self._late_handles.add(detach.handle)
        self._by_handle.pop(detach.handle, None)
        self._by_own_handle.pop(link.handle, None)
        self.connection._links -= 1

    def _forget(self, link: Link) -> None:
        """Drop what is underway on a link."""
        for delivery_id in [each for each, entry in self._sent.items() if entry[0] is link]:
            del self._sent[delivery_id]
        for delivery_id in [each for each, entry in self._received.items() if entry[0] is link]:
            del self._received[delivery_id]
        if self._waiting:
            self._waiting = deque([(sender, frame) for sender, frame in self._waiting if sender is not link])

    # --- Flow -----------------------------------------------------------------------------------------------

    def _on_flow(self, flow: Flow) -> None:
        was_blocked = not self._transfers_allowed()
        self._next_incoming_id = flow.next_outgoing_id
        # What we sent since the peer wrote this flow has used up part of its window. [AMQP 2.5.6]
        seen = FIRST_OUTGOING_ID if flow.next_incoming_id is None else flow.next_incoming_id
        underway = (self._next_outgoing_id - seen) & UINT_MAX
        self._remote_incoming_window = max(0, flow.incoming_window - (underway if underway < _HALF else 0))
        self._send_waiting()
        link = None if flow.handle is None else self._link(flow.handle)
        if link is not None:
            link._flowed(flow)
        if was_blocked:
            self.connection._unblocked[self] = None
        if flow.echo:
            self._send_flow(link)

    def _resume(self) -> None:
        """The window may have opened again: tell all that could send."""
        if self._transfers_allowed():
            for link in self.links:
                if isinstance(link, Sender) and link.live and link.credit:
                    link._credit_changed()

    def _send_flow(self, link: Link | None = None, *, echo: bool = False) -> None:
        """Tell our windows, filled up again, and the state of a link."""
        self._incoming_window = INCOMING_WINDOW
        if link is not None and not link.live:
            link = None
        self._write(
            Flow(
                next_incoming_id=self._next_incoming_id,
                incoming_window=INCOMING_WINDOW,
                next_outgoing_id=self._next_outgoing_id,
                outgoing_window=UINT_MAX,
                handle=link.handle if link else None,
                delivery_count=link._delivery_count if link else None,
                link_credit=link.credit if link else None,
                available=0 if isinstance(link, Sender) else None,
                drain=link.drain if link else False,
                echo=echo,
            )
        )

    # --- Transfers ------------------------------------------------------------------------------------------

    def _on_transfer(self, data: bytes, end: int, head: Head) -> None:
        if self._state is not _MAPPED:
            return
        handle, delivery_id, tag, tail, payload = head
        self._next_incoming_id = ((self._next_incoming_id or 0) + 1) & UINT_MAX
        self._incoming_window -= 1
        if self._incoming_window < _LOW_WINDOW:
            self._send_flow()
        link = self._by_handle.get(handle) or self._link(handle)
        if isinstance(link, Receiver):
            link._received(delivery_id, tag, tail, data[payload:end])
        elif link is not None:
            raise Fault(self, conditions.ERRANT_LINK, "a transfer towards the end that sends")

    def _transfers_allowed(self) -> int:
        """Transfer frames that may be sent now."""
        return self._remote_incoming_window if self.live and not self._waiting else 0

    def _max_frame_size(self) -> int:
        return self.connection._peer_max_frame_size

    def _take_delivery_id(self) -> int:
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) & UINT_MAX
        return delivery_id

    def _send_pieces(self, pieces: list[bytes], frames: int) -> None:
        """Transfers that the window is known to allow, in pieces."""
        self.connection._output += pieces
        self._count_sent(frames)

    def _send_transfer(self, link: Sender, frame: bytes) -> None:
        if self._transfers_allowed():
            self.connection._output.append(frame)
            self._count_sent(1)
        else:
            self._waiting.append((link, frame))

    def _send_waiting(self) -> None:
        while self._waiting and self._remote_incoming_window:
            self.connection._output.append(self._waiting.popleft()[1])
            self._count_sent(1)

    def _count_sent(self, frames: int) -> None:
        self._next_outgoing_id = (self._next_outgoing_id + frames) & UINT_MAX
        self._remote_incoming_window -= frames

    # --- Dispositions ---------------------------------------------------------------------------------------

    def _on_disposition(self, disposition: Disposition) -> None:
        if disposition.role == RECEIVER:
            self._on_sent_disposition(disposition)
        else:
            self._on_received_disposition(disposition)

    def _on_sent_disposition(self, disposition: Disposition) -> None:
        state = disposition.state
        is_outcome = isinstance(state, (Accepted, Rejected, Released, Modified))
        answered = []
        for delivery_id in self._in_range(disposition, self._sent):
            link, tag, told = self._sent[delivery_id]
            if disposition.settled:
                del self._sent[delivery_id]
            elif told or not is_outcome:
                continue  # nothing new, however often it is said
            elif link.auto_settle:
                del self._sent[delivery_id]
                answered.append(delivery_id)
            else:
                self._sent[delivery_id] = (link, tag, True)
            self._tell(DispositionReceived(link, delivery_id, tag, state, disposition.settled))
        for first, last in _runs(answered):
            self._write_disposition(SENDER, first, last, state, True)

    def _on_received_disposition(self, disposition: Disposition) -> None:
        if not disposition.settled:
            return  # a sender's view of its delivery changes nothing until it settles
        for delivery_id in self._in_range(disposition, self._received):
            link, tag = self._received.pop(delivery_id)
            self._tell(DispositionReceived(link, delivery_id, tag, disposition.state, True))
            link._settled(1)

    def _in_range(self, disposition: Disposition, unsettled: Mapping[int, Any]) -> list[int]:
        """Those of a disposition's deliveries that are unsettled; the others are old news, and ignored."""
        first = disposition.first
        span = 0 if disposition.last is None else (disposition.last - first) & UINT_MAX
        if span >= _HALF:
            raise Fault(self, conditions.INVALID_FIELD, "a disposition whose last is before its first")
        if span < len(unsettled):
            return [
                each for each in ((first + step) & UINT_MAX for step in range(span + 1)) if each in unsettled
            ]
        return [each for each in unsettled if (each - first) & UINT_MAX <= span]

    def _settle_sent(self, link: Sender, delivery_id: int, outcome: Outcome | None) -> None:
        entry = self._sent.get(delivery_id)
        if entry is not None and entry[0] is link:
            del self._sent[delivery_id]
            self._write_disposition(SENDER, delivery_id, delivery_id, outcome, True)

    def _settle_received(
        self, link: Receiver | None, delivery_ids: Iterable[int], outcome: Outcome, settled: bool
    ) -> None:
        ours = []
        settled_on: dict[Receiver, int] = {}
        received = self._received
        for delivery_id in delivery_ids:
            entry = received.get(delivery_id)
            if entry is None or (link is not None and entry[0] is not link):
                continue
            ours.append(delivery_id)
            if settled:
                del received[delivery_id]
                settled_on[entry[0]] = settled_on.get(entry[0], 0) + 1
        for first, last in _runs(ours):
            self._write_disposition(RECEIVER, first, last, outcome, settled)
        for receiver, count in settled_on.items():
            receiver._settled(count)

    def _write_disposition(
        self, role: bool, first: int, last: int, state: DeliveryState | None, settled: bool
    ) -> None:
        # `last` also when it is `first`: one client takes a missing one for 0.
        self._write(Disposition(role=role, first=first, last=last, settled=settled, state=state))

    # --- Out ------------------------------------------------------------------------------------------------

    def _write(self, performative: Any) -> None:
        if self._state not in (_State.BEGIN_SENT, _State.MAPPED):
            return
        if not self.connection._write(self.channel, performative):
            name = type(performative).__name__.lower()
            self._fail(Error(conditions.FRAME_SIZE_TOO_SMALL, f"the peer's frames are too small for {name}"))

    def _tell(self, event: Event) -> None:
        self.connection._events.append(event)


def _runs(delivery_ids: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive ids."""
    at = 0
    while at < len(delivery_ids):
        first = last = delivery_ids[at]
        at += 1
        while at < len(delivery_ids) and delivery_ids[at] == last + 1:
            last += 1
            at += 1
        yield first, last


_HANDLERS: dict[type, Callable[[Session, Any], None]] = {
    Attach: Session._on_attach,
    Flow: Session._on_flow,
    Disposition: Session._on_disposition,
    Detach: Session._on_detach,
}
