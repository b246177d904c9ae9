"""Cross-check with the codec inside azure-eventhub: what we encode it decodes by position, and the other way round."""

from __future__ import annotations

import dataclasses
import math
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import (
    ACCEPTED,
    RELEASED,
    AmqpSequence,
    AmqpValue,
    Data,
    DeliveryReceived,
    Error,
    Header,
    Message,
    Modified,
    Properties,
    Rejected,
    Source,
    Target,
    frames,
)
from moorage.wire.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Mechanisms,
    Open,
    SaslResult,
    Transfer,
    decode_composite,
    encode_composite,
)
from moorage.wire.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    Described,
    Float,
    Int,
    Long,
    NullType,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode_only,
    encode,
)
from tests.wire.amqp.joined import Joined
from tests.wire.amqp.values import SCALARS, keys, same

_PACKAGE = "azure.eventhub._pyamqp"
azure_encode = import_module(f"{_PACKAGE}._encode")
azure_decode = import_module(f"{_PACKAGE}._decode")
azure_types = import_module(f"{_PACKAGE}.types")
azure_message = import_module(f"{_PACKAGE}.message")
azure_endpoints = import_module(f"{_PACKAGE}.endpoints")
azure_outcomes = import_module(f"{_PACKAGE}.outcomes")
azure_errors = import_module(f"{_PACKAGE}.error")
azure_performatives = import_module(f"{_PACKAGE}.performatives")

UNKNOWN_TO_AZURE = {Char, Decimal32, Decimal64, Decimal128}
scalars = st.one_of(*(values for kind, values in SCALARS.items() if kind not in UNKNOWN_TO_AZURE))
# It expects an empty array to have no constructor, against the specification: we send none that are empty.
arrays = st.sampled_from([kind for kind in SCALARS if kind not in UNKNOWN_TO_AZURE | {NullType}]).flatmap(
    lambda kind: st.lists(SCALARS[kind], min_size=1, max_size=20).map(
        lambda values: Array(kind, tuple(values))
    )
)
values = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


def in_azure(value: Any) -> Any:
    """How azure-eventhub shows a value: text as bytes, arrays as lists, described values without descriptor."""
    match value:
        case None | bool() | UUID() | bytes():
            return value
        case str():
            return value.encode()
        case int():
            return int(value)
        case float():
            return "nan" if math.isnan(value) else float(value)
        case list():
            return [in_azure(each) for each in value]
        case dict():
            return {in_azure(key): in_azure(each) for key, each in value.items()}
        case Array():
            return [in_azure(each) for each in value.values]
        case Described():
            return in_azure(value.value)
    raise TypeError(value)


