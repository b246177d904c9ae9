"""The composite types of transport, messaging and SASL: frozen dataclasses ⇄ described lists. [AMQP 2.7, 3.4, 3.5, 5.3]

Each field names its wire type in the dataclass itself; `encode_composite` and `decode_composite` read that.
Every field is written, nulls at the end included: azure-eventhub reads performatives by position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from moorage.wire.amqp import types
from moorage.wire.amqp.types import (
    Array,
    Described,
    Symbol,
    UByte,
    UInt,
    ULong,
    UShort,
    encode,
    encode_list,
    encode_map,
    symbol_key,
)
from moorage.wire.errors import Malformed

SENDER, RECEIVER = False, True  # the role field of attach and disposition [AMQP 2.8.1]
SND_UNSETTLED, SND_SETTLED, SND_MIXED = 0, 1, 2  # sender-settle-mode [AMQP 2.8.2]
RCV_FIRST, RCV_SECOND = 0, 1  # receiver-settle-mode [AMQP 2.8.3]

UINT_MAX = 0xFFFFFFFF


class _Wire(NamedTuple):
    """A field's type on the wire. `read` takes a decoded value that is not null, and raises TypeError."""

    write: Callable[[Any], bytes]
    read: Callable[[Any], Any]


def _of(write: Callable[[Any], bytes], read: Callable[[Any], Any]) -> dict[str, _Wire]:
    return {"wire": _Wire(write, read)}


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} instead of {kind.__name__}")
        return value

    return read


def _unsigned(kind: type[int], limit: int) -> dict[str, _Wire]:
    def read(value: Any) -> int:
        # Any integer type will do if the number fits: clients differ in the width they write.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise TypeError(f"{value!r} instead of a number up to {limit}")
        return int(value)

    return _of(lambda value: encode(kind(value)), read)


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _read_symbols(value: Any) -> tuple[str, ...]:
    """A field that may hold several: one value, or an array of them. [AMQP 1.4]"""
    many = value.values if isinstance(value, Array) else value if isinstance(value, list) else (value,)
    return tuple([_read_text(each) for each in many])


def _write_symbols(values: tuple[str, ...]) -> bytes:
    # Always an array, even of one: azure-eventhub looks for its mechanism with `in`.
    return encode(Array(Symbol, tuple(values)) if values else None)


def _composite(kinds: Callable[[], tuple[type, ...]]) -> dict[str, _Wire]:
    def read(value: Any) -> Any:
        composite = from_described(value)
        if not isinstance(composite, kinds()):
            raise TypeError(f"{type(composite).__name__} instead of {kinds()[0].__name__}")
        return composite

    return _of(encode_any, read)


def _read_state(value: Any) -> Any:
    state = from_described(value)
    if not isinstance(state, (Received, Accepted, Rejected, Released, Modified, Described)):
        raise TypeError(f"{type(state).__name__} instead of a delivery state")
    return state


def encode_any(value: Any) -> bytes:
    """A composite, or a value of any other AMQP type."""
    return encode_composite(value) if type(value) in _FIELDS else encode(value)


_ANY = _of(encode_any, lambda value: value)
_BOOLEAN = _of(encode, _exactly(bool))
_UBYTE = _unsigned(UByte, 0xFF)
_USHORT = _unsigned(UShort, 0xFFFF)
_UINT = _unsigned(UInt, UINT_MAX)
_ULONG = _unsigned(ULong, (1 << 64) - 1)
_STRING = _of(lambda value: encode(str(value)), _read_text)
_SYMBOL = _of(lambda value: encode(Symbol(value)), _read_text)
_SYMBOLS = _of(_write_symbols, _read_symbols)
_BINARY = _of(encode, _exactly(bytes))
_MAP = _of(encode_map, _exactly(dict))
_FIELDS_MAP = _of(lambda value: encode_map(value, key=symbol_key), _exactly(dict))
_ERROR = _composite(lambda: (Error,))
_SOURCE = _composite(lambda: (Source, Described))
_TARGET = _composite(lambda: (Target, Described))  # a transaction coordinator stays as it came
_STATE = _of(encode_any, _read_state)


