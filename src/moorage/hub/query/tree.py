"""What a query says. Every node prints itself as text that parses to the same node again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Undefined(Enum):
    """The value of what is not there."""

    UNDEFINED = "undefined"

    def __str__(self) -> str:
        return self.value

    def __bool__(self) -> bool:
        return False


UNDEFINED = Undefined.UNDEFINED

Scalar = str | int | float | bool | None | Undefined

PLAIN_NAME = re.compile(r"[A-Za-z_$\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff-]*")
_KEYWORDS = {"select", "top", "from", "where", "group", "by", "as", "and", "or", "not", "in", "nin"}
_KEYWORDS |= {"true", "false", "null", "undefined"}


class Source(Enum):
    """What is searched."""

    DEVICES = "devices"
    MODULES = "devices.modules"
    JOBS = "devices.jobs"


@dataclass(frozen=True, slots=True)
class Constant:
    value: Scalar

    def __str__(self) -> str:
        return _constant(self.value)


@dataclass(frozen=True, slots=True)
class Array:
    items: tuple[Constant, ...]

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.items))}]"


@dataclass(frozen=True, slots=True)
class Path:
    """A name at the root, then names and positions in arrays, as the caller wrote them."""

    parts: tuple[str | int, ...]

    def __str__(self) -> str:
        first, *rest = self.parts
        return str(first) + "".join(map(_part, rest))


@dataclass(frozen=True, slots=True)
class Call:
    """`name` is in lower case."""

    name: str
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Negative:
    operand: Expression

    def __str__(self) -> str:
        inside = self.operand
        number = isinstance(inside, Constant) and isinstance(inside.value, int | float)
        return f"-({inside})" if number or isinstance(inside, Arithmetic) else f"-{inside}"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`operator` is one of + - * / %."""

    operator: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        left, right = str(self.left), str(self.right)
        if isinstance(self.left, Arithmetic) and self.left.binds < self.binds:
            left = f"({left})"
        if isinstance(self.right, Arithmetic) and self.right.binds <= self.binds:
            right = f"({right})"
        return f"{left} {self.operator} {right}"

    @property
    def binds(self) -> int:
        """How tightly."""
        return 1 if self.operator in "+-" else 2


Expression = Constant | Array | Path | Call | Negative | Arithmetic


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of = != < <= > >=; `<>` is `!=`."""

    operator: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


@dataclass(frozen=True, slots=True)
class Membership:
    """`IN`, or with `negated` `NIN`."""

    item: Expression
    among: Array | Path
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.item} {'NIN' if self.negated else 'IN'} {self.among}"


@dataclass(frozen=True, slots=True)
class Not:
    operand: Condition

    def __str__(self) -> str:
        joined = isinstance(self.operand, All | Any)
        return f"NOT ({self.operand})" if joined else f"NOT {self.operand}"


@dataclass(frozen=True, slots=True)
class All:
    """Joined by AND; two or more, none of them an `All`."""

    operands: tuple[Condition, ...]

    def __str__(self) -> str:
        return " AND ".join(f"({each})" if isinstance(each, Any) else str(each) for each in self.operands)


@dataclass(frozen=True, slots=True)
class Any:
    """Joined by OR; two or more, none of them an `Any`."""

    operands: tuple[Condition, ...]

    def __str__(self) -> str:
        return " OR ".join(map(str, self.operands))


@dataclass(frozen=True, slots=True)
class Holds:
    """An expression that stands where a condition is wanted: it holds when it is true."""

    expression: Expression

    def __str__(self) -> str:
        return str(self.expression)


Condition = Comparison | Membership | Not | All | Any | Holds


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`name` is one of count, avg, sum, min, max; a count has no path."""

    name: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.name.upper()}({self.path or ''})"


@dataclass(frozen=True, slots=True)
class Item:
    """One column of the answer; without `alias` it is called after what it is."""

    value: Expression | Aggregate
    alias: str | None = None

    def __str__(self) -> str:
        return f"{self.value} AS {self.alias}" if self.alias else str(self.value)


@dataclass(frozen=True, slots=True)
class Query:
    """`items` is empty for `SELECT *`."""

    source: Source
    items: tuple[Item, ...] = ()
    top: int | None = None
    where: Condition | None = None
    group_by: tuple[Path, ...] = ()

    def __str__(self) -> str:
        top = f"TOP {self.top} " if self.top is not None else ""
        text = f"SELECT {top}{', '.join(map(str, self.items)) or '*'} FROM {self.source.value}"
        if self.where is not None:
            text += f" WHERE {self.where}"
        if self.group_by:
            text += f" GROUP BY {', '.join(map(str, self.group_by))}"
        return text

    @property
    def aggregates(self) -> bool:
        """Whether an answer's row stands for several twins."""
        return bool(self.group_by) or any(isinstance(item.value, Aggregate) for item in self.items)


def is_keyword(text: str) -> bool:
    return text.lower() in _KEYWORDS


def paths(node: Query | Condition | Expression | Aggregate) -> Iterator[Path]:
    """Every path that `node` names, as often as it does."""
    match node:
        case Path():
            yield node
        case Query():
            for item in node.items:
                yield from paths(item.value)
            if node.where is not None:
                yield from paths(node.where)
            yield from node.group_by
        case Aggregate():
            if node.path is not None:
                yield node.path
        case Comparison() | Arithmetic():
            yield from paths(node.left)
            yield from paths(node.right)
        case Membership():
            yield from paths(node.item)
            yield from paths(node.among)
        case All() | Any():
            for operand in node.operands:
                yield from paths(operand)
        case Not() | Negative():
            yield from paths(node.operand)
        case Holds():
            yield from paths(node.expression)
        case Call():
            for argument in node.arguments:
                yield from paths(argument)


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if PLAIN_NAME.fullmatch(part) else f"[{json.dumps(part)}]"


def _constant(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    r"""Between apostrophes; of escapes the language has `\'`, `\"`, `\\` and `\uXXXX` alone."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped) + "'"
