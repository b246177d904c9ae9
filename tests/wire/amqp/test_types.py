from __future__ import annotations

import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import types
from moorage.wire.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal32,
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
    decode,
    decode_only,
    encode,
)
from moorage.wire.errors import Malformed
from tests.wire.amqp.values import anything, same

# Values and the one way in which they are written.
WRITTEN: list[tuple[Any, str]] = [
    (None, "40"),
    (True, "41"),
    (False, "42"),
    (UInt(0), "43"),
    (UInt(255), "52 ff"),
    (UInt(256), "70 00000100"),
    (ULong(0), "44"),
    (ULong(0x70), "53 70"),
    (ULong(0x468C00000004), "80 0000468c00000004"),
    (UByte(5), "50 05"),
    (UShort(5), "60 0005"),
    (Byte(-1), "51 ff"),
    (Short(-2), "61 fffe"),
    (Int(200), "71 000000c8"),
    (Int(-1), "54 ff"),
    (Int(127), "54 7f"),
    (Long(-128), "55 80"),
    (Long(128), "81 0000000000000080"),
    (Float(1.5), "72 3fc00000"),
    (1.5, "82 3ff8000000000000"),
    (Char("é"), "73 000000e9"),
    (Decimal32(b"\x01\x02\x03\x04"), "74 01020304"),
    (Timestamp(-62_135_596_800_000), "83 ffffc77cedd32800"),
    (UUID(int=1), "98 00000000000000000000000000000001"),
    (b"ab", "a0 02 6162"),
    (b"x" * 256, "b0 00000100" + "78" * 256),
    ("é", "a1 02 c3a9"),
    ("x" * 256, "b1 00000100" + "78" * 256),
    (Symbol("a"), "a3 01 61"),
    (Symbol("x" * 256), "b3 00000100" + "78" * 256),
    ([], "c0 01 00"),
    ([None, True], "c0 03 02 40 41"),
    ([b"x" * 255], "d0 00000105 00000001 a0 ff" + "78" * 255),
    ({}, "c1 01 00"),
    ({Symbol("k"): "v"}, "c1 07 02 a3 01 6b a1 01 76"),
    (Array(str, ("0", "1")), "e0 0c 02 b1 00000001 30 00000001 31"),
    (Array(Symbol, (Symbol("a"),)), "e0 07 01 b3 00000001 61"),
    (Array(bool, (True, False)), "e0 04 02 56 01 00"),
    (Array(UInt, ()), "e0 02 00 70"),
    (Array(NullType, (None, None)), "e0 02 02 40"),
    (Array(Int, (Int(1),), ULong(7)), "e0 09 01 00 53 07 71 00000001"),
    (
        Array(Array, (Array(bytes, (bytes(250),)), Array(UByte, ()))),
        "f0 00000115 00000002 f0 00000103 00000001 b0 000000fa" + "00" * 250 + "00000005 00000000 50",
    ),
    (Described(ULong(0x24), []), "00 53 24 c0 01 00"),
    (Described(Symbol("a"), "b"), "00 a3 01 61 a1 01 62"),
]

# Other ways, which are read all the same.
READ: list[tuple[str, Any]] = [
    ("56 01", True),
    ("56 00", False),
    ("70 00000005", UInt(5)),
    ("80 0000000000000005", ULong(5)),
    ("71 ffffffff", Int(-1)),
    ("81 ffffffffffffffff", Long(-1)),
    ("45", []),
    ("b0 00000001 61", b"a"),
    ("b1 00000001 61", "a"),
    ("b3 00000001 61", Symbol("a")),
    ("d0 00000005 00000001 40", [None]),
    ("d1 00000006 00000002 40 41", {None: True}),
    ("f0 00000007 00000001 a1 01 61", Array(str, ("a",))),
    ("e0 02 03 44", Array(ULong, (ULong(0),) * 3)),
    ("e0 01 00", Array(NullType, ())),  # azure-eventhub's empty array
]

