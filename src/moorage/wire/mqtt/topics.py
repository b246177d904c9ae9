"""Topic names, topic filters, and the property bag that ends some topics."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from moorage.wire.errors import Malformed


def valid_topic(topic: str) -> bool:
    """Whether `topic` can be the name of one: not empty, no wildcard, no U+0000."""
    if not topic or "\0" in topic:  # [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        return False
    return "+" not in topic and "#" not in topic  # [MQTT-4.7.1-1]


def valid_filter(topic_filter: str) -> bool:
    """Whether `topic_filter` can be one: not empty, wildcards alone in their level, `#` in the last only."""
    if not topic_filter or "\0" in topic_filter:  # [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        return False
    *upper, last = topic_filter.split("/")
    if last != "#":  # [MQTT-4.7.1-2]
        upper.append(last)
    return all(level == "+" or ("+" not in level and "#" not in level) for level in upper)  # [MQTT-4.7.1-3]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter covers a topic name, compared level by level as they are. [MQTT-4.7.3-4]"""
    if topic.startswith("$") and topic_filter.startswith(("#", "+")):  # [MQTT-4.7.2-1]
        return False
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":  # the parent level and everything below it [MQTT 3.1.1, 4.7.1.2]
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        want in ("+", level) for want, level in zip(wanted, levels, strict=True)
    )


def parse_property_bag(text: str) -> list[tuple[str, str | None]]:
    """The pairs of `k=v&k=v`, both sides percent-decoded; None for a key without `=`. [hub-device 3.6]

    A `+` is a plus, and a `%` without two hexadecimal digits is itself. Of a key that comes twice the last
    value counts, in the place of the first. What may surround the bag in its topic, `?` and a closing `/`, is
    for the caller to take off. Raises Malformed where the decoded bytes are not UTF-8.
    """
    bag: dict[str, str | None] = {}
    for pair in text.split("&"):
        if pair:
            key, equals, value = pair.partition("=")
            bag[_decoded(key)] = _decoded(value) if equals else None
    return list(bag.items())


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("property bag is not UTF-8 after decoding") from error


def encode_property_bag(pairs: Iterable[tuple[str, str | None]]) -> str:
    """The bag of these pairs; all but RFC 3986's unreserved characters are escaped. [hub-device 3.8]"""
    return "&".join(
        quote(key, safe="") if value is None else f"{quote(key, safe='')}={quote(value, safe='')}"
        for key, value in pairs
    )
