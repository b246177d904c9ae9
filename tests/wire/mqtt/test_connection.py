"""What spans packets: order, limits, what is kept between reads."""

from __future__ import annotations

import tracemalloc

import pytest

from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import MAX_BEFORE_CONNECT, MAX_PACKET, ClientConnection, ServerConnection
from moorage.wire.mqtt.packets import ConnAck, Connect, Disconnect, PingReq, PubAck, Publish, Subscribe

CONNECT = packets.encode_connect(Connect("d1"))
PING = packets.encode_pingreq()


def server(max_packet: int = MAX_PACKET) -> ServerConnection:
    connection = ServerConnection(max_packet=max_packet)
    connection.receive(CONNECT)
    return connection


def test_a_client_need_not_wait_for_connack() -> None:
    """[MQTT 3.1.1, 3.1.4] Packets may follow CONNECT at once."""
    sent = CONNECT + packets.encode_subscribe(1, [("a/#", 1)]) + packets.encode_publish("a/b", b"x") + PING
    assert ServerConnection().receive(sent) == [
        Connect("d1"),
        Subscribe(1, (("a/#", 1),)),
        Publish("a/b", b"x"),
        PingReq(),
    ]


def test_nothing_before_connect_is_read() -> None:
    connection = ServerConnection()
    with pytest.raises(Malformed, match="PINGREQ before CONNECT") as caught:
        connection.receive(PING + CONNECT)
    assert caught.value.events == []
    assert connection.receive(CONNECT) == []


def test_a_fault_shows_what_came_before_it() -> None:
    connection = server()
    with pytest.raises(Malformed, match="second CONNECT") as caught:
        connection.receive(packets.encode_puback(1) + PING + CONNECT + PING)
    assert caught.value.events == [PubAck(1), PingReq()]
    assert str(caught.value) == caught.value.reason == "second CONNECT"
    assert connection.receive(PING) == []


def test_events_of_earlier_reads_are_not_shown_again() -> None:
    connection = server()
    connection.receive(PING)
    with pytest.raises(Malformed) as caught:
        connection.receive(b"\xff\x00")
    assert caught.value.events == []


def test_nothing_after_disconnect_is_read() -> None:
    """[MQTT-3.14.4-2] Not even to complain: the client has said its last word, and its will is gone."""
    connection = server()
    assert connection.receive(PING + packets.encode_disconnect() + CONNECT) == [PingReq(), Disconnect()]
    assert connection.receive(b"\xff\xff") == []


def test_a_bad_first_byte_is_refused_before_its_packet_is_complete() -> None:
    with pytest.raises(Malformed, match="before CONNECT"):
        ServerConnection().receive(b"GE")


@pytest.mark.parametrize("qos", [0, 1])
def test_the_largest_packet_is_read_and_one_byte_more_is_not(qos: int) -> None:
    sent = packets.encode_publish("a", bytes(500), qos=qos, packet_id=1 if qos else None)
    assert len(server(len(sent)).receive(sent)) == 1
    with pytest.raises(Malformed, match=f"packet of {len(sent)} bytes, the limit is {len(sent) - 1}"):
        server(len(sent) - 1).receive(sent)


def test_an_oversized_packet_is_refused_by_its_fixed_header() -> None:
    header = b"\x32" + packets.encode_remaining_length(MAX_PACKET - 3)
    connection = server()
    assert connection.receive(header[:3]) == []
    with pytest.raises(Malformed, match=f"packet of {MAX_PACKET + 1} bytes, the limit is {MAX_PACKET}"):
        connection.receive(header[3:])


def test_a_message_of_256_kib_under_the_longest_topic_is_read() -> None:
    topic, payload = "t" * 65_535, bytes(262_144)
    sent = packets.encode_publish(topic, payload, qos=1, packet_id=1)
    assert server().receive(sent) == [Publish(topic, payload, 1, packet_id=1)]


def test_before_connect_less_is_read() -> None:
    too_long = packets.encode_connect(Connect("d", "u", bytes(MAX_BEFORE_CONNECT - 20)))
    with pytest.raises(Malformed, match=f"the limit is {MAX_BEFORE_CONNECT}"):
        ServerConnection().receive(too_long[:5])
    roomy = ServerConnection(max_before_connect=len(too_long))
    assert [type(event) for event in roomy.receive(too_long)] == [Connect]
    with pytest.raises(Malformed, match="the limit is 30"):
        ServerConnection(max_before_connect=30).receive(packets.encode_connect(Connect("d" * 20)))


