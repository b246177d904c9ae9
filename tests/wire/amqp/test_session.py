from __future__ import annotations

from typing import Any

import pytest

from moorage.wire.amqp import (
    ACCEPTED,
    Connection,
    CreditChanged,
    DeliveryReceived,
    DispositionReceived,
    Error,
    LinkAttached,
    LinkDetached,
    Receiver,
    Rejected,
    Sender,
    SessionEnded,
    Source,
    Target,
    conditions,
    frames,
)
from moorage.wire.amqp.limits import Limits
from moorage.wire.amqp.performatives import (
    Attach,
    Begin,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Transfer,
    encode_composite,
)
from moorage.wire.amqp.session import INCOMING_WINDOW
from tests.wire.amqp.joined import Joined
from tests.wire.amqp.test_connection import OPEN, frame, written

BEGIN = Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100)
ATTACH_IN = Attach(name="in", handle=0, role=False, target=Target("in"), initial_delivery_count=0)
ATTACH_OUT = Attach(name="out", handle=1, role=True, source=Source("out"))


def flow(**fields: Any) -> Flow:
    return Flow(
        **{"next_incoming_id": 1, "incoming_window": 100, "next_outgoing_id": 0, "outgoing_window": 100}
        | fields
    )


def transfer(payload: bytes = b"m", delivery_id: int | None = 0, **fields: Any) -> bytes:
    """A frame with one transfer to handle 0."""
    tag = None if delivery_id is None else b"t"
    body = encode_composite(
        Transfer(**{"handle": 0, "delivery_id": delivery_id, "delivery_tag": tag} | fields)
    )
    return frames.encode_frame(body + payload)


def server(*sent: Any, **options: Any) -> tuple[Connection, list[Any]]:
    """A server with one session that has accepted the links that a peer attaches in `sent`; output thrown away."""
    connection = Connection(container_id="hub", **options)
    events = connection.receive(frames.AMQP_HEADER + frame(OPEN) + frame(BEGIN) + b"".join(map(frame, sent)))
    for event in events:
        if isinstance(event, LinkAttached):
            event.link.accept()
    connection.take_output()
    return connection, events


def receiving(credit: int = 10, **options: Any) -> tuple[Connection, Receiver]:
    connection, events = server(ATTACH_IN, **options)
    link = events[-1].link
    link.flow(credit)
    connection.take_output()
    return connection, link


def sending(credit: int = 10, **options: Any) -> tuple[Connection, Sender]:
    connection, events = server(ATTACH_OUT, **options)
    connection.receive(frame(flow(handle=1, delivery_count=0, link_credit=credit)))
    return connection, events[-1].link


def ended_with(connection: Connection) -> str:
    (end,) = [each for _, each in written(connection) if isinstance(each, End)]
    assert end.error is not None
    return end.error.condition


# --- Windows ------------------------------------------------------------------------------------------------


def test_our_window_is_topped_up_at_half() -> None:
    connection, link = receiving(credit=INCOMING_WINDOW)
    half = INCOMING_WINDOW // 2
    connection.receive(b"".join(transfer(delivery_id=number, settled=True) for number in range(half)))
    assert written(connection) == []
    connection.receive(transfer(delivery_id=half, settled=True))
    ((_, topped_up),) = written(connection)
    assert topped_up == Flow(
        next_incoming_id=half + 1,
        incoming_window=INCOMING_WINDOW,
        next_outgoing_id=1,
        outgoing_window=0xFFFFFFFF,
    )
    assert link.credit == half - 1


def test_the_peers_window_bounds_what_is_sent() -> None:
    connection, link = sending(credit=1_000)
    assert link.credit == 1_000
    assert link.sendable == 100
    assert len(link.send_many([b"m"] * 500)) == 100
    assert link.sendable == 0
    connection.receive(frame(flow(next_incoming_id=51, incoming_window=100)))
    assert link.sendable == 50


def test_a_window_that_opens_again_is_told_to_links_with_credit() -> None:
    connection, link = sending(credit=1_000)
    link.send_many([b"m"] * 100)
    assert connection.receive(frame(flow(next_incoming_id=101, incoming_window=0))) == []
    assert connection.receive(frame(flow(next_incoming_id=101, incoming_window=10))) == [CreditChanged(link)]
    assert connection.receive(frame(flow(next_incoming_id=101, incoming_window=20))) == []


def test_a_window_that_opens_and_shuts_is_told_once_a_read() -> None:
    connection, link = sending(credit=1_000)
    toggle = frame(flow(incoming_window=0)) + frame(flow(incoming_window=10))
    assert connection.receive(toggle * 100) == [CreditChanged(link)]
    assert connection.receive(toggle + frame(flow(incoming_window=0))) == []


