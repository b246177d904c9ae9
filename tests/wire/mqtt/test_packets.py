"""Every packet, literally; then the laws that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.connection import ClientConnection, ServerConnection
from moorage.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    Event,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
)

Receiver = ServerConnection | ClientConnection


def server() -> ServerConnection:
    """A server's end that has had its CONNECT."""
    connection = ServerConnection()
    connection.receive(packets.encode_connect(Connect("d1")))
    return connection


def client() -> ClientConnection:
    """A client's end that has had its CONNACK."""
    connection = ClientConnection()
    connection.receive(packets.encode_connack(0))
    return connection


def encode(event: Event) -> bytes:
    match event:
        case Connect():
            return packets.encode_connect(event)
        case ConnAck(code, session_present):
            return packets.encode_connack(code, session_present)
        case Publish(topic, payload, qos, retain, dup, packet_id):
            return packets.encode_publish(
                topic, payload, qos=qos, packet_id=packet_id, retain=retain, dup=dup
            )
        case PubAck(packet_id):
            return packets.encode_puback(packet_id)
        case PubRec(packet_id):
            return packets.encode_pubrec(packet_id)
        case PubRel(packet_id):
            return packets.encode_pubrel(packet_id)
        case PubComp(packet_id):
            return packets.encode_pubcomp(packet_id)
        case Subscribe(packet_id, pairs):
            return packets.encode_subscribe(packet_id, pairs)
        case SubAck(packet_id, codes):
            return packets.encode_suback(packet_id, codes)
        case Unsubscribe(packet_id, filters):
            return packets.encode_unsubscribe(packet_id, filters)
        case UnsubAck(packet_id):
            return packets.encode_unsuback(packet_id)
        case PingReq():
            return packets.encode_pingreq()
        case PingResp():
            return packets.encode_pingresp()
        case Disconnect():
            return packets.encode_disconnect()


class Case(NamedTuple):
    """One packet both ways, and the ends that may receive it."""

    name: str
    event: Event
    sent: bytes
    ends: tuple[Callable[[], Receiver], ...]


HUB_USER = "h.example/d1/?api-version=2021-04-12"

