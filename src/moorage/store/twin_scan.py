"""One bit of a search through twins, as SQL. [hub-service 8]

A bit looks at so many twins, in the order of their keys. It goes through all of them, or, where a condition that has to
hold says what a tag or the status is, through those that an index has for that; whichever gets further.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from moorage.hub import device_identity, module_identity, twin
from moorage.hub.query.places import Form, InDocument, Record, canonical, place
from moorage.hub.query.tree import (
    UNDEFINED,
    All,
    Array,
    Call,
    Comparison,
    Condition,
    Constant,
    Holds,
    Membership,
    Path,
    Source,
)
from moorage.interfaces import Add, Found, Kind, Sought
from moorage.store.twin_conditions import Conditions, Inexpressible, joined

KINDS: Mapping[Source, Mapping[str, Kind[Any]]] = {
    Source.DEVICES: {"t": twin.KIND, "d": device_identity.KIND},
    Source.MODULES: {"t": twin.MODULE_KIND, "d": device_identity.KIND, "m": module_identity.KIND},
}
_DEVICE = {Source.DEVICES: "s.key", Source.MODULES: "substr(s.key, 1, instr(s.key, '/') - 1)"}
_BEFORE, _BEHIND = "/", "0"  # a module's key is its device's id, a slash and its own; '0' follows the slash
_LONGEST = 128  # characters of a text that is found by an index
_INTEGERS = range(-(1 << 63), 1 << 63)  # that SQLite has


@dataclass(frozen=True, slots=True)
class _Index:
    """Where keys of twins stand by `name` and value."""

    table: str
    name: str
    values: tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """Through which table, and up to which key: the last twin that the bit looks at, None where there are no more."""

    last: str | None
    index: _Index | None = None


class Scan:
    """Where a search goes on, `after` a key, and what it looks for."""

    def __init__(self, sought: Sought, scope: int, after: str) -> None:
        self.source = Source(sought.source)
        self.conditions = Conditions(self.source, sought.connected)
        self._table = f"{KINDS[self.source]['t'].name}_search"
        self._scope = self.conditions.bind(scope)
        self._keys_from, self._keys_to = _keys_between(sought.condition, after, self.conditions)
        self._where = self.conditions.where(sought.condition)
        if self.source is Source.MODULES:
            self._where += self._of_device(sought.condition)
        self._by_key = bool(_device_ids(sought.condition, arrays=self.source is Source.DEVICES))
        self._indexes = list(self._usable(sought.condition))

    @property
    def exact(self) -> bool:
        return self.conditions.exact

    def find(self, db: sqlite3.Connection, look_at: int, limit: int) -> Found:
        """First the keys alone, so that whole records are read only of what was found."""
        way = self._way(db, look_at)
        key = "s.key" if way.index is None else "i.key"
        keys = f"SELECT {key} AS key {self._from(way)} ORDER BY {key} LIMIT {self.conditions.bind(limit)}"
        kinds = KINDS[self.source]
        documents = ", ".join(f"{alias}.document" for alias in kinds)
        sql = f"SELECT s.key, {documents} FROM ({keys}) s{self._joins(kinds)} ORDER BY s.key"
        found = db.execute(sql, self.conditions.parameters).fetchall()
        rows = [
            tuple(
                kind.from_document(json.loads(text)) for kind, text in zip(kinds.values(), texts, strict=True)
            )
            for _, *texts in found
        ]
        return Found(rows, found[-1][0] if len(found) == limit else way.last, self.exact)

    def gather(self, db: sqlite3.Connection, look_at: int, collected: Collected, add: Add) -> str | None:
        """Hands over what was found, in one step of Python for all of it. Returns where to go on, None at the end."""
        way = self._way(db, look_at)
        text = db.execute(collected.sql(self._from(way)), self.conditions.parameters).fetchone()[0]
        collected.read(text or "", add)
        return way.last

    # Which twins

    def _way(self, db: sqlite3.Connection, look_at: int) -> _Way:
        if self._by_key:
            return _Way(None)
        ways = [self._through(db, index, look_at) for index in self._indexes]
        if ways:
            fewest, way = min(ways, key=lambda way: way[0])
            if fewest < look_at:
                return way
        keys = f"SELECT s.key FROM {self._table} s WHERE s.scope = {self._scope} AND {self._between('s')}"
        sql = f"{keys} ORDER BY s.key LIMIT 1 OFFSET {self.conditions.bind(look_at - 1)}"
        row = db.execute(sql, self.conditions.parameters).fetchone()
        everywhere = _Way(None if row is None else row[0])
        return max((everywhere, *(way for _, way in ways)), key=lambda way: (way.last is None, way.last))

    def _through(self, db: sqlite3.Connection, index: _Index, look_at: int) -> tuple[int, _Way]:
        """How many of the next `look_at` there are."""
        keys = f"{self._keys(index)} ORDER BY i.key LIMIT {self.conditions.bind(look_at)}"
        sql = f"SELECT count(*), max(key) FROM ({keys})"
        count, last = db.execute(sql, self.conditions.parameters).fetchone()
        return count, _Way(last if count == look_at else None, index)

    def _keys(self, index: _Index) -> str:
        """Of several values a twin can have two, a name of a tag standing in more than one place."""
        bind = self.conditions.bind
        if len(index.values) == 1:
            value = self.conditions.operand(Constant(index.values[0])).value
            keys = f"SELECT i.key FROM {index.table} i"
        else:  # each value is looked up for itself: with IN, SQLite may rather go through all keys
            value = "wanted.value"
            wanted = f"json_each({bind(json.dumps(index.values))}) wanted"
            keys = f"SELECT DISTINCT i.key FROM {wanted} CROSS JOIN {index.table} i"
        said = f"i.scope = {self._scope} AND i.name = {bind(index.name)} AND i.value = {value}"
        return f"{keys} WHERE {said} AND {self._between('i')}"

    def _between(self, alias: str) -> str:
        """Which keys the search can find at all."""
        end = f" AND {alias}.key {self._keys_to}" if self._keys_to else ""
        return f"{alias}.key {self._keys_from}{end}"

    def _from(self, way: _Way) -> str:
        """CROSS JOIN keeps the order: first what is searched, then what is looked up for what was found."""
        first = f"{self._table} s"
        said = [f"s.scope = {self._scope}", self._between("s")]
        if way.index is not None:
            first = f"({self._keys(way.index)}) i CROSS JOIN {self._table} s"
            said = [f"s.scope = {self._scope}", "s.key = i.key"]
        if way.last is not None:
            said.append(f"{'s' if way.index is None else 'i'}.key <= {self.conditions.bind(way.last)}")
        if self._where:
            said.append(joined("AND", self._where))
        return f"FROM {first}{self._joins(self.conditions.tables - {'s'})} WHERE {' AND '.join(said)}"

    def _joins(self, aliases: Collection[str]) -> str:
        """Each has one row for each twin."""
        device, own = _DEVICE[self.source], "s.key"
        on = {"d": device, "m": own, "t": own}
        tables = "".join(
            f" CROSS JOIN {KINDS[self.source][alias].name} {alias}"
            f" ON {alias}.scope = {self._scope} AND {alias}.key = {on[alias]}"
            for alias in ("d", "m", "t")
            if alias in aliases
        )
        if "status" in aliases:
            name = device_identity.KIND.name
            tables += (
                f" CROSS JOIN {name}_index status INDEXED BY {name}_index_by_key"
                f" ON status.scope = {self._scope} AND status.key = {device} AND status.name = 'status'"
            )
        return tables

    def _of_device(self, condition: Condition | None) -> list[str]:
        """The modules of one device stand together: nobody looks through those of all others."""
        bind = self.conditions.bind
        return [
            f"s.key > {bind(f'{device_id}{_BEFORE}')} AND s.key < {bind(f'{device_id}{_BEHIND}')}"
            for device_id in _device_ids(condition)
        ]

    def _usable(self, condition: Condition | None) -> Iterator[_Index]:
        for path, values in _equalities(condition):
            parts = canonical(path.parts)
            name = parts[-1]
            if not _all_in_index(values):
                continue
            if self.source is Source.DEVICES and parts == ("status",):
                yield _Index(f"{device_identity.KIND.name}_index", "status", values)
            elif parts[0] == "tags" and len(parts) > 1 and isinstance(name, str) and _plain(name):
                yield _Index(f"{KINDS[self.source]['t'].name}_tag", name, values)


class Collected:
    """The values of some paths, by which twins are told apart (`by`), or which are handed over for each (`summed`).

    Of several paths in one document `json_extract` makes an array of the texts that stand in it, read once for all of
    them; so SQLite groups twins by such texts, which a type is part of. Raises Inexpressible.
    """

    def __init__(self, scan: Scan, by: Sequence[Path], summed: Sequence[Path]) -> None:
        self._by = _Arrays(scan, by)
        self._summed = _Arrays(scan, summed)

    def sql(self, twins: str) -> str:
        """One row and column: for each group an array of arrays, with commas between the groups."""
        by = {f"b{number}": array for number, array in enumerate(self._by.sql)}
        summed = {f"c{number}": f"group_concat({array})" for number, array in enumerate(self._summed.sql)}
        chosen = "".join(f", {array} AS {name}" for name, array in (by | summed).items())
        groups = f"SELECT count(*) AS n{chosen} {twins}"
        if by:
            groups += f" GROUP BY {', '.join(by)}"
        parts = ["n", *by, *(f"'[' || ifnull({name}, '') || ']'" for name in summed)]
        return f"""SELECT group_concat('[' || {" || ',' || ".join(parts)} || ']') FROM ({groups})"""

    def read(self, text: str, add: Add) -> None:
        groups = json.loads(f"[{text}]")
        if not groups:
            return
        counts, *arrays = zip(*groups, strict=True)
        by, summed = arrays[: len(self._by.sql)], arrays[len(self._by.sql) :]
        common = zip(*self._by.columns(by), strict=True) if by else [()]
        if not summed:
            for values, count in zip(common, counts, strict=True):
                add(values, count, ())
            return
        for values, count, columns in zip(common, counts, zip(*summed, strict=True), strict=True):
            add(values, count, self._summed.columns(columns))


class _Arrays:
    """What SQL collects of each document, and where in that the value of a path stands."""

    def __init__(self, scan: Scan, paths: Sequence[Path]) -> None:
        self._arrays: dict[str, list[str]] = {}  # what is in them, by the document that it is taken from
        self._at = [self._collect(scan, path) for path in paths]
        self.sql = [
            f"json_extract({document}, {', '.join(found if len(found) > 1 else found * 2)})"
            if document
            else f"json_array({', '.join(found)})"
            for document, found in self._arrays.items()
        ]

    def columns(self, arrays: Sequence[Sequence[Sequence[Any]]]) -> list[Sequence[Any]]:
        """A sequence of values for each path, from the arrays of each document."""
        columns = {
            document: list(zip(*rows, strict=True))
            for document, rows in zip(self._arrays, arrays, strict=True)
        }
        return [
            _told_apart(columns[document][position] if columns[document] else (), absent)
            for document, position, absent in self._at
        ]

    def _collect(self, scan: Scan, path: Path) -> tuple[str, int, object]:
        """In which array the values stand, at which place, and what null means there."""
        operand, at = scan.conditions.operand(path), place(path, scan.source)
        document, found = "", operand.value
        absent: object = UNDEFINED
        if isinstance(at, InDocument) and operand.array is not None:
            if at.form is Form.UNLESS_EMPTY:
                raise Inexpressible
            document, found = operand.array
            below_scopes = "parentScopes" in at.parts[:-1]
            # No twin holds null, and no list of scopes does: there null is what is not there.
            if at.record is not Record.TWIN and at.form is Form.AS_KEPT and not below_scopes:
                absent = None
        elif operand.kinds in ((), ("object",)):
            raise Inexpressible
        array = self._arrays.setdefault(document, [])
        array.append(found)
        return document, len(array) - 1, absent


def _told_apart(column: Sequence[Any], absent: object) -> Sequence[Any]:
    if absent is None or None not in column:
        return column
    return [absent if value is None else value for value in column]


# --- What a condition says of a twin's name, tags and status -------------------------------------------------------


def _equalities(condition: Condition | None) -> Iterator[tuple[Path, tuple[object, ...]]]:
    """Of what has to be one of some values."""
    match condition:
        case Comparison("=", Path() as path, Constant(value)) | Comparison(
            "=", Constant(value), Path() as path
        ):
            yield path, (value,)
        case Membership(Path() as path, Array(items), False):
            yield path, tuple(item.value for item in items)
        case All(operands):
            for operand in operands:
                yield from _equalities(operand)


def _device_ids(condition: Condition | None, *, arrays: bool = False) -> list[object]:
    """Of the devices that alone are looked for, or whose modules are, if the condition says so; few at the most."""
    return [
        value
        for path, values in _equalities(condition)
        if canonical(path.parts) == ("deviceId",)
        and (arrays or len(values) == 1)
        and all(isinstance(value, str) for value in values)
        for value in values
    ]


def _keys_between(condition: Condition | None, after: str, conditions: Conditions) -> tuple[str, str]:
    """Where the keys begin and end that come behind `after` and begin as a device's id has to; no end is empty."""
    beginning = max(_beginnings(condition), key=len, default="")
    begin = f"> {conditions.bind(after)}" if beginning <= after else f">= {conditions.bind(beginning)}"
    if not beginning:
        return begin, ""
    return begin, f"< {conditions.bind(beginning[:-1] + chr(ord(beginning[-1]) + 1))}"


def _beginnings(condition: Condition | None) -> Iterator[str]:
    """With what the id of a device has to begin; the key of a module begins with that too."""
    match condition:
        case Holds(Call("startswith" | "starts_with", (Path(parts), Constant(str(beginning))))):
            if canonical(parts) == ("deviceId",) and beginning.isascii():
                yield beginning
        case All(operands):
            for operand in operands:
                yield from _beginnings(operand)


def _all_in_index(values: tuple[object, ...]) -> TypeGuard[tuple[str | int | float, ...]]:
    return all(map(_in_index, values))


def _in_index(value: object) -> bool:
    match value:
        case str():
            return len(value) <= _LONGEST
        case int():
            return value in _INTEGERS
        case float():
            return math.isfinite(value)
        case _:
            return False


def _plain(name: str) -> bool:
    """Whether `name` stands in JSON as it is, whatever release of SQLite reads it there."""
    return name.isascii() and not {'"', "\\"} & set(name)
