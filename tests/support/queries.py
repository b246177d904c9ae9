"""Twins and queries made up by hypothesis: few names and few values, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from moorage.hub.query.functions import FUNCTIONS
from moorage.hub.query.tree import (
    UNDEFINED,
    Aggregate,
    All,
    Arithmetic,
    Array,
    Call,
    Comparison,
    Condition,
    Constant,
    Expression,
    Holds,
    Item,
    Membership,
    Negative,
    Not,
    Path,
    Query,
    Source,
)
from moorage.hub.query.tree import Any as AnyOf

KEYS = ("site", "n", "up", "é", "a-b", 'q"q', "back\\slash", "x]y", "1", "IN")
TEXTS = ("", "a", "b", "ab", "A", "É", "é", "it's", '"', "\\", "\x01", "\U0001f40b", "1", "true", "null")
numbers = st.integers(-3, 3) | st.sampled_from([0.5, -0.25, 1.0, 1e300, 0.1, 123456789012.25])
scalars: st.SearchStrategy[Any] = st.sampled_from(TEXTS) | numbers | st.booleans()
_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)
sections: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from(KEYS), _values, max_size=4)

_below: st.SearchStrategy[tuple[str | int, ...]] = st.lists(
    st.sampled_from(KEYS) | st.integers(0, 2), min_size=1, max_size=3
).map(tuple)
_ROOTS = (
    ("tags",),
    ("properties", "desired"),
    ("PROPERTIES", "Reported"),
    ("devices", "tags"),
)
_FIXED = (
    ("deviceId",),
    ("DEVICEID",),
    ("devices", "deviceId"),
    ("moduleId",),
    ("etag",),
    ("deviceEtag",),
    ("status",),
    ("statusReason",),
    ("statusUpdateTime",),
    ("connectionState",),
    ("lastActivityTime",),
    ("cloudToDeviceMessageCount",),
    ("authenticationType",),
    ("x509Thumbprint",),
    ("x509Thumbprint", "primaryThumbprint"),
    ("x509Thumbprint", "other"),
    ("modelId",),
    ("version",),
    ("tags",),
    ("properties",),
    ("properties", "desired"),
    ("properties", "desired", "$version"),
    ("properties", "reported", "$metadata", "$lastUpdated"),
    ("properties", "desired", "$metadata", "site", "$lastUpdatedVersion"),
    ("properties", "other"),
    ("capabilities",),
    ("capabilities", "iotEdge"),
    ("deviceScope",),
    ("parentScopes",),
    ("parentScopes", 0),
    ("configurations", "site-a.v2", "status"),
    ("nothing",),
)
paths: st.SearchStrategy[Path] = st.sampled_from(_FIXED).map(Path) | st.builds(
    lambda root, below: Path((*root, *below)), st.sampled_from(_ROOTS), _below
)
KNOWN = (
    *("pump-1", "pump-2", "enabled", "disabled", "Connected", "Disconnected", "sas", "none", "why"),
    *("AAAAAAAAAAE=", "0001-01-01T00:00:00Z", "2027-01-15T08:00:00.0000000Z"),
)
constants: st.SearchStrategy[Constant] = st.builds(
    Constant, scalars | st.sampled_from([None, UNDEFINED, *KNOWN])
)
_arrays = st.builds(Array, st.lists(constants, max_size=4).map(tuple))


def _calls(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Call]:
    def call(name: str) -> st.SearchStrategy[Call]:
        function = FUNCTIONS[name]
        arguments = st.lists(inner, min_size=function.least, max_size=min(function.most, 3))
        return st.builds(Call, st.just(name), arguments.map(tuple))

    return st.sampled_from(sorted(FUNCTIONS)).flatmap(call)


def _larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return (
        _calls(inner)
        | st.builds(Arithmetic, st.sampled_from("+-*/%"), inner, inner)
        | st.builds(Negative, inner.filter(lambda each: not isinstance(each, Constant)))
    )


expressions: st.SearchStrategy[Expression] = st.recursive(paths | constants | _arrays, _larger, max_leaves=4)

_leaves: st.SearchStrategy[Condition] = (
    st.builds(
        Comparison, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), paths | expressions, expressions
    )
    | st.builds(Comparison, st.sampled_from(["=", "!=", "<", ">="]), paths, constants | paths)
    | st.builds(Membership, paths | expressions, _arrays | paths, st.booleans())
    | st.builds(Holds, paths | _calls(paths | constants) | st.builds(Constant, st.booleans()))
)


def _joined(
    join: type[All] | type[AnyOf], inner: st.SearchStrategy[Condition]
) -> st.SearchStrategy[Condition]:
    apart = inner.filter(lambda each: not isinstance(each, join))
    return st.builds(join, st.lists(apart, min_size=2, max_size=3).map(tuple))


conditions: st.SearchStrategy[Condition] = st.recursive(
    _leaves,
    lambda inner: st.builds(Not, inner) | _joined(All, inner) | _joined(AnyOf, inner),
    max_leaves=5,
)

aggregates = st.just(Aggregate("count")) | st.builds(
    Aggregate, st.sampled_from(["avg", "sum", "min", "max"]), paths
)
queries = st.builds(
    Query,
    st.sampled_from(Source),
    st.lists(
        st.builds(Item, expressions | aggregates, st.none() | st.sampled_from(["n", "count", "from"])),
        max_size=3,
    ).map(tuple),
    st.none() | st.integers(1, 10**6),
    st.none() | conditions,
    st.lists(paths, max_size=2).map(tuple),
)
