from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.session import Presence
from moorage.hub.twin import (
    EMPTY,
    KIND,
    MAX_PROPERTIES,
    MAX_TAGS,
    NEVER,
    InitialTwin,
    Twin,
    device_view,
    new_twin,
    read_initial_twin,
    reset_twin,
    service_view,
    size_of,
    timestamp,
)
from moorage.hub.twin_change import patch_twin

NOW = 1_777_717_230_123_456
AT = "2026-05-02T10:20:30.1234560Z"
LATER = NOW + 1_000_000
AT_LATER = "2026-05-02T10:20:31.1234560Z"
IDENTITY = DeviceIdentity(
    device_id="pump-7",
    generation_id="638812345678901234",
    etag="Nzg4MTMyNDE=",
    authentication=Authentication.self_signed("ab" * 20),
)


def twin(tags: dict[str, Any] | None = None, desired: dict[str, Any] | None = None) -> Twin:
    return new_twin("pump-7", NOW, tags, desired)


def patched_twin(made: Twin, now: int, document: dict[str, Any]) -> Twin:
    return patch_twin(made, now, document).after


def nested(depth: int, inner: object) -> dict[str, Any]:
    """`depth` objects, one in the other, the last of which holds `inner`."""
    document: dict[str, Any] = {"property": inner}
    for level in range(depth - 1):
        document = {f"level{level}": document}
    return document


@pytest.mark.parametrize(
    ("microseconds", "text"), [(None, NEVER), (0, "1970-01-01T00:00:00.0000000Z"), (NOW, AT)]
)
def test_times_have_seven_decimals(microseconds: int | None, text: str) -> None:
    assert timestamp(microseconds) == text


def test_a_new_twin() -> None:
    empty = {"$metadata": {"$lastUpdated": NEVER}, "$version": 1}
    assert service_view(twin(), IDENTITY) == {
        "deviceId": "pump-7",
        "etag": "AAAAAAAAAAE=",
        "deviceEtag": "Nzg4MTMyNDE=",
        "status": "enabled",
        "statusReason": None,
        "statusUpdateTime": NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": None},
        "modelId": "",
        "version": 2,
        "properties": {"desired": empty, "reported": empty},
        "capabilities": {"iotEdge": False},
        "parentScopes": [],
    }


def test_a_twin_created_with_content() -> None:
    made = twin({"site": "A"}, {"period": 5, "fan": {"speed": 1.5}, "list": [1, "x"]})
    leaf = {"$lastUpdated": AT, "$lastUpdatedVersion": 1}
    view = service_view(made, IDENTITY, Presence(True, NOW, LATER, "dtmi:x;1"))
    assert view["tags"] == {"site": "A"}
    assert view["properties"]["desired"] == {
        "period": 5,
        "fan": {"speed": 1.5},
        "list": [1, "x"],
        "$metadata": {**leaf, "period": leaf, "fan": {**leaf, "speed": leaf}, "list": leaf},
        "$version": 1,
    }
    assert (view["connectionState"], view["lastActivityTime"], view["modelId"]) == (
        "Connected",
        AT_LATER,
        "dtmi:x;1",
    )
    assert view["version"] == 2


def test_the_device_sees_neither_tags_nor_metadata() -> None:
    assert device_view(twin({"site": "A"}, {"period": 5})) == {
        "desired": {"period": 5, "$version": 1},
        "reported": {"$version": 1},
    }


def test_a_patch_merges_deletes_and_replaces() -> None:
    made = twin({"site": "A", "floor": 1}, {"keep": 1, "gone": 2, "deep": {"a": 1, "b": 2}, "flat": {"x": 1}})
    patched = patched_twin(
        made,
        LATER,
        {
            "tags": {"floor": None, "room": 7},
            "properties": {
                "desired": {"gone": None, "deep": {"b": None, "c": 3}, "flat": [1], "never": None}
            },
        },
    )
    assert patched.tags == {"site": "A", "room": 7}
    assert patched.desired.values == {"keep": 1, "deep": {"a": 1, "c": 3}, "flat": [1]}
    old, new = (
        {"$lastUpdated": AT, "$lastUpdatedVersion": 1},
        {"$lastUpdated": AT_LATER, "$lastUpdatedVersion": 2},
    )
    assert patched.desired.metadata == {
        **new,
        "keep": old,
        "deep": {**new, "a": old, "c": new},
        "flat": new,
    }
    assert (patched.version, patched.desired.version, patched.reported.version) == (3, 2, 1)
    assert patched.etag == "AAAAAAAAAAI="
    assert made.desired.values["gone"] == 2


