"""Bytes received on one MQTT 3.1.1 connection, turned into events; one class for each end.

Neither class sends: answers are made with the encoders of `packets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets
from moorage.wire.mqtt.packets import Event, Publish

MAX_PACKET: Final = 262_144 + 65_536 + 16  # a payload of 256 KiB, the longest topic, the rest of the packet
MAX_BEFORE_CONNECT: Final = 65_536

_Decoder = Callable[[bytes], Event]

# By the whole first byte, so that a packet with flags other than its own is not found. [MQTT-2.2.2-2]
_FROM_EITHER: Final[Mapping[int, _Decoder]] = {
    packets.PUBACK: packets.decode_puback,
    packets.PUBREC: packets.decode_pubrec,
    packets.PUBREL: packets.decode_pubrel,
    packets.PUBCOMP: packets.decode_pubcomp,
}
_FROM_CLIENT: Final[Mapping[int, _Decoder]] = {
    **_FROM_EITHER,
    packets.SUBSCRIBE: packets.decode_subscribe,
    packets.UNSUBSCRIBE: packets.decode_unsubscribe,
    packets.PINGREQ: packets.decode_pingreq,
    packets.DISCONNECT: packets.decode_disconnect,
}
_FROM_SERVER: Final[Mapping[int, _Decoder]] = {
    **_FROM_EITHER,
    packets.SUBACK: packets.decode_suback,
    packets.UNSUBACK: packets.decode_unsuback,
    packets.PINGRESP: packets.decode_pingresp,
}

# The first byte of every PUBLISH that may be: QoS, RETAIN, DUP.
_PUBLISH_FLAGS: Final[Mapping[int, tuple[int, bool, bool]]] = {
    packets.PUBLISH | dup << 3 | qos << 1 | retain: (qos, bool(retain), bool(dup))
    for qos in (0, 1, 2)  # [MQTT-3.3.1-4]
    for retain in (0, 1)
    for dup in (0, 1)
    if qos or not dup  # [MQTT-3.3.1-2]
}

_NAMES: Final = (
    "type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "type 15",
)  # fmt: skip


class _Phase(NamedTuple):
    """What may come now: PUBLISH with these flags, others by these decoders, none over `limit` bytes."""

    publish_flags: Mapping[int, tuple[int, bool, bool]]
    decoders: Mapping[int, _Decoder]
    limit: int


class _Connection(ABC):
    """Cuts what is received into packets and decodes them. A role says what comes when."""

    _opening: str  # the name of the packet that comes first, and once

    def __init__(self, phase: _Phase) -> None:
        self._phase = phase
        self._over = False
        self._partial = bytearray()  # the front of a packet whose rest has not come yet
        self._needed = 0  # bytes to have before looking at `_partial` again is of use
        # The last topic, as sent and as text: a device repeats its own, so most need no decoding.
        self._topic_head = b"\x00\x01/"
        self._topic = "/"  # any valid one to begin with

    def receive(self, data: bytes) -> list[Event]:
        """The packets that `data` completes, in order.

        Raises Malformed, with the events before the fault. Nothing is read after that, nor after the packet
        that ends the conversation: later bytes are dropped.
        """
        if self._over:
            return []
        if self._partial:
            if len(self._partial) + len(data) < self._needed:
                self._partial += data  # in place: a packet that comes in crumbs is not copied at each
                return []
            data = b"".join((self._partial, data))
            self._partial = bytearray()
        events: list[Event] = []
        try:
            rest = self._decode(data, events)
        except Malformed as fault:
            self._over = True
            fault.events = events
            raise
        if rest < len(data):
            self._partial += data[rest:]
        return events

    def _decode(self, buffer: bytes, events: list[Event]) -> int:
        """Append the event of each whole packet in `buffer`; return where the first incomplete one begins.

        The busiest loop of a server: PUBLISH and the shorter lengths are decoded in place, for each call
        saved is a tenth of the whole. Every other packet goes by its table.
        """
        publish_flags, decoders, limit = self._phase
        topic_head, topic = self._topic_head, self._topic
        new = tuple.__new__  # what Publish(…) comes to, without the call in between
        at, end = 0, len(buffer)
        while at + 1 < end:
            first = buffer[at]
            flags = publish_flags.get(first)
            if flags is None and first not in decoders:
                raise Malformed(self._objection(first))
            length = buffer[at + 1]
            body = at + 2
            if length > 0x7F:
                if body < end and buffer[body] < 0x80:
                    length += (buffer[body] - 1) << 7
                    body += 1
                else:
                    length, body = _remaining_length(buffer, at + 1)
            stop = body + length
            if stop - at > limit:
                raise Malformed(f"packet of {stop - at} bytes, the limit is {limit}")
            if stop > end:
                self._needed = stop - at
                return at
            if flags is not None:
                if not buffer.startswith(topic_head, body, stop):
                    topic_head, topic = packets.publish_topic(buffer, body, stop)
                    self._topic_head, self._topic = topic_head, topic
                payload = body + len(topic_head)
                qos, retain, dup = flags
                packet_id = None  # [MQTT-2.3.1-5]
                if qos:
                    payload += 2
                    if payload > stop:
                        raise Malformed("packet ends before its packet identifier")
                    packet_id = buffer[payload - 2] << 8 | buffer[payload - 1]
                    if not packet_id:  # [MQTT-2.3.1-1]
                        raise Malformed("packet identifier 0")
                events.append(new(Publish, (topic, buffer[payload:stop], qos, retain, dup, packet_id)))
            else:
                event = decoders[first](buffer[body:stop])
                events.append(event)
                self._follow(event)
                if self._over:
                    return end
                publish_flags, decoders, limit = self._phase
            at = stop
        self._needed = 2
        return at

    @abstractmethod
    def _follow(self, event: Event) -> None:
        """Go on to what `event` brings about; it is anything but a PUBLISH."""

    def _objection(self, first: int) -> str:
        """Why no packet may begin with the byte `first` now."""
        name = _NAMES[first >> 4]
        if first >> 4 in {known >> 4 for known in (*self._phase.decoders, *self._phase.publish_flags)}:
            return f"{name} with flags 0x{first & 0x0F:x}"
        if not self._phase.publish_flags:
            return f"{name} before {self._opening}"
        if name == self._opening:
            return f"second {name}"
        return f"{name} from the wrong end"


class ServerConnection(_Connection):
    """The server's end: receives what a client sends.

    CONNECT comes first [MQTT-3.1.0-1] and once [MQTT-3.1.0-2], in at most `max_before_connect` bytes; later
    packets have at most `max_packet`. Both count the fixed header. DISCONNECT ends the conversation, and so
    does a CONNECT that is not `supported`.
    """

    _opening = "CONNECT"

    def __init__(self, *, max_packet: int = MAX_PACKET, max_before_connect: int = MAX_BEFORE_CONNECT) -> None:
        super().__init__(_Phase({}, {packets.CONNECT: packets.decode_connect}, max_before_connect))
        self._max_packet = max_packet

    def _follow(self, event: Event) -> None:
        match event:
            case packets.Connect(supported=True):
                self._phase = _Phase(_PUBLISH_FLAGS, _FROM_CLIENT, self._max_packet)
            case packets.Connect() | packets.Disconnect():  # [MQTT-3.1.4-5] [MQTT-3.14.4-2]
                self._over = True


class ClientConnection(_Connection):
    """The client's end: receives what a server sends.

    CONNACK comes first [MQTT-3.2.0-1] and once; one that refuses ends the conversation [MQTT-3.2.2-5].
    """

    _opening = "CONNACK"

    def __init__(self, *, max_packet: int = MAX_PACKET) -> None:
        super().__init__(_Phase({}, {packets.CONNACK: packets.decode_connack}, max_packet))
        self._max_packet = max_packet

    def _follow(self, event: Event) -> None:
        match event:
            case packets.ConnAck(code=0):
                self._phase = _Phase(_PUBLISH_FLAGS, _FROM_SERVER, self._max_packet)
            case packets.ConnAck():
                self._over = True


def _remaining_length(buffer: bytes, at: int) -> tuple[int, int]:
    """The remaining length encoded at `at`, and where the body begins. [MQTT 3.1.1, 2.2.3]

    While it is incomplete: a length of 1 behind the end of `buffer`, which is what must come at the least.
    """
    length = 0
    for index, byte in enumerate(buffer[at : at + 4]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return length, at + index + 1
    if at + 4 <= len(buffer):
        raise Malformed("remaining length runs past four bytes")
    return 1, len(buffer)