# --- Errors, termini, delivery states -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Error:
    """Why something was closed or rejected; `condition` is one of `conditions`. [AMQP 2.8.14]"""

    CODE: ClassVar[int] = 0x1D
    condition: str = field(metadata=_SYMBOL)
    description: str | None = field(default=None, metadata=_STRING)
    info: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP)


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages of a link come from. [AMQP 3.5.3]"""

    CODE: ClassVar[int] = 0x28
    address: Any = field(default=None, metadata=_ANY)
    durable: int = field(default=0, metadata=_UINT, kw_only=True)
    expiry_policy: str = field(default="session-end", metadata=_SYMBOL, kw_only=True)
    timeout: int = field(default=0, metadata=_UINT, kw_only=True)
    dynamic: bool = field(default=False, metadata=_BOOLEAN, kw_only=True)
    dynamic_node_properties: Mapping[str, Any] | None = field(
        default=None, metadata=_FIELDS_MAP, kw_only=True
    )
    distribution_mode: str | None = field(default=None, metadata=_SYMBOL, kw_only=True)
    filter: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP, kw_only=True)
    default_outcome: Any = field(default=None, metadata=_STATE, kw_only=True)
    outcomes: tuple[str, ...] = field(default=(), metadata=_SYMBOLS, kw_only=True)
    capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS, kw_only=True)


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages of a link go. [AMQP 3.5.4]"""

    CODE: ClassVar[int] = 0x29
    address: Any = field(default=None, metadata=_ANY)
    durable: int = field(default=0, metadata=_UINT, kw_only=True)
    expiry_policy: str = field(default="session-end", metadata=_SYMBOL, kw_only=True)
    timeout: int = field(default=0, metadata=_UINT, kw_only=True)
    dynamic: bool = field(default=False, metadata=_BOOLEAN, kw_only=True)
    dynamic_node_properties: Mapping[str, Any] | None = field(
        default=None, metadata=_FIELDS_MAP, kw_only=True
    )
    capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS, kw_only=True)


@dataclass(frozen=True, slots=True)
class Received:
    """How much of a delivery has arrived; not an outcome. [AMQP 3.4.1]"""

    CODE: ClassVar[int] = 0x23
    section_number: int = field(metadata=_UINT)
    section_offset: int = field(metadata=_ULONG)


@dataclass(frozen=True, slots=True)
class Accepted:
    CODE: ClassVar[int] = 0x24


@dataclass(frozen=True, slots=True)
class Rejected:
    CODE: ClassVar[int] = 0x25
    error: Error | None = field(default=None, metadata=_ERROR)


@dataclass(frozen=True, slots=True)
class Released:
    CODE: ClassVar[int] = 0x26


@dataclass(frozen=True, slots=True)
class Modified:
    """Given back, changed. [AMQP 3.4.5]"""

    CODE: ClassVar[int] = 0x27
    delivery_failed: bool = field(default=False, metadata=_BOOLEAN)
    undeliverable_here: bool = field(default=False, metadata=_BOOLEAN)
    message_annotations: Mapping[Any, Any] | None = field(default=None, metadata=_FIELDS_MAP)


ACCEPTED = Accepted()
RELEASED = Released()
Outcome = Accepted | Rejected | Released | Modified
DeliveryState = Outcome | Received | Described  # Described: of a kind that is not ours, a transaction's


