"""Counting, adding up and grouping, over the values of columns. [hub-service 8.3]

Undefined values and those of other types are passed over by what calculates; of unlike values the least and the most
are found in the order null, boolean, number, string. Groups come in the order of what they are grouped by, so that a
caller who has one page can be given the next, whatever changed meanwhile.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from moorage.errors import Invalid
from moorage.hub.query.functions import Value, kind_of, number
from moorage.hub.query.places import Parts, canonical
from moorage.hub.query.tree import UNDEFINED, Aggregate, Path, Query

MAX_GROUPS = 100_000
_SHOWN = 40  # characters of a text that its place in the order shows; behind them a digest decides
_RANK = {kind: rank for rank, kind in enumerate(("undefined", "null", "boolean", "number", "string"))}
_INCOMPARABLE = ("array", "object", "undefined")
_NUMBERS = frozenset({int, float})
_PLAIN = frozenset({str, int, float, type(None)})

Order = tuple[tuple[int, float, str, str], ...]
"""Where a group stands among all; fit for JSON, and short."""


@dataclass(slots=True)
class _Totals:
    """Of one group and one path."""

    count: int = 0
    total: float = 0.0
    least: Value = UNDEFINED
    most: Value = UNDEFINED

    def add(self, values: Sequence[Value]) -> None:
        kinds = set(map(type, values))
        if kinds <= _NUMBERS:  # as they mostly are: at the speed of the built-in functions
            figures, comparable = values, values
        else:
            figures = [value for value in values if kind_of(value) == "number"]
            comparable = [value for value in values if kind_of(value) not in _INCOMPARABLE]
        self.count += len(figures)
        self.total += sum(figures)
        if comparable:
            place = None if kinds <= _NUMBERS else _place
            self._compare(min(comparable, key=place), max(comparable, key=place))

    def _compare(self, least: Value, most: Value) -> None:
        if self.least is UNDEFINED or _place(least) < _place(self.least):
            self.least = least
        if self.most is UNDEFINED or _place(most) > _place(self.most):
            self.most = most

    def answer(self, name: str) -> Value:
        match name:
            case "min":
                return self.least
            case "max":
                return self.most
            case "sum":
                return number(self.total) if self.count else UNDEFINED
            case _:
                return number(self.total / self.count) if self.count else UNDEFINED


@dataclass(slots=True)
class _Group:
    values: tuple[Value, ...]
    totals: tuple[_Totals, ...]
    count: int = 0


@dataclass(slots=True)
class Groups:
    """What a query with aggregates answers, gathered part by part."""

    query: Query
    summed: tuple[Path, ...] = ()
    _by: list[Parts] = field(default_factory=list)
    _groups: dict[tuple[object, ...], _Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [item.value.path for item in self.query.items if isinstance(item.value, Aggregate)]
        self.summed = tuple(dict.fromkeys(path for path in named if path is not None))
        self._by = [canonical(path.parts) for path in self.query.group_by]
        if not self.query.group_by:
            self._group(())  # of nothing there is a count too

    def add(self, values: Sequence[Value], count: int, columns: Sequence[Sequence[Value]]) -> None:
        """`count` twins of the group that has `values`, and what they have at the paths `summed`.

        Raises Invalid when there come to be too many groups.
        """
        key = tuple(map(_key, values))
        group = self._groups.get(key) or self._group(key, tuple(values))
        group.count += count
        for totals, column in zip(group.totals, columns, strict=True):
            totals.add(column)

    def _group(self, key: tuple[object, ...], values: tuple[Value, ...] = ()) -> _Group:
        if len(self._groups) >= MAX_GROUPS:
            raise Invalid("query", f"it makes more than {MAX_GROUPS} groups; narrow it with WHERE")
        self._groups[key] = group = _Group(values, tuple(_Totals() for _ in self.summed))
        return group

    def __len__(self) -> int:
        return len(self._groups)

    def answers(self, after: Order | None, limit: int) -> Iterator[tuple[Order, tuple[Value, ...]]]:
        """Of the first `limit` groups behind `after` each one's place in the order and the values of the query's items.

        Not by `sorted`: that lets no other thread have the interpreter before it is done.
        """
        placed = ((tuple(map(_order, group.values)), group) for group in self._groups.values())
        behind = (each for each in placed if after is None or each[0] > after)
        for order, group in heapq.nsmallest(limit, behind, key=itemgetter(0)):
            yield order, tuple(self._answer(group, item.value) for item in self.query.items)

    def _answer(self, group: _Group, value: object) -> Value:
        if isinstance(value, Path):
            return group.values[self._by.index(canonical(value.parts))]
        assert isinstance(value, Aggregate)
        if value.path is None:
            return group.count
        return group.totals[self.summed.index(value.path)].answer(value.name)


def _key(value: Value) -> object:
    """By what values are told apart: Python takes 1 and true for equal, and no list for a key."""
    return value if type(value) in _PLAIN else (kind_of(value), _text(value))


def _text(value: Value) -> str:
    return "" if value is UNDEFINED else json.dumps(value, sort_keys=True)


def _place(value: Value) -> tuple[int, Value]:
    kind = kind_of(value)
    return _RANK[kind], 0 if kind == "null" else value


def _order(value: Value) -> tuple[int, float, str, str]:
    kind = kind_of(value)
    rank = _RANK.get(kind, len(_RANK))
    if kind in ("boolean", "number"):
        return rank, value, "", ""
    text = value if kind == "string" else _text(value)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16] if len(text) > _SHOWN else ""
    return rank, 0, text[:_SHOWN], digest
