from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import performatives
from moorage.wire.amqp.performatives import (
    ACCEPTED,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Mechanisms,
    Modified,
    Open,
    Rejected,
    SaslResult,
    Source,
    Target,
    Transfer,
    decode_composite,
    encode_composite,
)
from moorage.wire.amqp.types import Array, Described, Int, Symbol, UInt, ULong, decode_only, encode
from moorage.wire.errors import Malformed

WINDOWS: dict[str, Any] = {"next_outgoing_id": 1, "incoming_window": 5000, "outgoing_window": 0xFFFFFFFF}

WRITTEN: list[tuple[Any, str]] = [
    (
        Open(container_id="c", hostname="h", max_frame_size=65536, channel_max=8191, idle_time_out=240_000),
        "00 53 10 c0 19 0a a1 01 63 a1 01 68 70 00010000 60 1fff 70 0003a980 40 40 40 40 40",
    ),
    (
        Begin(remote_channel=0, **WINDOWS, handle_max=255),
        "00 53 11 c0 15 08 60 0000 52 01 70 00001388 70 ffffffff 52 ff 40 40 40",
    ),
    (
        Flow(next_incoming_id=0, **WINDOWS, handle=1, delivery_count=0, link_credit=100),
        "00 53 13 c0 17 0b 43 70 00001388 52 01 70 ffffffff 52 01 43 52 64 40 42 42 40",
    ),
    (
        Disposition(role=True, first=0, last=0, settled=True, state=ACCEPTED),
        "00 53 15 c0 0c 06 41 43 43 41 00 53 24 c0 01 00 42",
    ),
    (Detach(handle=0, closed=True), "00 53 16 c0 04 03 43 41 40"),
    (End(), "00 53 17 c0 02 01 40"),
    (Close(error=Error("a:b")), "00 53 18 c0 0e 01 00 53 1d c0 08 03 a3 03 613a62 40 40"),
    (Mechanisms(mechanisms=("ANONYMOUS",)), "00 53 40 c0 12 01 e0 0f 01 b3 00000009 414e4f4e594d4f5553"),
    (SaslResult(code=0, additional_data=b"hi"), "00 53 44 c0 07 02 50 00 a0 02 6869"),
]


def read(data: bytes) -> Any:
    composite, end = decode_composite(data, 0, len(data))
    assert end == len(data)
    return composite


@pytest.mark.parametrize(("performative", "wire"), WRITTEN)
def test_literal_bytes(performative: Any, wire: str) -> None:
    data = bytes.fromhex(wire)
    assert encode_composite(performative) == data
    assert read(data) == performative


COUNTS = {
    Open: 10,
    Begin: 8,
    Attach: 14,
    Flow: 11,
    Transfer: 11,
    Disposition: 6,
    Detach: 3,
    End: 1,
    Close: 1,
    Error: 3,
}


@pytest.mark.parametrize(("kind", "count"), COUNTS.items())
def test_every_field_is_written_nulls_at_the_end_included(kind: type, count: int) -> None:
    values: dict[str, Any] = {"name": "n", "container_id": "c", "condition": "c", "role": True}
    required = {
        field.name: values.get(field.name, 0)
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
    }
    described = decode_only(encode_composite(kind(**required)))
    assert len(described.value) == count


def test_an_attach_echoes_its_termini_whole() -> None:
    selector = Described(Symbol("apache.org:selector-filter:string"), "amqp.annotation.x-opt-offset > '-1'")
    attach = Attach(
        name="l",
        handle=300,
        role=True,
        snd_settle_mode=1,
        rcv_settle_mode=1,
        source=Source(
            "/events",
            filter={"apache.org:selector-filter:string": selector},
            default_outcome=Modified(delivery_failed=True),
            outcomes=("amqp:accepted:list", "amqp:rejected:list"),
        ),
        target=Target("t", capabilities=("queue",)),
        initial_delivery_count=0,
        max_message_size=1 << 40,
        properties={"com.microsoft:epoch": ULong(1)},
    )
    assert read(encode_composite(attach)) == attach


