from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.errors import Malformed
from moorage.wire.mqtt.topics import (
    encode_property_bag,
    matches,
    parse_property_bag,
    valid_filter,
    valid_topic,
)

Bag = list[tuple[str, str | None]]

BAGS: list[tuple[str, Bag]] = [
    ("", []),
    ("a=1", [("a", "1")]),
    ("a=1&b=2", [("a", "1"), ("b", "2")]),
    ("%24.mid=6f0d&%24.to=%2Fdevices%2Fdev1", [("$.mid", "6f0d"), ("$.to", "/devices/dev1")]),
    ("%24.ct=text%2Fplain%3B%20charset%3DUTF-8", [("$.ct", "text/plain; charset=UTF-8")]),
    ("key", [("key", None)]),
    ("key=", [("key", "")]),
    ("a&b=&c=3", [("a", None), ("b", ""), ("c", "3")]),
    ("%C3%A9=%E2%82%AC%F0%9F%98%80", [("é", "€😀")]),
    ("a=~-._", [("a", "~-._")]),
]


@pytest.mark.parametrize(("text", "bag"), BAGS)
def test_property_bags_both_ways(text: str, bag: Bag) -> None:
    assert parse_property_bag(text) == bag
    assert encode_property_bag(bag) == text


@pytest.mark.parametrize(
    ("text", "bag"),
    [
        ("$.mid=1", [("$.mid", "1")]),  # Java leaves the dollar sign as it is
        ("%24.ct=application%2fjson", [("$.ct", "application/json")]),  # hexadecimal digits of either case
        ("a=1+1", [("a", "1+1")]),  # a plus is a plus
        ("a=b=c", [("a", "b=c")]),
        ("=v", [("", "v")]),
        ("a=1&&b=2&", [("a", "1"), ("b", "2")]),
        ("a=1&b=2&a=3", [("a", "3"), ("b", "2")]),
        ("a=1&%61", [("a", None)]),  # the same key once decoded
        ("a=100%", [("a", "100%")]),
        ("a=%zz%4", [("a", "%zz%4")]),
        ("a=%25%2541", [("a", "%%41")]),  # decoded once only
        ("é%C3%A9=ü", [("éé", "ü")]),
        ("a=%00", [("a", "\0")]),
    ],
)
def test_property_bags_as_others_write_them(text: str, bag: Bag) -> None:
    assert parse_property_bag(text) == bag


@pytest.mark.parametrize("text", ["a=%ff", "%C3=1", "a=%ED%A0%80", "a=%C0%80", "a=é%A9"])
def test_a_property_bag_must_decode_to_utf_8(text: str) -> None:
    with pytest.raises(Malformed, match="property bag is not UTF-8"):
        parse_property_bag(text)


@pytest.mark.parametrize("key", "!#$%&'*+-^_`|~")
def test_every_key_the_sdks_try_survives(key: str) -> None:
    assert parse_property_bag(encode_property_bag([(key, key)])) == [(key, key)]


def test_all_but_unreserved_characters_are_escaped() -> None:
    value = '()<>@,;:\\"[]?={} \t/+#&é'
    assert encode_property_bag([("k", value)]) == (
        "k=%28%29%3C%3E%40%2C%3B%3A%5C%22%5B%5D%3F%3D%7B%7D%20%09%2F%2B%23%26%C3%A9"
    )
    assert parse_property_bag(encode_property_bag([("k", value)])) == [("k", value)]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(texts.filter(bool), st.none() | texts, max_size=6))
def test_any_property_bag_comes_back_in_order(bag: dict[str, str | None]) -> None:
    encoded = encode_property_bag(bag.items())
    assert parse_property_bag(encoded) == list(bag.items())
    assert valid_topic("a/" + encoded)


@given(st.text("%&=+$.a0é/?", max_size=40))
def test_any_text_is_a_property_bag_or_malformed(text: str) -> None:
    try:
        bag = parse_property_bag(text)
    except Malformed:
        return
    assert len({key for key, _ in bag}) == len(bag)


@pytest.mark.parametrize(
    "topic", ["a", "/", "/a", "a//b", "$iothub/twin/GET/?$rid=1", " ", "é", "a" * 65_535]
)
def test_valid_topics(topic: str) -> None:
    assert valid_topic(topic)


@pytest.mark.parametrize("topic", ["", "+", "#", "a/+/b", "a/#", "a+", "a\0b"])
def test_invalid_topics(topic: str) -> None:
    assert not valid_topic(topic)


@pytest.mark.parametrize(
    "topic_filter", ["#", "+", "/", "a", "a/#", "+/#", "/+", "+/+", "a/+/b", "$iothub/methods/POST/#", "a//#"]
)
def test_valid_filters(topic_filter: str) -> None:
    assert valid_filter(topic_filter)


@pytest.mark.parametrize(
    "topic_filter", ["", "a#", "#/a", "a/#/b", "a/#b", "##", "a+", "+a", "a/b+/c", "++", "a\0", "#/#"]
)
def test_invalid_filters(topic_filter: str) -> None:
    assert not valid_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a/b"),
        ("#", "a"),
        ("#", "a/b/c"),
        ("#", "/"),
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("+/b/#", "a/b/c"),
        ("$SYS/#", "$SYS/monitor"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("$iothub/methods/POST/#", "$iothub/methods/POST/reboot/?$rid=1"),
    ],
)
def test_filters_that_match(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a"),
        ("a", "a/b"),
        ("a", "A"),
        ("a/b", "a/b/"),
        ("a/b/#", "a"),
        ("a/b/#", "a/bc"),
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("#", "$SYS/monitor"),  # [MQTT-4.7.2-1]
        ("+/monitor", "$SYS/monitor"),
        ("é", "e\u0301"),  # [MQTT-4.7.3-4]
    ],
)
def test_filters_that_do_not_match(topic_filter: str, topic: str) -> None:
    assert not matches(topic_filter, topic)


@given(st.lists(st.sampled_from(["", "a", "b", "é"]), min_size=1, max_size=5), st.data())
def test_a_filter_made_from_a_topic_matches_it(levels: list[str], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(levels)))
    wild = [data.draw(st.sampled_from([level, "+"])) for level in levels[:kept]]
    topic_filter = "/".join(wild if kept == len(levels) else [*wild, "#"])
    assert matches(topic_filter, "/".join(levels))
    assert valid_filter(topic_filter) or topic_filter == ""
