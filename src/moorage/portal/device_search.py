"""The list of devices: what a reader looks for, the query that asks the hub for it, and what is shown of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from moorage.portal.api import Answer
from moorage.portal.device_address import Address, devices_path
from moorage.portal.forms import Form

COLUMNS = (
    "deviceId, capabilities.iotEdge, status, statusReason, connectionState, authenticationType, "
    "lastActivityTime, statusUpdateTime, cloudToDeviceMessageCount, tags"
)
STATUSES = ("enabled", "disabled")
CONNECTION_STATES = ("Connected", "Disconnected")
AUTHENTICATION_TYPES = ("sas", "selfSigned", "certificateAuthority", "none")

BEFORE = 24  # characters of a line before the place where it is wrong: a phone shows so many
MAX_CELL = 80  # characters of a value in the list

_PLACE = re.compile(r"Line (\d{1,6}):(\d{1,6}) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DeviceSearch:
    """By the beginning of the id and by what is chosen, or by a whole `query`; empty ones ask for nothing."""

    device_id: str = ""
    status: str = ""
    connection: str = ""
    authentication: str = ""
    query: str = ""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """What is none of the choices counts as no choice."""
        search = cls(**{field.name: given.get(field.name, "").strip() for field in fields(cls)})
        return cls(
            search.device_id,
            _one_of(STATUSES, search.status),
            _one_of(CONNECTION_STATES, search.connection),
            _one_of(AUTHENTICATION_TYPES, search.authentication),
            search.query,
        )

    @property
    def wanted(self) -> bool:
        """Whether anything less than all devices is asked for."""
        return any(getattr(self, field.name) for field in fields(self))

    @property
    def text(self) -> str:
        """In the query language of the hub."""
        if self.query:
            return self.query
        said = [
            f"{name} = {quoted(value)}"
            for name, value in (
                ("status", self.status),
                ("connectionState", self.connection),
                ("authenticationType", self.authentication),
            )
            if value
        ]
        if self.device_id:
            said.append(f"STARTSWITH(deviceId, {quoted(self.device_id)})")
        return f"SELECT {COLUMNS} FROM devices{' WHERE ' if said else ''}{' AND '.join(said)}"

    def form(self) -> Form:
        return Form.of({field.name: getattr(self, field.name) for field in fields(self)})

    @property
    def address(self) -> str:
        """As it stands behind the question mark."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return urlencode({name: value for name, value in given.items() if value})


@dataclass(frozen=True, slots=True)
class Row:
    """One device or module of the list; `twin` is what the query answered of it."""

    address: Address
    twin: Mapping[str, Any]
    tags: str

    @classmethod
    def of(cls, hub: str, twin: Mapping[str, Any]) -> Self:
        address = Address(hub, twin["deviceId"], twin.get("moduleId"))
        tags = ", ".join(f"{name}: {shortened(value)}" for name, value in (twin.get("tags") or {}).items())
        return cls(address, twin, shortened(tags))

    @property
    def edge(self) -> bool:
        """As `SELECT *` answers it, and as the columns of the list do."""
        return bool(self.twin.get("iotEdge") or (self.twin.get("capabilities") or {}).get("iotEdge"))


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list shows of an answer: `rows` or, of a query for something else, a table of `cells` below `names`.

    `seen` stands for all of it: a list that has the same one looks the same.
    """

    path: str
    search: DeviceSearch
    rows: Sequence[Row] = ()
    names: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    continuation: str | None = None
    seen: str = ""

    @classmethod
    def nothing(cls, hub: str, search: DeviceSearch) -> Self:
        return cls(devices_path(hub), search)

    @classmethod
    def of(cls, hub: str, search: DeviceSearch, answer: Answer) -> Self:
        items: Sequence[Mapping[str, Any]] = answer.document
        seen = sha256(json.dumps([items, answer.continuation is None]).encode()).hexdigest()[:16]
        empty = cls(devices_path(hub), search, continuation=answer.continuation, seen=seen)
        if not search.query or answer.headers.get("x-ms-item-type") == "Twin":
            return replace(empty, rows=[Row.of(hub, item) for item in items])
        names = list(dict.fromkeys(name for item in items for name in item))
        cells = [[shortened(item[name]) if name in item else "" for name in names] for item in items]
        return replace(empty, names=names, cells=cells)

    @property
    def live(self) -> str:
        """Where its script asks for a list that is another one than this."""
        return f"{self.path}?{self.search.address}&seen={self.seen}"


def shortened(value: object) -> str:
    """A value of a twin in a list: text as it is, all else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


class Place(NamedTuple):
    """Where a query is wrong, counted from 1, what is wrong, and the line with a mark below it."""

    line: int
    column: int
    why: str
    marked: str


def place_of(message: str, query: str) -> Place | None:
    """What the hub said of a query that it could not read; None for what has no place."""
    found = _PLACE.search(message)
    if found is None:
        return None
    line, column = int(found[1]), int(found[2])
    lines = query.split("\n")
    if not 1 <= line <= len(lines):
        return None
    return Place(line, column, found[3], marked(lines[line - 1], column))


def marked(line: str, column: int) -> str:
    """A line, its beginning left out where it is long, and below it a mark at `column`."""
    start = max(0, column - 1 - BEFORE)
    cut = "…" if start else ""
    return f"{cut}{line[start:]}\n{' ' * (len(cut) + column - 1 - start)}^"


def _one_of(known: tuple[str, ...], text: str) -> str:
    return text if text in known else ""


def quoted(text: str) -> str:
    """As a string of the query language."""
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"'{escaped}'"
