"""A query of one hub, page by page. [hub-service 7]

A page of twins goes on behind the key of the last one, so that none is left out or shown twice, whatever changes
meanwhile. What is grouped is gathered anew for each page and goes on behind the last group.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from moorage.errors import Invalid, Unavailable
from moorage.hub.query.functions import Value
from moorage.hub.query.groups import Groups, Order
from moorage.hub.query.meaning import holds, value_of
from moorage.hub.query.parser import parse
from moorage.hub.query.places import JOB_NAMES, canonical, of_job
from moorage.hub.query.tree import UNDEFINED, Aggregate, Item, Path, Query, Source, paths
from moorage.hub.session import ABSENT, Presence, Sessions, name_of
from moorage.hub.twin import module_service_view, service_view
from moorage.interfaces import Clock, Sought, TwinSearch

DEFAULT_PAGE, MAX_PAGE = 100, 1000
SECONDS = 30.0  # for one page
_MAX_TOKEN = 16_384

PART = 200  # twins worked on in one go
FEW = 20  # twins or groups that are made into an answer at once, about a millisecond

TWINS, RAW, JOBS = "Twin", "Raw", "DeviceJob"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One page. Items are JSON texts. `continuation` asks for the next one, None on the last."""

    items: Sequence[str]
    item_type: str
    continuation: str | None


@dataclass(frozen=True, slots=True)
class _Continuation:
    """After which key or group a query goes on, and how many rows its TOP still allows."""

    after: str = ""
    group: Order | None = None
    left: int | None = None

    def token(self, text: str) -> str:
        document = {"q": _digest(text), "a": self.after, "g": self.group, "n": self.left}
        return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()

    @classmethod
    def read(cls, token: str, text: str) -> _Continuation:
        """Raises Invalid for what is no token of this query."""
        try:
            if len(token) > _MAX_TOKEN:
                raise ValueError(len(token))
            document = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
            asked, after, group, left = (document[member] for member in "qagn")
            order = None if group is None else tuple(map(_order_of, group))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Invalid("x-ms-continuation", "is not a token that a query has returned") from None
        if asked != _digest(text):
            raise Invalid(
                "x-ms-continuation", "belongs to another query; send the text that it was returned for"
            )
        if not isinstance(after, str) or not (left is None or isinstance(left, int)):
            raise Invalid("x-ms-continuation", "is not a token that a query has returned")
        return cls(after, order, left)


def _order_of(part: Sequence[Any]) -> tuple[int, float, str, str]:
    rank, figure, text, digest = part
    if not (isinstance(rank, int) and isinstance(figure, int | float)):
        raise TypeError(part)
    return rank, figure, str(text), str(digest)


class TwinQueries:
    """The queries of one hub."""

    def __init__(
        self,
        search: TwinSearch,
        sessions: Sessions,
        presence_of: Callable[[str], Awaitable[Presence]],
        clock: Clock,
    ) -> None:
        self._search = search
        self._sessions = sessions
        self._presence_of = presence_of
        self._clock = clock

    async def run(self, text: str, *, limit: int = DEFAULT_PAGE, continuation: str | None = None) -> Answer:
        """Up to `limit` items. Raises QueryInvalid, QueryTooLong, Invalid, Throttled, Unavailable."""
        query = parse(text)
        at = _Continuation.read(continuation, text) if continuation else _Continuation(left=query.top)
        names = _check(query)
        if query.source is Source.JOBS:
            return Answer((), JOBS, None)  # as long as none can be scheduled
        page = limit if at.left is None else min(limit, at.left)
        gather = self._groups if query.aggregates else self._twins
        items, reached = await gather(query, names, at, page)
        left = None if at.left is None else at.left - len(items)
        onwards = None if left == 0 else reached
        token = replace(onwards, left=left).token(text) if onwards is not None else None
        return Answer(items, RAW if query.items else TWINS, token)

    # Twins

    async def _twins(
        self, query: Query, names: Sequence[str], at: _Continuation, limit: int
    ) -> tuple[list[str], _Continuation | None]:
        """One more than `limit` is looked for: whether there is a next page must be known with this one."""
        items: list[tuple[str, str]] = []  # name and JSON
        sought, until = self._sought(query), self._until()
        after: str | None = at.after
        while after is not None and len(items) <= limit:
            found = await self._search.find(sought, after=after, limit=limit + 1 - len(items))
            items += await self._worked_on(query, found.rows, partial(_items, query, names, found.exact))
            after = found.next
            self._check_time(until)
        more = len(items) > limit
        del items[limit:]
        return [text for _, text in items], _Continuation(items[-1][0]) if more else None

    async def _worked_on(
        self,
        query: Query,
        rows: Sequence[Row],
        work: Callable[[Sequence[Row], Sequence[Presence]], Sequence[T]],
    ) -> list[T]:
        """What `work` makes of the rows and of when each was last heard of: of many, beside the event loop."""
        done: list[T] = []
        told = not query.items or any(canonical(path.parts)[0] in _OF_PRESENCE for path in paths(query))
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            presences = [await self._presence_of(row[0].name) if told else ABSENT for row in part]
            if len(part) <= FEW:
                done += work(part, presences)
            else:
                done += await self._search.aside(partial(work, part, presences))
        return done

    # Groups

    async def _groups(
        self, query: Query, names: Sequence[str], at: _Continuation, limit: int
    ) -> tuple[list[str], _Continuation | None]:
        groups = await self._gathered(query)

        def page() -> tuple[list[str], _Continuation | None]:
            answers = list(groups.answers(at.group, limit + 1))
            rows = [json_text(_named(names, values)) for _, values in answers[:limit]]
            return rows, _Continuation(group=answers[limit - 1][0]) if len(answers) > limit else None

        return await self._search.aside(page) if len(groups) > FEW else page()

    async def _gathered(self, query: Query) -> Groups:
        groups, sought, until = Groups(query), self._sought(query), self._until()
        after: str | None = ""
        while after is not None:
            reached = await self._search.gather(
                sought, query.group_by, groups.summed, groups.add, after=after
            )
            if reached is None:
                await self._gather_whole(query, groups, sought, until)
                break
            after = reached.next
            self._check_time(until)
        return groups

    async def _gather_whole(self, query: Query, groups: Groups, sought: Sought, until: float) -> None:
        """The same from whole twins, where the store cannot pick out what is asked for."""
        after: str | None = ""
        while after is not None:
            found = await self._search.find(sought, after=after, limit=MAX_PAGE)
            await self._worked_on(query, found.rows, partial(_add_whole, query, groups, found.exact))
            after = found.next
            self._check_time(until)

    def _sought(self, query: Query) -> Sought:
        return Sought(
            source=query.source.value, condition=query.where, connected=self._sessions.connected_names
        )

    def _until(self) -> float:
        return self._clock.monotonic() + SECONDS

    def _check_time(self, until: float) -> None:
        if self._clock.monotonic() > until:
            raise Unavailable(f"the query took more than {SECONDS:.0f} s; ask for less")


