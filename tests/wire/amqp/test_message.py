from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import AmqpSequence, AmqpValue, Data, Header, Message, Properties
from moorage.wire.amqp.types import Array, Described, Int, Long, Symbol, Timestamp, ULong, encode
from moorage.wire.errors import Malformed
from tests.wire.amqp.values import anything, same, scalars

ids = st.one_of(
    st.text(max_size=40), st.uuids(), st.integers(0, (1 << 64) - 1).map(ULong), st.binary(max_size=40)
)
milliseconds = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.none() | st.text(max_size=40)
annotation_maps: st.SearchStrategy[dict[Symbol, Any] | None] = st.none() | st.dictionaries(
    st.text(st.characters(codec="ascii"), max_size=9).map(Symbol), anything, max_size=3
)
properties = st.builds(
    Properties,
    message_id=st.none() | ids,
    user_id=st.none() | st.binary(max_size=40),
    to=texts,
    subject=texts,
    correlation_id=st.none() | ids,
    content_type=st.none() | st.text(st.characters(codec="ascii")),
    absolute_expiry_time=st.none() | milliseconds,
    creation_time=st.none() | milliseconds,
    group_sequence=st.none() | st.integers(0, 0xFFFFFFFF),
)
bodies = st.one_of(
    st.none(),
    st.lists(st.binary(max_size=300), min_size=1, max_size=3).map(lambda parts: Data(tuple(parts))),
    anything.map(AmqpValue),
    st.lists(st.lists(scalars, max_size=3), min_size=1, max_size=3).map(
        lambda lists: AmqpSequence(tuple(lists))
    ),
)
messages = st.builds(
    Message,
    header=st.none() | st.builds(Header, durable=st.booleans(), ttl=st.none() | st.integers(0, 0xFFFFFFFF)),
    delivery_annotations=annotation_maps,
    message_annotations=annotation_maps,
    properties=st.none() | properties,
    application_properties=st.none() | st.dictionaries(st.text(max_size=9), scalars, max_size=3),
    body=bodies,
    footer=annotation_maps,
)


@given(messages)
def test_a_message_comes_back_with_all_its_types(message: Message) -> None:
    again = Message.decode(message.encode())
    for name in ("delivery_annotations", "message_annotations", "application_properties", "footer"):
        assert same(getattr(again, name), getattr(message, name))
    assert again.header == message.header
    assert again.properties == message.properties
    assert type(again.body) is type(message.body)
    if isinstance(message.body, AmqpValue) and isinstance(again.body, AmqpValue):
        assert same(again.body.value, message.body.value)
    else:
        assert again.payload == message.payload


def test_a_message_of_data_is_these_bytes() -> None:
    message = Message(
        message_annotations={"x-opt-sequence-number": Long(7), "x-opt-enqueued-time": Timestamp(1)},
        application_properties={"p": "v"},
        body=Data.of(b"{}"),
    )
    assert message.encode() == (
        b"\x00\x53\x72\xc1\x38\x04\xa3\x15x-opt-sequence-number\x55\x07\xa3\x13x-opt-enqueued-time\x83"
        + bytes(7)
        + b"\x01"
        b"\x00\x53\x74\xc1\x07\x02\xa1\x01p\xa1\x01v"
        b"\x00\x53\x75\xa0\x02{}"
    )


@pytest.mark.parametrize("message_id", ["m", UUID(int=5), ULong(0), ULong(7), b"\x01", Int(3)])
def test_a_reply_echoes_value_and_type_of_the_message_id(message_id: Any) -> None:
    request = Message.decode(Message(properties=Properties(message_id=message_id)).encode())
    assert request.properties is not None
    reply = Message.decode(
        Message(properties=Properties(correlation_id=request.properties.message_id)).encode()
    )
    assert reply.properties is not None
    assert same(reply.properties.correlation_id, message_id)


def test_all_thirteen_properties_are_written() -> None:
    assert Message(properties=Properties()).encode() == b"\x00\x53\x73\xc0\x0e\x0d" + b"\x40" * 13


def test_the_payload_is_all_data_sections() -> None:
    assert Message(body=Data((b"a", b"", b"b"))).payload == b"ab"
    assert Message(body=AmqpValue("a")).payload == b""
    assert Message.decode(b"") == Message()


def test_an_empty_data_section_stays() -> None:
    assert Message.decode(Message(body=Data.of(b"")).encode()).body == Data((b"",))


def test_delivery_annotations_may_come_last() -> None:
    body, annotations = Message(body=Data.of(b"x")), Message(delivery_annotations={"a": "b"})
    decoded = Message.decode(body.encode() + annotations.encode())
    assert decoded == Message(delivery_annotations={Symbol("a"): "b"}, body=Data.of(b"x"))


def test_sections_named_by_symbol_or_by_a_long_number_are_read() -> None:
    assert Message.decode(encode(Described(Symbol("amqp:data:binary"), b"x"))).payload == b"x"
    assert Message.decode(b"\x00\x80" + bytes(7) + b"\x75\xa0\x01x").payload == b"x"


BROKEN: dict[str, bytes] = {
    "not a section": encode("text"),
    "no such section": encode(Described(ULong(0x79), b"")),
    "a descriptor of no meaning": encode(Described("amqp:data:binary", b"")),
    "data that is text": encode(Described(ULong(0x75), "x")),
    "a sequence that is a map": encode(Described(ULong(0x76), {})),
    "properties that are a map": encode(Described(ULong(0x73), {})),
    "annotations that are a list": encode(Described(ULong(0x72), [])),
    "properties twice": Message(properties=Properties()).encode() * 2,
    "two values": Message(body=AmqpValue(None)).encode() * 2,
    "data and a value": Message(body=Data.of(b"")).encode() + Message(body=AmqpValue("x")).encode(),
    "a message id that is a list": encode(Described(ULong(0x73), [[]])),
    "an expiry that is a number": encode(Described(ULong(0x73), [*[None] * 8, Long(1)])),
    "cut short": Message(body=Data.of(b"abc")).encode()[:-1],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_messages_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Message.decode(data)


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_malformed(message: Message, choice: st.DataObject) -> None:
    data = bytearray(message.encode() or b"\x00")
    data[choice.draw(st.integers(0, len(data) - 1))] = choice.draw(st.integers(0, 255))
    try:
        decoded = Message.decode(bytes(data))
    except Malformed:
        return
    assert isinstance(decoded, Message)


def test_a_map_section_that_is_null_counts_as_absent() -> None:
    assert Message.decode(encode(Described(ULong(0x72), None))) == Message()


def test_plain_numbers_are_refused_and_arrays_are_not() -> None:
    with pytest.raises(TypeError, match="Int\\(200\\)"):
        Message(application_properties={"status-code": 200}).encode()
    body = AmqpValue({"partition_ids": Array(str, ("0", "1"))})
    assert Message.decode(Message(body=body).encode()).body == body