def test_a_transaction_coordinator_is_kept_as_it_is() -> None:
    coordinator = Described(ULong(0x30), [None])
    attach = Attach(name="l", handle=0, role=False, target=coordinator)
    assert read(encode_composite(attach)).target == coordinator


def test_symbolic_descriptors_and_long_ones_are_read() -> None:
    assert read(encode(Described(Symbol("amqp:end:list"), []))) == End()
    assert read(b"\x00\x80" + bytes(7) + b"\x17\x45") == End()


def test_fields_left_out_or_null_take_their_defaults() -> None:
    assert read(encode(Described(ULong(0x10), ["c"]))) == Open(container_id="c")
    assert read(encode(Described(ULong(0x10), ["c", None, None]))) == Open(container_id="c")


@pytest.mark.parametrize("many", [Symbol("a"), Array(Symbol, (Symbol("a"),)), [Symbol("a")]])
def test_one_of_several_may_stand_alone(many: Any) -> None:
    assert read(encode(Described(ULong(0x40), [many]))) == Mechanisms(mechanisms=("a",))


def test_the_width_of_a_number_does_not_matter() -> None:
    fields = [Int(0), Int(5000), ULong(1), UInt(7)]
    assert read(encode(Described(ULong(0x13), fields))).incoming_window == 5000


BROKEN: dict[str, Any] = {
    "no container-id": Described(ULong(0x10), []),
    "container-id null": Described(ULong(0x10), [None]),
    "container-id a number": Described(ULong(0x10), [UInt(1)]),
    "too many fields": Described(ULong(0x17), [None, None]),
    "not a list": Described(ULong(0x17), {}),
    "a negative window": Described(ULong(0x13), [UInt(0), Int(-1), UInt(0), UInt(0)]),
    "a boolean for a number": Described(ULong(0x16), [True]),
    "a number for a boolean": Described(ULong(0x16), [UInt(0), UInt(1)]),
    "an error that is an outcome": Described(ULong(0x17), [Described(ULong(0x24), [])]),
    "a state that is an error": Described(
        ULong(0x15), [True, UInt(0), None, True, Described(ULong(0x1D), [Symbol("c")])]
    ),
    "an error without condition": Described(ULong(0x17), [Described(ULong(0x1D), [])]),
    "a source that is a target": Described(
        ULong(0x12), ["n", UInt(0), True, None, None, Described(ULong(0x29), [])]
    ),
    "a map that is a list": Described(ULong(0x10), ["c", *[None] * 8, []]),
    "no performative": Described(ULong(0x7F), []),
    "a performative of another kind of descriptor": Described(UInt(0x17), []),
    "not described": [],
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_broken_performatives_are_malformed(value: Any) -> None:
    data = encode(value)
    with pytest.raises(Malformed):
        decode_composite(data, 0, len(data))


def test_a_performative_that_runs_past_its_frame_is_malformed() -> None:
    data = encode_composite(End())
    with pytest.raises(Malformed, match="past its frame"):
        decode_composite(data, 0, len(data) - 1)


errors = st.builds(
    Error, st.sampled_from(["amqp:not-found", "x"]), st.none() | st.text(), st.none() | st.just({"k": "v"})
)


def test_an_outcome_in_a_disposition_comes_back() -> None:
    for state in (
        ACCEPTED,
        Rejected(Error("c", "d", {"k": UInt(1)})),
        Rejected(),
        performatives.RELEASED,
        Modified(),
    ):
        sent = Disposition(role=False, first=1, last=2, state=state)
        assert read(encode_composite(sent)) == sent


@given(errors)
def test_errors_come_back(error: Error) -> None:
    assert read(encode_composite(Close(error=error))) == Close(error=error)


@given(
    st.builds(
        Flow,
        **{f.name: st.integers(0, 0xFFFFFFFF) for f in dataclasses.fields(Flow)[:8]},
        drain=st.booleans(),
    )
)
def test_flows_come_back(flow: Flow) -> None:
    assert read(encode_composite(flow)) == flow