CASES = [
    Case(
        "CONNECT, the least",
        Connect(""),
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
        (ServerConnection,),
    ),
    Case(
        "CONNECT of a hub device",
        Connect("d1", HUB_USER, b"SharedAccessSignature sr=x", clean_session=False, keep_alive=60),
        b"\x10\x50\x00\x04MQTT\x04\xc0\x00\x3c\x00\x02d1"
        b"\x00\x24h.example/d1/?api-version=2021-04-12\x00\x1aSharedAccessSignature sr=x",
        (ServerConnection,),
    ),
    Case(
        "CONNECT without a password",
        Connect("d1", "u", keep_alive=0xFFFF),
        b"\x10\x11\x00\x04MQTT\x04\x82\xff\xff\x00\x02d1\x00\x01u",
        (ServerConnection,),
    ),
    Case(
        "CONNECT with an empty user name and password, without a client identifier or a clean session",
        Connect("", "", b"", clean_session=False),
        b"\x10\x10\x00\x04MQTT\x04\xc0\x00\x00\x00\x00\x00\x00\x00\x00",
        (ServerConnection,),
    ),
    Case(
        "CONNECT with a will of QoS 0",
        Connect("d1", will=Will("w", b"")),
        b"\x10\x13\x00\x04MQTT\x04\x06\x00\x00\x00\x02d1\x00\x01w\x00\x00",
        (ServerConnection,),
    ),
    Case(
        "CONNECT with a retained will of QoS 2 and all the rest",
        Connect("d1", "u", b"\xff\x00", keep_alive=1, will=Will("w/é", b"\x00gone", 2, retain=True)),
        b"\x10\x22\x00\x04MQTT\x04\xf6\x00\x01\x00\x02d1\x00\x04w/\xc3\xa9\x00\x05\x00gone\x00\x01u\x00\x02\xff\x00",
        (ServerConnection,),
    ),
    Case("CONNACK, accepted", ConnAck(0), b"\x20\x02\x00\x00", (ClientConnection,)),
    Case("CONNACK, session present", ConnAck(0, True), b"\x20\x02\x01\x00", (ClientConnection,)),
    Case("CONNACK, not authorized", ConnAck(5), b"\x20\x02\x00\x05", (ClientConnection,)),
    Case("PUBLISH QoS 0", Publish("a/b", b"hi"), b"\x30\x07\x00\x03a/bhi", (server, client)),
    Case("PUBLISH QoS 0, empty", Publish("/", b""), b"\x30\x03\x00\x01/", (server, client)),
    Case("PUBLISH QoS 0, retain", Publish("a", b"\x00", 0, True), b"\x31\x04\x00\x01a\x00", (server, client)),
    Case(
        "PUBLISH QoS 1",
        Publish("a/b", b"hi", 1, packet_id=0x1234),
        b"\x32\x09\x00\x03a/b\x12\x34hi",
        (server, client),
    ),
    Case(
        "PUBLISH QoS 1, empty, dup",
        Publish("a", b"", 1, False, True, 1),
        b"\x3a\x05\x00\x01a\x00\x01",
        (server, client),
    ),
    Case(
        "PUBLISH QoS 2, dup and retain",
        Publish("a", b"x", 2, True, True, 0xFFFF),
        b"\x3d\x06\x00\x01a\xff\xffx",
        (server, client),
    ),
    Case(
        "PUBLISH with a length of two bytes",
        Publish("é\ufeff", b"." * 130, 1, packet_id=7),
        b"\x32\x8b\x01\x00\x05\xc3\xa9\xef\xbb\xbf\x00\x07" + b"." * 130,
        (server, client),
    ),
    Case(
        "PUBLISH with a length of three bytes",
        Publish("a", b"." * 16_384),
        b"\x30\x83\x80\x01\x00\x01a" + b"." * 16_384,
        (server, client),
    ),
    Case("PUBACK", PubAck(0x0102), b"\x40\x02\x01\x02", (server, client)),
    Case("PUBREC", PubRec(2), b"\x50\x02\x00\x02", (server, client)),
    Case("PUBREL", PubRel(3), b"\x62\x02\x00\x03", (server, client)),
    Case("PUBCOMP", PubComp(0xFFFF), b"\x70\x02\xff\xff", (server, client)),
    Case("SUBSCRIBE", Subscribe(1, (("a/#", 1),)), b"\x82\x08\x00\x01\x00\x03a/#\x01", (server,)),
    Case(
        "SUBSCRIBE to several",
        Subscribe(0x0A0B, (("#", 0), ("+/é", 2), ("$iothub/methods/POST/#", 0))),
        b"\x82\x26\x0a\x0b\x00\x01#\x00\x00\x04+/\xc3\xa9\x02\x00\x16$iothub/methods/POST/#\x00",
        (server,),
    ),
    Case("SUBACK", SubAck(1, (0, 1, 2, 0x80)), b"\x90\x06\x00\x01\x00\x01\x02\x80", (client,)),
    Case("UNSUBSCRIBE", Unsubscribe(9, ("a/+", "b")), b"\xa2\x0a\x00\x09\x00\x03a/+\x00\x01b", (server,)),
    Case("UNSUBACK", UnsubAck(9), b"\xb0\x02\x00\x09", (client,)),
    Case("PINGREQ", PingReq(), b"\xc0\x00", (server,)),
    Case("PINGRESP", PingResp(), b"\xd0\x00", (client,)),
    Case("DISCONNECT", Disconnect(), b"\xe0\x00", (server,)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
short_case = pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.sent) < 200], ids=lambda case: case.name
)


@every_case
def test_encodes_to_the_literal_bytes(case: Case) -> None:
    assert encode(case.event) == case.sent


@every_case
def test_decodes_from_the_literal_bytes(case: Case) -> None:
    for end in case.ends:
        assert end().receive(case.sent) == [case.event]
        assert type(end().receive(case.sent)[0]) is type(case.event)


@short_case
def test_cut_anywhere_decodes_the_same(case: Case) -> None:
    for end in case.ends:
        for cut in range(len(case.sent)):
            connection = end()
            assert connection.receive(case.sent[:cut]) == []
            assert connection.receive(case.sent[cut:]) == [case.event]


@short_case
def test_byte_by_byte_decodes_the_same(case: Case) -> None:
    for end in case.ends:
        connection = end()
        events = [event for byte in case.sent for event in connection.receive(bytes((byte,)))]
        assert events == [case.event]