def plain(value: Any) -> Any:
    """A decoded value of theirs with its NaNs made comparable."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def azure_value(data: bytes) -> Any:
    rest, value = azure_decode._DECODE_BY_CONSTRUCTOR[data[0]](memoryview(data)[1:])
    assert len(rest) == 0
    return plain(value)


# --- What we encode ----------------------------------------------------------------------------------------


@given(values)
def test_it_decodes_every_value_of_ours(value: Any) -> None:
    assert azure_value(encode(value)) == in_azure(value)


def azure_fields(performative: Any) -> list[Any]:
    """The fields by position; Transfer has the payload behind them."""
    code, fields = azure_decode.decode_frame(memoryview(encode_composite(performative)))
    assert code == performative.CODE
    return list(fields)


ERROR = Error("amqp:not-found", "no", {"k": UInt(1)})
AZURE_ERROR = [b"amqp:not-found", b"no", {b"k": 1}]


def test_it_finds_all_fields_of_open_and_begin() -> None:
    sent = Open(
        container_id="c",
        hostname="h",
        max_frame_size=65_536,
        channel_max=7,
        idle_time_out=9,
        properties={"p": "v"},
    )
    assert azure_fields(sent) == [b"c", b"h", 65_536, 7, 9, None, None, None, None, {b"p": b"v"}]
    assert azure_fields(Open(container_id="c")) == [b"c", None, 0xFFFFFFFF, 0xFFFF, *[None] * 6]
    assert azure_fields(
        Begin(remote_channel=1, next_outgoing_id=2, incoming_window=3, outgoing_window=4)
    ) == [
        *[1, 2, 3, 4, 0xFFFFFFFF],
        *[None] * 3,
    ]


def test_it_finds_source_and_target_of_an_attach() -> None:
    source = Source("s", filter={"f": Described(Symbol("f"), "x > '1'")}, outcomes=("amqp:accepted:list",))
    sent = Attach(
        name="n",
        handle=3,
        role=True,
        source=source,
        target=Target("t"),
        initial_delivery_count=0,
        max_message_size=1 << 20,
        properties={"p": ULong(1)},
    )
    fields = azure_fields(sent)
    assert len(fields) == 14
    assert fields[:5] == [b"n", 3, True, 2, 0]
    assert fields[5] == [
        b"s",
        0,
        b"session-end",
        0,
        False,
        None,
        None,
        {b"f": b"x > '1'"},
        None,
        [b"amqp:accepted:list"],
        None,
    ]
    assert fields[6] == [b"t", 0, b"session-end", 0, False, None, None]
    assert fields[7:] == [None, False, 0, 1 << 20, None, None, {b"p": 1}]
    assert azure_endpoints.Source(*fields[5]).address == b"s"
    assert azure_endpoints.Target(*fields[6]).address == b"t"


@given(st.builds(Flow, **{field.name: st.integers(0, 0xFFFFFFFF) for field in dataclasses.fields(Flow)[:8]}))
def test_it_finds_all_fields_of_a_flow(flow: Flow) -> None:
    expected = [getattr(flow, field.name) for field in dataclasses.fields(Flow)]
    assert azure_fields(flow) == expected
    assert len(expected) == 11


@pytest.mark.parametrize(
    ("state", "theirs"),
    [
        (None, None),
        (ACCEPTED, {"accepted": []}),
        (RELEASED, {"released": []}),
        (Rejected(ERROR), {"rejected": [AZURE_ERROR]}),
        (Modified(True, False), {"modified": [True, False, None]}),
    ],
)
def test_it_finds_the_outcome_of_a_disposition(state: Any, theirs: Any) -> None:
    sent = Disposition(role=True, first=1, last=1, settled=True, state=state)
    assert azure_fields(sent) == [True, 1, 1, True, theirs, False]


def test_it_finds_the_error_of_detach_end_and_close() -> None:
    assert azure_fields(Detach(handle=1, closed=True, error=ERROR)) == [1, True, AZURE_ERROR]
    assert azure_fields(End(error=ERROR)) == azure_fields(Close(error=ERROR)) == [AZURE_ERROR]
    assert azure_fields(Close()) == azure_fields(End()) == [None]
    assert azure_fields(Close(error=Error("x"))) == [[b"x", None, None]]


def test_it_finds_its_mechanism_and_the_verdict() -> None:
    assert azure_fields(Mechanisms(mechanisms=("PLAIN",))) == [[b"PLAIN"]]
    assert azure_fields(SaslResult(code=1, additional_data=b"x")) == [1, b"x"]


@given(messages=st.lists(st.binary(max_size=50), min_size=1, max_size=4), settled=st.booleans())
def test_it_finds_all_fields_of_transfers_sent_in_bulk(messages: list[bytes], settled: bool) -> None:
    joined = Joined().open()
    _, theirs = joined.receiver()
    joined.server.take_output()
    theirs.send_many(messages, settled=settled)
    output = joined.server.take_output()
    for delivery_id, message in enumerate(messages):
        size = int.from_bytes(output[:4], "big")
        code, fields = azure_decode.decode_frame(memoryview(output)[8:size])
        assert code == Transfer.CODE
        tag = delivery_id.to_bytes(4, "big")
        assert fields == [
            theirs.handle,
            delivery_id,
            tag,
            0,
            settled,
            False,
            None,
            None,
            False,
            False,
            False,
            message,
        ]
        output = output[size:]
    assert output == b""


def test_it_decodes_a_message_of_ours() -> None:
    message = Message(
        header=Header(durable=True, priority=5, ttl=6),
        delivery_annotations={"last_enqueued_offset": "1"},
        message_annotations={"x-opt-sequence-number": Long(7), "x-opt-enqueued-time": Timestamp(8)},
        properties=Properties(
            message_id=UUID(int=1), to="/t", content_type="application/json", creation_time=9
        ),
        application_properties={"a": "b", "none": None},
        body=Data((b"1", b"2")),
        footer={"f": True},
    )
    decoded = azure_decode.decode_payload(memoryview(message.encode()))
    assert decoded.header == azure_message.Header(True, 5, 6, False, 0)
    assert decoded.delivery_annotations == {b"last_enqueued_offset": b"1"}
    assert decoded.message_annotations == {b"x-opt-sequence-number": 7, b"x-opt-enqueued-time": 8}
    assert decoded.properties == azure_message.Properties(
        message_id=UUID(int=1), to=b"/t", content_type=b"application/json", creation_time=9
    )
    assert decoded.application_properties == {b"a": b"b", b"none": None}
    assert decoded.data == [b"1", b"2"]
    assert decoded.footer == {b"f": True}


def test_it_decodes_the_answer_about_an_event_hub() -> None:
    body = {"partition_count": Int(2), "partition_ids": Array(str, ("0", "1")), "created_at": Timestamp(0)}
    decoded = azure_decode.decode_payload(memoryview(Message(body=AmqpValue(body)).encode()))
    assert decoded.value == {b"partition_count": 2, b"partition_ids": [b"0", b"1"], b"created_at": 0}


# --- What it encodes ---------------------------------------------------------------------------------------

AMQP_NAMES: dict[type, str] = {
    bool: "BOOL",
    UByte: "UBYTE",
    Byte: "BYTE",
    UShort: "USHORT",
    Short: "SHORT",
    UInt: "UINT",
    Int: "INT",
    ULong: "ULONG",
    Long: "LONG",
    Float: "FLOAT",
    float: "DOUBLE",
    Timestamp: "TIMESTAMP",
    UUID: "UUID",
    bytes: "BINARY",
    str: "STRING",
    Symbol: "SYMBOL",
}
theirs_and_ours = st.sampled_from(list(AMQP_NAMES)).flatmap(
    lambda kind: SCALARS[kind].map(lambda value: ({"TYPE": AMQP_NAMES[kind], "VALUE": value}, value))
)


def by_azure(value: Any) -> bytes:
    output = bytearray()
    azure_encode.encode_value(output, value)
    return bytes(output)


@given(theirs_and_ours)
def test_we_decode_every_scalar_of_theirs(pair: tuple[Any, Any]) -> None:
    theirs, ours = pair
    assert same(decode_only(by_azure(theirs)), ours)


@given(st.lists(theirs_and_ours, max_size=30))
def test_we_decode_lists_and_maps_of_theirs(pairs: list[tuple[Any, Any]]) -> None:
    assert same(
        decode_only(by_azure({"TYPE": "LIST", "VALUE": [theirs for theirs, _ in pairs]})),
        [ours for _, ours in pairs],
    )
    items = [({"TYPE": "STRING", "VALUE": str(number)}, theirs) for number, (theirs, _) in enumerate(pairs)]
    expected = {str(number): ours for number, (_, ours) in enumerate(pairs)}
    assert same(decode_only(by_azure({"TYPE": "MAP", "VALUE": items})), expected)


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "b" * 300]])
def test_we_decode_arrays_of_theirs(texts: list[str]) -> None:
    array = decode_only(
        by_azure({"TYPE": "ARRAY", "VALUE": [{"TYPE": "SYMBOL", "VALUE": text} for text in texts]})
    )
    assert array.values == tuple(texts)


def by_azure_frame(performative: Any) -> Any:
    _, body = azure_encode.encode_frame(performative)
    composite, end = decode_composite(bytes(body), 0, len(body))
    return composite, bytes(body[end:])


def test_we_decode_performatives_of_theirs() -> None:
    theirs = azure_performatives
    assert by_azure_frame(
        theirs.OpenFrame("c", "h", 1024, 5, 60_000, None, None, None, None, {b"product": "p"})
    ) == (
        Open(
            container_id="c",
            hostname="h",
            max_frame_size=1024,
            channel_max=5,
            idle_time_out=60_000,
            properties={"product": "p"},
        ),
        b"",
    )
    assert by_azure_frame(theirs.BeginFrame(None, 0, 65_536, 65_536, 0xFFFFFFFF, None, None, None))[
        0
    ] == Begin(next_outgoing_id=0, incoming_window=65_536, outgoing_window=65_536)
    assert by_azure_frame(theirs.FlowFrame(1, 2, 3, 4, 5, 6, 7, None, True, True, None))[0] == Flow(
        next_incoming_id=1,
        incoming_window=2,
        next_outgoing_id=3,
        outgoing_window=4,
        handle=5,
        delivery_count=6,
        link_credit=7,
        drain=True,
        echo=True,
    )
    assert by_azure_frame(
        theirs.TransferFrame(3, 4, b"t", 0, True, False, None, None, None, None, None, b"payload")
    ) == (
        Transfer(handle=3, delivery_id=4, delivery_tag=b"t", message_format=0, settled=True),
        b"payload",
    )
    rejected = azure_outcomes.Rejected(
        error=azure_errors.AMQPError(condition=b"c", description="d", info=None)
    )
    assert by_azure_frame(theirs.DispositionFrame(True, 1, 2, True, rejected, None))[0] == Disposition(
        role=True, first=1, last=2, settled=True, state=Rejected(Error("c", "d"))
    )
    assert by_azure_frame(theirs.DetachFrame(1, True, None))[0] == Detach(handle=1, closed=True)
    assert by_azure_frame(theirs.EndFrame(None))[0] == End()
    assert by_azure_frame(theirs.CloseFrame(None))[0] == Close()


def test_we_decode_an_attach_of_theirs() -> None:
    name = b"apache.org:selector-filter:string"
    source = azure_endpoints.Source(
        address="a", filters={name: (name, "amqp.annotation.x-opt-offset > '-1'")}
    )
    target = azure_endpoints.Target(address="t")
    capabilities = [b"com.microsoft:enable-receiver-runtime-metric"]
    frame = azure_performatives.AttachFrame(
        "n",
        3,
        True,
        1,
        0,
        source,
        target,
        None,
        None,
        None,
        1 << 20,
        None,
        capabilities,
        {b"com.microsoft:epoch": 1},
    )
    attach, _ = by_azure_frame(frame)
    assert attach.name == "n"
    assert attach.desired_capabilities == ("com.microsoft:enable-receiver-runtime-metric",)
    assert attach.source.address == "a"
    selector = Described(Symbol(name.decode()), "amqp.annotation.x-opt-offset > '-1'")
    assert attach.source.filter == {name.decode(): selector}
    assert attach.target.address == "t"


@pytest.mark.parametrize("message_id", ["m", b"m", UUID(int=3), 7])
def test_we_decode_messages_of_theirs(message_id: Any) -> None:
    theirs = azure_message.Message(
        header=azure_message.Header(durable=True),
        delivery_annotations={b"d": "1"},
        message_annotations={b"x": 2},
        properties=azure_message.Properties(message_id=message_id, to="/t", content_type="text/plain"),
        application_properties={"operation": "put-token", "n": 1},
        data=[b"body", b""],
    )
    output = bytearray()
    azure_encode.encode_payload(output, theirs)
    message = Message.decode(bytes(output))
    assert message.header == Header(durable=True)
    assert message.delivery_annotations == {"d": "1"}
    assert message.message_annotations == {"x": 2}
    assert message.properties == Properties(message_id=message_id, to="/t", content_type="text/plain")
    assert isinstance(message.properties.message_id, ULong if message_id == 7 else type(message_id))
    assert message.application_properties == {"operation": "put-token", "n": 1}
    assert message.body == Data((b"body", b""))


@pytest.mark.parametrize(
    ("field", "body"),
    [({"value": b"token"}, AmqpValue(b"token")), ({"sequence": [[1, "a"]]}, AmqpSequence(([1, "a"],)))],
)
def test_we_decode_other_bodies_of_theirs(field: Any, body: Any) -> None:
    output = bytearray()
    azure_encode.encode_payload(output, azure_message.Message(**field))
    assert Message.decode(bytes(output)).body == body


def test_a_transfer_of_theirs_is_a_delivery() -> None:
    joined = Joined().open()
    _, into = joined.sender()
    header, body = azure_encode.encode_frame(
        azure_performatives.TransferFrame(
            into.remote.handle if into.remote else 0,
            0,
            b"\0\0\0\1",
            0,
            True,
            False,
            None,
            None,
            None,
            None,
            None,
            b"m",
        )
    )
    (event,) = joined.server.receive(bytes(header) + b"\x00\x00" + bytes(body))
    assert event == DeliveryReceived(into, 0, b"\0\0\0\1", b"m", True, 0)
    assert azure_encode.encode_frame(None)[0] + b"\x00\x00" == frames.HEARTBEAT
