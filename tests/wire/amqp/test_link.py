from __future__ import annotations

from typing import Any

import pytest

from moorage.wire.amqp import (
    ACCEPTED,
    RELEASED,
    Connection,
    CreditChanged,
    DeliveryReceived,
    DispositionReceived,
    Error,
    LinkAttached,
    LinkDetached,
    Modified,
    NoCredit,
    Outcome,
    Received,
    Receiver,
    Rejected,
    Sender,
    Source,
    Symbol,
    Target,
    UInt,
    conditions,
    frames,
    link_redirect,
)
from moorage.wire.amqp.limits import Limits
from moorage.wire.amqp.performatives import Attach, Detach, Disposition, Flow
from moorage.wire.amqp.types import Described, ULong
from tests.wire.amqp.joined import Joined
from tests.wire.amqp.test_connection import frame, written
from tests.wire.amqp.test_session import ATTACH_IN, ATTACH_OUT, flow, receiving, sending, server, transfer

# --- Attach ----------------------------------------------------------------------------------------------------


def test_an_answer_mirrors_the_question() -> None:
    selector: dict[str, Any] = {
        Symbol("apache.org:selector-filter:string"): Described(Symbol("s"), "x > '1'")
    }
    asked = Attach(
        name="r",
        handle=5,
        role=True,
        snd_settle_mode=1,
        rcv_settle_mode=1,
        source=Source("events", filter=selector),
        target=Target("cbs"),
        properties={"com.microsoft:epoch": ULong(1)},
    )
    connection, _ = server()
    ((attached),) = connection.receive(frame(asked))
    assert isinstance(attached, LinkAttached)
    assert attached.link.properties == {"com.microsoft:epoch": 1}
    assert attached.link.source == asked.source
    assert attached.link.target == asked.target
    assert not attached.link.live
    attached.link.accept(offered_capabilities=["a"])
    attached.link.accept()
    assert attached.link.live
    assert written(connection) == [
        (
            0,
            Attach(
                name="r",
                handle=5,
                role=False,
                snd_settle_mode=1,
                rcv_settle_mode=1,
                source=asked.source,
                target=asked.target,
                initial_delivery_count=0,
                max_message_size=1_048_576,
                offered_capabilities=("a",),
            ),
        )
    ]


@pytest.mark.parametrize(
    ("asked", "source", "target"),
    [
        (Attach(name="n", handle=2, role=False, target=Target("in")), Source("in"), Target("in")),
        (Attach(name="n", handle=2, role=True, source=Source("out")), Source("out"), Target("out")),
        (Attach(name="n", handle=2, role=True), Source(""), Target("")),
    ],
)
def test_both_termini_of_an_answer_are_there(asked: Attach, source: Source, target: Target) -> None:
    connection, _ = server()
    (attached,) = connection.receive(frame(asked))
    assert isinstance(attached, LinkAttached)
    attached.link.accept()
    ((_, answer),) = written(connection)
    assert (answer.source, answer.target) == (source, target)


def test_a_coordinator_is_no_target_but_is_echoed() -> None:
    coordinator = Described(ULong(0x30), [None])
    connection, _ = server()
    (attached,) = connection.receive(frame(Attach(name="n", handle=2, role=False, target=coordinator)))
    assert isinstance(attached, LinkAttached)
    assert attached.link.target is None
    attached.link.accept()
    ((_, answer),) = written(connection)
    assert answer.target == coordinator


def test_a_refusal_is_an_attach_without_termini_and_a_detach() -> None:
    connection, _ = server()
    (attached,) = connection.receive(frame(ATTACH_OUT))
    assert isinstance(attached, LinkAttached)
    error = Error(conditions.NOT_FOUND, "no such address")
    attached.link.refuse(error)
    attached.link.refuse(error)
    assert written(connection) == [
        (0, Attach(name="out", handle=1, role=False, initial_delivery_count=0)),
        (0, Detach(handle=1, closed=True, error=error)),
    ]
    late = frame(flow(handle=1, delivery_count=0, link_credit=9))
    (detached,) = connection.receive(late + frame(Detach(handle=1, closed=True)))
    assert isinstance(detached, LinkDetached)
    assert not detached.by_peer