def test_a_large_message_waits_in_part_for_the_window() -> None:
    connection = Connection(container_id="hub")
    connection.receive(
        frames.AMQP_HEADER
        + frame(Open(container_id="c", max_frame_size=512))
        + frame(Begin(next_outgoing_id=0, incoming_window=2, outgoing_window=1))
        + frame(ATTACH_OUT)
    )
    link = connection.sessions[0].links[0]
    assert isinstance(link, Sender)
    link.accept()
    connection.receive(frame(flow(incoming_window=2, handle=1, delivery_count=0, link_credit=5)))
    connection.take_output()
    link.send(bytes(2_000))
    assert len(written(connection)) == 2
    assert link.sendable == 0
    assert connection.receive(frame(flow(next_incoming_id=3, incoming_window=1))) == []
    assert len(written(connection)) == 1
    assert connection.receive(frame(flow(next_incoming_id=4, incoming_window=9))) == [CreditChanged(link)]
    rest = [each for _, each in written(connection)]
    assert [each.more for each in rest] == [True, False]
    assert {each.delivery_id for each in rest} == {0}
    assert link.sendable == 4


def test_large_messages_sent_together_stop_where_the_window_ends() -> None:
    connection, link = sending()
    connection.receive(frame(flow(incoming_window=5)))
    assert link.send_many([bytes(100_000)] * 5, settled=False) == [0, 1, 2]
    assert len(written(connection)) == 5
    connection.receive(frame(flow(next_incoming_id=6, incoming_window=5)))
    assert len(written(connection)) == 1
    assert link.sendable == 4


def test_frames_that_wait_go_with_their_link() -> None:
    connection, link = sending()
    connection.receive(frame(flow(incoming_window=1)))
    link.send(bytes(200_000))
    connection.take_output()
    link.detach()
    connection.receive(frame(flow(next_incoming_id=2, incoming_window=100)))
    assert [type(each) for _, each in written(connection)] == [Detach]


def test_a_flow_that_asks_is_answered() -> None:
    connection, link = receiving(credit=7)
    connection.receive(frame(flow(echo=True)) + frame(flow(handle=0, delivery_count=0, echo=True)))
    (_, of_session), (_, of_link) = written(connection)
    assert of_session.handle is None
    assert (of_link.handle, of_link.link_credit, of_link.delivery_count) == (link.handle, 7, 0)


def test_ids_wrap_around_at_32_bits() -> None:
    connection, link = sending(credit=100)
    session = link.session
    session._next_outgoing_id = session._next_delivery_id = link._delivery_count = 0xFFFFFFFE
    assert link.send_many([b"a", b"b", b"c"], settled=False) == [0xFFFFFFFE, 0xFFFFFFFF, 0]
    assert session._next_outgoing_id == session._next_delivery_id == link._delivery_count == 1
    dispositions = frame(Disposition(role=True, first=0xFFFFFFFE, last=0, settled=True, state=ACCEPTED))
    assert [
        event.delivery_id
        for event in connection.receive(dispositions)
        if isinstance(event, DispositionReceived)
    ] == [
        0xFFFFFFFE,
        0xFFFFFFFF,
        0,
    ]
    connection.receive(
        frame(flow(next_incoming_id=0, incoming_window=5, handle=1, delivery_count=0, link_credit=4))
    )
    assert (link.credit, link.sendable) == (3, 3)
    connection, receiver = receiving()
    receiver.session._next_incoming_id = receiver._delivery_count = 0xFFFFFFFF
    receiver._granted_until = 0xFFFFFFFF
    receiver.flow(2)
    events = connection.receive(transfer(delivery_id=0xFFFFFFFF) + transfer(delivery_id=0))
    assert [event.delivery_id for event in events if isinstance(event, DeliveryReceived)] == [0xFFFFFFFF, 0]
    assert receiver.session._next_incoming_id == receiver._delivery_count == 1


def test_delivery_ids_are_consecutive_over_the_links_of_a_session() -> None:
    joined = Joined().open()
    one, first = joined.receiver("one")
    two, second = joined.receiver("two")
    ids = [
        *first.send_many([b"a", b"b"]),
        second.send(b"c" * 100_000, settled=False, tag=bytes(16)),
        *second.send_many([b"d"], settled=False),
        first.send(b"e"),
    ]
    joined.run()
    assert ids == [0, 1, 2, 3, 4]
    received = joined.seen(DeliveryReceived, at="client")
    assert [event.delivery_id for event in received] == ids
    assert [event.link for event in received] == [one, one, two, two, one]
    assert [event.tag for event in received] == [
        b"\0\0\0\0",
        b"\0\0\0\1",
        bytes(16),
        b"\0\0\0\3",
        b"\0\0\0\4",
    ]


