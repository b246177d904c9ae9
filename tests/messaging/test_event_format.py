"""A stored event, decoded again: by the engine's own decoder for the types, by Microsoft's for what programs see."""

from __future__ import annotations

from typing import Any

import pytest
from azure.eventhub._pyamqp._decode import decode_payload
from hypothesis import example, given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.interfaces import EventHead
from moorage.messaging.event_format import MESSAGE_START, EventTemplate, stamp
from moorage.wire.amqp.message import Message
from moorage.wire.amqp.types import Long, Symbol, Timestamp

TIME = 1_777_717_230_123_000
STAMPED = {
    "x-opt-sequence-number",
    "x-opt-enqueued-time",
    "iothub-enqueuedtime",
    "x-opt-offset",
    "x-opt-partition-key",
}

text = st.text(max_size=300)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
maybe = st.none() | text
heads = st.builds(
    EventHead,
    scope=st.just(1),
    partition=st.just(0),
    partition_key=text,
    annotations=st.lists(
        st.tuples(names.filter(lambda name: name not in STAMPED), text),
        max_size=8,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    application_properties=st.lists(st.tuples(text, maybe), max_size=8, unique_by=lambda pair: pair[0]).map(
        tuple
    ),
    message_id=maybe,
    user_id=maybe,
    to=maybe,
    correlation_id=maybe,
    content_type=st.none() | names,
    content_encoding=st.none() | names,
    absolute_expiry_time=st.none() | st.integers(-(10**15), 10**17),
)
PLAIN = EventHead(scope=1, partition=0, partition_key="pump", annotations=())


def message(head: EventHead, *, sequence: int = 17, offset: int = 4_311_810_304, body: bytes = b"") -> bytes:
    return EventTemplate(head).message(sequence, stamp(TIME), offset, body)


@given(
    head=heads,
    sequence=st.integers(0, 2**63 - 1),
    offset=st.integers(0, 2**63 - 1),
    body=st.binary(max_size=600),
)
@example(head=PLAIN, sequence=0, offset=0, body=b"x" * 255)
@example(head=PLAIN, sequence=0, offset=0, body=b"x" * 256)
@example(head=PLAIN, sequence=0, offset=0, body=b"x" * 262_144)
def test_every_part_comes_back_with_its_type(
    head: EventHead, sequence: int, offset: int, body: bytes
) -> None:
    decoded = Message.decode(message(head, sequence=sequence, offset=offset, body=body))
    stamped: list[tuple[str, Any]] = [
        ("x-opt-sequence-number", Long(sequence)),
        ("x-opt-enqueued-time", Timestamp(TIME // 1000)),
        ("iothub-enqueuedtime", Timestamp(TIME // 1000)),
        ("x-opt-offset", str(offset)),
        ("x-opt-partition-key", head.partition_key),
    ]
    assert decoded.message_annotations is not None
    assert decoded.message_annotations == {**dict(stamped), **dict(head.annotations)}
    for name, value in stamped[:4]:
        assert type(decoded.message_annotations[name]) is type(value)
    assert {type(name) for name in decoded.message_annotations} == {Symbol}
    assert dict(decoded.application_properties or {}) == dict(head.application_properties)
    assert decoded.payload == body
    properties = decoded.properties
    expected = (head.message_id, head.to, head.correlation_id, head.content_type, head.content_encoding)
    if properties is None:
        assert {*expected, head.user_id, head.absolute_expiry_time} == {None}
        return
    found = (
        properties.message_id,
        properties.to,
        properties.correlation_id,
        properties.content_type,
        properties.content_encoding,
    )
    assert found == expected
    assert properties.user_id == (None if head.user_id is None else head.user_id.encode())
    if head.absolute_expiry_time is not None:
        assert properties.absolute_expiry_time == head.absolute_expiry_time // 1000


@given(head=heads, body=st.binary(max_size=300))
def test_microsofts_decoder_reads_it(head: EventHead, body: bytes) -> None:
    decoded: Any = decode_payload(memoryview(message(head, body=body)))
    assert decoded.message_annotations[b"x-opt-sequence-number"] == 17
    assert decoded.message_annotations[b"x-opt-offset"] == b"4311810304"
    assert decoded.message_annotations[b"x-opt-enqueued-time"] == TIME // 1000
    for name, value in head.annotations:
        assert decoded.message_annotations[name.encode()] == value.encode()
    if head.application_properties:
        assert decoded.application_properties == {
            name.encode(): value if value is None else value.encode()
            for name, value in head.application_properties
        }
    if head.content_type is not None:
        assert decoded.properties.content_type == head.content_type.encode()
    if head.user_id is not None:
        assert decoded.properties.user_id == head.user_id.encode()
    assert decoded.data == [body]


def test_what_is_not_set_leaves_no_section() -> None:
    decoded = Message.decode(message(PLAIN, body=b"8.5"))
    assert decoded.properties is None
    assert decoded.application_properties is None


def test_an_empty_payload_is_an_empty_data_section() -> None:
    assert message(PLAIN).endswith(b"\x00\x53\x75\xa0\x00")


def test_a_property_without_value_is_null() -> None:
    head = EventHead(
        scope=1, partition=0, partition_key="pump", annotations=(), application_properties=(("alarm", None),)
    )
    assert Message.decode(message(head)).application_properties == {"alarm": None}


def test_of_properties_with_one_name_the_last_counts() -> None:
    head = EventHead(
        scope=1,
        partition=0,
        partition_key="pump",
        annotations=(),
        application_properties=(("unit", "bar"), ("level", "3"), ("unit", "psi")),
    )
    assert Message.decode(message(head)).application_properties == {"unit": "psi", "level": "3"}


def test_a_content_type_outside_ascii_fits_its_symbol() -> None:
    head = EventHead(scope=1, partition=0, partition_key="pump", annotations=(), content_type="text/plän")
    properties = Message.decode(message(head)).properties
    assert properties is not None
    assert properties.content_type == "text/pl?n"


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(Invalid, match="not Unicode"):
        EventTemplate(
            EventHead(scope=1, partition=0, partition_key="pump", annotations=(), message_id="\ud800")
        )


def test_it_begins_as_recovery_expects() -> None:
    assert message(PLAIN).startswith(MESSAGE_START)