def test_a_client_learns_of_a_refusal() -> None:
    joined = Joined().open()
    joined.accepting = False
    link = joined.client.begin().attach_receiver("r", Source("nowhere"))
    link.keep_credit(10)
    joined.run()
    (attached,) = joined.seen(LinkAttached)
    error = Error(conditions.NOT_FOUND, "no")
    attached.link.refuse(error)
    joined.run()
    assert joined.seen(LinkAttached, at="client") == [LinkAttached(link)]
    assert link.source is None
    assert joined.seen(LinkDetached, at="client") == [LinkDetached(link, True, error, by_peer=True)]
    assert joined.server._links == joined.client._links == 0


def test_a_redirect_follows_a_normal_attach() -> None:
    joined = Joined().open()
    ours, theirs = joined.receiver("/messages/events/$management", credit=1)
    address = "amqps://eh.local:5671/moorage/$management"
    theirs.detach(
        link_redirect(hostname="eh.local", address=address, info={"com.microsoft:tracking-id": "t"})
    )
    joined.run()
    (detached,) = joined.seen(LinkDetached, at="client")
    assert detached.link is ours
    assert detached.error is not None
    assert detached.error.condition == "amqp:link:redirect"
    assert detached.error.info == {
        "hostname": "eh.local",
        "network-host": "eh.local",
        "port": UInt(5671),
        "address": address,
        "com.microsoft:tracking-id": "t",
    }


def test_a_link_not_answered_yet_may_be_detached_by_either_end() -> None:
    connection, _ = server()
    (attached,) = connection.receive(frame(ATTACH_OUT))
    assert isinstance(attached, LinkAttached)
    (detached,) = connection.receive(frame(Detach(handle=1, closed=True)))
    assert detached == LinkDetached(attached.link, True, None, by_peer=True)
    assert [type(each) for _, each in written(connection)] == [Attach, Detach]
    attached.link.accept()
    assert connection.take_output() == b""
    (attached,) = connection.receive(frame(ATTACH_OUT))
    assert isinstance(attached, LinkAttached)
    attached.link.detach(Error("x"))
    assert [type(each) for _, each in written(connection)] == [Attach, Detach]


@pytest.mark.parametrize("closed", [True, False])
def test_a_detach_is_answered_in_kind(closed: bool) -> None:
    connection, link = receiving()
    error = Error("e")
    assert connection.receive(frame(Detach(handle=0, closed=closed, error=error))) == [
        LinkDetached(link, closed, error, by_peer=True)
    ]
    assert written(connection) == [(0, Detach(handle=0, closed=closed))]


# --- Credit, when we receive -----------------------------------------------------------------------------------


def flows(connection: Connection) -> list[tuple[int | None, int | None]]:
    """Delivery count and credit of each flow written for a link."""
    return [
        (each.delivery_count, each.link_credit) for _, each in written(connection) if isinstance(each, Flow)
    ]


def test_credit_is_kept_while_deliveries_are_settled() -> None:
    connection, link = receiving(0)
    link.keep_credit(4)
    assert flows(connection) == [(0, 4)]
    connection.receive(b"".join(transfer(delivery_id=number) for number in range(4)))
    assert (link.credit, link.unsettled) == (0, 4)
    assert flows(connection) == []
    link.settle(0)
    assert flows(connection) == []
    link.settle([1, 2])
    assert flows(connection) == [(4, 3)]
    assert (link.credit, link.unsettled) == (3, 1)


def test_credit_is_kept_for_settled_deliveries_too() -> None:
    connection, link = receiving(0)
    link.keep_credit(4)
    connection.receive(transfer(settled=True))
    assert flows(connection) == [(0, 4)]
    connection.receive(transfer(delivery_id=1, settled=True))
    assert flows(connection) == [(2, 4)]
    link.keep_credit(0)
    assert link.credit == 0
    connection.receive(transfer(delivery_id=2, settled=True))
    assert flows(connection) == [(2, 0)]


def test_credit_given_before_the_answer_goes_out_with_it() -> None:
    connection, _ = server()
    (attached,) = connection.receive(frame(Attach(name="n", handle=0, role=False, initial_delivery_count=7)))
    assert isinstance(attached, LinkAttached)
    assert isinstance(attached.link, Receiver)
    attached.link.keep_credit(5)
    assert connection.take_output() == b""
    attached.link.accept()
    assert flows(connection) == [(7, 5)]