# --- Links by (channel, handle) --------------------------------------------------------------------------------


def test_the_same_names_and_handles_in_many_sessions_are_different_links() -> None:
    joined = Joined().open()
    sessions = [joined.client.begin() for _ in range(3)]
    ours = [
        session.attach_sender("twin", Target(f"/devices/{number}")) for number, session in enumerate(sessions)
    ]
    joined.run()
    theirs = [event.link for event in joined.seen(LinkAttached)]
    assert len(set(theirs)) == 3
    for link in theirs:
        assert isinstance(link, Receiver)
        link.flow(1)
    joined.run()
    for number, sender in enumerate(ours):
        sender.send(b"%d" % number)
    joined.run()
    received = [
        (event.link.target.address, event.message)
        for event in joined.seen(DeliveryReceived)
        if event.link.target
    ]
    assert received == [(f"/devices/{number}", b"%d" % number) for number in range(3)]


def test_two_links_of_one_name_in_both_directions() -> None:
    joined = Joined().open()
    session = joined.client.begin()
    sender, receiver = session.attach_sender("x", Target("a")), session.attach_receiver("x", Source("b"))
    joined.run()
    assert sender.live
    assert receiver.live
    assert {event.link for event in joined.seen(LinkAttached, at="client")} == {sender, receiver}


def test_a_handle_is_free_again_after_detach() -> None:
    connection, _ = server(ATTACH_IN)
    for _ in range(3):
        detached, attached = connection.receive(frame(Detach(handle=0, closed=True)) + frame(ATTACH_IN))
        assert isinstance(detached, LinkDetached)
        assert isinstance(attached, LinkAttached)
        attached.link.accept()
    assert len(connection.sessions[0].links) == 1
    assert connection._links == 1


def test_what_still_comes_for_a_detached_link_is_ignored() -> None:
    connection, link = receiving()
    link.detach()
    late = transfer() + frame(flow(handle=0, delivery_count=1, echo=True))
    assert connection.receive(late) == []
    assert [type(event) for event in connection.receive(frame(Detach(handle=0, closed=True)))] == [
        LinkDetached
    ]
    assert connection.receive(late + frame(Detach(handle=0))) == []
    assert connection.sessions[0].live


BROKEN: dict[str, tuple[bytes, str]] = {
    "a handle in use": (frame(ATTACH_IN), conditions.HANDLE_IN_USE),
    "detach of a handle never attached": (frame(Detach(handle=9)), conditions.UNATTACHED_HANDLE),
    "flow of a handle never attached": (frame(flow(handle=9)), conditions.UNATTACHED_HANDLE),
    "a transfer of a handle never attached": (transfer(handle=9), conditions.UNATTACHED_HANDLE),
    "a transfer to our sender": (transfer(handle=1), conditions.ERRANT_LINK),
    "a first transfer without an id": (transfer(delivery_id=None), conditions.INVALID_FIELD),
    "a delivery within another": (transfer(more=True) + transfer(delivery_id=1), conditions.NOT_ALLOWED),
    "a range that ends before it begins": (
        frame(Disposition(role=True, first=5, last=4, settled=True)),
        conditions.INVALID_FIELD,
    ),
    "a link name past all measure": (
        frame(Attach(name="n" * 2_000, handle=2, role=True)),
        conditions.INVALID_FIELD,
    ),
}


