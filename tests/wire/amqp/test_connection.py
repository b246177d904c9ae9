from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import (
    ClientSasl,
    Closed,
    Connection,
    Error,
    LinkDetached,
    Opened,
    ServerSasl,
    SessionBegun,
    SessionEnded,
    conditions,
    frames,
)
from moorage.wire.amqp.performatives import (
    Accepted,
    Begin,
    Close,
    Detach,
    End,
    Flow,
    Open,
    decode_composite,
    encode_composite,
)
from moorage.wire.amqp.types import Described, Symbol, UInt, ULong, encode
from tests.wire.amqp.joined import Joined

WINDOWS: dict[str, Any] = {"next_outgoing_id": 0, "incoming_window": 100, "outgoing_window": 100}
OPEN = Open(container_id="device", hostname="hub.local")


def frame(performative: Any, channel: int = 0) -> bytes:
    return frames.encode_frame(encode_composite(performative), channel=channel)


def server(*sent: Any, **options: Any) -> Connection:
    """A server to which a peer without SASL has sent open and `sent`; its output so far is thrown away."""
    connection = Connection(container_id="hub", **options)
    connection.receive(frames.AMQP_HEADER + frame(OPEN) + b"".join(map(frame, sent)))
    connection.take_output()
    return connection


def written(connection: Connection) -> list[tuple[int, Any]]:
    """What a connection wants to send: channels and performatives."""
    data, at, found = connection.take_output(), 0, []
    while at < len(data):
        if data.startswith(b"AMQP", at):
            at += 8
            continue
        size, _, _, channel = frames.FRAME_HEADER.unpack_from(data, at)
        found.append((channel, decode_composite(data, at + 8, at + size)[0] if size > 8 else None))
        at += size
    return found


def closing_condition(connection: Connection) -> str:
    close = written(connection)[-1][1]
    assert isinstance(close, Close)
    assert close.error is not None
    return close.error.condition


# --- Headers ------------------------------------------------------------------------------------------------


def test_a_peer_without_sasl_is_taken() -> None:
    connection = Connection(container_id="hub")
    assert connection.receive(frames.AMQP_HEADER + frame(OPEN)) == [Opened(OPEN)]
    assert connection.sasl_mechanism is None
    output = connection.take_output()
    assert output.startswith(frames.AMQP_HEADER)
    size = int.from_bytes(output[8:12], "big")
    assert decode_composite(output, 16, 8 + size)[0] == Open(
        container_id="hub", max_frame_size=65_536, channel_max=8_191, idle_time_out=240_000
    )


def test_sasl_may_be_required() -> None:
    connection = Connection(container_id="hub", sasl=ServerSasl(required=True))
    assert [type(event) for event in connection.receive(frames.AMQP_HEADER)] == [Closed]
    assert connection.take_output() == frames.SASL_HEADER
    assert connection.closed


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"AMQP\x02\x01\x00\x00",
        b"AMQP\x00\x00\x09\x01",
        b"\x16\x03\x01\x02\x00",
        b"AMQX",
    ],
)
def test_another_protocol_is_told_ours_and_closed(data: bytes) -> None:
    connection = Connection(container_id="hub")
    (closed,) = connection.receive(data)
    assert isinstance(closed, Closed)
    assert closed.error is not None
    assert closed.error.condition == conditions.FRAMING_ERROR
    assert connection.take_output() == frames.SASL_HEADER
    assert connection.receive(frames.AMQP_HEADER) == []


def test_a_client_says_header_and_open_at_once() -> None:
    client = Connection(
        role="client", container_id="c", hostname="h", idle_timeout_ms=None, properties={"product": "p"}
    )
    client.open()
    client.open()
    output = client.take_output()
    assert output.startswith(frames.AMQP_HEADER)
    assert decode_composite(output, 16, len(output))[0] == Open(
        container_id="c",
        hostname="h",
        max_frame_size=65_536,
        channel_max=8_191,
        properties={Symbol("product"): "p"},
    )


def test_a_client_refuses_a_server_that_wants_sasl_when_it_has_none() -> None:
    joined = Joined(offer=ServerSasl(required=True)).open()
    assert joined.client.closed
    assert joined.seen(Opened, at="client") == []


