"""Messages: header, annotations, properties, body, footer. [AMQP 3.2]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.wire.amqp.performatives import Header, Properties, encode_composite, from_list
from moorage.wire.amqp.types import Described, Symbol, ULong, decode, encode, encode_map, symbol_key
from moorage.wire.errors import Malformed


@dataclass(frozen=True, slots=True)
class Data:
    """A body of bytes, in sections."""

    sections: tuple[bytes, ...]

    @classmethod
    def of(cls, payload: bytes) -> Data:
        return cls((payload,))


@dataclass(frozen=True, slots=True)
class AmqpValue:
    """A body of one AMQP value."""

    value: Any


@dataclass(frozen=True, slots=True)
class AmqpSequence:
    """A body of lists of AMQP values."""

    lists: tuple[list[Any], ...]


Body = Data | AmqpValue | AmqpSequence

_HEADER, _DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS, _PROPERTIES = 0x70, 0x71, 0x72, 0x73
_APPLICATION_PROPERTIES, _DATA, _SEQUENCE, _VALUE, _FOOTER = 0x74, 0x75, 0x76, 0x77, 0x78


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. A section that is None is not there at all; annotation keys are symbols on the wire."""

    header: Header | None = None
    delivery_annotations: Mapping[Any, Any] | None = None
    message_annotations: Mapping[Any, Any] | None = None
    properties: Properties | None = None
    application_properties: Mapping[str, Any] | None = None
    body: Body | None = None
    footer: Mapping[Any, Any] | None = None

    @property
    def payload(self) -> bytes:
        """The data sections, joined; empty for a body of any other kind."""
        return b"".join(self.body.sections) if isinstance(self.body, Data) else b""

    def encode(self) -> bytes:
        """Raises TypeError for a value without AMQP type, as a plain int is, ValueError for one that does not fit."""
        parts = []
        if self.header is not None:
            parts.append(encode_composite(self.header))
        if self.delivery_annotations is not None:
            parts.append(
                _section(_DELIVERY_ANNOTATIONS, encode_map(self.delivery_annotations, key=symbol_key))
            )
        if self.message_annotations is not None:
            parts.append(_section(_MESSAGE_ANNOTATIONS, encode_map(self.message_annotations, key=symbol_key)))
        if self.properties is not None:
            parts.append(encode_composite(self.properties))
        if self.application_properties is not None:
            parts.append(_section(_APPLICATION_PROPERTIES, encode_map(self.application_properties)))
        if self.body is not None:
            parts.append(_encode_body(self.body))
        if self.footer is not None:
            parts.append(_section(_FOOTER, encode_map(self.footer, key=symbol_key)))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Raises Malformed. Sections may come in any order: azure-eventhub puts the delivery annotations last."""
        sections = _Sections()
        at = 0
        while at < len(data):
            section, at = decode(data, at)
            sections.add(section)
        return cls(**sections.known, body=sections.body())


def _section(code: int, body: bytes) -> bytes:
    return bytes((0x00, 0x53, code)) + body


def _encode_body(body: Body) -> bytes:
    if isinstance(body, Data):
        return b"".join([_section(_DATA, encode(section)) for section in body.sections])
    if isinstance(body, AmqpSequence):
        return b"".join([_section(_SEQUENCE, encode(values)) for values in body.lists])
    return _section(_VALUE, encode(body.value))


_NAMES: dict[Any, int] = {
    "amqp:header:list": _HEADER,
    "amqp:delivery-annotations:map": _DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": _MESSAGE_ANNOTATIONS,
    "amqp:properties:list": _PROPERTIES,
    "amqp:application-properties:map": _APPLICATION_PROPERTIES,
    "amqp:data:binary": _DATA,
    "amqp:amqp-sequence:list": _SEQUENCE,
    "amqp:amqp-value:*": _VALUE,
    "amqp:footer:map": _FOOTER,
}

_SINGLE: dict[int, tuple[str, type]] = {  # sections that come once: field of Message, what it is made of
    _HEADER: ("header", list),
    _DELIVERY_ANNOTATIONS: ("delivery_annotations", dict),
    _MESSAGE_ANNOTATIONS: ("message_annotations", dict),
    _PROPERTIES: ("properties", list),
    _APPLICATION_PROPERTIES: ("application_properties", dict),
    _FOOTER: ("footer", dict),
}
_COMPOSITES = {_HEADER: Header, _PROPERTIES: Properties}


class _Sections:
    """A message's sections, collected as they come."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self._data: list[bytes] = []
        self._lists: list[list[Any]] = []
        self._values: list[Any] = []

    def add(self, section: Any) -> None:
        if not isinstance(section, Described):
            raise Malformed("a message is made of sections")
        code, value = _code(section.descriptor), section.value
        if code in _SINGLE:
            self._add_single(code, value)
        elif code == _DATA:
            self._data.append(_must_be(bytes, value, "a data section"))
        elif code == _SEQUENCE:
            self._lists.append(_must_be(list, value, "a sequence section"))
        elif code == _VALUE:
            self._values.append(value)
        else:
            raise Malformed(f"{section.descriptor!r} is no section of a message")

    def body(self) -> Body | None:
        kinds = [bool(self._data), bool(self._lists), bool(self._values)]
        if sum(kinds) > 1 or len(self._values) > 1:
            raise Malformed("a message with more than one body")
        if self._data:
            return Data(tuple(self._data))
        if self._lists:
            return AmqpSequence(tuple(self._lists))
        return AmqpValue(self._values[0]) if self._values else None

    def _add_single(self, code: int, value: Any) -> None:
        name, kind = _SINGLE[code]
        if name in self.known:
            raise Malformed(f"a message with two sections of {name}")
        if value is None and kind is dict:
            return
        _must_be(kind, value, name)
        self.known[name] = from_list(_COMPOSITES[code], value) if code in _COMPOSITES else value


def _code(descriptor: Any) -> int:
    if isinstance(descriptor, ULong):
        return int(descriptor)
    return _NAMES.get(descriptor, -1) if isinstance(descriptor, Symbol) else -1


def _must_be(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise Malformed(f"{what} of type {type(value).__name__}")
    return value
