"""Laws that hold between two engines, however the bytes between them are cut."""

from __future__ import annotations

import textwrap
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.wire import amqp
from moorage.wire.amqp import (
    ACCEPTED,
    RELEASED,
    ClientSasl,
    Closed,
    Connection,
    CreditChanged,
    Data,
    DeliveryReceived,
    DispositionReceived,
    Event,
    LinkAttached,
    LinkDetached,
    Message,
    Receiver,
    Sender,
    SessionBegun,
    SessionEnded,
    Source,
    Target,
)
from tests.wire.amqp.joined import Joined

pieces = st.lists(st.integers(1, 200), max_size=30)
frame_sizes = st.sampled_from([512, 700, 4_096, 65_536])
message_sizes = st.lists(st.sampled_from([0, 1, 10, 400, 450, 500, 1_500, 5_000]), max_size=25)


def cut(sizes: list[int]) -> chain[int]:
    return chain(sizes, repeat(1 << 30))


def numbered(sizes: list[int]) -> list[bytes]:
    return [bytes((number,)) * size for number, size in enumerate(sizes)]


class Feed:
    """Messages that one end sends as credit comes."""

    def __init__(self, messages: list[bytes], settled: bool, link: Sender) -> None:
        self.messages, self.settled, self.link = messages, settled, link

    def go_on(self) -> bool:
        sent = self.link.send_many(self.messages, settled=self.settled)
        self.messages = self.messages[len(sent) :]
        return bool(sent)


@settings(max_examples=60)
@given(
    cuts=pieces,
    frame_size=frame_sizes,
    credit=st.integers(1, 7),
    down=message_sizes,
    up=message_sizes,
    settled=st.booleans(),
)
def test_all_messages_arrive_once_in_order_and_get_their_outcome(
    cuts: list[int], frame_size: int, credit: int, down: list[int], up: list[int], settled: bool
) -> None:
    joined = Joined(sasl=ClientSasl.anonymous(), cuts=cut(cuts), client={"max_frame_size": frame_size}).open()
    to_client, to_server = numbered(down), numbered(up)
    receiver, out = joined.receiver(credit=credit)
    sender, into = joined.sender(credit=credit)
    feeds = [Feed(to_client, settled, out), Feed(to_server, settled, sender)]
    answered = 0
    while sum(feed.go_on() for feed in feeds) or answered < _received(joined):
        joined.run()
        for event in [*joined.seen(DeliveryReceived), *joined.seen(DeliveryReceived, at="client")]:
            event.link.settle(event.delivery_id, ACCEPTED if event.delivery_id % 2 else RELEASED)
        answered = _received(joined)
        joined.run()

    assert [event.message for event in joined.seen(DeliveryReceived, at="client")] == to_client
    assert [event.message for event in joined.seen(DeliveryReceived)] == to_server
    for at, count in (("server", len(down)), ("client", len(up))):
        outcomes = joined.seen(DispositionReceived, at=at)
        assert [event.delivery_id for event in outcomes] == ([] if settled else list(range(count)))
        assert all(event.state == (ACCEPTED if event.delivery_id % 2 else RELEASED) for event in outcomes)
    for connection in (joined.server, joined.client):
        (session,) = connection.sessions
        assert session._sent == {}
        assert session._received == {}
        assert connection._reassembling == 0
    assert (receiver.credit, into.credit) == (out.credit, sender.credit)
    assert (receiver.unsettled, into.unsettled) == (0, 0)


