"""An event of the built-in endpoint as JSON, its body as what it is: JSON, text, or bytes."""

from __future__ import annotations

import base64
import codecs
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from moorage.adapters.control.event_walk import Seen
from moorage.adapters.http import read_json
from moorage.errors import Invalid
from moorage.hub.telemetry import DEVICE_ID, MESSAGE_SOURCE, MODULE_ID
from moorage.hub.twin import timestamp
from moorage.wire.amqp import Message
from moorage.wire.amqp.types import Timestamp

_ENCODINGS = ("utf-8", "utf-16", "utf-32")  # those in which a hub's routes read a body
_BINARY = ("image/", "audio/", "video/", "font/", "application/octet-stream")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")


class Body(NamedTuple):
    """`format` is json, text or base64, and says what `value` is."""

    format: str
    value: Any


def event_view(seen: Seen, *, max_body: int) -> dict[str, Any]:
    """As clients of this API read it; of a body that is longer than `max_body` bytes the beginning."""
    partition, event, message = seen
    annotations = _plain(message.message_annotations or {})
    system = _system(message)
    content_type, encoding = system.get("content-type"), system.get("content-encoding")
    payload = message.payload
    whole = len(payload) <= max_body
    body = read_body(payload[:max_body], content_type, encoding, whole=whole)
    return {
        "partition": str(partition),
        "sequenceNumber": event.sequence_number,
        "offset": str(event.offset),
        "enqueuedTime": timestamp(event.enqueued_time),
        "deviceId": annotations.get(DEVICE_ID),
        "moduleId": annotations.get(MODULE_ID),
        "messageSource": annotations.get(MESSAGE_SOURCE),
        "contentType": content_type,
        "contentEncoding": encoding,
        "systemProperties": system,
        "annotations": annotations,
        "applicationProperties": _plain(message.application_properties or {}),
        "bodySize": len(payload),
        "bodyFormat": body.format,
        "body": body.value,
        "bodyTruncated": not whole,
    }


def frame(seen: Seen) -> str:
    """The AMQP message as readers of the endpoint get it, in base64."""
    return base64.b64encode(seen.event.message).decode()


def read_body(
    payload: bytes, content_type: str | None, content_encoding: str | None, *, whole: bool = True
) -> Body:
    """JSON where the type says so, or says nothing and it is an object or a list; text where it can be read."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    text = None if kind.startswith(_BINARY) else _text(payload, content_encoding, whole=whole)
    if text is None:
        return Body("base64", base64.b64encode(payload).decode())
    says_json = kind in ("application/json", "text/json") or kind.endswith("+json")
    if whole and (says_json or (not kind and text.lstrip()[:1] in ("{", "["))):
        try:
            return Body("json", _finite(read_json(text.encode())))
        except (Invalid, RecursionError):
            pass  # what claims to be JSON and is none is shown as it came
    return Body("text", text)


def _text(payload: bytes, encoding: str | None, *, whole: bool) -> str | None:
    """None for what is no text that anybody could read. A character that was cut through is left out."""
    name = (encoding or "utf-8").strip().lower()
    if name not in _ENCODINGS:
        return None
    try:
        text = codecs.getincrementaldecoder(name)().decode(payload, final=whole)
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _finite(value: Any) -> Any:
    """`value`, if JSON can say it again: 1e999 is read as an infinity. Raises Invalid, RecursionError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid("body", "a number too large")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(each)
    return value


def _system(message: Message) -> dict[str, Any]:
    """Those of the properties section, by their AMQP names."""
    properties = message.properties
    if properties is None:
        return {}
    named = {field.name.replace("_", "-"): getattr(properties, field.name) for field in fields(properties)}
    shown = _plain({name: value for name, value in named.items() if value is not None})
    if (expiry := properties.absolute_expiry_time) is not None:
        shown["absolute-expiry-time"] = timestamp(int(expiry) * 1000)
    return shown


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    """An AMQP value as JSON has it: times and bytes as text, whatever else JSON does not know by its text."""
    if isinstance(value, Timestamp):
        return timestamp(int(value) * 1000)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or isinstance(value, (bool, float)):
        return value
    return int(value) if isinstance(value, int) else str(value)
