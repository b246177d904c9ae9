"""Telemetry: from the properties a device sent along to the head of the event that is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from moorage.errors import TooLarge
from moorage.hub.instance import Hub, partition_of
from moorage.hub.session import Session
from moorage.interfaces import EventHead

MAX_MESSAGE = 262_144
"""Bytes of body, system property values, and names and values of application properties. [hub-device 10.2]"""

MESSAGE_SOURCE = "iothub-message-source"
DEVICE_ID = "iothub-connection-device-id"
MODULE_ID = "iothub-connection-module-id"
AUTH_METHOD = "iothub-connection-auth-method"
GENERATION_ID = "iothub-connection-auth-generation-id"
INTERFACE_ID = "iothub-interface-id"
MODEL_ID = "dt-dataschema"
COMPONENT = "dt-subject"
CREATION_TIME = "iothub-creation-time-utc"
MESSAGE_SCHEMA = "iothub-message-schema"
OUTPUT_NAME = "iothub-outputname"
MESSAGE_TYPE = "iothub-MessageType"
RETAIN = "mqtt-retain"

# System keys that go on as application properties under another name. [hub-device 3.6, 10.1]
_RENAMED = {"$.ctime": CREATION_TIME, "$.schema": MESSAGE_SCHEMA, "$.on": OUTPUT_NAME}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OF_THE_DEVICE = frozenset({INTERFACE_ID, COMPONENT})  # annotations whose value the device chose


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageProperties:
    """What a device may say about a message, whatever the protocol. [hub-device 10.1]

    `expiry` is in microseconds. Application properties are in the order they were sent in, each name once.
    """

    message_id: str | None = None
    correlation_id: str | None = None
    user_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    expiry: int | None = None
    interface_id: str | None = None
    component: str | None = None
    application_properties: tuple[tuple[str, str | None], ...] = ()


def read_bag(bag: Iterable[tuple[str, str | None]]) -> MessageProperties:
    """The properties in a property bag whose names and values are decoded already. [hub-device 3.6]

    Of a name sent twice the last value counts. Unknown names with `$.` stay application properties.
    """
    values = dict(bag)
    values.pop("$.to", None)  # a destination means nothing on the way to the hub
    expiry = _expiry(values.get("$.exp"))
    if expiry is not None:
        del values["$.exp"]
    return MessageProperties(
        message_id=values.pop("$.mid", None) or None,
        correlation_id=values.pop("$.cid", None) or None,
        user_id=values.pop("$.uid", None) or None,
        content_type=values.pop("$.ct", None) or None,
        content_encoding=values.pop("$.ce", None) or None,
        expiry=expiry,
        interface_id=values.pop("$.ifid", None) or None,
        component=values.pop("$.sub", None) or None,
        application_properties=tuple((_RENAMED.get(name, name), value) for name, value in values.items()),
    )


def _expiry(text: str | None) -> int | None:
    """Microseconds; None for what is no ISO 8601 time. Without a zone it is UTC. [hub-device 3.6]"""
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def telemetry_head(
    hub: Hub,
    session: Session,
    bag: Iterable[tuple[str, str | None]],
    *,
    retain: bool = False,
    will: bool = False,
) -> EventHead:
    """The head of every event that `session` publishes with this property bag. [hub-device 3.4, 3.6, 3.7]"""
    extra: list[tuple[str, str | None]] = []
    if retain:
        extra.append((RETAIN, "true"))
    if will:
        extra.append((MESSAGE_TYPE, "Will"))
    return event_head(hub, session, read_bag(bag), extra)


def event_head(
    hub: Hub,
    session: Session,
    properties: MessageProperties,
    extra: Iterable[tuple[str, str | None]] = (),
) -> EventHead:
    """`extra` are application properties that the hub adds."""
    return EventHead(
        scope=hub.scope,
        partition=partition_of(hub, session.device_id),
        partition_key=session.device_id,
        annotations=_annotations(session, properties),
        application_properties=tuple(dict([*properties.application_properties, *extra]).items()),
        message_id=properties.message_id,
        user_id=properties.user_id,
        correlation_id=properties.correlation_id,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        absolute_expiry_time=properties.expiry,
    )


def _annotations(session: Session, properties: MessageProperties) -> tuple[tuple[str, str], ...]:
    """What the hub stamps, all but the enqueued time, which is the log's. [hub-device 10.2]"""
    principal = session.principal
    stamped = {
        DEVICE_ID: principal.device_id,
        MODULE_ID: principal.module_id,
        AUTH_METHOD: auth_method(principal.auth_scope, principal.auth_type),
        GENERATION_ID: principal.generation_id,
        MESSAGE_SOURCE: "Telemetry",
        MODEL_ID: session.model_id,
        COMPONENT: properties.component,
        INTERFACE_ID: properties.interface_id,
    }
    return tuple((name, value) for name, value in stamped.items() if value)


def auth_method(scope: str, auth_type: str) -> str:
    """How the sender was authenticated, as JSON text in the hub's order of members. [hub-device 10.2]"""
    issuer = "external" if auth_type == "x509" else "iothub"
    return f'{{"scope":"{scope}","type":"{auth_type}","issuer":"{issuer}","acceptingIpFilterRule":null}}'


@lru_cache(maxsize=1024)
def head_size(head: EventHead) -> int:
    """The bytes of `head` that count towards the size of a message. [hub-device 10.2]"""
    system = (head.message_id, head.user_id, head.correlation_id, head.content_type, head.content_encoding)
    chosen = (value for name, value in head.annotations if name in _OF_THE_DEVICE)
    named = (text for name_and_value in head.application_properties for text in name_and_value)
    return sum(len(text.encode()) for text in (*system, *chosen, *named) if text)


def check_size(head: EventHead, body_length: int, *, limit: int = MAX_MESSAGE) -> None:
    """Raises TooLarge when the message, body and properties, is over `limit` bytes.

    Fit for every message: the share of a head is worked out once.
    """
    if (size := head_size(head) + body_length) > limit:
        raise TooLarge("message", f"it has {size} bytes with its properties, the limit is {limit}")