def test_an_open_frame_that_no_peer_need_take_is_refused() -> None:
    with pytest.raises(ValueError, match="open frame"):
        Connection(container_id="x" * 600)


# --- Open and close -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sasl", [None, ClientSasl.anonymous(), ClientSasl("MSSBCBS"), ClientSasl.plain("u", "p")]
)
def test_both_ends_open(sasl: ClientSasl | None) -> None:
    joined = Joined(sasl=sasl).open()
    assert [event.open.container_id for event in joined.seen(Opened)] == ["device"]
    assert [event.open.container_id for event in joined.seen(Opened, at="client")] == ["hub"]
    assert joined.server.remote is not None
    assert joined.server.remote.hostname == "hub.local"


@pytest.mark.parametrize("closing", ["server", "client"])
def test_either_end_may_close(closing: str) -> None:
    joined = Joined().open()
    joined.sender()
    error = Error(conditions.CONNECTION_FORCED, "going down", {"com.microsoft:tracking-id": "1"})
    getattr(joined, closing).close(error)
    getattr(joined, closing).close()
    joined.run()
    other = "client" if closing == "server" else "server"
    assert joined.seen(Closed, at=other) == [Closed(error, by_peer=True)]
    assert joined.seen(Closed, at=closing) == [Closed(None, by_peer=False)]
    for at in (closing, other):
        kinds = [type(event) for event in (joined.at_server if at == "server" else joined.at_client)]
        assert kinds[-3:] == [LinkDetached, SessionEnded, Closed]
    assert joined.server.closed
    assert joined.client.closed


def test_after_close_nothing_but_the_answer_is_heard() -> None:
    connection = server(Begin(**WINDOWS))
    connection.close(Error("x"))
    ignored = b"".join(map(frame, (Begin(**WINDOWS), Flow(**WINDOWS), End(), OPEN)))
    assert connection.receive(ignored) == []
    assert [type(event) for event in connection.receive(frame(Close()))] == [SessionEnded, Closed]
    assert [type(each) for _, each in written(connection)] == [Close]


def test_after_close_nothing_but_the_close_is_sent() -> None:
    joined = Joined().open()
    _, theirs = joined.sender()
    _, out = joined.receiver()
    joined.server.close()
    output = joined.server.take_output()
    assert output == frame(Close())
    out.post(b"x")
    assert out.send_many([b"x"]) == []
    theirs.settle(0)
    theirs.flow(5)
    theirs.detach()
    joined.server.begin()
    joined.server.tick(0)
    assert joined.server.take_output() == b""
    assert not out.live


def test_closing_before_open_is_immediate() -> None:
    connection = Connection(container_id="hub")
    connection.close()
    assert connection.closed
    assert connection.take_output() == b""
    assert connection.eof() == [Closed(None, by_peer=False)]


def test_the_end_of_the_stream_tells_all_that_was_alive_once() -> None:
    joined = Joined().open()
    joined.sender()
    joined.receiver()
    kinds = [type(event) for event in joined.server.eof()]
    assert kinds == [LinkDetached, LinkDetached, SessionEnded, Closed]
    assert joined.server.eof() == []
    assert joined.server.receive(b"AMQP") == []
    assert joined.server.tick(0) is None


def test_commands_to_what_is_gone_do_nothing() -> None:
    joined = Joined().open()
    _, theirs = joined.sender()
    _, to_out = joined.receiver()
    joined.server.eof()
    joined.server.take_output()
    for link in (theirs, to_out):
        link.accept()
        link.refuse(Error("x"))
        link.detach()
        assert not link.live
    theirs.keep_credit(5)
    theirs.flow(5)
    theirs.settle(range(9))
    to_out.post(b"x")
    to_out.settle(1)
    to_out.drained()
    theirs.session.end()
    theirs.session.settle([1])
    joined.server.close()
    assert to_out.send_many([b"x"]) == []
    assert joined.server.take_output() == b""