def test_more_deliveries_than_credit_detach_the_link() -> None:
    connection, link = receiving(credit=1)
    received, detached = connection.receive(transfer() + transfer(delivery_id=1) + transfer(delivery_id=2))
    assert isinstance(received, DeliveryReceived)
    assert isinstance(detached, LinkDetached)
    ((_, detach),) = written(connection)
    assert detach.error.condition == conditions.TRANSFER_LIMIT_EXCEEDED
    assert connection.receive(frame(Detach(handle=0, closed=True))) == []
    assert not link.live


def test_credit_lowered_excuses_what_was_underway() -> None:
    connection, link = receiving(credit=3)
    link.flow(0)
    events = connection.receive(b"".join(transfer(delivery_id=number) for number in range(3)))
    assert [type(event) for event in events] == [DeliveryReceived] * 3
    assert link.credit == 0
    assert [type(event) for event in connection.receive(transfer(delivery_id=3))] == [LinkDetached]


def test_a_drain_gives_back_what_is_over() -> None:
    joined = Joined().open()
    ours, theirs = joined.receiver(credit=0)
    ours.flow(10, drain=True)
    joined.run()
    assert joined.seen(CreditChanged) == [CreditChanged(theirs)]
    assert theirs.drain
    theirs.send_many([b"a", b"b"])
    theirs.drained()
    theirs.drained()
    joined.run()
    assert len(joined.seen(DeliveryReceived, at="client")) == 2
    assert joined.seen(CreditChanged, at="client") == [CreditChanged(ours)]
    assert (ours.credit, theirs.credit, ours.drain, theirs.drain) == (0, 0, False, False)
    ours.flow(3)
    joined.run()
    assert theirs.sendable == 3


def test_a_delivery_count_out_of_all_bounds_is_ignored() -> None:
    connection, link = receiving(credit=3)
    assert connection.receive(frame(flow(handle=0, delivery_count=100))) == []
    assert link.credit == 3


# --- Credit, when we send --------------------------------------------------------------------------------------


def test_credit_counts_from_what_the_peer_had_seen() -> None:
    connection, link = sending(credit=5)
    assert link.send_many([b"m"] * 9) == range(5)
    assert link.sendable == 0
    assert link.send_many([b"m"]) == []
    with pytest.raises(NoCredit):
        link.send(b"m")
    connection.receive(frame(flow(handle=1, delivery_count=3, link_credit=5)))
    assert link.credit == 3
    connection.receive(frame(flow(handle=1, delivery_count=0, link_credit=2)))
    assert link.credit == 0
    connection.receive(frame(flow(handle=1, link_credit=0xFFFFFFFF)))
    assert link.credit == 0xFFFFFFFF - 5


def test_credit_that_comes_before_the_answer_is_kept() -> None:
    connection, _ = server()
    attached, changed = connection.receive(
        frame(ATTACH_OUT) + frame(flow(handle=1, delivery_count=0, link_credit=5))
    )
    assert isinstance(attached, LinkAttached)
    assert changed == CreditChanged(attached.link)
    assert isinstance(attached.link, Sender)
    assert attached.link.sendable == 0
    attached.link.accept()
    assert attached.link.sendable == 5


def test_posted_messages_go_as_soon_as_they_may() -> None:
    connection, events = server(ATTACH_OUT)
    link = events[-1].link
    for message in (b"a", b"b", b"c"):
        link.post(message)
    assert connection.take_output() == b""
    connection.receive(frame(flow(handle=1, delivery_count=0, link_credit=2)))
    assert [each.delivery_id for _, each in written(connection)] == [0, 1]
    assert link.sendable == 0
    connection.receive(frame(flow(next_incoming_id=3, handle=1, delivery_count=2, link_credit=2)))
    assert [each.delivery_id for _, each in written(connection)] == [2]
    assert link.sendable == 1
    link.post(b"d")
    assert [each.settled for _, each in written(connection)] == [True]


def test_messages_posted_before_the_answer_go_out_behind_it() -> None:
    connection, _ = server()
    (attached, _) = connection.receive(
        frame(ATTACH_OUT) + frame(flow(handle=1, delivery_count=0, link_credit=5))
    )
    assert isinstance(attached, LinkAttached)
    assert isinstance(attached.link, Sender)
    attached.link.post(b"a")
    attached.link.accept()
    assert [type(each).__name__ for _, each in written(connection)] == ["Attach", "Transfer"]


