"""The control packets of MQTT 3.1.1: an event for each, its decoder and its encoder.

A decoder takes the body, which is what follows the fixed header, and raises Malformed for whatever the
specification does not allow there; the fixed header is `connection`'s. An encoder returns the whole packet
and raises ValueError for arguments that no packet can carry: those are the caller's fault, not the peer's.

Tags such as [MQTT-3.8.3-3] are the conformance statements of the OASIS standard of 29 October 2014.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from moorage.wire.errors import Malformed
from moorage.wire.mqtt.topics import valid_filter, valid_topic

PROTOCOL_NAME: Final = "MQTT"
PROTOCOL_LEVEL: Final = 4

# The first byte of each packet: its type and the flags prescribed for it [MQTT-2.2.2-1]. PUBLISH adds more.
CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62  # [MQTT-3.6.1-1]
PUBCOMP: Final = 0x70
SUBSCRIBE: Final = 0x82  # [MQTT-3.8.1-1]
SUBACK: Final = 0x90
UNSUBSCRIBE: Final = 0xA2  # [MQTT-3.10.1-1]
UNSUBACK: Final = 0xB0
PINGREQ: Final = 0xC0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0  # [MQTT-3.14.1-1]

MAX_REMAINING_LENGTH: Final = 0x0FFF_FFFF  # four bytes of seven bits [MQTT 3.1.1, 2.2.3]
REFUSED: Final = 0x80  # the SUBACK code of a subscription that failed

_SUBACK_CODES: Final = frozenset({0, 1, 2, REFUSED})  # [MQTT-3.9.3-2]
_MAX_CONNACK_CODE: Final = 5  # those above are reserved [MQTT 3.1.1, table 3.1]


# --- Events ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """`keep_alive` is in seconds, 0 for none.

    `client_id` may be empty even without a clean session, for the caller to refuse with CONNACK 2
    [MQTT-3.1.3-8]. Unless `supported`, only the last two fields are known.
    """

    client_id: str
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    clean_session: bool = True
    keep_alive: int = 0
    will: Will | None = None
    protocol_level: int = PROTOCOL_LEVEL
    protocol_name: str = PROTOCOL_NAME

    @property
    def supported(self) -> bool:
        """Whether this is MQTT 3.1.1; anything else is to be answered with CONNACK 1 [MQTT-3.1.2-2]."""
        return self.protocol_level == PROTOCOL_LEVEL and self.protocol_name == PROTOCOL_NAME


@dataclass(frozen=True, slots=True)
class ConnAck:
    code: int
    session_present: bool = False


class Publish(NamedTuple):
    """`packet_id` is None with QoS 0 only.

    A tuple because a busy server makes one for each message, and a frozen dataclass takes five times as long.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None


@dataclass(frozen=True, slots=True)
class PubAck:
    packet_id: int


@dataclass(frozen=True, slots=True)
class PubRec:
    packet_id: int


@dataclass(frozen=True, slots=True)
class PubRel:
    packet_id: int


@dataclass(frozen=True, slots=True)
class PubComp:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`filters` are pairs of filter and requested QoS; SUBACK answers in the same order [MQTT-3.9.3-1]."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SubAck:
    """`codes` are granted QoS or REFUSED, one for each filter asked for."""

    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnsubAck:
    packet_id: int


@dataclass(frozen=True, slots=True)
class PingReq:
    pass


@dataclass(frozen=True, slots=True)
class PingResp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    pass


Event = (
    Connect
    | ConnAck
    | Publish
    | PubAck
    | PubRec
    | PubRel
    | PubComp
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
)

E = TypeVar("E")


# --- Fields ----------------------------------------------------------------------------------------------