def test_a_long_error_is_shortened_to_the_peers_frames() -> None:
    connection = Connection(container_id="hub")
    connection.receive(frames.AMQP_HEADER + frame(Open(container_id="c", max_frame_size=512)))
    connection.take_output()
    connection.close(Error("amqp:not-found", "é" * 1000, {"k": "v"}))
    ((_, close),) = written(connection)
    assert close.error == Error("amqp:not-found", "é" * 64, {"k": "v"})


# --- What breaks a connection -------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, str]] = {
    "a frame over our limit": (b"\x00\x01\x00\x01\x02\x00\x00\x00", conditions.FRAMING_ERROR),
    "a frame of 7 bytes": (b"\x00\x00\x00\x07\x02\x00\x00\x00", conditions.FRAMING_ERROR),
    "a data offset of 1": (b"\x00\x00\x00\x08\x01\x00\x00\x00", conditions.FRAMING_ERROR),
    "a data offset past the frame": (b"\x00\x00\x00\x08\x03\x00\x00\x00", conditions.FRAMING_ERROR),
    "a SASL frame": (b"\x00\x00\x00\x08\x02\x01\x00\x00", conditions.FRAMING_ERROR),
    "garbage in a frame": (frames.encode_frame(b"\xff\xff"), conditions.DECODE_ERROR),
    "an unknown performative": (
        frames.encode_frame(encode(Described(ULong(0x19), []))),
        conditions.DECODE_ERROR,
    ),
    "an outcome for a frame": (frame(Accepted()), conditions.NOT_ALLOWED),
    "a field of a wrong type": (
        frames.encode_frame(encode(Described(ULong(0x17), [UInt(1)]))),
        conditions.DECODE_ERROR,
    ),
    "a second open": (frame(OPEN), conditions.ILLEGAL_STATE),
    "end on a channel never begun": (frame(End(), 7), conditions.NOT_ALLOWED),
    "flow on a channel never begun": (frame(Flow(**WINDOWS), 7), conditions.NOT_ALLOWED),
    "transfer on a channel never begun": (
        frames.encode_frame(b"\x00\x53\x14\xc0\x05\x03\x43\x43\xa0\x00", channel=7),
        conditions.NOT_ALLOWED,
    ),
    "begin past channel-max": (frame(Begin(**WINDOWS), 8_192), conditions.FRAMING_ERROR),
    "begin that answers nothing": (frame(Begin(remote_channel=3, **WINDOWS)), conditions.NOT_ALLOWED),
}


