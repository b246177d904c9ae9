"""The hot path: transfer frames, read and written by hand. [AMQP 2.7.5]

Of a transfer only the handle, the delivery id and the delivery tag change from one message to the next. So reading
decodes these three by hand and looks the rest up among the tails met before; writing has the rest of the frame ready,
per link. What looks unusual takes the general codec of `performatives`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from moorage.wire.amqp.frames import AMQP, FRAME_HEADER_SIZE, encode_frame
from moorage.wire.amqp.performatives import Transfer, from_list
from moorage.wire.amqp.types import UInt, decode, encode, encode_list
from moorage.wire.errors import Malformed

TRANSFER_START = b"\x00\x53\x14"  # how nearly every transfer begins; others go through the general codec

_U32 = struct.Struct(">I")
_LIST32 = struct.Struct(">II")


# --- Reading ------------------------------------------------------------------------------------------------


class Tail(NamedTuple):
    """The fields of a transfer behind the delivery tag; `plain` when it is one whole delivery that asks for nothing."""

    plain: bool
    settled: bool
    message_format: int
    more: bool
    aborted: bool


# handle, delivery id and tag (None on a continuation), tail, where the payload begins. A bare tuple, for speed.
Head = tuple[int, int | None, bytes | None, Tail, int]

_MAX_TAG = (
    255  # bytes; the specification says 32 [AMQP 2.8.7], but it costs nothing to take what fits a vbin8
)
_MAX_TAILS = 256  # different ones remembered
_MAX_TAIL_SIZE = 32  # bytes of one remembered
_tails: dict[tuple[int, bytes], Tail] = {}


def read_transfer(data: bytes, at: int, end: int) -> Head:
    """The transfer whose list begins at `at`, right behind TRANSFER_START, in a frame up to `end`. Raises Malformed."""
    try:
        code = data[at]
        if code == 0xC0:
            count = data[at + 2]
            stop = at + 2 + data[at + 1]
            here = at + 3
        elif code == 0xD0:
            size, count = _LIST32.unpack_from(data, at + 1)
            stop = at + 5 + size
            here = at + 9
        else:
            return _read_any(data, at, end)
        if count < 3:  # a continuation may leave out id and tag
            return _read_any(data, at, end)

        code = data[here]
        if code == 0x52:
            handle = data[here + 1]
            here += 2
        elif code == 0x43:
            handle = 0
            here += 1
        else:
            return _read_any(data, at, end)

        code = data[here]
        if code == 0x70:
            delivery_id = _U32.unpack_from(data, here + 1)[0]
            here += 5
        elif code == 0x52:
            delivery_id = data[here + 1]
            here += 2
        elif code == 0x43:
            delivery_id = 0
            here += 1
        else:
            return _read_any(data, at, end)

        if data[here] != 0xA0:
            return _read_any(data, at, end)
        tag_at = here + 2
        here = tag_at + data[here + 1]
    except (IndexError, struct.error):
        raise Malformed("a transfer runs past its frame") from None
    if not here <= stop <= end:
        raise Malformed("a transfer runs past its frame")
    tail = _tails.get((count, data[here:stop]))
    if tail is None:
        tail = _read_tail(data, here, stop, count)
    return handle, delivery_id, data[tag_at:here], tail, stop


def _read_tail(data: bytes, at: int, stop: int, count: int) -> Tail:
    key = (count, data[at:stop])
    if count > 11:
        raise Malformed(f"a transfer of {count} fields")
    values = []
    for _ in range(count - 3):
        value, at = decode(data, at)
        values.append(value)
    if at != stop:
        raise Malformed("a transfer's fields do not fill its size")
    tail = _tail_of(from_list(Transfer, [UInt(0), UInt(0), b"", *values]))
    if len(key[1]) <= _MAX_TAIL_SIZE:
        if len(_tails) >= _MAX_TAILS:
            _tails.clear()  # a peer that makes up tails can slow down others for one decode each, no more
        _tails[key] = tail
    return tail


def _read_any(data: bytes, at: int, end: int) -> Head:
    fields, stop = decode(data, at)
    if stop > end:
        raise Malformed("a transfer runs past its frame")
    if not isinstance(fields, list):
        raise Malformed("a transfer that is not a list")
    return head_of(from_list(Transfer, fields), stop)


def head_of(transfer: Transfer, payload_at: int) -> Head:
    if len(transfer.delivery_tag or b"") > _MAX_TAG:
        raise Malformed(f"a delivery-tag of {len(transfer.delivery_tag or b'')} bytes")
    return transfer.handle, transfer.delivery_id, transfer.delivery_tag, _tail_of(transfer), payload_at


def _tail_of(transfer: Transfer) -> Tail:
    return Tail(
        plain=not (transfer.more or transfer.aborted),
        settled=bool(transfer.settled),
        message_format=transfer.message_format or 0,
        more=transfer.more,
        aborted=transfer.aborted,
    )


# --- Writing ------------------------------------------------------------------------------------------------

_SETTLED = {True: b"\x41", False: b"\x42"}
_MORE = {True: b"\x41", False: b"\x42"}
_REST = b"\x40\x40\x42\x42\x42"  # rcv-settle-mode and state null; resume, aborted and batchable false


class TransferTemplate:
    """A link's single-frame transfers of message format 0, whose tag is the delivery id: all but that id is ready."""

    def __init__(self, *, channel: int, handle: int, settled: bool) -> None:
        handle_field = encode(UInt(handle))
        tail = b"\x43" + _SETTLED[settled] + _MORE[False] + _REST
        fields = len(handle_field) + 5 + 6 + len(tail)
        start = struct.pack(">BBH", 2, AMQP, channel) + TRANSFER_START
        start += bytes((0xC0, fields + 1, 11)) + handle_field + b"\x70"
        self._start, self._tail = start, tail
        self._layout = struct.Struct(f">I{len(start)}sI2sI{len(tail)}s")
        self.size = self._layout.size  # bytes of a frame before the message

    def frames(self, first_id: int, messages: Sequence[bytes]) -> list[bytes]:
        """The frames of `messages`, ids from `first_id` on and below 2**32, in pieces to be joined."""
        pack, size, start, tail = self._layout.pack, self.size, self._start, self._tail
        pieces = []
        for delivery_id, message in enumerate(messages, first_id):
            pieces.append(pack(size + len(message), start, delivery_id, b"\xa0\x04", delivery_id, tail))
            pieces.append(message)
        return pieces


def encode_delivery(
    *,
    channel: int,
    handle: int,
    delivery_id: int,
    tag: bytes,
    message_format: int,
    settled: bool,
    message: bytes,
    max_frame_size: int,
) -> Iterator[bytes]:
    """The frames of one delivery, as many as `max_frame_size` asks for. Each repeats id and tag: no client minds."""
    head = [
        encode(UInt(handle)),
        encode(UInt(delivery_id)),
        encode(tag),
        encode(UInt(message_format)),
        _SETTLED[settled],
    ]
    rest = [_REST[at : at + 1] for at in range(len(_REST))]
    partial, final = (TRANSFER_START + encode_list([*head, _MORE[more], *rest]) for more in (True, False))
    room = max_frame_size - FRAME_HEADER_SIZE - len(final)
    at = 0
    while len(message) - at > room:
        yield encode_frame(partial + message[at : at + room], channel=channel)
        at += room
    yield encode_frame(final + message[at:], channel=channel)
