"""The AMQP type system: bytes ⇄ Python values that remember their AMQP type. [AMQP 1.0, part 1]

    null              None                     boolean          bool
    ubyte … ulong     UByte UShort UInt ULong  byte … long      Byte Short Int Long
    float             Float                    double           float
    decimal32 …       Decimal32 … (raw bytes)  char             Char
    timestamp         Timestamp (ms, UTC)      uuid             uuid.UUID
    binary            bytes                    string, symbol   str, Symbol
    list, map, array  list, dict, Array        described        Described(descriptor, value)

The integer classes are `int`, `Symbol` and `Char` are `str`: they compare like their plain values, and only `encode`
looks at the class. A plain `int` has no AMQP type, so `encode` refuses it: a peer that wants an int where
it gets a long answers nothing at all, and an error here is found sooner.

Decoding trusts nothing: sizes are checked before anything is allocated, nesting is bounded, and whatever is
wrong is a Malformed. A value never takes more memory than a small multiple of the bytes that carried it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from moorage.wire.errors import Malformed

MAX_DEPTH = 16  # lists, maps, arrays and descriptions within each other
MAX_WIDTHLESS = (
    16  # elements of an array that take no bytes each, as null does: any count would be free to claim
)


class UByte(int): ...


class UShort(int): ...


class UInt(int): ...


class ULong(int): ...


class Byte(int): ...


class Short(int): ...


class Int(int): ...


class Long(int): ...


class Timestamp(int):
    """Milliseconds since 1970 UTC."""


class Float(float):
    """A 32-bit float; the plain `float` is AMQP's double."""


class Symbol(str):
    """ASCII text from a fixed vocabulary: annotation keys, conditions, capabilities."""


class Char(str):
    """One Unicode character."""


class Decimal32(bytes):
    """IEEE 754 decimal32, uninterpreted: 4 bytes."""


class Decimal64(bytes):
    """IEEE 754 decimal64, uninterpreted: 8 bytes."""


