"""A query's condition as SQL over the records at rest; every value is bound, none is spliced in. [hub-service 8.3]

Undefined is SQL's NULL: AND, OR and NOT treat both alike. JSON's null is told from it by the type of what is in the
document. What SQL cannot say exactly, or SQLite not parse, is left out: `exact` tells, and whoever asked judges what
was found once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moorage.hub.query.functions import kind_of
from moorage.hub.query.places import Apart, Form, InDocument, Parts, Record, place
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
    Not,
    Path,
    Source,
)

MAX_NESTING = 20
"""Parentheses and CASEs within one another; SQLite's parser before 3.46 has a stack of 100 symbols."""

_KINDS = ("string", "number", "boolean", "null", "array", "object")
_PRIMITIVE = ("string", "number", "boolean")
_JSON_TYPES = {
    "string": "= 'text'",
    "number": "IN ('integer', 'real')",
    "boolean": "IN ('true', 'false')",
    "null": "= 'null'",
    "array": "= 'array'",
    "object": "= 'object'",
}
_TESTS = {
    "is_defined": _KINDS,
    "is_null": ("null",),
    "is_bool": ("boolean",),
    "is_number": ("number",),
    "is_string": ("string",),
    "is_array": ("array",),
    "is_object": ("object",),
    "is_primitive": (*_PRIMITIVE, "null"),
}
_APART: Mapping[Parts, str] = {
    ("tags",): "tags",
    ("desired", "values"): "desired",
    ("reported", "values"): "reported",
}
"""The parts of a twin that have a column of their own in the table that is searched."""

STATUS = InDocument(Record.DEVICE, ("status",))
NEVER = "0001-01-01T00:00:00Z"


class Inexpressible(Exception):
    """SQL cannot say this, or not exactly."""


@dataclass(frozen=True, slots=True)
class Operand:
    """`value` is a scalar, true and false as 1 and 0; NULL unless it is of a primitive kind.

    `kinds` are those that it can have. `json_type`, where there are several, is its type in the document, NULL where
    it is undefined; without one, a value that is NULL is undefined or, if that is its only kind, null.
    """

    kinds: tuple[str, ...]
    value: str
    json_type: str = ""
    array: tuple[str, str] | None = None  # document and path, where elements can be looked at

    def is_a(self, *kinds: str) -> str:
        """True or false, never NULL."""
        wanted = [kind for kind in kinds if kind in self.kinds]
        if not wanted:
            return "0"
        if not self.json_type:
            return "1" if self.kinds in (("null",), ("object",)) else f"({self.value} IS NOT NULL)"
        if len(wanted) == len(_KINDS):
            return f"({self.json_type} IS NOT NULL)"
        return f"ifnull({' OR '.join(f'{self.json_type} {_JSON_TYPES[kind]}' for kind in wanted)}, 0)"

    def of(self, kind: str) -> str:
        """Its value if it is of that kind, else NULL."""
        if kind not in self.kinds:
            return "NULL"
        if not self.json_type:
            return self.value
        return f"CASE WHEN {self.json_type} {_JSON_TYPES[kind]} THEN {self.value} END"