def test_the_limit_before_connect_ends_within_the_read_that_brings_it() -> None:
    sent = packets.encode_publish("a", bytes(1000))
    connection = ServerConnection(max_before_connect=100)
    assert connection.receive(CONNECT + sent) == [Connect("d1"), Publish("a", bytes(1000))]


def test_a_length_may_be_padded_but_stays_within_four_bytes() -> None:
    """The standard forbids only a fifth byte."""
    assert server().receive(b"\xc0\x80\x00" + b"\xc0\x80\x80\x80\x00") == [PingReq(), PingReq()]


def test_a_repeated_topic_is_the_same_text() -> None:
    connection = server()
    sent = packets.encode_publish("devices/d1/messages/events/", b"1", qos=1, packet_id=1)
    first, second = connection.receive(sent + sent)
    (third,) = connection.receive(packets.encode_publish("devices/d1/messages/events/", b"3"))
    assert isinstance(first, Publish)
    assert isinstance(second, Publish)
    assert isinstance(third, Publish)
    assert first.topic is second.topic
    assert second.topic is third.topic


@pytest.mark.parametrize(("one", "other"), [("a", "ab"), ("ab", "a"), ("/", "a"), ("a", "/"), ("é", "e")])
def test_another_topic_is_not_mistaken_for_the_last(one: str, other: str) -> None:
    events = [
        Publish(one, b"b"),
        Publish(other, b"b"),
        Publish(one, b"", 1, packet_id=1),
        Publish(other, b""),
    ]
    sent = b"".join(
        packets.encode_publish(event.topic, event.payload, qos=event.qos, packet_id=event.packet_id)
        for event in events
    )
    assert server().receive(sent) == events


def test_the_last_topic_does_not_reach_past_the_end_of_its_packet() -> None:
    connection = server()
    connection.receive(packets.encode_publish("abc", b""))
    with pytest.raises(Malformed, match="within the topic name"):
        connection.receive(b"\x30\x03\x00\x03a" + b"bc\x00\x00")


def test_a_packet_in_crumbs_is_held_once() -> None:
    """Memory stays near the packet's own size, and each crumb costs no copy of those before it."""
    sent = packets.encode_publish("a", bytes(262_144), qos=1, packet_id=1)
    crumbs = [sent[at : at + 5] for at in range(0, len(sent), 5)]
    connection = server()
    tracemalloc.start()
    try:
        for crumb in crumbs[:-1]:
            assert not connection.receive(crumb)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * len(sent)
    assert peak < 3 * len(sent)
    assert connection.receive(crumbs[-1]) == [Publish("a", bytes(262_144), 1, packet_id=1)]


def test_a_partial_packet_is_let_go_once_complete() -> None:
    connection = server()
    sent = packets.encode_publish("a", bytes(100_000))
    tracemalloc.start()
    try:
        connection.receive(sent[:50_000])
        assert len(connection.receive(sent[50_000:])) == 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000


def test_a_refusal_ends_the_client_s_reading() -> None:
    """[MQTT-3.2.2-5]"""
    connection = ClientConnection()
    assert connection.receive(packets.encode_connack(5) + b"\xff\xff") == [ConnAck(5)]
    assert connection.receive(packets.encode_pingresp()) == []


def test_a_server_may_publish_right_behind_connack() -> None:
    """Messages queued for a stored session do not wait for a SUBSCRIBE. [hub-device 3.2]"""
    sent = packets.encode_connack(0, session_present=True) + packets.encode_publish(
        "a", b"", qos=1, packet_id=1
    )
    assert ClientConnection().receive(sent) == [ConnAck(0, True), Publish("a", b"", 1, packet_id=1)]


def test_the_client_has_a_limit_too() -> None:
    connection = ClientConnection(max_packet=10)
    connection.receive(packets.encode_connack(0))
    with pytest.raises(Malformed, match="the limit is 10"):
        connection.receive(packets.encode_publish("a", bytes(20)))