class Decimal128(bytes):
    """IEEE 754 decimal128, uninterpreted: 16 bytes."""


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor that says what it means. [AMQP 1.3]"""

    descriptor: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Array:
    """Values of one type; `of` is their Python class. A descriptor describes each of them. [AMQP 1.6.24]"""

    of: type
    values: tuple[Any, ...]
    descriptor: Any = None


NullType = type(None)

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_I8 = struct.Struct(">b")
_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_F32 = struct.Struct(">f")
_F64 = struct.Struct(">d")
_U32_PAIR = struct.Struct(">II")


# --- Decoding -----------------------------------------------------------------------------------------------

# data, where the constructor ends, depth -> value, its end
Decoder = Callable[[bytes, int, int], tuple[Any, int]]


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """The value at `at`, and where it ends. Raises Malformed."""
    try:
        return _decode(data, at, 0)
    except (IndexError, struct.error):
        raise Malformed("a value runs past the end of the data") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"text is not {error.encoding}") from None


def decode_only(data: bytes) -> Any:
    """The one value that `data` consists of. Raises Malformed, also for bytes behind it."""
    value, end = decode(data)
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes behind the value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return _DECODERS[data[at]](data, at + 1, depth)


def _unknown(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    raise Malformed(f"no type has the constructor 0x{data[at - 1]:02x}")


def _constant(value: Any) -> Decoder:
    return lambda data, at, depth: (value, at)


def _empty_list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    return [], at


def _boolean(data: bytes, at: int, depth: int) -> tuple[bool, int]:
    if data[at] > 1:
        raise Malformed(f"0x{data[at]:02x} is no boolean")
    return data[at] == 1, at + 1


def _number(layout: struct.Struct, make: Callable[[Any], Any]) -> Decoder:
    unpack, width = layout.unpack_from, layout.size
    return lambda data, at, depth: (make(unpack(data, at)[0]), at + width)


def _octet(make: Callable[[int], Any]) -> Decoder:
    return lambda data, at, depth: (make(data[at]), at + 1)


def _char(data: bytes, at: int, depth: int) -> tuple[Char, int]:
    (code,) = _U32.unpack_from(data, at)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise Malformed(f"0x{code:x} is no character")
    return Char(chr(code)), at + 4


def _text(chunk: bytes) -> str:
    return chunk.decode("utf-8")


def _symbol(chunk: bytes) -> Symbol:
    return Symbol(chunk, "ascii")


def _uuid(chunk: bytes) -> UUID:
    return UUID(bytes=chunk)


def _same(chunk: bytes) -> bytes:
    return chunk


def _slice(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise Malformed(f"a value of {end - start} bytes, {len(data) - start} are left")
    return data[start:end]


def _raw(width: int, make: Callable[[bytes], Any]) -> Decoder:
    return lambda data, at, depth: (make(_slice(data, at, at + width)), at + width)


def _variable8(make: Callable[[bytes], Any]) -> Decoder:
    def decoder(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        end = at + 1 + data[at]
        if end > len(data):
            raise Malformed(f"a value of {data[at]} bytes, {len(data) - at - 1} are left")
        return make(data[at + 1 : end]), end

    return decoder


def _variable32(make: Callable[[bytes], Any]) -> Decoder:
    def decoder(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        end = at + 4 + _U32.unpack_from(data, at)[0]
        return make(_slice(data, at + 4, end)), end

    return decoder


# data, first element, end, count, depth -> the compound
Elements = Callable[[bytes, int, int, int, int], Any]


def _compound8(elements: Elements) -> Decoder:
    return lambda data, at, depth: _compound(elements, data, at + 1, data[at], data[at + 1], 1, depth)


def _compound32(elements: Elements) -> Decoder:
    def decoder(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        size, count = _U32_PAIR.unpack_from(data, at)
        return _compound(elements, data, at + 4, size, count, 4, depth)

    return decoder


def _compound(
    elements: Elements, data: bytes, at: int, size: int, count: int, width: int, depth: int
) -> tuple[Any, int]:
    """`size` counts from `at`, where the count of `width` bytes stands. [AMQP 1.2.3]"""
    end = at + size
    if size < width or end > len(data):
        raise Malformed(f"a compound of {size} bytes, {len(data) - at} are left")
    if depth >= MAX_DEPTH:
        raise Malformed(f"values nested more than {MAX_DEPTH} deep")
    return elements(data, at + width, end, count, depth + 1), end


def _list_elements(data: bytes, at: int, end: int, count: int, depth: int) -> list[Any]:
    if count > end - at:  # an element takes one byte or more
        raise Malformed(f"a list of {count} elements in {end - at} bytes")
    values = []
    for _ in range(count):
        value, at = _DECODERS[data[at]](data, at + 1, depth)
        values.append(value)
    _check_end(at, end)
    return values


def _map_elements(data: bytes, at: int, end: int, count: int, depth: int) -> dict[Any, Any]:
    values = _list_elements(data, at, end, count, depth)
    if count % 2:
        raise Malformed("a map with a key and no value")
    try:
        return dict(zip(values[::2], values[1::2], strict=True))
    except TypeError:
        raise Malformed("a map key that is itself a list, map or array") from None


def _array_elements(data: bytes, at: int, end: int, count: int, depth: int) -> Array:
    if at == end and count == 0:  # azure-eventhub leaves out the constructor that nothing would use
        return Array(NullType, ())
    descriptor = None
    code = data[at]
    if code == 0:
        descriptor, at = _decode(data, at + 1, depth)
        code = data[at]
    decoder, of = _DECODERS[code], _ARRAY_TYPES.get(code)
    if of is None:
        raise Malformed(f"no array has elements of constructor 0x{code:02x}")
    at += 1
    if count > (end - at if code >= 0x50 else MAX_WIDTHLESS):
        raise Malformed(f"an array of {count} elements in {end - at} bytes")
    values = []
    for _ in range(count):
        value, at = decoder(data, at, depth)
        values.append(value)
    _check_end(at, end)
    return Array(of, tuple(values), descriptor)


def _check_end(at: int, end: int) -> None:
    if at != end:
        raise Malformed(f"a compound's elements end {at - end:+d} bytes off its size")


def _described(data: bytes, at: int, depth: int) -> tuple[Described, int]:
    if depth >= MAX_DEPTH:
        raise Malformed(f"values nested more than {MAX_DEPTH} deep")
    descriptor, at = _decode(data, at, depth + 1)
    value, at = _decode(data, at, depth + 1)
    return Described(descriptor, value), at


_CONSTRUCTORS: dict[int, tuple[type, Decoder]] = {
    0x40: (NullType, _constant(None)),
    0x41: (bool, _constant(True)),
    0x42: (bool, _constant(False)),
    0x43: (UInt, _constant(UInt(0))),
    0x44: (ULong, _constant(ULong(0))),
    0x45: (list, _empty_list),
    0x50: (UByte, _octet(UByte)),
    0x51: (Byte, _number(_I8, Byte)),
    0x52: (UInt, _octet(UInt)),
    0x53: (ULong, _octet(ULong)),
    0x54: (Int, _number(_I8, Int)),
    0x55: (Long, _number(_I8, Long)),
    0x56: (bool, _boolean),
    0x60: (UShort, _number(_U16, UShort)),
    0x61: (Short, _number(_I16, Short)),
    0x70: (UInt, _number(_U32, UInt)),
    0x71: (Int, _number(_I32, Int)),
    0x72: (Float, _number(_F32, Float)),
    0x73: (Char, _char),
    0x74: (Decimal32, _raw(4, Decimal32)),
    0x80: (ULong, _number(_U64, ULong)),
    0x81: (Long, _number(_I64, Long)),
    0x82: (float, _number(_F64, float)),
    0x83: (Timestamp, _number(_I64, Timestamp)),
    0x84: (Decimal64, _raw(8, Decimal64)),
    0x94: (Decimal128, _raw(16, Decimal128)),
    0x98: (UUID, _raw(16, _uuid)),
    0xA0: (bytes, _variable8(_same)),
    0xA1: (str, _variable8(_text)),
    0xA3: (Symbol, _variable8(_symbol)),
    0xB0: (bytes, _variable32(_same)),
    0xB1: (str, _variable32(_text)),
    0xB3: (Symbol, _variable32(_symbol)),
    0xC0: (list, _compound8(_list_elements)),
    0xC1: (dict, _compound8(_map_elements)),
    0xD0: (list, _compound32(_list_elements)),
    0xD1: (dict, _compound32(_map_elements)),
    0xE0: (Array, _compound8(_array_elements)),
    0xF0: (Array, _compound32(_array_elements)),
}
_ARRAY_TYPES = {code: of for code, (of, _) in _CONSTRUCTORS.items()}
_DECODERS: list[Decoder] = [_unknown] * 256
_DECODERS[0] = _described
for _code, (_, _decoder) in _CONSTRUCTORS.items():
    _DECODERS[_code] = _decoder


# --- Encoding -----------------------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """`value` in the shortest form of its AMQP type.

    Raises TypeError for what has no AMQP type, a plain int among it, and ValueError for what does not fit its type.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_of_parent(value)
    try:
        return encoder(value)
    except struct.error:
        raise ValueError(f"{value!r} does not fit an AMQP {type(value).__name__}") from None


