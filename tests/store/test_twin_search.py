"""The condition as SQL finds what its meaning says: on twins and queries that hypothesis makes up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moorage.app import KINDS
from moorage.errors import Throttled, Unavailable
from moorage.hub import device_identity, module_identity, twin
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DeviceIdentity
from moorage.hub.module_identity import ModuleIdentity
from moorage.hub.query.functions import kind_of
from moorage.hub.query.meaning import holds, truth, value_of
from moorage.hub.query.parser import parse_condition
from moorage.hub.query.tree import Condition, Not, Path
from moorage.hub.session import Presence
from moorage.hub.twin import Section, Twin, module_service_view, service_view
from moorage.interfaces import Change, Put, Sought
from moorage.store import twin_search
from moorage.store.sqlite import SqliteStore
from tests.support import queries

SCOPE, NOW = 7, 1_800_000_000_000_000
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
EDGE = "ms-azure-iot-edge://gw-1"


def make_twin(
    device_id: str, tags: Any = None, desired: Any = None, reported: Any = None, **rest: Any
) -> Twin:
    made = twin.new_twin(device_id, NOW, tags or {}, desired or {})
    metadata = {"$lastUpdated": twin.timestamp(NOW)}
    return replace(made, reported=Section(values=reported or {}, metadata=metadata, version=3), **rest)


def make_device(device_id: str, **settings: Any) -> DeviceIdentity:
    sas = Authentication.symmetric(KEY, KEY)
    return DeviceIdentity(
        **{"device_id": device_id, "generation_id": "1", "etag": "e1", "authentication": sas, **settings}
    )


identities = st.builds(
    make_device,
    st.just(""),
    status=st.sampled_from(["enabled", "disabled"]),
    status_reason=st.sampled_from([None, "why", ""]),
    status_updated_time=st.sampled_from([None, NOW, NOW + 123_456]),
    authentication=st.sampled_from([Authentication("none"), Authentication.symmetric(KEY, KEY)]),
    iot_edge=st.booleans(),
    device_scope=st.sampled_from([None, EDGE]),
    parent_scopes=st.sampled_from([(), (EDGE, "b")]),
)
twins = st.builds(make_twin, st.just(""), queries.sections, queries.sections, queries.sections)
fleets = st.lists(st.tuples(twins, identities, st.booleans()), min_size=1, max_size=4)

Row = tuple[Twin, DeviceIdentity, ModuleIdentity | None, bool]


def fleet(drawn: Sequence[tuple[Twin, DeviceIdentity, bool]], modules: bool) -> list[Row]:
    """The same twins as those of devices, or of modules of one name each."""
    rows: list[Row] = []
    for number, (made, identity, connected) in enumerate(drawn):
        device_id = f"pump-{number}"
        device = replace(identity, device_id=device_id)
        module = None
        if modules:
            module = ModuleIdentity(
                device_id=device_id,
                module_id="camera",
                generation_id="1",
                etag="m1",
                authentication=Authentication("none"),
            )
        own = replace(made, device_id=device_id, module_id="camera" if modules else None)
        rows.append((own, device, module, connected))
    return rows


def puts(rows: Sequence[Row]) -> list[Change]:
    changes: list[Change] = []
    for made, device, module, _ in rows:
        changes.append(Put(device_identity.KIND, SCOPE, device))
        if module is None:
            changes.append(Put(twin.KIND, SCOPE, made))
        else:
            changes += [Put(module_identity.KIND, SCOPE, module), Put(twin.MODULE_KIND, SCOPE, made)]
    return changes


def view(row: Row) -> dict[str, Any]:
    made, device, module, connected = row
    presence = Presence(connected=connected)
    if module is not None:
        return module_service_view(made, module, device, presence)
    return service_view(made, device, presence)


def sought(rows: Sequence[Row], condition: Condition | None, *, modules: bool = False) -> Sought:
    source = "devices.modules" if modules else "devices"
    names = [row[0].name for row in rows if row[3]]
    return Sought(source=source, condition=condition, connected=lambda: names)


async def found(store: SqliteStore, what: Sought) -> tuple[list[str], bool]:
    """Their names, and whether all of them were looked for."""
    search = store.twin_search(SCOPE)
    names: list[str] = []
    after: str | None = ""
    exact = True
    while after is not None:
        bit = await search.find(what, after=after, limit=2)
        names += [row[0].name for row in bit.rows]
        after, exact = bit.next, exact and bit.exact
    return names, exact


# SQL has no use for the 2; the limit of the search is bound as the same value.
UNUSED = "deviceId = deviceId AND deviceId = array_contains(2, moduleId)"


@settings(max_examples=400)
@given(fleets, queries.conditions, st.booleans())
@example([(make_twin("", {"n": 1}), make_device(""), True)], parse_condition("tags.n = 1.0"), False)
@example([(make_twin("", {"n": True}), make_device(""), True)], parse_condition("tags.n = 1"), False)
@example([(make_twin(""), make_device(""), True)], parse_condition("statusReason != 'x'"), False)
@example([(make_twin("", {"n": "1"}), make_device(""), True)], parse_condition("NOT tags.n NIN [1]"), False)
@example(
    [(make_twin(""), make_device(""), True)], parse_condition("tags.n = 2 OR startswith(deviceId, 7)"), False
)
def test_sql_finds_what_the_condition_means(
    drawn: list[tuple[Twin, DeviceIdentity, bool]], condition: Condition, modules: bool
) -> None:
    rows = fleet(drawn, modules)

    async def check() -> None:
        store = SqliteStore.open(None, kinds=KINDS)
        try:
            await store.apply(puts(rows))
            for asked in (condition, Not(condition)):
                meant = [row[0].name for row in rows if holds(asked, view(row))]
                names, exact = await found(store, sought(rows, asked, modules=modules))
                if exact:
                    assert names == meant
                else:  # what is left for the caller to judge holds all that is looked for
                    assert set(meant) <= set(names)
        finally:
            await store.close()

    asyncio.run(check())


@settings(max_examples=150)
@given(fleets, st.lists(queries.paths, max_size=3), st.booleans())
@example([(make_twin(""), make_device(""), False)], [Path(("parentScopes", 0))], False)
@example([(make_twin(""), make_device(""), False)], [Path(("parentScopes", "x", "y"))], False)
def test_columns_are_the_values_in_the_views(
    drawn: list[tuple[Twin, DeviceIdentity, bool]], paths: list[Path], modules: bool
) -> None:
    rows = fleet(drawn, modules)

    async def check() -> None:
        store = SqliteStore.open(None, kinds=KINDS)
        try:
            await store.apply(puts(rows))
            columns = await store.twin_search(SCOPE).columns(
                sought(rows, None, modules=modules), paths, after=""
            )
        finally:
            await store.close()
        if columns is None:
            return
        assert columns.count == len(rows)
        for path, values in zip(paths, columns.values, strict=True):
            meant = [value_of(path, view(row)) for row in rows]
            assert [(kind_of(value), value) for value in values] == [
                (kind_of(value), value) for value in meant
            ]

    asyncio.run(check())


COMMON = [
    "tags.site = 'a'",
    "tags.site != 'a' and tags.n > 1",
    "NOT (tags.site IN ['a', 'b']) OR properties.reported.up = true",
    "deviceId IN ['pump-1', 'x']",
    "is_defined(properties.desired.n) and properties.desired.n + 1 >= properties.reported.n * 2",
    "status = 'enabled' and connectionState = 'Connected'",
    "startswith(tags.site, 'a') or endswith(tags.site, 'b') or contains(deviceId, 'ump')",
    "array_contains(parentScopes, 'b') or capabilities.iotEdge = true",
    "statusUpdateTime > '2026' and properties.reported.$metadata.$lastUpdated < '2028'",
    "statusReason = null or deviceScope = null or x509Thumbprint.primaryThumbprint = null",
    "is_string(tags.site) and is_number(tags.n) and is_bool(tags.up) and is_primitive(tags.site)",
]


@pytest.mark.parametrize("text", COMMON)
def test_what_is_mostly_asked_is_judged_by_sql_alone(text: str) -> None:
    async def check() -> None:
        store = SqliteStore.open(None, kinds=KINDS)
        _, exact = await found(store, sought([], parse_condition(text)))
        await store.close()
        assert exact

    asyncio.run(check())


DEEP = [
    "a = 1 AND (" * 60 + "a = 1" + ")" * 60,
    "NOT " * 60 + "a = 1",
    "tags.a = 1" + " + 1" * 64,
    " OR ".join(f"tags.a = {number} AND tags.b = 'x'" for number in range(240)),
    " AND ".join(["startswith(tags.a, 'x')"] * 280),
    " AND ".join(["a=1"] * 900),
    f"tags.a IN [{','.join(map(str, range(1500)))}]",
]


@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
def test_no_condition_is_too_much_for_sqlite(text: str) -> None:
    async def check() -> None:
        rows = fleet([(make_twin("", {"a": 1, "b": "x"}), make_device(""), False)], modules=False)
        store = SqliteStore.open(None, kinds=KINDS)
        await store.apply(puts(rows))
        condition = parse_condition(text)
        names, exact = await found(store, sought(rows, condition))
        await store.close()
        assert not exact or bool(names) is (truth(condition, view(rows[0])) is True)

    asyncio.run(check())


# --- On disk, beside the loop ----------------------------------------------------------------------------


async def test_a_search_sees_every_write_that_has_returned(tmp_path: File) -> None:
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    for number in range(20):
        rows = [(make_twin(f"d{number}", {"n": number}), make_device(f"d{number}"), None, False)]
        await store.apply(puts(rows))
        names, _ = await found(store, sought(rows, parse_condition(f"tags.n = {number}")))
        assert names == [f"d{number}"]
        changed = make_twin(f"d{number}", {"n": -1}, version=9)
        await store.apply([Put(twin.KIND, SCOPE, changed, rows[0][0].etag)])
        assert await found(store, sought(rows, parse_condition(f"tags.n = {number}"))) == ([], True)
    await store.close()


async def test_bits_follow_one_another_without_gap(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_search, "BIT", 3)
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    rows: list[Row] = [
        (make_twin(f"d{n:02}", {"even": n % 2 == 0}), make_device(f"d{n:02}"), None, False) for n in range(20)
    ]
    await store.apply(puts(rows))
    names, _ = await found(store, sought(rows, parse_condition("tags.even = true")))
    assert names == [f"d{n:02}" for n in range(0, 20, 2)]
    search, after, counted = store.twin_search(SCOPE), "", 0
    while True:
        columns = await search.columns(sought(rows, None), [], after=after)
        assert columns is not None
        assert columns.count <= 3
        counted += columns.count
        if columns.next is None:
            break
        after = columns.next
    assert counted == 20
    await store.close()


async def test_a_scope_sees_its_own_twins_alone(tmp_path: File) -> None:
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    await store.apply(puts([(make_twin("mine"), make_device("mine"), None, False)]))
    what = sought([], None)
    assert not (await store.twin_search(SCOPE + 1).find(what, after="", limit=9)).rows
    assert (await store.twin_search(SCOPE).find(what, after="", limit=9)).rows
    await store.close()


async def test_only_so_many_statements_run_and_wait(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_search, "WAITING", 3)
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    search = store.twin_search(SCOPE)
    asked = [search.find(sought([], None), after="", limit=1) for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Throttled)]
    assert refused
    assert len(answers) - len(refused) >= 3
    assert len(store._scans._open) <= twin_search.SCANNING  # type: ignore[union-attr]
    await store.close()


async def test_a_statement_that_takes_too_long_is_cut_off(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    store.twin_search(SCOPE)
    scans = store._scans
    assert scans is not None
    monkeypatch.setattr(twin_search, "SECONDS", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Unavailable, match="ask for less"):
        await scans.run(lambda db: db.execute(endless).fetchall())
    monkeypatch.undo()
    assert await scans.run(lambda db: db.execute("SELECT 1").fetchall()) == [(1,)]
    await store.close()


async def test_closing_ends_a_search_that_runs(tmp_path: File) -> None:
    store = SqliteStore.open(tmp_path / "records.sqlite3", kinds=KINDS)
    store.twin_search(SCOPE)
    scans = store._scans
    assert scans is not None
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    running = asyncio.ensure_future(scans.run(lambda db: db.execute(endless).fetchall()))
    while not scans._open:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await store.close()
    with pytest.raises(Unavailable):
        await running