@pytest.mark.parametrize(("data", "condition"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_closes_with_its_condition(data: bytes, condition: str) -> None:
    connection = server()
    (closed,) = connection.receive(data)
    assert isinstance(closed, Closed)
    assert not closed.by_peer
    assert closing_condition(connection) == condition
    assert connection.closed


BEFORE_OPEN: list[tuple[Any, str]] = [
    (Begin(**WINDOWS), conditions.ILLEGAL_STATE),
    (End(), conditions.ILLEGAL_STATE),
    (Close(), conditions.ILLEGAL_STATE),
    (Detach(handle=0), conditions.ILLEGAL_STATE),
    (Open(container_id="c", max_frame_size=511), conditions.INVALID_FIELD),
    (Open(container_id="c", idle_time_out=10), conditions.NOT_ALLOWED),
    (Open(container_id="c" * 2000), conditions.INVALID_FIELD),
    (Open(container_id="c", hostname="h" * 2000), conditions.INVALID_FIELD),
]


@pytest.mark.parametrize(("performative", "condition"), BEFORE_OPEN)
def test_a_rule_broken_before_open_is_answered_with_open_and_close(performative: Any, condition: str) -> None:
    connection = Connection(container_id="hub")
    connection.receive(frames.AMQP_HEADER + frame(performative))
    (_, first), (_, second) = written(connection)
    assert isinstance(first, Open)
    assert isinstance(second, Close)
    assert second.error is not None
    assert second.error.condition == condition


def test_what_came_before_the_fault_is_told() -> None:
    connection = Connection(container_id="hub")
    events = connection.receive(frames.AMQP_HEADER + frame(OPEN) + frame(Begin(**WINDOWS)) + b"\xff" * 8)
    assert [type(event) for event in events] == [Opened, SessionBegun, SessionEnded, Closed]


def test_a_larger_data_offset_skips_the_extended_header() -> None:
    connection = server()
    body = encode_composite(Begin(**WINDOWS))
    connection.receive(frames.FRAME_HEADER.pack(12 + len(body), 3, 0, 0) + b"abcd" + body)
    assert len(connection.sessions) == 1


# --- Time -----------------------------------------------------------------------------------------------------


def test_an_empty_frame_goes_out_at_each_half_of_the_peers_idle_time_out() -> None:
    connection = Connection(container_id="hub", idle_timeout_ms=None)
    assert connection.tick(100.0) == 101.0  # the peer has not told yet
    connection.receive(frames.AMQP_HEADER + frame(Open(container_id="c", idle_time_out=20_000)))
    connection.take_output()
    now, beats = 100.0, 0
    for _ in range(5):
        due = connection.tick(now)
        beats += connection.take_output().count(frames.HEARTBEAT)
        assert due == now + 10
        assert connection.tick(now + 3) == due
        assert connection.take_output() == b""
        now = due
    assert beats == 5


@pytest.mark.parametrize("none", [None, 0])
def test_without_time_outs_there_is_nothing_to_wait_for(none: int | None) -> None:
    assert server(idle_timeout_ms=none).tick(0) is None


def test_a_silent_peer_is_closed_after_two_of_our_time_outs() -> None:
    connection = server(idle_timeout_ms=10_000)
    now = 50.0
    while (due := connection.tick(now)) is not None:
        assert now < 50 + 20
        assert due <= now + 5
        now = due
    assert now == 70.0
    assert closing_condition(connection) == conditions.CONNECTION_FORCED
    assert connection.closed
    assert [type(event) for event in connection.eof()] == [Closed]


def test_any_bytes_count_as_a_sign_of_life() -> None:
    connection = server(idle_timeout_ms=10_000)
    for now in range(0, 200, 5):
        assert connection.tick(float(now)) is not None
        connection.receive(frames.HEARTBEAT)
    assert not connection.closed


def test_heartbeats_of_the_peer_are_no_events() -> None:
    assert server().receive(frames.HEARTBEAT * 3) == []


# --- Sessions' channels ------------------------------------------------------------------------------------


def test_a_session_is_answered_on_the_same_channel_where_it_is_free() -> None:
    connection = server()
    (begun,) = connection.receive(frame(Begin(**WINDOWS), 5))
    assert isinstance(begun, SessionBegun)
    assert written(connection) == [
        (
            5,
            Begin(
                remote_channel=5,
                next_outgoing_id=1,
                incoming_window=5_000,
                outgoing_window=0xFFFFFFFF,
                handle_max=4_095,
            ),
        )
    ]


def test_frames_for_a_session_that_ended_are_ignored() -> None:
    connection = server(Begin(**WINDOWS))
    (ended,) = connection.receive(
        frame(End()) + frame(Detach(handle=0)) + frame(Flow(**WINDOWS)) + frame(End())
    )
    assert isinstance(ended, SessionEnded)
    assert written(connection) == [(0, End())]
    assert [type(event) for event in connection.receive(frame(Begin(**WINDOWS)))] == [SessionBegun]


def test_begin_on_a_channel_in_use_closes() -> None:
    connection = server(Begin(**WINDOWS))
    connection.receive(frame(Begin(**WINDOWS)))
    assert closing_condition(connection) == conditions.NOT_ALLOWED


def test_a_client_begins_no_more_sessions_than_allowed() -> None:
    joined = Joined(server={"channel_max": 1})
    with pytest.raises(RuntimeError, match="not open"):
        joined.client.begin()
    joined.open()
    assert [joined.client.begin().channel for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="no more than 2"):
        joined.client.begin()
    joined.run()
    assert len(joined.seen(SessionBegun, at="client")) == 2


@given(st.lists(st.integers(1, 40), max_size=80))
def test_the_opening_may_be_cut_anywhere(cuts: list[int]) -> None:
    joined = Joined(sasl=ClientSasl.plain("u", "p"), cuts=iter([*cuts, *[1 << 30] * 100])).open()
    joined.sender()
    assert len(joined.seen(Opened)) == len(joined.seen(Opened, at="client")) == 1
