"""What the AMQP tests share: values of every type, and how to compare them."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from moorage.wire.amqp import types
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
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)


def integers(kind: type[int], bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high).map(kind)


symbols = st.text(st.characters(codec="ascii"), max_size=300).map(Symbol)

SCALARS: dict[type, st.SearchStrategy[Any]] = {
    types.NullType: st.none(),
    bool: st.booleans(),
    UByte: integers(UByte, 8, signed=False),
    UShort: integers(UShort, 16, signed=False),
    UInt: integers(UInt, 32, signed=False),
    ULong: integers(ULong, 64, signed=False),
    Byte: integers(Byte, 8, signed=True),
    Short: integers(Short, 16, signed=True),
    Int: integers(Int, 32, signed=True),
    Long: integers(Long, 64, signed=True),
    Float: st.floats(width=32).map(Float),
    float: st.floats(),
    Decimal32: st.binary(min_size=4, max_size=4).map(Decimal32),
    Decimal64: st.binary(min_size=8, max_size=8).map(Decimal64),
    Decimal128: st.binary(min_size=16, max_size=16).map(Decimal128),
    Char: st.characters(codec="utf-8").map(Char),
    Timestamp: integers(Timestamp, 64, signed=True),
    UUID: st.uuids(),
    bytes: st.binary(max_size=300),
    str: st.text(max_size=300),
    Symbol: symbols,
}

scalars = st.one_of(*SCALARS.values())
keys = st.one_of(
    st.text(max_size=20), symbols, integers(ULong, 64, signed=False), st.uuids(), st.binary(max_size=9)
)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    of = draw(st.sampled_from(list(SCALARS)))
    size = types.MAX_WIDTHLESS if of is types.NullType else 300
    values = draw(st.lists(SCALARS[of], max_size=size))
    return Array(of, tuple(values), draw(st.none() | symbols))


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists, maps = st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)
    return st.one_of(
        lists,
        maps,
        st.builds(Described, scalars, inner),
        st.lists(lists, max_size=3).map(lambda values: Array(list, tuple(values))),
        st.lists(maps, max_size=3).map(lambda values: Array(dict, tuple(values))),
        st.lists(arrays(), max_size=2).map(lambda values: Array(Array, tuple(values))),
    )


anything = st.recursive(scalars | arrays(), _nested, max_leaves=8)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in AMQP type, all the way down; a NaN is the same as a NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, Array):
        return (
            one.of is other.of and same(one.values, other.values) and same(one.descriptor, other.descriptor)
        )
    if isinstance(one, Described):
        return same(one.descriptor, other.descriptor) and same(one.value, other.value)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