@short_case
def test_no_damage_does_more_than_malformed(case: Case) -> None:
    """Each byte set to 00, 7F, FF and its neighbours, and the packet cut at each length."""
    for end in case.ends:
        for at, byte in enumerate(case.sent):
            for other in (0x00, 0x7F, 0xFF, (byte + 1) % 256, (byte - 1) % 256):
                assert_read_or_refused(end(), case.sent[:at] + bytes((other,)) + case.sent[at + 1 :])
        for cut in range(len(case.sent)):
            assert_read_or_refused(end(), case.sent[:cut] + case.sent)


@given(
    data=st.binary(max_size=200), end=st.sampled_from([ServerConnection, ClientConnection, server, client])
)
def test_no_garbage_does_more_than_malformed(data: bytes, end: Callable[[], Receiver]) -> None:
    assert_read_or_refused(end(), data)


def assert_read_or_refused(connection: Receiver, data: bytes) -> None:
    """Any exception but Malformed fails; what was read keeps the rules that the encoders insist on."""
    try:
        events: Sequence[Event] = connection.receive(data)
    except Malformed as fault:
        events = fault.events
        assert not connection.receive(data)  # nothing is read after a fault
    for event in events:
        if not (isinstance(event, Connect) and not event.supported):
            encode(event)


# --- What the specification forbids ----------------------------------------------------------------------


class Fault(NamedTuple):
    rule: str
    sent: bytes
    reason: str