# --- Transport performatives --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    CODE: ClassVar[int] = 0x10
    container_id: str = field(metadata=_STRING)
    hostname: str | None = field(default=None, metadata=_STRING)
    max_frame_size: int = field(default=UINT_MAX, metadata=_UINT)
    channel_max: int = field(default=0xFFFF, metadata=_USHORT)
    idle_time_out: int | None = field(default=None, metadata=_UINT)  # milliseconds
    outgoing_locales: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    incoming_locales: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    offered_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    desired_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    properties: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    CODE: ClassVar[int] = 0x11
    remote_channel: int | None = field(default=None, metadata=_USHORT)
    next_outgoing_id: int = field(metadata=_UINT)
    incoming_window: int = field(metadata=_UINT)
    outgoing_window: int = field(metadata=_UINT)
    handle_max: int = field(default=UINT_MAX, metadata=_UINT)
    offered_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    desired_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    properties: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    CODE: ClassVar[int] = 0x12
    name: str = field(metadata=_STRING)
    handle: int = field(metadata=_UINT)
    role: bool = field(metadata=_BOOLEAN)
    snd_settle_mode: int = field(default=SND_MIXED, metadata=_UBYTE)
    rcv_settle_mode: int = field(default=RCV_FIRST, metadata=_UBYTE)
    source: Source | None = field(default=None, metadata=_SOURCE)
    target: Target | Described | None = field(default=None, metadata=_TARGET)
    unsettled: Mapping[bytes, Any] | None = field(default=None, metadata=_MAP)
    incomplete_unsettled: bool = field(default=False, metadata=_BOOLEAN)
    initial_delivery_count: int | None = field(default=None, metadata=_UINT)
    max_message_size: int | None = field(default=None, metadata=_ULONG)
    offered_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    desired_capabilities: tuple[str, ...] = field(default=(), metadata=_SYMBOLS)
    properties: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    CODE: ClassVar[int] = 0x13
    next_incoming_id: int | None = field(default=None, metadata=_UINT)
    incoming_window: int = field(metadata=_UINT)
    next_outgoing_id: int = field(metadata=_UINT)
    outgoing_window: int = field(metadata=_UINT)
    handle: int | None = field(default=None, metadata=_UINT)
    delivery_count: int | None = field(default=None, metadata=_UINT)
    link_credit: int | None = field(default=None, metadata=_UINT)
    available: int | None = field(default=None, metadata=_UINT)
    drain: bool = field(default=False, metadata=_BOOLEAN)
    echo: bool = field(default=False, metadata=_BOOLEAN)
    properties: Mapping[str, Any] | None = field(default=None, metadata=_FIELDS_MAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The whole performative; `transfer` reads and writes the common ones faster."""

    CODE: ClassVar[int] = 0x14
    handle: int = field(metadata=_UINT)
    delivery_id: int | None = field(default=None, metadata=_UINT)
    delivery_tag: bytes | None = field(default=None, metadata=_BINARY)
    message_format: int | None = field(default=None, metadata=_UINT)
    settled: bool | None = field(default=None, metadata=_BOOLEAN)
    more: bool = field(default=False, metadata=_BOOLEAN)
    rcv_settle_mode: int | None = field(default=None, metadata=_UBYTE)
    state: Any = field(default=None, metadata=_STATE)
    resume: bool = field(default=False, metadata=_BOOLEAN)
    aborted: bool = field(default=False, metadata=_BOOLEAN)
    batchable: bool = field(default=False, metadata=_BOOLEAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposition:
    CODE: ClassVar[int] = 0x15
    role: bool = field(metadata=_BOOLEAN)
    first: int = field(metadata=_UINT)
    last: int | None = field(default=None, metadata=_UINT)
    settled: bool = field(default=False, metadata=_BOOLEAN)
    state: DeliveryState | None = field(default=None, metadata=_STATE)
    batchable: bool = field(default=False, metadata=_BOOLEAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    CODE: ClassVar[int] = 0x16
    handle: int = field(metadata=_UINT)
    closed: bool = field(default=False, metadata=_BOOLEAN)
    error: Error | None = field(default=None, metadata=_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    CODE: ClassVar[int] = 0x17
    error: Error | None = field(default=None, metadata=_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    CODE: ClassVar[int] = 0x18
    error: Error | None = field(default=None, metadata=_ERROR)


# --- SASL ---------------------------------------------------------------------------------------------------


class SaslCode(IntEnum):
    """The verdict on a SASL exchange. [AMQP 5.3.3.6]"""

    OK = 0
    AUTH = 1  # the credentials do not hold
    SYS = 2  # a system error
    SYS_PERM = 3  # … that will not mend by itself
    SYS_TEMP = 4  # … that may


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanisms:
    CODE: ClassVar[int] = 0x40
    mechanisms: tuple[str, ...] = field(metadata=_SYMBOLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    CODE: ClassVar[int] = 0x41
    mechanism: str = field(metadata=_SYMBOL)
    initial_response: bytes | None = field(default=None, metadata=_BINARY)
    hostname: str | None = field(default=None, metadata=_STRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    CODE: ClassVar[int] = 0x42
    challenge: bytes = field(metadata=_BINARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    CODE: ClassVar[int] = 0x43
    response: bytes = field(metadata=_BINARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslResult:
    """The sasl-outcome frame."""

    CODE: ClassVar[int] = 0x44
    code: int = field(metadata=_UBYTE)
    additional_data: bytes | None = field(default=None, metadata=_BINARY)


# --- Message sections that are composites -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """How a message is to be carried. [AMQP 3.2.1]"""

    CODE: ClassVar[int] = 0x70
    durable: bool = field(default=False, metadata=_BOOLEAN)
    priority: int = field(default=4, metadata=_UBYTE)
    ttl: int | None = field(default=None, metadata=_UINT)  # milliseconds
    first_acquirer: bool = field(default=False, metadata=_BOOLEAN)
    delivery_count: int = field(default=0, metadata=_UINT)


def _read_message_id(value: Any) -> Any:
    # Of numbers only a ulong is allowed, but uamqp sends an int where its user gave one: a reply echoes that too.
    if not isinstance(value, (int, UUID, bytes, str)) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} instead of a message id")
    return value


def _write_message_id(value: Any) -> bytes:
    return encode(ULong(value) if type(value) is int else value)


def _read_timestamp(value: Any) -> int:
    if not isinstance(value, types.Timestamp):
        raise TypeError(f"{type(value).__name__} instead of a timestamp")
    return int(value)


_MESSAGE_ID = _of(_write_message_id, _read_message_id)
_TIMESTAMP = _of(lambda value: encode(types.Timestamp(value)), _read_timestamp)

MessageId = str | UUID | int | bytes  # a plain int is sent as a ulong


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The standard properties of a message; ids keep their AMQP type, so that a reply can echo them. [AMQP 3.2.4]"""

    CODE: ClassVar[int] = 0x73
    message_id: MessageId | None = field(default=None, metadata=_MESSAGE_ID)
    user_id: bytes | None = field(default=None, metadata=_BINARY)
    to: Any = field(default=None, metadata=_ANY)
    subject: str | None = field(default=None, metadata=_STRING)
    reply_to: Any = field(default=None, metadata=_ANY)
    correlation_id: MessageId | None = field(default=None, metadata=_MESSAGE_ID)
    content_type: str | None = field(default=None, metadata=_SYMBOL)
    content_encoding: str | None = field(default=None, metadata=_SYMBOL)
    absolute_expiry_time: int | None = field(default=None, metadata=_TIMESTAMP)  # milliseconds
    creation_time: int | None = field(default=None, metadata=_TIMESTAMP)  # milliseconds
    group_id: str | None = field(default=None, metadata=_STRING)
    group_sequence: int | None = field(default=None, metadata=_UINT)
    reply_to_group_id: str | None = field(default=None, metadata=_STRING)


# --- The codec ----------------------------------------------------------------------------------------------

_SYMBOLIC_NAMES: dict[type, str] = {
    Open: "amqp:open:list",
    Begin: "amqp:begin:list",
    Attach: "amqp:attach:list",
    Flow: "amqp:flow:list",
    Transfer: "amqp:transfer:list",
    Disposition: "amqp:disposition:list",
    Detach: "amqp:detach:list",
    End: "amqp:end:list",
    Close: "amqp:close:list",
    Error: "amqp:error:list",
    Source: "amqp:source:list",
    Target: "amqp:target:list",
    Received: "amqp:received:list",
    Accepted: "amqp:accepted:list",
    Rejected: "amqp:rejected:list",
    Released: "amqp:released:list",
    Modified: "amqp:modified:list",
    Mechanisms: "amqp:sasl-mechanisms:list",
    Init: "amqp:sasl-init:list",
    Challenge: "amqp:sasl-challenge:list",
    Response: "amqp:sasl-response:list",
    SaslResult: "amqp:sasl-outcome:list",
    Header: "amqp:header:list",
    Properties: "amqp:properties:list",
}


class _Field(NamedTuple):
    name: str
    wire: _Wire
    default: Any  # dataclasses.MISSING: must be there


def _fields_of(kind: type) -> tuple[_Field, ...]:
    return tuple(
        [_Field(each.name, each.metadata["wire"], each.default) for each in dataclasses.fields(kind)]
    )


_FIELDS: dict[type, tuple[_Field, ...]] = {kind: _fields_of(kind) for kind in _SYMBOLIC_NAMES}
_BY_DESCRIPTOR: dict[Any, type] = {kind.CODE: kind for kind in _FIELDS}  # type: ignore[attr-defined]
_BY_DESCRIPTOR |= {name: kind for kind, name in _SYMBOLIC_NAMES.items()}


def encode_composite(value: Any) -> bytes:
    """A described list with every field, null or not. Raises TypeError, ValueError for a field of a wrong kind."""
    elements = []
    for name, wire, _ in _FIELDS[type(value)]:
        content = getattr(value, name)
        elements.append(b"\x40" if content is None else wire.write(content))
    return bytes((0x00, 0x53, value.CODE)) + encode_list(elements)


def decode_composite(data: bytes, at: int, end: int) -> tuple[Any, int]:
    """The composite at `at`, and where it ends, which is not behind `end`. Raises Malformed."""
    described, at = types.decode(data, at)
    if at > end:
        raise Malformed("a performative runs past its frame")
    composite = from_described(described)
    if isinstance(composite, Described) or type(composite) not in _FIELDS:
        raise Malformed("a frame that does not begin with a known performative")
    return composite, at


def from_described(value: Any) -> Any:
    """The composite that a described list stands for; a value of another kind as it is. Raises Malformed."""
    if not isinstance(value, Described) or not isinstance(value.descriptor, (ULong, Symbol)):
        return value
    kind = _BY_DESCRIPTOR.get(value.descriptor)
    if kind is None:
        return value
    if not isinstance(value.value, list):
        raise Malformed(f"{kind.__name__.lower()} is not a list")
    return from_list(kind, value.value)


def from_list(kind: type, values: list[Any]) -> Any:
    """A composite of `kind` from its fields in order, those at the end maybe left out. Raises Malformed."""
    fields = _FIELDS[kind]
    if len(values) > len(fields):
        raise Malformed(f"{kind.__name__.lower()} with {len(values)} fields, it has {len(fields)}")
    known: dict[str, Any] = {}
    for (name, wire, default), value in zip(fields, values, strict=False):
        if value is not None:
            try:
                known[name] = wire.read(value)
            except TypeError as error:
                raise Malformed(f"{kind.__name__.lower()}.{name}: {error}") from None
        elif default is dataclasses.MISSING:
            raise Malformed(f"{kind.__name__.lower()}.{name} must not be null")
    try:
        return kind(**known)
    except TypeError:
        raise Malformed(f"{kind.__name__.lower()} lacks a field that it must have") from None