def test_deleting_below_what_is_absent_makes_an_empty_object() -> None:
    patched = patched_twin(twin(), LATER, {"properties": {"desired": {"a": {"b": None}, "x": None}}})
    assert patched.desired.values == {"a": {}}


def test_a_patch_of_tags_alone_leaves_the_properties() -> None:
    made = twin(desired={"period": 5})
    patched = patched_twin(made, LATER, {"tags": {"site": "A"}})
    assert patched.desired == made.desired
    assert patched.version == 3


def test_null_empties_a_section() -> None:
    made = twin({"site": "A"}, {"period": 5, "fan": {"speed": 1}})
    patched = patched_twin(made, LATER, {"tags": None, "properties": {"desired": None}})
    assert patched.desired.values == {}
    assert patched.desired.version == 2
    assert "tags" not in service_view(patched, IDENTITY)


def test_a_patch_passes_over_what_the_hub_decides() -> None:
    view = json.loads(json.dumps(service_view(twin({"a": 1}, {"period": 5}), IDENTITY)))
    view["properties"]["reported"] = {"fw": "forged"}
    patched = patched_twin(twin({"a": 1}, {"period": 5}), LATER, view)
    assert patched.desired.values == {"period": 5}
    assert patched.reported == twin().reported


def test_a_merged_section_stays_below_its_limit() -> None:
    full = patched_twin(twin(), LATER, {"tags": {"a": "x" * 4000, "b": "x" * 4000}})
    with pytest.raises(Invalid, match="limit is 8192"):
        patched_twin(full, LATER, {"tags": {"c": "x" * 200}})


def test_a_reset_twin_counts_on() -> None:
    made = patched_twin(twin({"site": "A"}, {"period": 5}), NOW, {"properties": {"desired": {"x": 1}}})
    fresh = reset_twin(made, LATER, InitialTwin(tags={}, desired={"period": 9}))
    assert (fresh.tags, fresh.desired.values, fresh.reported.values) == ({}, {"period": 9}, {})
    assert (fresh.version, fresh.desired.version, fresh.reported.version) == (4, 3, 2)
    assert fresh.desired.metadata["period"] == {"$lastUpdated": AT_LATER, "$lastUpdatedVersion": 3}


def test_an_initial_twin() -> None:
    document = {
        "tags": {"site": "A", "none": None, "version": 3, "$version": 3},
        "properties": {
            "desired": {"period": 5, "count": 1, "metadata": {}, "$metadata": {}, "deep": {"version": 1}}
        },
    }
    assert read_initial_twin("initialTwin", document) == InitialTwin(
        tags={"site": "A"}, desired={"period": 5, "deep": {"version": 1}}
    )


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"tags": None, "properties": None},
        {"tags": {}, "properties": {"desired": None}},
        {"other": 1},
    ],
)
def test_an_initial_twin_may_be_empty(document: object) -> None:
    assert read_initial_twin("initialTwin", document) == EMPTY


@pytest.mark.parametrize(
    "desired",
    [
        {"k" * 1024: 1},
        {"azureiot*com^dtracing^1": {"x": 1}},
        {"text": "é" * 2048},
        {"text": "a\x00b"},
        {"number": 4503599627370495, "other": -4503599627370496, "float": 1e300},
        {"yes": True, "no": False},
        {"list": [[], {}, [1, [2]]]},
        nested(11, 1),
        {"list": nested(10, [])["level8"]},
    ],
)
def test_what_desired_properties_may_hold(desired: dict[str, Any]) -> None:
    assert read_initial_twin("", {"properties": {"desired": desired}}).desired == desired