@dataclass
class Conditions:
    """Translates the conditions of one query; collects what they bind and which tables they look into.

    Aliases: `s` what is searched of the twin, `t` the whole twin, `d` the device's identity, `m` the module's, `status`
    the row of the device in the index of its identity: that need not be read as JSON.
    """

    source: Source
    connected: Callable[[], Sequence[str]]
    parameters: dict[str, str | int | float] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    exact: bool = True
    _bound: dict[tuple[type, str | int | float], str] = field(default_factory=dict)

    def bind(self, value: str | int | float) -> str:
        """By name: of what is bound so, SQLite lets a statement leave out what it turned out not to need."""
        key = type(value), value
        if key not in self._bound:
            name = f"p{len(self.parameters)}"
            self.parameters[name] = value
            self._bound[key] = f":{name}"
        return self._bound[key]

    def where(self, condition: Condition | None) -> list[str]:
        """Conditions that all hold for what is looked for; for more than that unless `exact`."""
        if condition is None:
            return []
        said = []
        for each in condition.operands if isinstance(condition, All) else (condition,):
            try:
                sql = self.truth(each)
                if _nesting(sql) > MAX_NESTING:
                    raise Inexpressible
                said.append(sql)
            except Inexpressible:
                self.exact = False
        return said

    # Conditions

    def truth(self, condition: Condition) -> str:
        """1, 0, or NULL where it is neither true nor false."""
        match condition:
            case All(operands):
                return joined("AND", [self.truth(each) for each in operands])
            case Any(operands):
                return joined("OR", [self.truth(each) for each in operands])
            case Not(operand):
                return f"(NOT {self.truth(operand)})"
            case Comparison(operator, left, right):
                return self._compared(operator, self.operand(left), self.operand(right))
            case Membership(item, Array(items), negated):
                found = self._in_array(self.operand(item), items)
            case Membership(item, among, negated):
                member = self.operand(item)
                known = member.is_a(*_PRIMITIVE, "null")
                found = f"CASE WHEN {known} THEN {self._in_elements(self.operand(among), member)} END"
            case Holds(expression):
                return self.operand(expression).of("boolean")
        return f"(NOT {found})" if negated else found

    def _compared(self, operator: str, left: Operand, right: Operand) -> str:
        shared = [kind for kind in _PRIMITIVE if kind in left.kinds and kind in right.kinds]
        branches = []
        if operator in ("=", "!="):
            equal, unequal = ("1", "0") if operator == "=" else ("0", "1")
            if "null" in left.kinds and "null" in right.kinds:
                branches.append(f"WHEN {left.is_a('null')} AND {right.is_a('null')} THEN {equal}")
            for one, other in ((left, right), (right, left)):
                if "null" in one.kinds:
                    branches.append(f"WHEN {one.is_a('null')} AND {other.is_a(*_KINDS)} THEN {unequal}")
        if not branches and len(shared) == 1 and left.kinds == right.kinds == (shared[0],):
            return f"({left.value} {operator} {right.value})"
        branches += [
            f"WHEN {left.is_a(kind)} AND {right.is_a(kind)} THEN {left.value} {operator} {right.value}"
            for kind in shared
        ]
        return f"CASE {' '.join(branches)} END" if branches else "NULL"

    def _in_array(self, item: Operand, constants: Sequence[Constant]) -> str:
        by_kind: dict[str, list[object]] = {kind: [] for kind in (*_PRIMITIVE, "null")}
        for constant in constants:
            if constant.value is not UNDEFINED:
                by_kind[kind_of(constant.value)].append(constant.value)
        branches = []
        for kind, values in by_kind.items():
            if kind not in item.kinds:
                continue
            if kind == "null" or not values:
                among = "1" if values else "0"
            else:
                among = f"{item.value} IN (SELECT value FROM json_each({self.bind(json.dumps(values))}))"
            if item.kinds == (kind,) and not item.json_type and kind != "null" and values:
                return f"({among})"
            branches.append(f"WHEN {item.is_a(kind)} THEN {among}")
        return f"CASE {' '.join(branches)} END" if branches else "NULL"

    def _in_elements(self, array: Operand, item: Operand) -> str:
        if array.array is None:
            return "NULL"
        document, path = array.array
        same = [
            f"({item.is_a(kind)} AND e.type {_JSON_TYPES[kind]} AND e.atom = {item.value})"
            for kind in _PRIMITIVE
            if kind in item.kinds
        ]
        if "null" in item.kinds:
            same.append(f"({item.is_a('null')} AND e.type = 'null')")
        found = f"EXISTS (SELECT 1 FROM json_each({document}, {path}) e WHERE {' OR '.join(same) or '0'})"
        return f"CASE WHEN {array.is_a('array')} THEN {found} END"

    # Values

    def operand(self, expression: Expression) -> Operand:
        """Raises Inexpressible."""
        match expression:
            case Constant(value):
                return self._constant(value)
            case Path():
                return self._path(expression)
            case Call(name, arguments):
                return self._call(name, arguments)
            case Arithmetic(operator, left, right) if operator != "%":
                return Operand(("number",), self._arithmetic(operator, left, right))
            case _:
                raise Inexpressible

    def _constant(self, value: object) -> Operand:
        if value is UNDEFINED:
            return Operand((), "NULL")
        if value is None:
            return Operand(("null",), "NULL")
        if isinstance(value, bool):
            return Operand(("boolean",), self.bind(int(value)))
        if isinstance(
            value, float
        ):  # read from text, as those in documents are, so that equal ones are equal
            return Operand(("number",), f"CAST({self.bind(repr(value))} AS REAL)")
        assert isinstance(value, str | int)
        return Operand((kind_of(value),), self.bind(value))

    def _path(self, path: Path) -> Operand:
        at = place(path, self.source)
        match at:
            case Apart.NOWHERE:
                return Operand((), "NULL")
            case Apart.NAME:
                return Operand(("string",), "s.key")
            case Apart.OBJECT:
                return Operand(("object",), "NULL")
            case Apart.CONNECTED:
                names = self.bind(json.dumps(self.connected()))
                listed = f"s.key IN (SELECT value FROM json_each({names}))"
                return Operand(("string",), f"CASE WHEN {listed} THEN 'Connected' ELSE 'Disconnected' END")
            case InDocument():
                return self._in_document(at)
            case _:
                raise Inexpressible

    def _in_document(self, at: InDocument) -> Operand:
        if at == STATUS:
            self.tables.add("status")
            return Operand(("string",), "status.value")
        document, parts = self._document(at)
        path = self.bind(json_path(parts))
        value, kind = f"json_extract({document}, {path})", f"json_type({document}, {path})"
        if at.form is Form.TIME:
            return Operand(("string",), _time(value))
        if at.form is Form.UNLESS_NULL:
            kind = f"nullif({kind}, 'null')"
        if at.form is Form.UNLESS_EMPTY:
            kind = f"CASE WHEN {value} <> '{{}}' THEN {kind} END"
        return Operand(_KINDS, value, kind, (document, path))

    def _document(self, at: InDocument) -> tuple[str, Parts]:
        """A column, and where in it."""
        column, parts = "document", at.parts
        if at.record is Record.TWIN:
            alias = "t" if "metadata" in parts[1:2] else "s"
            for start, name in _APART.items():
                if parts[: len(start)] == start:
                    column, parts = name, parts[len(start) :]
        elif at.record is Record.OWN and self.source is Source.MODULES:
            alias = "m"
        else:
            alias = "d"
        self.tables.add(alias)
        return f"{alias}.{column}", parts

    def _call(self, name: str, arguments: Sequence[Expression]) -> Operand:
        given = [self.operand(argument) for argument in arguments]
        if name in _TESTS:
            return Operand(("boolean",), given[0].is_a(*_TESTS[name]))
        if name == "array_contains":
            return Operand(("boolean",), self._in_elements(*given))
        text = [operand.of("string") for operand in given]
        match name:
            case "startswith" | "starts_with":
                answer = f"(substr({text[0]}, 1, length({text[1]})) = {text[1]})"
            case "endswith" | "ends_with":
                size = f"length({text[1]})"
                answer = f"(CASE {size} WHEN 0 THEN '' ELSE substr({text[0]}, -{size}) END = {text[1]})"
                answer = f"CASE WHEN {given[0].is_a('string')} THEN {answer} END"
            case "contains":
                answer = f"(instr({text[0]}, {text[1]}) > 0)"
            case _:
                raise Inexpressible
        return Operand(("boolean",), answer)

    def _arithmetic(self, operator: str, left: Expression, right: Expression) -> str:
        """In floating point; a result that is no number, an infinite one too, is undefined."""
        one, other = (f"CAST({self.operand(each).of('number')} AS REAL)" for each in (left, right))
        return f"nullif(nullif({one} {operator} {other}, 9e999), -9e999)"


def json_path(parts: Parts) -> str:
    """As SQLite has it: labels as JSON writes them, for older releases compare them in that form.

    Raises Inexpressible for a label with a quotation mark, for which they have no form.
    """
    if any(isinstance(part, str) and '"' in part for part in parts):
        raise Inexpressible
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{json.dumps(part)}" for part in parts)


def _time(microseconds: str) -> str:
    """As `timestamp` of the twins' module writes it."""
    seconds = f"strftime('%Y-%m-%dT%H:%M:%S', {microseconds} / 1000000, 'unixepoch')"
    return f"ifnull({seconds} || printf('.%06d0Z', {microseconds} % 1000000), '{NEVER}')"


def joined(word: str, said: Sequence[str]) -> str:
    """As a balanced tree: SQLite's trees may be 1000 deep, and a query has more operands than that."""
    if len(said) == 1:
        return said[0]
    middle = len(said) // 2
    return f"({joined(word, said[:middle])} {word} {joined(word, said[middle:])})"


def _nesting(sql: str) -> int:
    depth = deepest = 0
    for word in sql.replace("(", " ( ").replace(")", " ) ").split():
        depth += (word in ("(", "CASE")) - (word in (")", "END"))
        deepest = max(deepest, depth)
    return deepest
