"""A damaged conversation ends in events or in a clean close, never in anything else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from moorage.wire.amqp import (
    ClientSasl,
    Closed,
    Connection,
    DeliveryReceived,
    Event,
    LinkAttached,
    Message,
    Receiver,
    SaslCode,
    SaslInit,
    Sender,
    SessionEnded,
    Source,
    Target,
    frames,
)
from moorage.wire.errors import Malformed
from tests.wire.amqp.joined import Joined


def recorded(side: str) -> list[bytes]:
    """The frames of a conversation with a bit of everything, as they reached `side`."""
    joined = Joined(sasl=ClientSasl.plain("u", "p"), client={"idle_timeout_ms": None}).open()
    sender, into = joined.sender("i", credit=5)
    receiver, out = joined.receiver("o", credit=5)
    sender.send_many([b"a", b"b"], settled=False)
    sender.send(bytes(70_000), tag=b"large", settled=False)
    out.send_many([b"c", b"d"], settled=False)
    joined.run()
    into.settle([0, 1])
    receiver.settle(0, settled=False)
    receiver.settle(1)
    joined.run()
    sender.detach()
    out.detach()
    joined.run()
    sender.session.end()
    joined.run()
    joined.client.close()
    joined.run()
    return list(split(b"".join(joined.to_server if side == "server" else joined.to_client)))


def split(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = 8 if data.startswith(b"AMQP", at) else int.from_bytes(data[at : at + 4], "big")
        yield data[at : at + size]
        at += size


class Side:
    """One end that agrees to whatever it is told, and looks into each message."""

    def __init__(self, side: str) -> None:
        self.events: list[Event] = []
        if side == "server":
            self.connection = Connection(container_id="hub")
        else:
            self.connection = Connection(
                role="client", container_id="device", sasl=ClientSasl.plain("u", "p")
            )
            self.connection.open()
        self.is_client = side == "client"

    def receive(self, data: bytes) -> None:
        fresh = self.connection.receive(data)
        while fresh:
            self.events += fresh
            for event in fresh:
                self.react(event)
            fresh = self.connection.receive(b"")
        assert len(self.connection.take_output()) < 200_000

    def react(self, event: Event) -> None:
        connection = self.connection
        match event:
            case SaslInit():
                connection.sasl_outcome(SaslCode.OK)
            case LinkAttached(link=link):
                link.accept()
                if isinstance(link, Receiver):
                    link.keep_credit(5)
                else:
                    link.post(b"posted")
                    link.send_many([b"m"], settled=False)
            case DeliveryReceived(link=link, delivery_id=delivery_id, message=message):
                try:
                    Message.decode(message)
                except Malformed:
                    link.settle(delivery_id)
            case _:
                self.act()

    def act(self) -> None:
        """The commands of a client, at their moments in the recorded conversation."""
        connection = self.connection
        if (
            self.is_client
            and connection.remote is not None
            and not connection.sessions
            and not connection.closed
        ):
            session = connection.begin()
            session.attach_sender("to i", Target("i"))
            session.attach_receiver("from o", Source("o")).keep_credit(5)
        for session in connection.sessions:
            for link in session.links:
                if isinstance(link, Sender):
                    link.send_many([b"a", b"b"], settled=False)


def check(side: Side) -> None:
    """What must hold at the end of any conversation."""
    connection = side.connection
    if connection.closed:
        assert isinstance(side.events[-1], Closed)
    assert sum(isinstance(event, Closed) for event in side.events) == connection.closed
    assert connection._reassembling == sum(
        link._partial.size
        for session in connection.sessions
        for link in session.links
        if isinstance(link, Receiver) and link._partial is not None
    )
    side.events += connection.eof()
    assert isinstance(side.events[-1], Closed)
    assert connection._reassembling == 0
    assert connection.sessions == ()


def damaged(frame: bytes) -> Iterator[bytes]:
    """`frame` with one byte changed, for the bytes that carry meaning, and cut at each length."""
    for at in range(min(len(frame), 160)):
        for value in {0x00, 0x7F, 0xFF, (frame[at] + 1) & 0xFF, (frame[at] - 1) & 0xFF} - {frame[at]}:
            yield frame[:at] + bytes((value,)) + frame[at + 1 :]
        yield frame[:at]
        yield len(frame[:at]).to_bytes(4, "big") + frame[4:at]  # cut, and the size says so


@pytest.mark.parametrize("name", ["server", "client"])
def test_each_frame_damaged_at_each_byte(name: str) -> None:
    script = recorded(name)
    assert len(script) > 12
    for number, frame in enumerate(script):
        for broken in damaged(frame):
            side = Side(name)
            side.receive(b"".join(script[:number]))
            side.receive(broken)
            side.receive(b"".join(script[number + 1 :]))
            check(side)


@pytest.mark.parametrize("name", ["server", "client"])
def test_the_conversation_itself_is_fine(name: str) -> None:
    side = Side(name)
    for frame in recorded(name):
        side.receive(frame)
    assert side.connection.closed
    assert any(isinstance(event, DeliveryReceived) for event in side.events)
    assert any(isinstance(event, SessionEnded) and event.error is None for event in side.events)
    check(side)


@pytest.mark.parametrize("seed", range(40))
def test_frames_lost_doubled_and_shuffled(seed: int) -> None:
    chance = random.Random(seed)
    script = recorded("server")
    opening, rest = script[:4], script[4:]
    side = Side("server")
    side.receive(b"".join(opening))
    for _ in range(30):
        side.receive(chance.choice(rest))
    check(side)


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_in_frames_behind_an_opening(seed: int) -> None:
    chance = random.Random(seed)
    side = Side("server")
    side.receive(b"".join(recorded("server")[:6]))
    side.receive(
        frames.encode_frame(b"\x00\x53" + bytes((chance.randrange(0x10, 0x19),)) + chance.randbytes(60))
    )
    check(side)