def test_too_many_posted_messages_detach_the_link() -> None:
    connection, events = server(ATTACH_OUT, limits=Limits(posted=2))
    link = events[-1].link
    for _ in range(4):
        link.post(b"x")
    assert not link.live
    ((_, detach),) = written(connection)
    assert detach.error.condition == conditions.RESOURCE_LIMIT_EXCEEDED
    assert [type(event) for event in connection.receive(b"")] == [LinkDetached]


# --- Deliveries ------------------------------------------------------------------------------------------------


def test_a_delivery_in_many_frames_arrives_whole() -> None:
    connection, link = receiving()
    assert connection.receive(transfer(b"one ", more=True, message_format=0x80013700)) == []
    assert connection.receive(transfer(b"two ", delivery_id=None, more=True)) == []
    assert connection.receive(frames.HEARTBEAT) == []
    (event,) = connection.receive(transfer(b"three", delivery_id=0, settled=True))
    assert event == DeliveryReceived(link, 0, b"t", b"one two three", True, 0x80013700)
    assert link.credit == 9
    assert connection._reassembling == 0


def test_an_aborted_delivery_leaves_no_trace() -> None:
    connection, link = receiving()
    assert connection.receive(transfer(b"one", more=True) + transfer(b"", delivery_id=0, aborted=True)) == []
    assert connection._reassembling == 0
    (event,) = connection.receive(transfer(b"two", delivery_id=1))
    assert event == DeliveryReceived(link, 1, b"t", b"two", False, 0)


def test_transfers_of_an_unusual_form_are_read_too() -> None:
    connection, link = receiving()
    fields = transfer(b"")[11:]
    symbolic = b"\x00\xa3\x12amqp:transfer:list" + fields
    (event,) = connection.receive(frames.encode_frame(symbolic + b"payload"))
    assert event == DeliveryReceived(link, 0, b"t", b"payload", False, 0)


@pytest.mark.parametrize("sizes", [[101], [40, 40, 40], [100, 1], [60, 60, 60, 1]])
def test_a_message_over_the_size_agreed_detaches_the_link(sizes: list[int]) -> None:
    connection, _ = server()
    (attached,) = connection.receive(frame(ATTACH_IN))
    assert isinstance(attached, LinkAttached)
    assert isinstance(attached.link, Receiver)
    attached.link.accept(max_message_size=100)
    attached.link.flow(10)
    connection.take_output()
    last = len(sizes) - 1
    data = b"".join(transfer(bytes(size), more=number < last) for number, size in enumerate(sizes))
    assert [type(event) for event in connection.receive(data)] == [LinkDetached]
    ((_, detach),) = written(connection)
    assert detach.error.condition == conditions.MESSAGE_SIZE_EXCEEDED
    assert connection._reassembling == 0


def test_deliveries_begun_and_not_finished_are_bounded_over_all_links() -> None:
    connection, events = server(ATTACH_IN, limits=Limits(reassembly=50_000))
    link = events[-1].link
    link.flow(10)
    connection.receive(transfer(bytes(30_000), more=True) + transfer(bytes(30_000), more=True))
    assert connection.closed


def test_a_client_says_how_large_a_message_may_be() -> None:
    joined = Joined().open()
    ours, theirs = joined.receiver(max_message_size=100)
    assert theirs.remote is not None
    assert theirs.remote.max_message_size == 100
    theirs.send(bytes(101))
    joined.run()
    assert [event.error.condition for event in joined.seen(LinkDetached) if event.error] == [
        conditions.MESSAGE_SIZE_EXCEEDED
    ]
    assert not ours.live


def test_settle_modes_first_and_second() -> None:
    joined = Joined().open()
    ours, theirs = joined.sender(snd_settle_mode=0, rcv_settle_mode=1)
    assert theirs.remote is not None
    assert theirs.remote.rcv_settle_mode == 1
    ids = ours.send_many([b"a", b"b"], settled=False)
    joined.run()
    theirs.settle(0)  # first: settled at once
    theirs.settle(1, RELEASED, settled=False)  # second: the sender settles
    assert theirs.unsettled == 1
    joined.run()
    assert joined.seen(DispositionReceived, at="client") == [
        DispositionReceived(ours, ids[0], b"\0\0\0\0", ACCEPTED, True),
        DispositionReceived(ours, ids[1], b"\0\0\0\1", RELEASED, False),
    ]
    assert joined.seen(DispositionReceived) == [DispositionReceived(theirs, 1, b"\0\0\0\1", RELEASED, True)]
    assert theirs.unsettled == 0
    assert joined.client.sessions[0]._sent == {}
    assert joined.server.sessions[0]._received == {}


