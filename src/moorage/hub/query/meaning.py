"""What an expression is worth, and whether a condition holds, in one twin as services see it. [hub-service 8.3]"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any as Json

from moorage.hub.query.functions import FUNCTIONS, Value, calculate, equal, kind_of
from moorage.hub.query.places import member_of
from moorage.hub.query.tree import (
    UNDEFINED,
    All,
    Any,
    Arithmetic,
    Array,
    Call,
    Comparison,
    Condition,
    Constant,
    Expression,
    Holds,
    Membership,
    Negative,
    Not,
    Path,
)

View = Mapping[str, Json]

CALCULATIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
}
_ORDER: Mapping[str, Callable[[Value, Value], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def value_of(expression: Expression, view: View) -> Value:
    match expression:
        case Constant(value):
            return value
        case Array(items):
            return [item.value for item in items if item.value is not UNDEFINED]
        case Path(parts):
            return member_of(view, parts)
        case Call(name, arguments):
            return FUNCTIONS[name](*(value_of(argument, view) for argument in arguments))
        case Negative(operand):
            return _calculated(operator.sub, 0, value_of(operand, view))
        case Arithmetic(symbol, left, right):
            return _calculated(CALCULATIONS[symbol], value_of(left, view), value_of(right, view))


def holds(condition: Condition, view: View) -> bool:
    return truth(condition, view) is True


def truth(condition: Condition, view: View) -> bool | None:
    """None where it is neither true nor false."""
    match condition:
        case All(operands):
            return _all(truth(operand, view) for operand in operands)
        case Any(operands):
            return _negated(_all(_negated(truth(operand, view)) for operand in operands))
        case Not(operand):
            return _negated(truth(operand, view))
        case Comparison(symbol, left, right):
            return _compared(symbol, value_of(left, view), value_of(right, view))
        case Membership(item, among, negated):
            found = _among(value_of(item, view), value_of(among, view))
            return _negated(found) if negated else found
        case Holds(expression):
            value = value_of(expression, view)
            return value if isinstance(value, bool) else None


def _all(truths: Iterable[bool | None]) -> bool | None:
    known = list(truths)
    if False in known:
        return False
    return None if None in known else True


def _negated(known: bool | None) -> bool | None:
    return None if known is None else not known


def _compared(symbol: str, left: Value, right: Value) -> bool | None:
    if symbol in ("=", "!="):
        same = equal(left, right)
        return same if symbol == "=" else _negated(same)
    if kind_of(left) != kind_of(right) or kind_of(left) not in ("boolean", "number", "string"):
        return None
    return _ORDER[symbol](left, right)


def _among(item: Value, values: Value) -> bool | None:
    """Undefined is among nothing, and not among nothing either; nor is an array or an object."""
    if kind_of(values) != "array" or kind_of(item) in ("undefined", "array", "object"):
        return None
    return any(equal(item, value) is True for value in values)


def _calculated(work: Callable[[float, float], float], left: Value, right: Value) -> Value:
    if kind_of(left) != "number" or kind_of(right) != "number":
        return UNDEFINED
    return calculate(work, left, right)
