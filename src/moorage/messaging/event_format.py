"""A stored event: a complete AMQP 1.0 message, of which only numbers, times and body differ from event to event.

What stays the same is encoded once, into an `EventTemplate`; completing it costs about half a microsecond, and a
read hands out the bytes as they are. The layout is that of the built-in endpoint:

    00 53 72  message annotations, always map32
              x-opt-sequence-number  long        ┐
              x-opt-enqueued-time    timestamp   │ stamped, at fixed places
              iothub-enqueuedtime    timestamp   │
              x-opt-offset           str8        ┘ as many digits as it needs
              x-opt-partition-key    string, then the hub's annotations
    00 53 73  properties, when one is set
    00 53 74  application properties, when there are any
    00 53 75  data, also when empty
"""

from __future__ import annotations

import struct
from functools import lru_cache

from moorage.errors import Invalid
from moorage.interfaces import EventHead
from moorage.wire.amqp.types import Symbol, Timestamp, encode, encode_map

MESSAGE_START = b"\x00\x53\x72\xd1"  # recovery looks for it: every message begins so [AMQP 3.2.3]

_APPLICATION_PROPERTIES = b"\x00\x53\x74"  # [AMQP 3.2.5]
_DATA = b"\x00\x53\x75"  # [AMQP 3.2.6]
_STAMPED_ANNOTATIONS = 4
_U32 = struct.Struct(">I")


@lru_cache(maxsize=4096)
def _fixed_annotations(partition_key: str, annotations: tuple[tuple[str, str], ...]) -> bytes:
    """Those that are not stamped. One connection's are the same for all its events."""
    pairs = (("x-opt-partition-key", partition_key), *annotations)
    return b"".join(encode(Symbol(name)) + encode(value) for name, value in pairs)


def _properties(head: EventHead) -> bytes:
    """[AMQP 3.2.4]; nothing at all when none is set."""
    expiry = head.absolute_expiry_time
    texts = (
        head.message_id,
        head.user_id,
        head.to,
        head.correlation_id,
        head.content_type,
        head.content_encoding,
    )
    if expiry is None and texts.count(None) == len(texts):
        return b""
    # With the first telemetry that has properties: a server that starts does not wait for it.
    from moorage.wire.amqp.performatives import Properties, encode_composite

    return encode_composite(
        Properties(
            message_id=head.message_id,
            user_id=None if head.user_id is None else head.user_id.encode(),
            to=head.to,
            correlation_id=head.correlation_id,
            content_type=_ascii(head.content_type),
            content_encoding=_ascii(head.content_encoding),
            absolute_expiry_time=None if expiry is None else expiry // 1000,
        )
    )


def _ascii(text: str | None) -> str | None:
    """What a symbol can hold of `text`. [AMQP 1.6.21]"""
    return text if text is None or text.isascii() else text.encode("ascii", "replace").decode()


def _application_properties(head: EventHead) -> bytes:
    """Of several with one name the last: a map has each key once."""
    if not head.application_properties:
        return b""
    return _APPLICATION_PROPERTIES + encode_map(dict(head.application_properties))


_SEQUENCE_KEY = encode(Symbol("x-opt-sequence-number")) + b"\x81"
_COUNT_AND_SEQUENCE_KEY = _U32.size + len(_SEQUENCE_KEY)


def stamp(time: int) -> bytes:
    """The bytes between sequence number and offset, the same for all events enqueued at `time`."""
    enqueued = encode(Timestamp(time // 1000))
    return b"".join(
        (
            encode(Symbol("x-opt-enqueued-time")),
            enqueued,
            encode(Symbol("iothub-enqueuedtime")),
            enqueued,
            encode(Symbol("x-opt-offset")),
        )
    )


_STAMP_SIZE = len(stamp(0))

# Start, map size, count and sequence number's key, sequence number, stamp, str8 and the offset's length.
_FRONT = struct.Struct(f">4sI{_COUNT_AND_SEQUENCE_KEY}sq{_STAMP_SIZE}sBB")
_pack_front = _FRONT.pack

_SHORT_DATA = [_DATA + bytes((0xA0, size)) for size in range(256)]
_LONG_DATA = _DATA + b"\xb0"


class EventTemplate:
    """All of an event's message but sequence number, times, offset and body."""

    __slots__ = ("_after_offset", "_before_sequence", "_map_size")

    def __init__(self, head: EventHead) -> None:
        """Raises Invalid for text that no encoding has room for: a lone surrogate."""
        try:
            annotations = _fixed_annotations(head.partition_key, head.annotations)
            self._after_offset = annotations + _properties(head) + _application_properties(head)
        except UnicodeEncodeError as error:
            raise Invalid("event", f"text that is not Unicode: {error.object!r}") from error
        count = 2 * (_STAMPED_ANNOTATIONS + 1 + len(head.annotations))
        self._before_sequence = _U32.pack(count) + _SEQUENCE_KEY
        self._map_size = _FRONT.size - len(MESSAGE_START) - _U32.size + len(annotations)

    def message(self, sequence: int, stamped: bytes, offset: int, body: bytes) -> bytes:
        """The message of one event; `stamped` is `stamp` of its time."""
        digits = b"%d" % offset
        size = len(digits)
        length = len(body)
        return b"".join(
            (
                _pack_front(
                    MESSAGE_START, self._map_size + size, self._before_sequence, sequence, stamped, 0xA1, size
                ),
                digits,
                self._after_offset,
                _SHORT_DATA[length] if length < 256 else _LONG_DATA + length.to_bytes(4, "big"),
                body,
            )
        )
