from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import transfer
from moorage.wire.amqp.performatives import ACCEPTED, Transfer, decode_composite, encode_composite
from moorage.wire.amqp.transfer import (
    TRANSFER_START,
    TransferTemplate,
    encode_delivery,
    head_of,
    read_transfer,
)
from moorage.wire.amqp.types import Described, UInt, ULong, decode, encode
from moorage.wire.errors import Malformed

uints = st.integers(0, 0xFFFFFFFF)
small_and_large = st.sampled_from([0, 1, 255, 256, 65_536, 0xFFFFFFFF]) | uints
transfers = st.builds(
    Transfer,
    handle=small_and_large,
    delivery_id=st.none() | small_and_large,
    delivery_tag=st.none() | st.binary(max_size=32),
    message_format=st.none() | st.sampled_from([0, 0x80013700]),
    settled=st.none() | st.booleans(),
    more=st.booleans(),
    rcv_settle_mode=st.none() | st.integers(0, 1),
    state=st.none() | st.just(ACCEPTED),
    resume=st.booleans(),
    aborted=st.booleans(),
    batchable=st.booleans(),
)


@given(transfers, st.binary(max_size=20), st.integers(0, 9))
def test_reading_by_hand_agrees_with_the_general_codec(sent: Transfer, payload: bytes, lead: int) -> None:
    data = bytes(lead) + encode_composite(sent) + payload
    expected = head_of(*decode_composite(data, lead, len(data)))
    for _ in range(2):  # the second time the tail is remembered
        assert read_transfer(data, lead + 3, len(data)) == expected
    assert data[expected[4] :] == payload


@given(transfers, st.integers(1, 11))
def test_fields_may_be_left_out_at_the_end(sent: Transfer, count: int) -> None:
    described = encode_composite(sent)
    fields, _ = decode(described, 3)
    data = TRANSFER_START + encode(fields[:count])
    general, end = decode_composite(data, 0, len(data))
    assert read_transfer(data, 3, len(data)) == head_of(general, end)


@given(transfers, st.data())
def test_damage_is_malformed_or_read_the_same_by_both(sent: Transfer, choice: st.DataObject) -> None:
    data = bytearray(encode_composite(sent))
    data[choice.draw(st.integers(3, len(data) - 1))] = choice.draw(st.integers(0, 255))
    damaged = bytes(data)
    try:
        head = read_transfer(damaged, 3, len(damaged))
    except Malformed:
        return
    assert head == head_of(*decode_composite(damaged, 0, len(damaged)))


@given(transfers, st.data())
def test_a_transfer_cut_short_is_malformed(sent: Transfer, choice: st.DataObject) -> None:
    data = encode_composite(sent)
    cut = choice.draw(st.integers(3, len(data) - 1))
    with pytest.raises(Malformed):
        read_transfer(data[:cut], 3, cut)
    with pytest.raises(Malformed):  # by its frame, more data behind it
        read_transfer(data, 3, cut)


def test_tails_remembered_are_bounded() -> None:
    for message_format in range(transfer._MAX_TAILS + 10):
        data = encode_composite(
            Transfer(handle=0, delivery_id=0, delivery_tag=b"", message_format=1 << 20 | message_format)
        )
        assert read_transfer(data, 3, len(data))[3].message_format == 1 << 20 | message_format
    assert len(transfer._tails) <= transfer._MAX_TAILS


def test_an_oversized_tag_is_malformed() -> None:
    data = encode_composite(Transfer(handle=0, delivery_id=0, delivery_tag=bytes(256)))
    with pytest.raises(Malformed, match="delivery-tag"):
        read_transfer(data, 3, len(data))


def test_what_is_no_list_is_malformed() -> None:
    data = encode(Described(ULong(0x14), {UInt(0): UInt(0)}))
    with pytest.raises(Malformed, match="not a list"):
        read_transfer(data, 3, len(data))


def test_a_transfer_from_the_template_is_these_bytes() -> None:
    template = TransferTemplate(channel=3, handle=1, settled=True)
    frame = b"".join(template.frames(7, [b"m"]))
    assert frame == bytes.fromhex(
        "00000024 02 00 0003 00 53 14 c0 16 0b 52 01 70 00000007 a0 04 00000007 43 41 42 40 40 42 42 42 6d"
    )


@given(
    channel=st.integers(0, 0xFFFF),
    handle=small_and_large,
    settled=st.booleans(),
    first=st.integers(0, 0xFFFFFF00),
    messages=st.lists(st.binary(max_size=50), min_size=1, max_size=5),
)
def test_the_template_writes_what_the_general_writer_writes(
    channel: int, handle: int, settled: bool, first: int, messages: list[bytes]
) -> None:
    template = TransferTemplate(channel=channel, handle=handle, settled=settled)
    pieces = template.frames(first, messages)
    at = 0
    data = b"".join(pieces)
    for delivery_id, message in enumerate(messages, first):
        size = int.from_bytes(data[at : at + 4], "big")
        assert data[at + 4 : at + 8] == b"\x02\x00" + channel.to_bytes(2, "big")
        performative, payload = decode_composite(data, at + 8, at + size)
        assert performative == Transfer(
            handle=handle,
            delivery_id=delivery_id,
            delivery_tag=delivery_id.to_bytes(4, "big"),
            message_format=0,
            settled=settled,
        )
        assert data[payload : at + size] == message
        at += size
    assert at == len(data)
    assert template.size + sum(map(len, messages[:1])) == int.from_bytes(data[:4], "big")


@given(
    message=st.binary(max_size=2000),
    max_frame_size=st.integers(512, 1000),
    tag=st.binary(max_size=32),
    settled=st.booleans(),
    handle=small_and_large,
)
def test_a_delivery_is_cut_to_the_frame_size(
    message: bytes, max_frame_size: int, tag: bytes, settled: bool, handle: int
) -> None:
    frames = list(
        encode_delivery(
            channel=1,
            handle=handle,
            delivery_id=9,
            tag=tag,
            message_format=5,
            settled=settled,
            message=message,
            max_frame_size=max_frame_size,
        )
    )
    received = b""
    for number, frame in enumerate(frames, 1):
        assert int.from_bytes(frame[:4], "big") == len(frame) <= max_frame_size
        got_handle, delivery_id, got_tag, tail, payload = read_transfer(frame, 11, len(frame))
        assert (got_handle, delivery_id, got_tag) == (handle, 9, tag)
        assert (tail.settled, tail.message_format, tail.more) == (settled, 5, number < len(frames))
        received += frame[payload:]
    assert received == message