def test_a_sender_may_keep_the_last_word_to_itself() -> None:
    joined = Joined().open()
    ours, theirs = joined.receiver()
    theirs.auto_settle = False
    tag = bytes(range(16))
    delivery_id = theirs.send(b"lock me", tag=tag, settled=False)
    joined.run()
    state = Modified(delivery_failed=True, undeliverable_here=True)
    ours.settle(delivery_id, state, settled=False)
    joined.run()
    assert joined.seen(DispositionReceived) == [DispositionReceived(theirs, delivery_id, tag, state, False)]
    assert joined.seen(DispositionReceived, at="client") == []
    theirs.settle(delivery_id, ACCEPTED)
    theirs.settle(delivery_id, ACCEPTED)
    joined.run()
    assert joined.seen(DispositionReceived, at="client") == [
        DispositionReceived(ours, delivery_id, tag, ACCEPTED, True)
    ]


def test_a_state_that_is_no_outcome_is_no_news() -> None:
    connection, link = sending()
    link.send(b"m", settled=False)
    connection.take_output()
    states: list[Any] = [Received(0, 0), None, Described(ULong(0x34), [b"txn"])]
    for state in states:
        assert connection.receive(frame(Disposition(role=True, first=0, state=state))) == []
    assert connection.receive(frame(Disposition(role=True, first=0, settled=True))) == [
        DispositionReceived(link, 0, b"\0\0\0\0", None, True)
    ]
    assert connection.take_output() == b""


def test_an_outcome_is_told_once_however_often_it_comes() -> None:
    connection, link = sending()
    link.auto_settle = False
    link.send(b"m", settled=False)
    again = frame(Disposition(role=True, first=0, last=0x7FFFFFFF, state=ACCEPTED))
    assert len(connection.receive(again * 100)) == 1
    assert len(connection.receive(frame(Disposition(role=True, first=0, settled=True, state=ACCEPTED)))) == 1
    link.settle(0)
    assert not [each for _, each in written(connection) if isinstance(each, Disposition)]


def test_outcomes_of_every_kind_come_through() -> None:
    joined = Joined().open()
    ours, theirs = joined.sender()
    outcomes: list[Outcome] = [
        ACCEPTED,
        Rejected(Error("c", "d", {"Retry-After": UInt(3)})),
        RELEASED,
        Modified(),
        Rejected(),
    ]
    ours.send_many([b"m"] * len(outcomes), settled=False)
    joined.run()
    for delivery_id, outcome in enumerate(outcomes):
        theirs.settle(delivery_id, outcome)
    joined.run()
    assert [event.state for event in joined.seen(DispositionReceived, at="client")] == outcomes


def test_one_link_cannot_settle_for_another() -> None:
    joined = Joined().open()
    ours, theirs = joined.sender("a")
    _, other = joined.sender("b")
    ours.send(b"m", settled=False)
    joined.run()
    other.settle(0)
    assert theirs.unsettled == 1
    theirs.settle(0)
    assert theirs.unsettled == 0


def test_pre_settled_deliveries_need_no_disposition() -> None:
    joined = Joined().open()
    ours, theirs = joined.sender()
    ours.send(b"m")
    joined.run()
    theirs.settle(0)
    assert joined.server.take_output() == b""


def test_a_link_shows_what_it_is() -> None:
    _, link = sending()
    assert repr(link) == "<Sender 'out' on channel 0, ATTACHED>"
    assert repr(link.session) == "<Session on channel 0, MAPPED>"


def test_a_peer_of_small_frames_gets_many() -> None:
    joined = Joined(client={"max_frame_size": 512}, server={"max_frame_size": 65_536}).open()
    joined.receiver()
    (theirs,) = joined.server.sessions[0].links
    assert isinstance(theirs, Sender)
    theirs.send_many([b"x" * 3_000, b"y", b"z" * 700])
    joined.run()
    assert [event.message for event in joined.seen(DeliveryReceived, at="client")] == [
        b"x" * 3_000,
        b"y",
        b"z" * 700,
    ]