def _take_binary(body: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The length-prefixed bytes at `at`, and where they end."""
    start = at + 2
    if start > len(body):
        raise Malformed(f"packet ends before the {what}")
    stop = start + (body[at] << 8 | body[at + 1])
    if stop > len(body):
        raise Malformed(f"packet ends within the {what}")
    return body[start:stop], stop


def _take_string(body: bytes, at: int, what: str) -> tuple[str, int]:
    raw, stop = _take_binary(body, at, what)
    return _text(raw, what), stop


def _text(raw: bytes, what: str) -> str:
    try:
        # Strict: no surrogates, no overlong forms [MQTT-1.5.3-1]; U+FEFF stays where it is [MQTT-1.5.3-3].
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8") from error
    if "\0" in text:  # [MQTT-1.5.3-2]
        raise Malformed(f"{what} contains U+0000")
    return text


def _packet_id(body: bytes) -> int:
    if len(body) < 2:
        raise Malformed("packet ends before its packet identifier")
    packet_id = body[0] << 8 | body[1]
    if not packet_id:  # [MQTT-2.3.1-1]
        raise Malformed("packet identifier 0")
    return packet_id


def _string(text: str) -> bytes:
    return _binary(text.encode("utf-8"))


def _binary(data: bytes) -> bytes:
    if len(data) > 0xFFFF:  # [MQTT-4.7.3-3]
        raise ValueError(f"a field of {len(data)} bytes, at most 65535 can be sent")
    return len(data).to_bytes(2, "big") + data


def _id(packet_id: int) -> bytes:
    if not 0 < packet_id <= 0xFFFF:  # [MQTT-2.3.1-1]
        raise ValueError(f"packet identifier {packet_id} is not within 1…65535")
    return packet_id.to_bytes(2, "big")


def _packet(first: int, *body: bytes) -> bytes:
    return b"".join((bytes((first,)), encode_remaining_length(sum(map(len, body))), *body))


def encode_remaining_length(length: int) -> bytes:
    """One to four bytes of seven bits, the lowest first. [MQTT 3.1.1, 2.2.3]"""
    if length > MAX_REMAINING_LENGTH:
        raise ValueError(f"a packet body of {length} bytes, at most {MAX_REMAINING_LENGTH} can be sent")
    encoded = bytearray()
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


# --- CONNECT and CONNACK ---------------------------------------------------------------------------------


def decode_connect(body: bytes) -> Connect:
    name, at = _take_string(body, 0, "protocol name")
    if name not in (PROTOCOL_NAME, "MQIsdp"):  # [MQTT-3.1.2-1]; MQIsdp is MQTT 3.1
        raise Malformed(f"protocol name {name[:20]!r}")
    if at == len(body):
        raise Malformed("packet ends before the protocol level")
    connect = Connect("", protocol_level=body[at], protocol_name=name)
    if not connect.supported:
        return connect  # other versions go on differently, and what they say is of no use to a refusal
    if len(body) < 10:
        raise Malformed("packet ends within the variable header")
    return _decode_connect_payload(body, flags=body[7], keep_alive=body[8] << 8 | body[9])


def _decode_connect_payload(body: bytes, *, flags: int, keep_alive: int) -> Connect:
    """The fields in their only order. [MQTT-3.1.3-1] [MQTT-3.1.4-1]"""
    _check_connect_flags(flags)
    client_id, at = _take_string(body, 10, "client identifier")  # [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    will: Will | None = None
    if flags & 0x04:  # [MQTT-3.1.2-9]
        topic, at = _take_string(body, at, "will topic")  # [MQTT-3.1.3-10]
        if not valid_topic(topic):  # [MQTT-4.7.1-1] [MQTT-4.7.3-1]
            raise Malformed("will topic is empty or holds a wildcard")
        payload, at = _take_binary(body, at, "will message")
        will = Will(topic, payload, qos=flags >> 3 & 0x03, retain=bool(flags & 0x20))
    username: str | None = None
    if flags & 0x80:  # [MQTT-3.1.2-19]
        username, at = _take_string(body, at, "user name")  # [MQTT-3.1.3-11]
    password: bytes | None = None
    if flags & 0x40:  # [MQTT-3.1.2-21]
        password, at = _take_binary(body, at, "password")
    if at != len(body):  # [MQTT-3.1.2-11] [MQTT-3.1.2-18] [MQTT-3.1.2-20]
        raise Malformed("CONNECT has a field that its flags do not announce")
    return Connect(client_id, username, password, bool(flags & 0x02), keep_alive, will)


def _check_connect_flags(flags: int) -> None:
    if flags & 0x01:  # [MQTT-3.1.2-3]
        raise Malformed("reserved CONNECT flag is set")
    if flags & 0x04:
        if flags & 0x18 == 0x18:  # [MQTT-3.1.2-14]
            raise Malformed("will QoS 3")
    elif flags & 0x38:  # [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]
        raise Malformed("will QoS or will retain without a will")
    if flags & 0xC0 == 0x40:  # [MQTT-3.1.2-22]
        raise Malformed("password without a user name")


def encode_connect(connect: Connect) -> bytes:
    flags = 0x02 if connect.clean_session else 0
    fields = [_string(connect.client_id)]
    if connect.will is not None:
        if not valid_topic(connect.will.topic):
            raise ValueError(f"{connect.will.topic!r} is not a topic name")
        if connect.will.qos not in (0, 1, 2):
            raise ValueError(f"will QoS {connect.will.qos}")
        flags |= 0x04 | connect.will.qos << 3 | connect.will.retain << 5
        fields += [_string(connect.will.topic), _binary(connect.will.payload)]
    if connect.username is not None:
        flags |= 0x80
        fields.append(_string(connect.username))
    if connect.password is not None:
        flags |= 0x40
        fields.append(_binary(connect.password))
    if flags & 0xC0 == 0x40:  # [MQTT-3.1.2-22]
        raise ValueError("a password cannot be sent without a user name")
    head = struct.pack(">BBH", connect.protocol_level, flags, connect.keep_alive)
    return _packet(CONNECT, _string(connect.protocol_name), head, *fields)


def decode_connack(body: bytes) -> ConnAck:
    if len(body) != 2:
        raise Malformed(f"CONNACK body of {len(body)} bytes")
    flags, code = body
    if flags > 1:
        raise Malformed("reserved CONNACK flag is set")
    if code > _MAX_CONNACK_CODE:
        raise Malformed(f"CONNACK return code {code}")
    if code and flags:  # [MQTT-3.2.2-4]
        raise Malformed("CONNACK refuses, yet has a session")
    return ConnAck(code, bool(flags))


def encode_connack(code: int, session_present: bool = False) -> bytes:
    if not 0 <= code <= _MAX_CONNACK_CODE:
        raise ValueError(f"CONNACK return code {code}")
    if code and session_present:  # [MQTT-3.2.2-4]
        raise ValueError("a refusal has no session")
    return bytes((CONNACK, 2, session_present, code))


# --- PUBLISH and its acknowledgements --------------------------------------------------------------------


def publish_topic(buffer: bytes, at: int, stop: int) -> tuple[bytes, str]:
    """The topic name of a PUBLISH whose body is `buffer[at:stop]`: as sent, length included, and as text."""
    end = at + 2 + int.from_bytes(buffer[at : at + 2], "big")
    if end > stop:
        raise Malformed("packet ends within the topic name")
    topic = _text(buffer[at + 2 : end], "topic name")  # [MQTT-3.3.2-1]
    if not valid_topic(topic):  # [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1]
        raise Malformed("topic name is empty or holds a wildcard")
    return buffer[at:end], topic


def encode_publish(
    topic: str,
    payload: bytes,
    *,
    qos: int = 0,
    packet_id: int | None = None,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    """`packet_id` is required above QoS 0, and not allowed there. [MQTT-2.3.1-1] [MQTT-2.3.1-5]"""
    if not valid_topic(topic):
        raise ValueError(f"{topic!r} is not a topic name")
    if qos not in (0, 1, 2):  # [MQTT-3.3.1-4]
        raise ValueError(f"QoS {qos}")
    if (packet_id is None) != (qos == 0):
        raise ValueError(f"QoS {qos} with packet identifier {packet_id}")
    if dup and not qos:  # [MQTT-3.3.1-2]
        raise ValueError("QoS 0 is never sent twice")
    first = PUBLISH | dup << 3 | qos << 1 | retain
    return _packet(first, _string(topic), b"" if packet_id is None else _id(packet_id), payload)


def _only_packet_id(name: str, event: Callable[[int], E]) -> Callable[[bytes], E]:
    """The decoder of a packet whose body is a packet identifier and no more."""

    def decode(body: bytes) -> E:
        if len(body) != 2:
            raise Malformed(f"{name} body of {len(body)} bytes")
        return event(_packet_id(body))

    return decode


decode_puback = _only_packet_id("PUBACK", PubAck)
decode_pubrec = _only_packet_id("PUBREC", PubRec)
decode_pubrel = _only_packet_id("PUBREL", PubRel)
decode_pubcomp = _only_packet_id("PUBCOMP", PubComp)


_PUBACK_HEAD = bytes((PUBACK, 2))


def encode_puback(packet_id: int) -> bytes:
    return _PUBACK_HEAD + _id(packet_id)


def encode_pubacks(packet_ids: Sequence[int]) -> bytes:
    """One PUBACK for each of `packet_ids`, in their order [MQTT-4.6.0-2], to be sent in one write."""
    if len(packet_ids) == 1:  # as many devices send one message at a time; it takes a third of what follows
        return encode_puback(packet_ids[0])
    if packet_ids and (min(packet_ids) < 1 or max(packet_ids) > 0xFFFF):  # [MQTT-2.3.1-1]
        raise ValueError("a packet identifier is not within 1…65535")
    head = PUBACK << 24 | 2 << 16
    return struct.pack(f">{len(packet_ids)}I", *[head | packet_id for packet_id in packet_ids])


def encode_pubrec(packet_id: int) -> bytes:
    return _packet(PUBREC, _id(packet_id))


def encode_pubrel(packet_id: int) -> bytes:
    return _packet(PUBREL, _id(packet_id))


def encode_pubcomp(packet_id: int) -> bytes:
    return _packet(PUBCOMP, _id(packet_id))


# --- SUBSCRIBE, UNSUBSCRIBE and their acknowledgements ---------------------------------------------------


def _take_filter(body: bytes, at: int) -> tuple[str, int]:
    topic_filter, at = _take_string(body, at, "topic filter")  # [MQTT-3.8.3-1] [MQTT-3.10.3-1]
    if not valid_filter(topic_filter):  # [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]
        raise Malformed("topic filter is empty or holds a misplaced wildcard")
    return topic_filter, at


def decode_subscribe(body: bytes) -> Subscribe:
    packet_id = _packet_id(body)
    filters: list[tuple[str, int]] = []
    at = 2
    while at < len(body):
        topic_filter, at = _take_filter(body, at)
        if at == len(body):
            raise Malformed("packet ends before the requested QoS")
        qos = body[at]
        if qos > 2:  # [MQTT-3-8.3-4]
            raise Malformed(f"requested QoS byte 0x{qos:02x}")
        filters.append((topic_filter, qos))
        at += 1
    if not filters:  # [MQTT-3.8.3-3]
        raise Malformed("SUBSCRIBE without a topic filter")
    return Subscribe(packet_id, tuple(filters))


def encode_subscribe(packet_id: int, filters: Iterable[tuple[str, int]]) -> bytes:
    fields: list[bytes] = []
    for topic_filter, qos in filters:
        if qos not in (0, 1, 2):
            raise ValueError(f"requested QoS {qos}")
        fields += [_filter(topic_filter), bytes((qos,))]
    if not fields:  # [MQTT-3.8.3-3]
        raise ValueError("a SUBSCRIBE needs a topic filter")
    return _packet(SUBSCRIBE, _id(packet_id), *fields)


def _filter(topic_filter: str) -> bytes:
    if not valid_filter(topic_filter):
        raise ValueError(f"{topic_filter!r} is not a topic filter")
    return _string(topic_filter)


def decode_suback(body: bytes) -> SubAck:
    packet_id = _packet_id(body)
    codes = tuple(body[2:])
    if not codes:
        raise Malformed("SUBACK without a return code")
    if not _SUBACK_CODES.issuperset(codes):  # [MQTT-3.9.3-2]
        raise Malformed("reserved SUBACK return code")
    return SubAck(packet_id, codes)


def encode_suback(packet_id: int, codes: Sequence[int]) -> bytes:
    """`codes`: granted QoS or REFUSED, one for each filter, in their order. [MQTT-3.8.4-5] [MQTT-3.9.3-1]"""
    if not codes or not _SUBACK_CODES.issuperset(codes):  # [MQTT-3.9.3-2]
        raise ValueError(f"SUBACK return codes {list(codes)}")
    return _packet(SUBACK, _id(packet_id), bytes(codes))


def decode_unsubscribe(body: bytes) -> Unsubscribe:
    packet_id = _packet_id(body)
    filters: list[str] = []
    at = 2
    while at < len(body):
        topic_filter, at = _take_filter(body, at)
        filters.append(topic_filter)
    if not filters:  # [MQTT-3.10.3-2]
        raise Malformed("UNSUBSCRIBE without a topic filter")
    return Unsubscribe(packet_id, tuple(filters))


def encode_unsubscribe(packet_id: int, filters: Iterable[str]) -> bytes:
    fields = [_filter(topic_filter) for topic_filter in filters]
    if not fields:  # [MQTT-3.10.3-2]
        raise ValueError("an UNSUBSCRIBE needs a topic filter")
    return _packet(UNSUBSCRIBE, _id(packet_id), *fields)


decode_unsuback = _only_packet_id("UNSUBACK", UnsubAck)


def encode_unsuback(packet_id: int) -> bytes:
    return _packet(UNSUBACK, _id(packet_id))


# --- PINGREQ, PINGRESP, DISCONNECT -----------------------------------------------------------------------


def _nothing(name: str, event: E) -> Callable[[bytes], E]:
    """The decoder of a packet without a body."""

    def decode(body: bytes) -> E:
        if body:
            raise Malformed(f"{name} body of {len(body)} bytes")
        return event

    return decode


decode_pingreq = _nothing("PINGREQ", PingReq())
decode_pingresp = _nothing("PINGRESP", PingResp())
decode_disconnect = _nothing("DISCONNECT", Disconnect())


def encode_pingreq() -> bytes:
    return _packet(PINGREQ)


def encode_pingresp() -> bytes:
    return _packet(PINGRESP)


def encode_disconnect() -> bytes:
    return _packet(DISCONNECT)
