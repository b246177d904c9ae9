"""What a query can call, and what it answers [hub-service 8.3, 16].

A function of values gets what its arguments are worth, `UNDEFINED` among it, and answers a value or `UNDEFINED`.
Two look at the type of what they are given (`IS_…`, `ARRAY_CONTAINS`); all others are undefined as soon as an
argument is not of the type that they work on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moorage.hub.query.tree import UNDEFINED

Value = Any
"""What JSON has, or UNDEFINED."""


@dataclass(frozen=True, slots=True)
class Function:
    """`kinds` has the type that each argument must be of, "any" where all will do; `answer` is that of the result."""

    kinds: tuple[str, ...]
    answer: str
    work: Callable[..., Value]
    least: int
    most: int

    @property
    def takes(self) -> str:
        if self.least == self.most:
            return "one argument" if self.most == 1 else f"{self.most} arguments"
        return f"{self.least} to {self.most} arguments"

    def __call__(self, *values: Value) -> Value:
        for value, kind in zip(values, self.kinds, strict=False):
            if kind not in ("any", kind_of(value)):
                return UNDEFINED
        return self.work(*values)


def kind_of(value: Value) -> str:
    """`undefined`, `null`, `boolean`, `number`, `string`, `array` or `object`."""
    if value is UNDEFINED:
        return "undefined"
    if value is None:
        return "null"
    for kind, types in _TYPES.items():
        if isinstance(value, types):
            return kind
    raise TypeError(f"{type(value).__name__} is no JSON value")


_TYPES: dict[str, Any] = {
    "boolean": bool,
    "number": int | float,
    "string": str,
    "array": list | tuple,
    "object": Mapping,
}


def number(value: float) -> Value:
    """What a calculation came to, UNDEFINED where that is no number; whole numbers without a point."""
    if not math.isfinite(value):
        return UNDEFINED
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def calculate(work: Callable[..., float], *operands: float) -> Value:
    """In floating point, as everywhere in the language."""
    try:
        return number(float(work(*map(float, operands))))
    except (ArithmeticError, ValueError):
        return UNDEFINED


def _numeric(work: Callable[..., float], arity: int = 1) -> Function:
    return Function(
        ("number",) * arity, "number", lambda *given: calculate(work, *given), least=arity, most=arity
    )


def _of_text(work: Callable[..., Value], arity: int, answer: str) -> Function:
    return Function(("string",) * arity, answer, work, least=arity, most=arity)


def _is(*kinds: str) -> Function:
    return Function(("any",), "boolean", lambda value: kind_of(value) in kinds, least=1, most=1)


def _contains(values: Value, wanted: Value) -> Value:
    return any(equal(value, wanted) is True for value in values)


def equal(left: Value, right: Value) -> bool | None:
    """Whether two values are equal; None where that is no question: something undefined, or unlike types.

    Null can be told from everything that is there. Arrays and objects are not compared.
    """
    kinds = kind_of(left), kind_of(right)
    if "undefined" in kinds:
        return None
    if "null" in kinds:
        return kinds[0] == kinds[1]
    if kinds[0] != kinds[1] or kinds[0] in ("array", "object"):
        return None
    return bool(left == right)


_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _as_number(text: str) -> Value:
    stripped = text.strip(" \t\r\n")
    return number(float(stripped)) if _JSON_NUMBER.fullmatch(stripped) else UNDEFINED


def _substring(text: str, start: float, length: float | None = None) -> Value:
    if not _position(start) or not (length is None or _position(length)):
        return UNDEFINED
    return text[int(start) :] if length is None else text[int(start) : int(start + length)]


def _index_of(text: str, wanted: str) -> Value:
    return text.find(wanted)


def _position(value: float) -> bool:
    return value >= 0 and float(value).is_integer()


def _concatenated(*texts: str) -> str:
    return "".join(texts)


def _sign(value: float) -> float:
    return (value > 0) - (value < 0)


def to_lower(text: str) -> str:
    return text.lower()


def to_upper(text: str) -> str:
    return text.upper()


_MANY = 16

FUNCTIONS: Mapping[str, Function] = {
    "is_defined": _is("null", "boolean", "number", "string", "array", "object"),
    "is_null": _is("null"),
    "is_bool": _is("boolean"),
    "is_number": _is("number"),
    "is_string": _is("string"),
    "is_array": _is("array"),
    "is_object": _is("object"),
    "is_primitive": _is("null", "boolean", "number", "string"),
    "array_contains": Function(("array", "any"), "boolean", _contains, least=2, most=2),
    "startswith": _of_text(str.startswith, 2, "boolean"),
    "endswith": _of_text(str.endswith, 2, "boolean"),
    "starts_with": _of_text(str.startswith, 2, "boolean"),
    "ends_with": _of_text(str.endswith, 2, "boolean"),
    "contains": _of_text(str.__contains__, 2, "boolean"),
    "concat": Function(("string",) * _MANY, "string", _concatenated, least=2, most=_MANY),
    "length": _of_text(len, 1, "number"),
    "lower": _of_text(to_lower, 1, "string"),
    "upper": _of_text(to_upper, 1, "string"),
    "substring": Function(("string", "number", "number"), "string", _substring, least=2, most=3),
    "index_of": _of_text(_index_of, 2, "number"),
    "as_number": _of_text(_as_number, 1, "number"),
    "abs": _numeric(abs),
    "ceiling": _numeric(math.ceil),
    "exp": _numeric(math.exp),
    "floor": _numeric(math.floor),
    "power": _numeric(math.pow, 2),
    "sign": _numeric(_sign),
    "sqrt": _numeric(math.sqrt),
    "square": _numeric(lambda value: value * value),
}