@pytest.mark.parametrize(
    "desired",
    [
        [],
        "text",
        7,
        {"": 1},
        {"k" * 1025: 1},
        {"a.b": 1},
        {"a$": 1},
        {"a b": 1},
        {"a\x1f": 1},
        {"a\x7f": 1},
        {"a\x9f": 1},
        {"deep": {"$version": 1}},
        {"text": "é" * 2049},
        {"text": "\ud800"},
        {"\udfff": 1},
        {"number": 4503599627370496},
        {"number": -4503599627370497},
        {"number": 10**4000},
        {"number": float("inf")},
        {"number": float("nan")},
        {"list": [1, None]},
        {"bytes": b""},
        nested(12, 1),
        nested(11, []),
        {f"k{n}": "x" * 4000 for n in range(9)},
    ],
)
def test_what_desired_properties_may_not_hold(desired: object) -> None:
    with pytest.raises(Invalid) as fault:
        read_initial_twin("initialTwin", {"properties": {"desired": desired}})
    assert fault.value.field == "initialTwin.properties.desired"


@pytest.mark.parametrize("document", [[], "x", {"tags": 1}, {"properties": []}])
def test_an_initial_twin_is_made_of_objects(document: object) -> None:
    with pytest.raises(Invalid):
        read_initial_twin("initialTwin", document)


def test_tags_have_a_smaller_limit() -> None:
    document = {"a": "x" * 4000, "b": "x" * 4000, "c": "x" * 189}
    assert size_of(document) == MAX_TAGS
    assert read_initial_twin("", {"tags": document}).tags == document
    document["c"] += "x"
    with pytest.raises(Invalid, match="8193 bytes"):
        read_initial_twin("", {"tags": document})


def test_the_size_of_values() -> None:
    assert size_of({"key": "a\x00b", "é": 1, "f": 1.5, "t": True, "o": {"n": [1, "x"]}, "z": None}) == (
        (3 + 2) + (2 + 8) + (1 + 8) + (1 + 4) + (1 + 1 + 8 + 1) + 1
    )
    assert MAX_PROPERTIES == 32_768


keys = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=3)
values = st.recursive(
    st.booleans()
    | st.integers(-(2**52), 2**52 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | keys,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=3),
    max_leaves=8,
)
sections = st.dictionaries(keys, values, max_size=4)


def shape(value: object) -> object:
    """The tree of the objects in `value`."""
    return {key: shape(below) for key, below in value.items()} if isinstance(value, dict) else None


def marked(metadata: dict[str, Any]) -> object:
    """The tree of `metadata`, in which a node with nothing below is a value or an empty object."""
    return {key: marked(below) for key, below in metadata.items() if not key.startswith("$")} or None


def bare(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: bare(below) for key, below in tree.items()} or None
    return None


@given(sections, sections)
def test_metadata_mirrors_the_values(first: dict[str, Any], second: dict[str, Any]) -> None:
    patched = patched_twin(twin(desired=first), LATER, {"properties": {"desired": second}})
    assert marked(dict(patched.desired.metadata)) == bare(shape(dict(patched.desired.values)))


@given(sections, sections)
def test_a_patch_applied_twice_changes_values_once(first: dict[str, Any], second: dict[str, Any]) -> None:
    document = {"tags": second, "properties": {"desired": second}}
    once = patched_twin(twin(first, first), LATER, document)
    again = patched_twin(once, LATER, document)
    assert (again.tags, again.desired.values) == (once.tags, once.desired.values)
    assert (again.version, again.desired.version) == (once.version + 1, once.desired.version + 1)


@given(sections, sections)
def test_a_twin_is_kept_as_a_document(tags: dict[str, Any], desired: dict[str, Any]) -> None:
    made = twin(tags, desired)
    assert KIND.from_document(json.loads(json.dumps(KIND.to_document(made)))) == made