CONNECT_FAULTS = [
    Fault("MQTT-2.2.2-2", b"\x11\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", "CONNECT with flags 0x1"),
    Fault("MQTT-3.1.0-1", b"\xc0\x00", "PINGREQ before CONNECT"),
    Fault("MQTT-3.1.0-1", b"\x30\x03\x00\x01a", "PUBLISH before CONNECT"),
    Fault("MQTT-3.1.0-1", b"\x00\x00", "type 0 before CONNECT"),
    Fault("MQTT-3.1.2-1", b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x00\x00\x00", "protocol name 'MQTX'"),
    Fault("MQTT-3.1.2-1", b"\x10\x0c\x00\x04mqtt\x04\x02\x00\x00\x00\x00", "protocol name 'mqtt'"),
    Fault("MQTT-3.1.2-3", b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00", "reserved CONNECT flag"),
    Fault("MQTT-3.1.2-9", b"\x10\x0d\x00\x04MQTT\x04\x06\x00\x00\x00\x01d", "before the will topic"),
    Fault(
        "MQTT-3.1.2-9", b"\x10\x10\x00\x04MQTT\x04\x06\x00\x00\x00\x01d\x00\x01w", "before the will message"
    ),
    Fault(
        "MQTT-3.1.2-11", b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x01d\x00\x01w\x00\x00", "do not announce"
    ),
    Fault("MQTT-3.1.2-13", b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01d", "without a will"),
    Fault("MQTT-3.1.2-14", b"\x10\x12\x00\x04MQTT\x04\x1e\x00\x00\x00\x01d\x00\x01w\x00\x00", "will QoS 3"),
    Fault("MQTT-3.1.2-15", b"\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01d", "without a will"),
    Fault("MQTT-3.1.2-18", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x01d\x00\x01u", "do not announce"),
    Fault("MQTT-3.1.2-19", b"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01d", "before the user name"),
    Fault(
        "MQTT-3.1.2-20", b"\x10\x13\x00\x04MQTT\x04\x82\x00\x00\x00\x01d\x00\x01u\x00\x01p", "do not announce"
    ),
    Fault("MQTT-3.1.2-21", b"\x10\x10\x00\x04MQTT\x04\xc2\x00\x00\x00\x01d\x00\x01u", "before the password"),
    Fault("MQTT-3.1.2-22", b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01d\x00\x01p", "without a user name"),
    Fault("MQTT-3.1.3-3", b"\x10\x0a\x00\x04MQTT\x04\x02\x00\x00", "before the client identifier"),
    Fault(
        "MQTT-3.1.3-4", b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xff", "client identifier is not UTF-8"
    ),
    Fault(
        "MQTT-3.1.3-10",
        b"\x10\x12\x00\x04MQTT\x04\x06\x00\x00\x00\x01d\x00\x01\xff\x00\x00",
        "will topic is not",
    ),
    Fault(
        "MQTT-3.1.3-11",
        b"\x10\x10\x00\x04MQTT\x04\x82\x00\x00\x00\x01d\x00\x01\xff",
        "user name is not UTF-8",
    ),
    Fault(
        "MQTT-4.7.1-1",
        b"\x10\x12\x00\x04MQTT\x04\x06\x00\x00\x00\x01d\x00\x01#\x00\x00",
        "will topic is empty or",
    ),
    Fault(
        "MQTT-4.7.3-1",
        b"\x10\x11\x00\x04MQTT\x04\x06\x00\x00\x00\x01d\x00\x00\x00\x00",
        "will topic is empty or",
    ),
    Fault("too short for a level", b"\x10\x06\x00\x04MQTT", "before the protocol level"),
    Fault("too short for its flags", b"\x10\x08\x00\x04MQTT\x04\x02", "within the variable header"),
    Fault("half a keep alive", b"\x10\x09\x00\x04MQTT\x04\x02\x00", "within the variable header"),
    Fault("empty", b"\x10\x00", "before the protocol name"),
    Fault(
        "a field cut short", b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x01", "within the client identifier"
    ),
]

SERVER_FAULTS = [
    Fault("MQTT-1.5.3-1", b"\x30\x05\x00\x03\xed\xa0\x80", "topic name is not UTF-8"),  # U+D800
    Fault("MQTT-1.5.3-1", b"\x30\x08\x00\x06\xed\xa0\xbd\xed\xb8\x80", "topic name is not UTF-8"),  # a pair
    Fault("MQTT-1.5.3-1", b"\x30\x04\x00\x02\xc0\x80", "topic name is not UTF-8"),  # overlong U+0000
    Fault("MQTT-1.5.3-1", b"\x30\x06\x00\x04\xf4\x90\x80\x80", "topic name is not UTF-8"),  # U+110000
    Fault("MQTT-1.5.3-2", b"\x30\x05\x00\x03a\x00b", "topic name contains U\\+0000"),
    Fault("MQTT-2.2.2-2", b"\x41\x02\x00\x01", "PUBACK with flags 0x1"),
    Fault("MQTT-2.2.2-2", b"\x58\x02\x00\x01", "PUBREC with flags 0x8"),
    Fault("MQTT-2.2.2-2", b"\x72\x02\x00\x01", "PUBCOMP with flags 0x2"),
    Fault("MQTT-2.2.2-2", b"\xc4\x00", "PINGREQ with flags 0x4"),
    Fault("MQTT-2.3.1-1", b"\x32\x05\x00\x01a\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x34\x05\x00\x01a\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x40\x02\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x50\x02\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x62\x02\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x70\x02\x00\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\x82\x06\x00\x00\x00\x01a\x00", "packet identifier 0"),
    Fault("MQTT-2.3.1-1", b"\xa2\x05\x00\x00\x00\x01a", "packet identifier 0"),
    Fault("MQTT-3.1.0-2", b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", "second CONNECT"),
    Fault("MQTT-3.3.1-2", b"\x38\x03\x00\x01a", "PUBLISH with flags 0x8"),
    Fault("MQTT-3.3.1-2", b"\x39\x03\x00\x01a", "PUBLISH with flags 0x9"),
    Fault("MQTT-3.3.1-4", b"\x36\x05\x00\x01a\x00\x01", "PUBLISH with flags 0x6"),
    Fault("MQTT-3.3.1-4", b"\x3f\x05\x00\x01a\x00\x01", "PUBLISH with flags 0xf"),
    Fault("MQTT-3.3.2-1", b"\x30\x00", "within the topic name"),
    Fault("MQTT-3.3.2-1", b"\x30\x01\x00", "within the topic name"),
    Fault("MQTT-3.3.2-1", b"\x30\x03\x00\x02a", "within the topic name"),
    Fault("MQTT-3.3.2-2", b"\x30\x05\x00\x03a/#", "topic name is empty or holds a wildcard"),
    Fault("MQTT-3.3.2-2", b"\x32\x07\x00\x03a/+\x00\x01", "topic name is empty or holds a wildcard"),
    Fault("MQTT-3.6.1-1", b"\x60\x02\x00\x01", "PUBREL with flags 0x0"),
    Fault("MQTT-3.8.1-1", b"\x80\x06\x00\x01\x00\x01a\x00", "SUBSCRIBE with flags 0x0"),
    Fault("MQTT-3.8.3-1", b"\x82\x06\x00\x01\x00\x01\xff\x00", "topic filter is not UTF-8"),
    Fault("MQTT-3.8.3-3", b"\x82\x02\x00\x01", "SUBSCRIBE without a topic filter"),
    Fault("MQTT-3-8.3-4", b"\x82\x06\x00\x01\x00\x01a\x03", "requested QoS byte 0x03"),
    Fault("MQTT-3-8.3-4", b"\x82\x06\x00\x01\x00\x01a\x41", "requested QoS byte 0x41"),
    Fault("MQTT-3.10.1-1", b"\xa0\x05\x00\x01\x00\x01a", "UNSUBSCRIBE with flags 0x0"),
    Fault("MQTT-3.10.3-1", b"\xa2\x05\x00\x01\x00\x01\xff", "topic filter is not UTF-8"),
    Fault("MQTT-3.10.3-2", b"\xa2\x02\x00\x01", "UNSUBSCRIBE without a topic filter"),
    Fault("MQTT-3.14.1-1", b"\xe1\x00", "DISCONNECT with flags 0x1"),
    Fault("MQTT-4.7.1-2", b"\x82\x0a\x00\x01\x00\x05a/#/b\x00", "misplaced wildcard"),
    Fault("MQTT-4.7.1-3", b"\xa2\x07\x00\x01\x00\x03a+/", "misplaced wildcard"),
    Fault("MQTT-4.7.3-1", b"\x30\x02\x00\x00", "topic name is empty"),
    Fault("MQTT-4.7.3-1", b"\x82\x05\x00\x01\x00\x00\x00", "topic filter is empty"),
    Fault("MQTT-4.7.3-1", b"\xa2\x04\x00\x01\x00\x00", "topic filter is empty"),
    Fault("no identifier", b"\x32\x03\x00\x01a", "before its packet identifier"),
    Fault("half an identifier", b"\x32\x04\x00\x01a\x00", "before its packet identifier"),
    Fault("half an identifier", b"\x82\x01\x00", "before its packet identifier"),
    Fault("no QoS", b"\x82\x05\x00\x01\x00\x01a", "before the requested QoS"),
    Fault("trailing byte", b"\x40\x03\x00\x01\x00", "PUBACK body of 3 bytes"),
    Fault("trailing byte", b"\x62\x03\x00\x01\x00", "PUBREL body of 3 bytes"),
    Fault("trailing byte", b"\xa2\x06\x00\x01\x00\x01a\x00", "before the topic filter"),
    Fault("trailing byte", b"\xc0\x01\x00", "PINGREQ body of 1 bytes"),
    Fault("trailing byte", b"\xe0\x01\x00", "DISCONNECT body of 1 bytes"),
    Fault("missing byte", b"\x40\x01\x01", "PUBACK body of 1 bytes"),
    Fault("MQTT 3.1.1, 2.2.3", b"\x30\xff\xff\xff\xff\x01", "remaining length runs past four bytes"),
    Fault("MQTT 3.1.1, 2.2.3", b"\x30\x80\x80\x80\x80", "remaining length runs past four bytes"),
    Fault("table 2.1", b"\x00\x00", "type 0 from the wrong end"),
    Fault("table 2.1", b"\xf0\x00", "type 15 from the wrong end"),
    Fault("table 2.1", b"\x20\x02\x00\x00", "CONNACK from the wrong end"),
    Fault("table 2.1", b"\x90\x03\x00\x01\x00", "SUBACK from the wrong end"),
    Fault("table 2.1", b"\xb0\x02\x00\x01", "UNSUBACK from the wrong end"),
    Fault("table 2.1", b"\xd0\x00", "PINGRESP from the wrong end"),
]

CONNACK_FAULTS = [
    Fault("MQTT-3.2.0-1", b"\xd0\x00", "PINGRESP before CONNACK"),
    Fault("MQTT-3.2.2-4", b"\x20\x02\x01\x05", "refuses, yet has a session"),
    Fault("reserved flag", b"\x20\x02\x02\x00", "reserved CONNACK flag"),
    Fault("reserved code", b"\x20\x02\x00\x06", "CONNACK return code 6"),
    Fault("trailing byte", b"\x20\x03\x00\x00\x00", "CONNACK body of 3 bytes"),
]

CLIENT_FAULTS = [
    Fault("MQTT-2.3.1-1", b"\xb0\x02\x00\x00", "packet identifier 0"),
    Fault("MQTT-3.9.3-2", b"\x90\x03\x00\x01\x03", "reserved SUBACK return code"),
    Fault("no code", b"\x90\x02\x00\x01", "SUBACK without a return code"),
    Fault("second CONNACK", b"\x20\x02\x00\x00", "second CONNACK"),
    Fault("table 2.1", b"\x82\x06\x00\x01\x00\x01a\x00", "SUBSCRIBE from the wrong end"),
    Fault("table 2.1", b"\xe0\x00", "DISCONNECT from the wrong end"),
    Fault("trailing byte", b"\xd0\x01\x00", "PINGRESP body of 1 bytes"),
]

FAULTS: list[tuple[Callable[[], Receiver], Fault]] = [
    *((ServerConnection, fault) for fault in CONNECT_FAULTS),
    *((server, fault) for fault in SERVER_FAULTS),
    *((ClientConnection, fault) for fault in CONNACK_FAULTS),
    *((client, fault) for fault in CLIENT_FAULTS),
]


@pytest.mark.parametrize(("end", "fault"), FAULTS, ids=lambda value: getattr(value, "rule", ""))
def test_refuses_what_is_forbidden(end: Callable[[], Receiver], fault: Fault) -> None:
    with pytest.raises(Malformed, match=fault.reason):
        end().receive(fault.sent)


@pytest.mark.parametrize(("end", "fault"), FAULTS, ids=lambda value: getattr(value, "rule", ""))
def test_refuses_it_behind_a_good_packet_too(end: Callable[[], Receiver], fault: Fault) -> None:
    """Within the bytes of other packets nothing is borrowed from them."""
    connection = end()
    good = [] if end in (ServerConnection, ClientConnection) else [PubAck(1)]
    with pytest.raises(Malformed, match=fault.reason) as caught:
        connection.receive(b"".join(map(encode, good)) + fault.sent + b"\x40\x02\x00\x02")
    assert caught.value.events == good


@pytest.mark.parametrize(
    ("name", "level", "rest"),
    [
        ("MQIsdp", 3, b"\x02\x00\x3c\x00\x02d1"),
        ("MQTT", 5, b"\x02\x00\x3c\x00\x00\x02d1"),
        ("MQTT", 3, b""),
        ("MQTT", 0x84, b"\xff\xff\xff"),
        ("MQIsdp", 4, b"\x02\x00\x3c\x00\x02d1"),
    ],
)
def test_another_protocol_version_is_shown_for_a_refusal(name: str, level: int, rest: bytes) -> None:
    """[MQTT-3.1.2-2] CONNACK 1 is for the caller to send; nothing the client adds is read."""
    body = len(name).to_bytes(2, "big") + name.encode() + bytes((level,)) + rest
    connection = ServerConnection()
    events = connection.receive(b"\x10" + bytes((len(body),)) + body + b"\xff\xff")
    assert events == [Connect("", protocol_level=level, protocol_name=name)]
    assert isinstance(events[0], Connect)
    assert not events[0].supported
    assert connection.receive(b"\xc0\x00") == []


@pytest.mark.parametrize(
    "encoding",
    [
        lambda: packets.encode_publish("", b""),
        lambda: packets.encode_publish("a/#", b""),
        lambda: packets.encode_publish("a\0", b""),
        lambda: packets.encode_publish("a" * 65_536, b""),
        lambda: packets.encode_publish("a", b"", qos=3, packet_id=1),
        lambda: packets.encode_publish("a", b"", qos=1),
        lambda: packets.encode_publish("a", b"", qos=1, packet_id=0),
        lambda: packets.encode_publish("a", b"", qos=1, packet_id=65_536),
        lambda: packets.encode_publish("a", b"", packet_id=1),
        lambda: packets.encode_publish("a", b"", dup=True),
        lambda: packets.encode_puback(0),
        lambda: packets.encode_pubacks([1, 0]),
        lambda: packets.encode_pubacks([65_536, 1]),
        lambda: packets.encode_connack(6),
        lambda: packets.encode_connack(5, session_present=True),
        lambda: packets.encode_connect(Connect("d", password=b"p")),
        lambda: packets.encode_connect(Connect("d", will=Will("w/+", b""))),
        lambda: packets.encode_connect(Connect("d", will=Will("w", b"", qos=3))),
        lambda: packets.encode_subscribe(1, []),
        lambda: packets.encode_subscribe(1, [("a", 3)]),
        lambda: packets.encode_subscribe(1, [("a#", 0)]),
        lambda: packets.encode_suback(1, []),
        lambda: packets.encode_suback(1, [3]),
        lambda: packets.encode_unsubscribe(1, []),
        lambda: packets.encode_unsubscribe(1, [""]),
        lambda: packets.encode_remaining_length(0x1000_0000),
    ],
)
def test_encoders_refuse_what_no_packet_can_carry(encoding: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encoding()


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_remaining_length(length: int, encoded: str) -> None:
    assert packets.encode_remaining_length(length).hex() == encoded


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Connect("d", "u", b"secret"))


# --- Laws over all packets -------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
topic_names = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=40
)
levels = st.sampled_from(["", "+", "a", "é", "$iothub", "messages"])
filters = st.builds(
    lambda path, rest: "/".join([*path, *rest]) or "/",
    st.lists(levels, min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
)
ids = st.integers(1, 0xFFFF)
payloads = st.binary(max_size=300)
wills = st.builds(Will, topic_names, payloads, st.integers(0, 2), st.booleans())
passwords = st.none() | st.binary(max_size=30)
logins = st.tuples(st.none(), st.none()) | st.tuples(texts, passwords)
connects = st.builds(
    lambda client_id, login, clean_session, keep_alive, will: Connect(
        client_id, login[0], login[1], clean_session, keep_alive, will
    ),
    texts,
    logins,
    st.booleans(),
    st.integers(0, 0xFFFF),
    st.none() | wills,
)
publishes: st.SearchStrategy[Event] = st.one_of(
    st.builds(Publish, topic_names, payloads, st.just(0), st.booleans(), st.just(False), st.none()),
    st.builds(Publish, topic_names, payloads, st.integers(1, 2), st.booleans(), st.booleans(), ids),
)
from_client: st.SearchStrategy[Event] = st.one_of(
    publishes,
    st.builds(PubAck, ids),
    st.builds(PubRec, ids),
    st.builds(PubRel, ids),
    st.builds(PubComp, ids),
    st.builds(
        Subscribe, ids, st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=5).map(tuple)
    ),
    st.builds(Unsubscribe, ids, st.lists(filters, min_size=1, max_size=5).map(tuple)),
    st.just(PingReq()),
)
from_server: st.SearchStrategy[Event] = st.one_of(
    publishes,
    st.builds(PubAck, ids),
    st.builds(SubAck, ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=5).map(tuple)),
    st.builds(UnsubAck, ids),
    st.just(PingResp()),
)


@given(connects)
def test_connect_comes_back(event: Connect) -> None:
    assert ServerConnection().receive(encode(event)) == [event]


@given(st.lists(from_client, max_size=8), st.data())
def test_what_a_client_sends_comes_back_however_it_is_cut(events: list[Event], data: st.DataObject) -> None:
    assert received_in_pieces(server(), events, data) == events


@given(st.lists(from_server, max_size=8), st.data())
def test_what_a_server_sends_comes_back_however_it_is_cut(events: list[Event], data: st.DataObject) -> None:
    assert received_in_pieces(client(), events, data) == events


def received_in_pieces(connection: Receiver, events: list[Event], data: st.DataObject) -> list[Any]:
    sent = b"".join(map(encode, events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    pieces = [sent[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    return [event for piece in pieces for event in connection.receive(piece)]


@given(from_client, from_client, st.data())
def test_bytes_behind_a_packet_are_kept_for_the_next(event: Event, later: Event, data: st.DataObject) -> None:
    connection = server()
    cut = data.draw(st.integers(0, len(encode(later)) - 1))
    assert connection.receive(encode(event) + encode(later)[:cut]) == [event]
    assert connection.receive(encode(later)[cut:]) == [later]


@given(st.lists(ids, max_size=50))
def test_many_acknowledgements_are_the_single_ones_in_order(packet_ids: list[int]) -> None:
    assert packets.encode_pubacks(packet_ids) == b"".join(map(packets.encode_puback, packet_ids))