BROKEN = {
    "nothing": "",
    "no such constructor": "3f",
    "a constructor and no value": "70",
    "a number cut short": "81 00000000000000",
    "a boolean of 2": "56 02",
    "a surrogate": "73 0000d800",
    "past the last character": "73 00110000",
    "binary cut short": "a0 05 616263",
    "binary of 4 GB": "b0 ffffffff 61",
    "string of bad UTF-8": "a1 01 ff",
    "symbol that is not ASCII": "a3 02 c3a9",
    "uuid cut short": "98 0000",
    "list past the end": "c0 05 01 40",
    "list with more elements than bytes": "d0 00000005 ffffffff 40",
    "list smaller than its count": "d0 00000003 00000000",
    "list whose size is 0": "c0 00 00",
    "list longer than its elements": "c0 03 01 40 40",
    "list shorter than its elements": "c0 02 01 52 01",
    "map without the last value": "c1 02 01 40",
    "map keyed by a list": "c1 03 02 45 40",
    "map keyed by a map": "c1 05 02 c1 01 00 40",
    "array without a constructor": "e0 01 01",
    "array of unknown elements": "e0 02 01 3f",
    "array of described nothing": "e0 02 01 00",
    "array of four thousand million nulls": "f0 00000005 ffffffff 40",
    "array of four thousand million bytes": "f0 00000006 ffffffff 50 01",
    "array shorter than its elements": "e0 03 01 70 01",
    "described without a value": "00 53 24",
    "two values": "40 40",
}


@pytest.mark.parametrize(("value", "wire"), WRITTEN)
def test_a_value_is_written_in_its_shortest_form_and_read_back(value: Any, wire: str) -> None:
    data = bytes.fromhex(wire)
    assert encode(value) == data
    assert same(decode_only(data), value)


@pytest.mark.parametrize(("wire", "value"), READ)
def test_longer_forms_are_read(wire: str, value: Any) -> None:
    assert same(decode_only(bytes.fromhex(wire)), value)


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
def test_broken_values_are_malformed(wire: str) -> None:
    with pytest.raises(Malformed):
        decode_only(bytes.fromhex(wire))


@given(anything)
def test_every_value_comes_back_with_its_type(value: Any) -> None:
    assert same(decode_only(encode(value)), value)


@given(anything, st.binary(max_size=20))
def test_what_follows_a_value_is_left_alone(value: Any, more: bytes) -> None:
    data = encode(value)
    decoded, end = decode(b"\x40" + data + more, 1)
    assert same(decoded, value)
    assert end == 1 + len(data)


@given(anything, st.data())
def test_a_value_cut_short_is_malformed(value: Any, choice: st.DataObject) -> None:
    data = encode(value)
    cut = choice.draw(st.integers(0, len(data) - 1))
    with pytest.raises(Malformed):
        decode_only(data[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    try:
        value, end = decode(data)
    except Malformed:
        return
    assert 0 < end <= len(data)
    assert same(decode_only(encode(value)), value)


@pytest.mark.parametrize(
    "wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: Described(UInt(1), inner)]
)
def test_nesting_is_bounded(wrap: Any) -> None:
    value: Any = None
    for _ in range(types.MAX_DEPTH):
        value = wrap(value)
    assert same(decode_only(encode(value)), value)
    with pytest.raises(Malformed, match="deep"):
        decode_only(encode(wrap(value)))


def test_very_deep_nesting_is_malformed_and_not_a_recursion_error() -> None:
    with pytest.raises(Malformed, match="deep"):
        decode_only(b"\x00" * 100_000)
    data = b"\x40"
    for _ in range(200):
        data = b"\xd0" + (len(data) + 4).to_bytes(4, "big") + b"\x00\x00\x00\x01" + data
    with pytest.raises(Malformed, match="deep"):
        decode_only(data)


def test_claims_of_size_allocate_nothing() -> None:
    tracemalloc.start()
    for wire in BROKEN.values():
        with pytest.raises(Malformed):
            decode_only(bytes.fromhex(wire))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("value", [7, object(), {1: "a"}, [3], Array(int, (1,)), Array(Described, ())])
def test_what_has_no_amqp_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no AMQP type"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        UInt(-1),
        UInt(1 << 32),
        ULong(1 << 64),
        UByte(256),
        UShort(-1),
        Byte(128),
        Short(1 << 15),
        Int(1 << 31),
        Long(1 << 63),
        Timestamp(1 << 63),
        Decimal32(b"123"),
        Symbol("é"),
        "\ud800",
        Array(UInt, (UInt(1 << 32),)),
        Array(NullType, (None,) * 17),
    ],
)
def test_what_does_not_fit_its_type_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"fit|bytes|encode|nulls"):
        encode(value)


def test_subclasses_are_written_as_their_parent() -> None:
    class Condition(Symbol): ...

    assert encode(Condition("a")) == encode(Symbol("a"))
    assert encode((True, None)) == encode([True, None])


def test_typed_numbers_compare_like_plain_ones() -> None:
    assert {ULong(1): "a"}[1] == "a"  # type: ignore[index]
    assert Symbol("amqp:not-found") == "amqp:not-found"