def encode_list(elements: Iterable[bytes]) -> bytes:
    """A list8 or list32 of elements already encoded; never list0, which some decoders do not expect."""
    return _encode_compound(0xC0, 0xD0, list(elements))


def encode_map(items: Mapping[Any, Any], *, key: Callable[[Any], Any] | None = None) -> bytes:
    """A map; `key` turns the given keys into those of the wire, as `Symbol` does for annotations."""
    elements = []
    for name, value in items.items():
        elements.append(encode(name if key is None else key(name)))
        elements.append(encode(value))
    return _encode_compound(0xC1, 0xD1, elements)


def symbol_key(key: Any) -> Any:
    """The key of an annotations or fields map: text becomes a symbol, a ulong stays. [AMQP 3.2.10]"""
    return Symbol(key) if isinstance(key, str) else key


def _encoder_of_parent(value: Any) -> Callable[[Any], bytes]:
    if type(value) is int:
        raise TypeError(f"{value} has no AMQP type: say Int({value}), Long({value}), UInt({value}), …")
    for parent in type(value).__mro__[1:]:
        encoder = _ENCODERS.get(parent)
        if encoder is not None:
            return encoder
    raise TypeError(f"{type(value).__name__} has no AMQP type")


def _encode_compound(small: int, large: int, elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    if len(body) < 255 and len(elements) < 256:
        return bytes((small, len(body) + 1, len(elements))) + body
    return bytes((large,)) + _U32_PAIR.pack(len(body) + 4, len(elements)) + body


def _encode_variable(small: int, large: int, body: bytes) -> bytes:
    if len(body) < 256:
        return bytes((small, len(body))) + body
    return bytes((large,)) + _U32.pack(len(body)) + body


def _encode_boolean(value: bool) -> bytes:
    return b"\x41" if value else b"\x42"


def _encode_unsigned(zero: int, small: int, large: int, layout: struct.Struct) -> Callable[[int], bytes]:
    def encoder(value: int) -> bytes:
        if value == 0:
            return bytes((zero,))
        if 0 < value < 256:
            return bytes((small, value))
        return bytes((large,)) + layout.pack(value)

    return encoder


def _encode_signed(small: int, large: int, layout: struct.Struct) -> Callable[[int], bytes]:
    def encoder(value: int) -> bytes:
        if -128 <= value < 128:
            return bytes((small, value & 0xFF))
        return bytes((large,)) + layout.pack(value)

    return encoder


def _encode_fixed(code: int, body: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    prefix = bytes((code,))
    return lambda value: prefix + body(value)


def _encode_described(value: Described) -> bytes:
    return b"\x00" + encode(value.descriptor) + encode(value.value)


def _encode_array(value: Array) -> bytes:
    return _encode_compound_of(value, 0xE0, 0xF0)


def _encode_compound_of(array: Array, small: int, large: int) -> bytes:
    if array.of not in _ARRAY_ENCODERS:
        raise TypeError(f"{array.of.__name__} has no AMQP type")
    code, body = _ARRAY_ENCODERS[array.of]
    if code == 0x40 and len(array.values) > MAX_WIDTHLESS:
        raise ValueError(f"an array of more than {MAX_WIDTHLESS} nulls")
    described = b"" if array.descriptor is None else b"\x00" + encode(array.descriptor)
    content = described + bytes((code,)) + b"".join([body(value) for value in array.values])
    if len(content) < 255 and len(array.values) < 256:
        return bytes((small, len(content) + 1, len(array.values))) + content
    return bytes((large,)) + _U32_PAIR.pack(len(content) + 4, len(array.values)) + content


def _character(value: Char) -> bytes:
    return _U32.pack(ord(value))


def _sized(width: int) -> Callable[[bytes], bytes]:
    def body(value: bytes) -> bytes:
        if len(value) != width:
            raise ValueError(f"{len(value)} bytes where there must be {width}")
        return bytes(value)

    return body


def _utf8(value: str) -> bytes:
    return value.encode("utf-8")


def _ascii(value: str) -> bytes:
    return value.encode("ascii")


def _uuid_bytes(value: UUID) -> bytes:
    return value.bytes


def _with_length(body: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def sized(value: Any) -> bytes:
        content = body(value)
        return _U32.pack(len(content)) + content

    return sized


def _wide_list(values: list[Any]) -> bytes:
    return _wide([encode(value) for value in values])


def _wide_map(items: dict[Any, Any]) -> bytes:
    return _wide([encode(part) for item in items.items() for part in item])


def _wide(elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    return _U32_PAIR.pack(len(body) + 4, len(elements)) + body


def _wide_array(array: Array) -> bytes:
    encoded = _encode_compound_of(array, 0xE0, 0xF0)
    if encoded[0] == 0xF0:
        return encoded[1:]
    return _U32_PAIR.pack(encoded[1] + 3, encoded[2]) + encoded[3:]


# The one constructor that all elements of an array share, so the widest: class -> (code, body of an element).
_ARRAY_ENCODERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    NullType: (0x40, lambda value: b""),
    bool: (0x56, lambda value: b"\x01" if value else b"\x00"),
    UByte: (0x50, struct.Struct(">B").pack),
    UShort: (0x60, _U16.pack),
    UInt: (0x70, _U32.pack),
    ULong: (0x80, _U64.pack),
    Byte: (0x51, _I8.pack),
    Short: (0x61, _I16.pack),
    Int: (0x71, _I32.pack),
    Long: (0x81, _I64.pack),
    Float: (0x72, _F32.pack),
    float: (0x82, _F64.pack),
    Decimal32: (0x74, _sized(4)),
    Decimal64: (0x84, _sized(8)),
    Decimal128: (0x94, _sized(16)),
    Char: (0x73, _character),
    Timestamp: (0x83, _I64.pack),
    UUID: (0x98, _uuid_bytes),
    bytes: (0xB0, _with_length(bytes)),
    str: (0xB1, _with_length(_utf8)),
    Symbol: (0xB3, _with_length(_ascii)),
    list: (0xD0, _wide_list),
    dict: (0xD1, _wide_map),
    Array: (0xF0, _wide_array),
}

_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    of: _encode_fixed(code, body) for of, (code, body) in _ARRAY_ENCODERS.items()
}
_SHORTER_ENCODERS: dict[type, Callable[[Any], bytes]] = {  # than the form of arrays
    bool: _encode_boolean,
    UInt: _encode_unsigned(0x43, 0x52, 0x70, _U32),
    ULong: _encode_unsigned(0x44, 0x53, 0x80, _U64),
    Int: _encode_signed(0x54, 0x71, _I32),
    Long: _encode_signed(0x55, 0x81, _I64),
    bytes: lambda value: _encode_variable(0xA0, 0xB0, value),
    str: lambda value: _encode_variable(0xA1, 0xB1, value.encode("utf-8")),
    Symbol: lambda value: _encode_variable(0xA3, 0xB3, value.encode("ascii")),
    list: lambda value: encode_list(map(encode, value)),
    tuple: lambda value: encode_list(map(encode, value)),
    dict: encode_map,
    Array: _encode_array,
    Described: _encode_described,
}
_ENCODERS |= _SHORTER_ENCODERS