@pytest.mark.parametrize(("data", "condition"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_ends_the_session_and_leaves_the_connection(data: bytes, condition: str) -> None:
    connection, _ = server(ATTACH_IN, ATTACH_OUT)
    (receiver, _) = connection.sessions[0].links
    assert isinstance(receiver, Receiver)
    receiver.flow(10)
    connection.take_output()
    events = [
        event for event in connection.receive(data + frame(flow())) if not isinstance(event, DeliveryReceived)
    ]
    assert [type(event) for event in events] == [LinkDetached, LinkDetached, SessionEnded]
    assert ended_with(connection) == condition
    assert connection.receive(transfer() + frame(End())) == []  # told already
    assert connection.sessions == ()
    assert not connection.closed
    assert len(connection.receive(frame(BEGIN))) == 1


def test_a_handle_past_handle_max_closes_the_connection() -> None:
    connection, _ = server(handle_max=3)
    connection.receive(frame(Attach(name="n", handle=4, role=True)))
    assert connection.closed


def test_links_are_limited_over_all_sessions() -> None:
    connection, _ = server(ATTACH_IN, limits=Limits(links=2))
    connection.receive(frame(BEGIN, 1) + frame(ATTACH_IN, 1))
    assert connection._links == 2
    connection.take_output()
    connection.receive(frame(ATTACH_OUT, 1))
    assert ended_with(connection) == conditions.RESOURCE_LIMIT_EXCEEDED
    connection.receive(frame(End(), 1))
    assert connection._links == 1


def test_a_client_attaches_no_more_links_than_allowed() -> None:
    joined = Joined(server={"handle_max": 1}).open()
    session = joined.client.begin()
    joined.run()
    session.attach_sender("a", Target("a"))
    session.attach_sender("b", Target("b"))
    with pytest.raises(ValueError, match="no more than 2"):
        session.attach_sender("c", Target("c"))


def test_a_peer_whose_frames_cannot_hold_an_attach_loses_the_session() -> None:
    connection = Connection(container_id="hub")
    connection.receive(
        frames.AMQP_HEADER
        + frame(Open(container_id="c", max_frame_size=512))
        + frame(BEGIN)
        + frame(ATTACH_IN)
    )
    connection.take_output()
    connection.sessions[0].links[0].accept(properties={"k": "v" * 600})
    assert ended_with(connection) == conditions.FRAME_SIZE_TOO_SMALL


# --- End ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["server", "client"])
def test_either_end_may_end_a_session(ending: str) -> None:
    joined = Joined().open()
    joined.sender()
    error = Error(conditions.RESOURCE_DELETED, "gone")
    connection = getattr(joined, ending)
    (session,) = connection.sessions
    session.end(error)
    session.end()
    joined.run()
    other = "client" if ending == "server" else "server"
    assert [(event.error, event.by_peer) for event in joined.seen(SessionEnded, at=other)] == [(error, True)]
    assert [(event.error, event.by_peer) for event in joined.seen(SessionEnded, at=ending)] == [(None, False)]
    assert len(joined.seen(LinkDetached)) == len(joined.seen(LinkDetached, at="client")) == 1
    assert joined.server.sessions == joined.client.sessions == ()


def test_links_of_a_session_that_we_end_fall_silent() -> None:
    connection, link = sending()
    link.session.end()
    connection.take_output()
    link.detach()
    assert link.send_many([b"m"]) == []
    assert connection.take_output() == b""


def test_links_asked_for_in_a_session_that_is_gone_are_gone() -> None:
    joined = Joined().open()
    session = joined.client.begin()
    joined.run()
    session.end()
    assert not session.attach_sender("late", Target("x")).live
    joined.run()
    assert joined.seen(LinkAttached) == []


# --- Dispositions ------------------------------------------------------------------------------------------------


def test_runs_of_ids_are_settled_in_one_disposition_each() -> None:
    connection, _ = receiving()
    connection.receive(b"".join(transfer(delivery_id=number) for number in (3, 4, 5, 7, 8)))
    connection.sessions[0].settle([3, 4, 5, 6, 8, 99])
    connection.sessions[0].settle([7], Rejected(Error("x")))
    connection.sessions[0].settle([3, 4, 5])
    assert [each for _, each in written(connection)] == [
        Disposition(role=True, first=3, last=5, settled=True, state=ACCEPTED),
        Disposition(role=True, first=8, last=8, settled=True, state=ACCEPTED),
        Disposition(role=True, first=7, last=7, settled=True, state=Rejected(Error("x"))),
    ]


def test_a_rejection_too_long_for_the_peers_frames_is_shortened() -> None:
    connection = Connection(container_id="hub")
    connection.receive(
        frames.AMQP_HEADER
        + frame(Open(container_id="c", max_frame_size=512))
        + frame(BEGIN)
        + frame(ATTACH_IN)
    )
    (link,) = connection.sessions[0].links
    assert isinstance(link, Receiver)
    link.accept()
    link.flow(1)
    connection.receive(transfer())
    connection.take_output()
    link.settle(0, Rejected(Error("amqp:not-found", "d" * 600)))
    ((_, disposition),) = written(connection)
    assert disposition.state == Rejected(Error("amqp:not-found", "d" * 128))


def test_a_range_of_four_thousand_million_costs_nothing() -> None:
    connection, link = sending()
    link.send_many([b"a", b"b"], settled=False)
    first, last = (
        frame(Disposition(role=True, first=1, last=0x7FFFFFFF, settled=True, state=ACCEPTED)),
        frame(Disposition(role=False, first=0, last=0x7FFFFFFF, settled=True, state=ACCEPTED)),
    )
    (event,) = connection.receive(first + last)
    assert event == DispositionReceived(link, 1, b"\0\0\0\1", ACCEPTED, True)


def test_what_is_settled_already_is_ignored() -> None:
    connection, link = sending()
    link.send_many([b"a"])
    assert connection.receive(frame(Disposition(role=True, first=0, settled=True, state=ACCEPTED))) == []