# --- Twins as services see them ----------------------------------------------------------------------------


Row = tuple[Any, ...]
"""As in `Found`."""

_OF_PRESENCE = ("connectionState", "lastActivityTime", "modelId", "cloudToDeviceMessageCount")


def _judged(
    query: Query, exact: bool, rows: Sequence[Row], presences: Sequence[Presence]
) -> Iterator[dict[str, Any]]:
    views = map(_view, rows, presences)
    if exact or query.where is None:
        return views
    where = query.where
    return (view for view in views if holds(where, view))


def _view(row: tuple[Any, ...], presence: Presence) -> dict[str, Any]:
    twin, device, *module = row
    if module:
        return module_service_view(twin, module[0], device, presence)
    return service_view(twin, device, presence)


def _items(
    query: Query, names: Sequence[str], exact: bool, rows: Sequence[Row], presences: Sequence[Presence]
) -> list[tuple[str, str]]:
    """The name and the JSON of each."""
    return [
        (_name(view), json_text(_row(query, names, view) if query.items else view))
        for view in _judged(query, exact, rows, presences)
    ]


def _add_whole(
    query: Query, groups: Groups, exact: bool, rows: Sequence[Row], presences: Sequence[Presence]
) -> Sequence[None]:
    for view in _judged(query, exact, rows, presences):
        values = [value_of(path, view) for path in query.group_by]
        groups.add(values, 1, [[value_of(path, view)] for path in groups.summed])
    return ()


# --- What a query asks for ---------------------------------------------------------------------------------


def _check(query: Query) -> list[str]:
    """The names of the columns. Raises Invalid for what can be read and makes no sense."""
    if query.source is Source.JOBS:
        _check_jobs(query)
    if query.aggregates:
        if query.source is not Source.DEVICES:
            raise Invalid("query", "GROUP BY and aggregates are there only FROM devices")
        if not query.items:
            raise Invalid("query", "with GROUP BY name what is wanted instead of *")
        grouped = {canonical(path.parts) for path in query.group_by}
        for item in query.items:
            if isinstance(item.value, Aggregate):
                continue
            if not isinstance(item.value, Path) or canonical(item.value.parts) not in grouped:
                raise Invalid("query", f"{item.value} stands neither in GROUP BY nor in an aggregate")
    names = list(_names(query.items))
    for name in names:
        if names.count(name) > 1:
            raise Invalid("query", f"two columns are called {name!r:.100}; name one of them with AS")
    return names


def _check_jobs(query: Query) -> None:
    """Of jobs there are whole rows alone, found by their own members. [hub-service 8.4]"""
    if query.items or query.group_by:
        raise Invalid("query", "FROM devices.jobs there is SELECT * alone, without GROUP BY")
    for path in paths(query):
        if str(of_job(path.parts)[0]).lower() not in JOB_NAMES:
            raise Invalid("query", f"a job has no {path}"[:200])


def _names(items: Sequence[Item]) -> Sequence[str]:
    """A path's last name, as it is written in a twin; what has none is `$1`, `$2`, …"""
    names: list[str] = []
    unnamed = 0
    for item in items:
        last = canonical(item.value.parts)[-1] if isinstance(item.value, Path) else None
        if item.alias is not None:
            names.append(item.alias)
        elif isinstance(last, str):
            names.append(last)
        else:
            unnamed += 1
            names.append(f"${unnamed}")
    return names


def _row(query: Query, names: Sequence[str], view: Mapping[str, Any]) -> dict[str, Any]:
    values = [value_of(item.value, view) for item in query.items if not isinstance(item.value, Aggregate)]
    return _named(names, values)


def _named(names: Sequence[str], values: Sequence[Value]) -> dict[str, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not UNDEFINED}


def _name(view: Mapping[str, Any]) -> str:
    return name_of(view["deviceId"], view.get("moduleId"))


def json_text(item: Mapping[str, Any]) -> str:
    return json.dumps(item, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