def _received(joined: Joined) -> int:
    return len(joined.seen(DeliveryReceived)) + len(joined.seen(DeliveryReceived, at="client"))


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.sampled_from(["begin", "send", "receive", "detach", "end", "message", "run"]), max_size=40
    ),
    cuts=pieces,
)
def test_whatever_is_told_as_begun_is_told_as_over_exactly_once(steps: list[str], cuts: list[int]) -> None:
    joined = Joined(cuts=cut(cuts)).open()
    client = joined.client
    for number, step in enumerate(steps):
        sessions = [session for session in client.sessions if session.live]
        links = [link for session in sessions for link in session.links if link.live]
        if step == "begin":
            client.begin()
        elif step == "run":
            joined.run()
        elif step == "message":
            for connection in (joined.server, client):
                _send_something(connection)
        elif step in ("send", "receive") and sessions:
            make = joined.sender if step == "send" else joined.receiver
            make(str(number), credit=2)
        elif step == "detach" and links:
            links[number % len(links)].detach()
        elif step == "end" and sessions:
            sessions[number % len(sessions)].end()
    client.close()
    joined.run()
    for at in ("server", "client"):
        events = joined.at_server if at == "server" else joined.at_client
        begun = [event.session for event in joined.seen(SessionBegun, at=at)]
        ended = [event.session for event in joined.seen(SessionEnded, at=at)]
        attached = [event.link for event in joined.seen(LinkAttached, at=at)]
        detached = [event.link for event in joined.seen(LinkDetached, at=at)]
        assert len(begun) == len(set(begun)) == len(ended)
        assert set(begun) == set(ended)
        assert len(attached) == len(set(attached)) == len(detached)
        assert set(attached) == set(detached)
        assert [type(event) for event in events].index(Closed) == len(events) - 1
    assert joined.server.closed
    assert client.closed
    assert joined.server._links == client._links == 0


def _send_something(connection: Connection) -> None:
    for session in connection.sessions:
        for link in session.links:
            if isinstance(link, Sender) and link.sendable:
                link.send(b"m" * 1_000, settled=False)


@given(cuts=pieces)
def test_events_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    whole, parts = (_story(Joined(cuts=cut(sizes))) for sizes in ([], cuts))
    assert parts == whole


def _story(joined: Joined) -> list[str]:
    """What happened at both ends of a short conversation, as text."""
    joined.open()
    sender, into = joined.sender(credit=2)
    sender.send(bytes(70_000), settled=False)
    joined.run()
    into.settle(0)
    joined.run()
    sender.session.end()
    joined.run()
    joined.server.close()
    joined.run()
    return [
        repr(event) for event in joined.at_server + joined.at_client if not isinstance(event, CreditChanged)
    ]


def test_the_example_of_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guide = amqp.__doc__ or ""
    start = guide.index("    connection = ")
    example = guide[start : guide.index("\nTwo things")]
    names: dict[str, Any] = {name: getattr(amqp, name) for name in amqp.__all__}
    exec(textwrap.dedent(example), names)

    client = Connection(role="client", container_id="c", sasl=ClientSasl.plain("service@sas.root.hub", "t"))
    client.open()
    events: list[Event] = []

    def run() -> None:
        while output := client.take_output():
            events.extend(client.receive(names["received"](output)))

    run()
    session = client.begin()
    session.attach_receiver("r", Source("events")).keep_credit(2)
    refused = session.attach_receiver("x", Source("elsewhere"))
    sender = session.attach_sender("s", Target("in"))
    run()
    sender.send(Message(body=Data.of(b"hello")).encode(), settled=False)
    run()
    received = [event.message for event in events if isinstance(event, DeliveryReceived)]
    assert [Message.decode(message).payload for message in received] == [b"a", b"b", b"c"]
    assert [event.link for event in events if isinstance(event, LinkDetached)] == [refused]
    assert [event.settled for event in events if isinstance(event, DispositionReceived)] == [True]
    assert capsys.readouterr().out == "b'hello'\n"


def test_a_byte_at_a_time() -> None:
    joined = Joined(sasl=ClientSasl.plain("u", "p"), cuts=repeat(1)).open()
    sender, _ = joined.sender()
    assert isinstance(joined.end_of(joined.server, Receiver, sender.name), Receiver)
    sender.send(bytes(2_000))
    joined.run()
    assert [len(event.message) for event in joined.seen(DeliveryReceived)] == [2_000]
