"""What every implementation of Records and Store keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooMany, Unavailable
from moorage.interfaces import (
    AtMost,
    Change,
    Clear,
    Delete,
    DeleteBelow,
    DeleteFound,
    Expect,
    Kind,
    Put,
    PutAll,
    Records,
    Require,
    Store,
)
from moorage.store.sqlite import SqliteStore


@dataclass(frozen=True, kw_only=True)
class Buoy:
    """A record with all a store has to keep: a key, an etag, values it is found by, and the rest."""

    name: str
    etag: str = "1"
    lights: tuple[str, ...] = ()
    position: Any = None


def buoy_of(document: dict[str, Any]) -> Buoy:
    return Buoy(**{**document, "lights": tuple(document["lights"])})


BUOYS = Kind[Buoy](
    name="device_identity",
    key=lambda buoy: buoy.name,
    to_document=lambda buoy: {**vars(buoy), "lights": list(buoy.lights)},
    from_document=buoy_of,
    index={"light": lambda buoy: buoy.lights, "position": lambda buoy: [str(buoy.position)]},
)
CHAINS = replace(BUOYS, name="linked_hub", index={})  # a table that no trigger watches
BOTH: Sequence[Kind[Any]] = [BUOYS, CHAINS]


@pytest.fixture(params=["sqlite on disk", "sqlite in memory", "sqlite on disk, of kinds with few records"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    path = None if request.param == "sqlite in memory" else tmp_path / "r.sqlite3"
    few = request.param.endswith("few records")
    opened = SqliteStore.open(path, kinds=[replace(kind, few=few) for kind in BOTH])
    yield opened
    await opened.close()


@pytest.fixture
def buoys(store: Store) -> Records[Buoy]:
    return store.records(BUOYS, scope=1)


async def names(records: Records[Buoy]) -> list[str]:
    return [buoy.name for buoy in (await records.page(limit=1000)).records]


async def test_a_record_comes_back_as_it_was_put(buoys: Records[Buoy]) -> None:
    buoy = Buoy(
        name="Nørre ⚓ '%_\\\0", lights=("r", "g"), position={"x": [1.5, None, True, "\ud800"], "y": 2**70}
    )
    assert await buoys.put(buoy) == buoy
    assert await buoys.get(buoy.name) == buoy


async def test_there_is_nothing_under_a_key_never_put(buoys: Records[Buoy]) -> None:
    assert await buoys.get("n1") is None
    assert await buoys.get("\ud800") is None
    assert await buoys.find("light", "\ud800") == []


async def test_keys_are_told_apart_byte_by_byte(buoys: Records[Buoy]) -> None:
    for name in ("a", "A", "a ", "ä", "a\u0308"):
        await buoys.put(Buoy(name=name, etag=name))
    for name in ("a", "A", "a ", "ä", "a\u0308"):
        found = await buoys.get(name)
        assert found is not None
        assert found.etag == name


async def test_a_scope_does_not_see_another(store: Store, buoys: Records[Buoy]) -> None:
    elsewhere = store.records(BUOYS, scope=2)
    await buoys.put(Buoy(name="n1", lights=("r",)))
    assert await elsewhere.get("n1") is None
    assert await elsewhere.find("light", "r") == []
    assert await elsewhere.count() == 0
    await elsewhere.put(Buoy(name="n1"))
    await elsewhere.delete("n1")
    assert await names(buoys) == ["n1"]


async def test_a_kind_does_not_see_another(store: Store, buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="n1"))
    assert await store.records(CHAINS, scope=1).get("n1") is None


async def test_a_read_sees_every_write_that_has_returned(buoys: Records[Buoy]) -> None:
    async def one(number: int) -> None:
        buoy = Buoy(name=f"n{number}", lights=(f"l{number}",))
        await buoys.put(buoy)
        assert await buoys.get(buoy.name) == buoy
        assert await buoys.find("light", f"l{number}") == [buoy]
        await buoys.put(replace(buoy, etag="2"), expect="1")
        assert await buoys.get(buoy.name) == replace(buoy, etag="2")
        await buoys.delete(buoy.name)
        assert await buoys.get(buoy.name) is None

    await asyncio.gather(*(one(number) for number in range(50)))


# --- What a change expects ---------------------------------------------------------------------------------


async def test_put_expects_no_record_unless_told_otherwise(buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="n1"))
    with pytest.raises(Conflict) as refused:
        await buoys.put(Buoy(name="n1", etag="2"))
    assert (refused.value.kind, refused.value.key) == ("device_identity", "n1")
    assert await buoys.get("n1") == Buoy(name="n1")


async def test_put_expecting_a_record_replaces_it_or_finds_none(buoys: Records[Buoy]) -> None:
    with pytest.raises(NotFound):
        await buoys.put(Buoy(name="n1"), expect=Expect.PRESENT)
    assert await buoys.get("n1") is None
    await buoys.put(Buoy(name="n1"))
    await buoys.put(Buoy(name="n1", etag="2"), expect=Expect.PRESENT)
    assert await buoys.get("n1") == Buoy(name="n1", etag="2")


async def test_put_expecting_anything_creates_or_replaces(buoys: Records[Buoy]) -> None:
    for etag in ("1", "2"):
        await buoys.put(Buoy(name="n1", etag=etag), expect=Expect.ANY)
        assert await buoys.get("n1") == Buoy(name="n1", etag=etag)


async def test_put_expecting_an_etag_replaces_that_version_only(buoys: Records[Buoy]) -> None:
    with pytest.raises(NotFound):
        await buoys.put(Buoy(name="n1", etag="2"), expect="1")
    await buoys.put(Buoy(name="n1", etag="1"))
    await buoys.put(Buoy(name="n1", etag="2"), expect="1")
    with pytest.raises(PreconditionFailed) as refused:
        await buoys.put(Buoy(name="n1", etag="3"), expect="1")
    assert (refused.value.kind, refused.value.key) == ("device_identity", "n1")
    assert await buoys.get("n1") == Buoy(name="n1", etag="2")


async def test_delete_expects_a_record_unless_told_otherwise(buoys: Records[Buoy]) -> None:
    with pytest.raises(NotFound):
        await buoys.delete("n1")
    await buoys.delete("n1", expect=Expect.ANY)
    await buoys.put(Buoy(name="n1"))
    await buoys.delete("n1")
    assert await names(buoys) == []


async def test_delete_expecting_an_etag_deletes_that_version_only(buoys: Records[Buoy]) -> None:
    with pytest.raises(NotFound):
        await buoys.delete("n1", expect="1")
    await buoys.put(Buoy(name="n1", etag="2"))
    with pytest.raises(PreconditionFailed):
        await buoys.delete("n1", expect="1")
    assert await names(buoys) == ["n1"]
    await buoys.delete("n1", expect="2")
    assert await names(buoys) == []


async def test_deleting_what_is_expected_to_be_absent_makes_no_sense(buoys: Records[Buoy]) -> None:
    with pytest.raises(ValueError, match="cannot expect"):
        await buoys.delete("n1", expect=Expect.ABSENT)


async def test_of_200_at_once_each_update_by_etag_is_kept(buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="counter", etag="0", position=0))

    async def add_one() -> None:
        while True:
            counter = await buoys.get("counter")
            assert counter is not None
            more = replace(counter, etag=str(counter.position + 1), position=counter.position + 1)
            try:
                await buoys.put(more, expect=counter.etag)
            except PreconditionFailed:
                continue
            return

    await asyncio.gather(*(add_one() for _ in range(200)))
    assert await buoys.get("counter") == Buoy(name="counter", etag="200", position=200)


async def test_of_200_who_create_the_same_key_at_once_one_wins(buoys: Records[Buoy]) -> None:
    results = await asyncio.gather(
        *(buoys.put(Buoy(name="n1", etag=str(number))) for number in range(200)), return_exceptions=True
    )
    [winner] = [result for result in results if isinstance(result, Buoy)]
    assert sum(isinstance(result, Conflict) for result in results) == 199
    assert await buoys.get("n1") == winner


async def test_a_conflict_leaves_alone_what_others_write_at_the_same_time(buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="taken"))
    results = await asyncio.gather(
        *(buoys.put(Buoy(name=f"n{number:02}" if number % 2 else "taken")) for number in range(100)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 50
    assert await names(buoys) == [f"n{number:02}" for number in range(1, 100, 2)] + ["taken"]


# --- Several changes in one --------------------------------------------------------------------------------


async def test_apply_does_all(store: Store, buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="old"))
    await store.apply(
        [
            Put(BUOYS, 1, Buoy(name="new", lights=("r",))),
            Put(CHAINS, 2, Buoy(name="link")),
            Delete(BUOYS, 1, "old"),
        ]
    )
    assert await names(buoys) == ["new"]
    assert await names(store.records(CHAINS, 2)) == ["link"]


async def test_apply_of_nothing_is_nothing(store: Store) -> None:
    await store.apply([])


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_apply_does_nothing_when_one_record_stands_in_the_way(
    store: Store, buoys: Records[Buoy], position: int
) -> None:
    await buoys.put(Buoy(name="kept", lights=("old",)))
    changes: list[Put[Any] | Delete] = [
        Put(BUOYS, 1, Buoy(name="kept", etag="2", lights=("new",)), "1"),
        Delete(BUOYS, 1, "kept"),
    ]
    changes.insert(position, Delete(CHAINS, 7, "missing"))
    with pytest.raises(NotFound) as refused:
        await store.apply(changes)
    assert (refused.value.kind, refused.value.key) == (CHAINS.name, "missing")
    assert await buoys.get("kept") == Buoy(name="kept", lights=("old",))
    assert await buoys.count("light", "old") == 1
    assert await buoys.count("light", "new") == 0


async def test_within_apply_later_changes_see_earlier_ones(store: Store, buoys: Records[Buoy]) -> None:
    await store.apply(
        [
            Put(BUOYS, 1, Buoy(name="n1", etag="1")),
            Put(BUOYS, 1, Buoy(name="n1", etag="2"), "1"),
            Put(BUOYS, 1, Buoy(name="n2")),
            Delete(BUOYS, 1, "n2", "1"),
        ]
    )
    assert await buoys.get("n1") == Buoy(name="n1", etag="2")
    assert await names(buoys) == ["n1"]


async def test_sets_applied_at_once_stand_or_fall_by_themselves(store: Store, buoys: Records[Buoy]) -> None:
    """Each set takes a berth of its own and, in every third case, one that is taken."""
    await buoys.put(Buoy(name="taken"))

    async def moor(number: int) -> None:
        second = "taken" if number % 3 == 0 else f"{number:02}-b"
        await store.apply([Put(BUOYS, 1, Buoy(name=f"{number:02}-a")), Put(BUOYS, 1, Buoy(name=second))])

    results = await asyncio.gather(*(moor(number) for number in range(60)), return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results] == [number % 3 == 0 for number in range(60)]
    kept = [f"{number:02}-{half}" for number in range(60) if number % 3 for half in "ab"]
    assert await names(buoys) == [*kept, "taken"]


async def test_a_caller_that_gave_up_does_not_disturb_the_others(buoys: Records[Buoy]) -> None:
    puts = [asyncio.create_task(buoys.put(Buoy(name=f"n{number}"))) for number in range(10)]
    await asyncio.sleep(0)
    puts[3].cancel()
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert isinstance(results[3], asyncio.CancelledError)
    assert set(await names(buoys)) >= {f"n{number}" for number in range(10)} - {"n3"}


# --- Finding, counting, paging ------------------------------------------------------------------------------


async def test_a_record_is_found_by_each_of_its_values(buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="n2", lights=("r", "g")))
    await buoys.put(Buoy(name="n1", lights=("g", "g")))
    await buoys.put(Buoy(name="n3"))
    assert [buoy.name for buoy in await buoys.find("light", "r")] == ["n2"]
    assert [buoy.name for buoy in await buoys.find("light", "g")] == ["n1", "n2"]
    assert await buoys.find("light", "G") == []
    assert await buoys.find("position", "r") == []


async def test_a_record_is_found_by_what_it_is_now(buoys: Records[Buoy]) -> None:
    await buoys.put(Buoy(name="n1", etag="1", lights=("r", "g")))
    await buoys.put(Buoy(name="n1", etag="2", lights=("g", "b")), expect="1")
    assert await buoys.find("light", "r") == []
    for light in ("g", "b"):
        assert [buoy.etag for buoy in await buoys.find("light", light)] == ["2"]
    await buoys.put(Buoy(name="n1", etag="3", lights=("w",)), expect=Expect.ANY)
    assert await buoys.count("light", "g") == 0
    assert await buoys.count("light", "w") == 1
    await buoys.delete("n1")
    assert await buoys.find("light", "w") == []
    assert await buoys.count("light", "w") == 0


async def test_count_is_of_all_or_of_those_found_by_a_value(buoys: Records[Buoy]) -> None:
    for number in range(7):
        await buoys.put(Buoy(name=f"n{number}", lights=("r",) if number < 3 else ()))
    assert await buoys.count() == 7
    assert await buoys.count("light", "r") == 3
    assert await buoys.count("light", "g") == 0


async def test_an_index_that_the_kind_does_not_have_is_a_mistake(buoys: Records[Buoy]) -> None:
    with pytest.raises(ValueError, match="no index named 'colour'"):
        await buoys.find("colour", "r")
    with pytest.raises(ValueError, match="no index named 'colour'"):
        await buoys.count("colour", "r")


async def test_pages_join_up_in_key_order(buoys: Records[Buoy]) -> None:
    written = ["", "B", "a", "b", "b\0", "ba", "z", "é", "中", "😀"]
    for name in reversed(written):
        await buoys.put(Buoy(name=name))
    for limit in range(1, 12):
        read: list[str] = []
        after = None
        while True:
            page = await buoys.page(after=after, limit=limit)
            assert len(page.records) <= limit
            read += [buoy.name for buoy in page.records]
            if page.next is None:
                break
            after = page.next
        assert read == written


async def test_a_page_needs_room_for_a_record(buoys: Records[Buoy]) -> None:
    with pytest.raises(ValueError, match="page of 0"):
        await buoys.page(limit=0)


async def test_paging_while_records_go_skips_and_repeats_nothing(buoys: Records[Buoy]) -> None:
    """Whoever deletes page by page, as clients do, meets every record once."""
    await asyncio.gather(*(buoys.put(Buoy(name=f"n{number:03}")) for number in range(100)))
    met = []
    after = None
    while True:
        page = await buoys.page(after=after, limit=7)
        met += [buoy.name for buoy in page.records]
        await asyncio.gather(*(buoys.delete(buoy.name) for buoy in page.records))
        if page.next is None:
            break
        after = page.next
    assert met == [f"n{number:03}" for number in range(100)]
    assert await buoys.count() == 0


# --- Changes that look at other records ----------------------------------------------------------------------


async def test_what_an_index_finds_can_be_deleted_at_once(store: Store, buoys: Records[Buoy]) -> None:
    for name, lights in (("n1", ("r",)), ("n2", ("r", "g")), ("n3", ("g",)), ("n4", ())):
        await buoys.put(Buoy(name=name, lights=lights))
    elsewhere = store.records(BUOYS, scope=2)
    await elsewhere.put(Buoy(name="n1", lights=("r",)))
    await store.apply([DeleteFound(BUOYS, 1, "light", "r")])
    assert await names(buoys) == ["n3", "n4"]
    assert [buoy.name for buoy in await buoys.find("light", "g")] == ["n3"]
    assert await buoys.count("light", "r") == 0
    assert await names(elsewhere) == ["n1"], "a scope does not see another"
    await store.apply([DeleteFound(BUOYS, 1, "light", "r")])


async def test_what_is_below_a_key_can_be_deleted_at_once(store: Store, buoys: Records[Buoy]) -> None:
    written = ["n", "n/", "n/a", "n/a/b", "n/é", "n0", "n.", "na", "o/a"]
    for name in written:
        await buoys.put(Buoy(name=name, lights=("r",)))
    elsewhere = store.records(BUOYS, scope=2)
    await elsewhere.put(Buoy(name="n/a"))
    await store.apply([DeleteBelow(BUOYS, 1, "n")])
    assert await names(buoys) == ["n", "n.", "n0", "na", "o/a"]
    assert [buoy.name for buoy in await buoys.find("light", "r")] == await names(buoys)
    assert await names(elsewhere) == ["n/a"], "a scope does not see another"
    await store.apply([DeleteBelow(BUOYS, 1, "n")])
    with pytest.raises(Invalid, match="surrogate"):
        await store.apply([DeleteBelow(BUOYS, 1, "\ud800")])


async def test_many_are_put_at_once_whatever_is_there(store: Store) -> None:
    chains = store.records(CHAINS, 1)
    odd = {"text": 'é "\\ \x00 😀', "number": 0.1, "none": None, "list": [1, {"a": True}]}
    await chains.put(Buoy(name="n1", etag="7"))
    before = await chains.get("n1")
    many = [Buoy(name=name, etag="", position=odd) for name in ("n1", "n2", "é😀", 'q"\\', "")]
    await store.apply([PutAll(CHAINS, 1, many), Delete(CHAINS, 1, "n2")])
    assert before is not None
    for record in many:
        assert await chains.get(record.name) == (None if record.name == "n2" else record)
    await store.apply([PutAll(CHAINS, 1, [])])
    with pytest.raises(Conflict):
        await store.apply([PutAll(CHAINS, 1, [Buoy(name="n3", etag="")]), Put(CHAINS, 1, Buoy(name="n1"))])
    assert await chains.get("n3") is None, "all or none"
    with pytest.raises(Invalid, match="surrogate"):
        await store.apply([PutAll(CHAINS, 1, [Buoy(name="\ud800", etag="")])])
    for kind, record in ((BUOYS, Buoy(name="n", etag="")), (CHAINS, Buoy(name="n", etag="1"))):
        with pytest.raises(ValueError, match="all at once"):
            await store.apply([PutAll(kind, 1, [record])])


async def test_a_commit_can_require_another_record(store: Store, buoys: Records[Buoy]) -> None:
    changes: list[Change] = [Require(BUOYS, 1, "n1"), Put(CHAINS, 1, Buoy(name="c1"))]
    with pytest.raises(NotFound) as refused:
        await store.apply(changes)
    assert (refused.value.kind, refused.value.key) == ("device_identity", "n1")
    assert await store.records(CHAINS, 1).get("c1") is None, "all or none"
    await buoys.put(Buoy(name="n1"))
    await store.apply(changes)
    assert await store.records(CHAINS, 1).get("c1") is not None
    deleted_first: list[Change] = [Delete(BUOYS, 1, "n1"), Require(BUOYS, 1, "n1")]
    with pytest.raises(NotFound):
        await store.apply(deleted_first)
    assert await names(buoys) == ["n1"]


async def test_a_limit_holds_whoever_comes_at_once(store: Store, buoys: Records[Buoy]) -> None:
    async def one(number: int) -> bool:
        buoy = Buoy(name=f"n{number}", lights=("r",))
        try:
            await store.apply([Put(BUOYS, 1, buoy), AtMost(BUOYS, 1, "light", "r", 3)])
        except TooMany:
            return False
        return True

    assert sum(await asyncio.gather(*map(one, range(10)))) == 3
    assert await buoys.count() == 3
    await store.apply([DeleteFound(BUOYS, 1, "light", "r"), Put(BUOYS, 1, Buoy(name="n", lights=("r",)))])
    assert await one(11)


async def test_changes_by_an_index_name_one_that_there_is(store: Store) -> None:
    for change in (DeleteFound(BUOYS, 1, "colour", "r"), AtMost(BUOYS, 1, "colour", "r", 1)):
        with pytest.raises(ValueError, match="no index named 'colour'"):
            await store.apply([change])
    for change in (DeleteFound(BUOYS, 1, "light", "\ud800"), AtMost(BUOYS, 1, "light", "\ud800", 1)):
        with pytest.raises(Invalid, match="surrogate"):
            await store.apply([change])


# --- Text and the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "buoy", [Buoy(name="\udc00"), Buoy(name="n", etag="\ud800"), Buoy(name="n", lights=("a\ud800",))]
)
async def test_half_a_surrogate_pair_is_no_key(buoys: Records[Buoy], buoy: Buoy) -> None:
    with pytest.raises(Invalid, match="surrogate"):
        await buoys.put(buoy)
    with pytest.raises(Invalid, match="surrogate"):
        await buoys.put(Buoy(name="n"), expect="\ud800")
    with pytest.raises(Invalid, match="surrogate"):
        await buoys.delete("n", expect="\ud800")
    assert await buoys.count() == 0


async def test_a_closed_store_does_nothing_more(store: Store, buoys: Records[Buoy]) -> None:
    assert isinstance(store, SqliteStore)
    writing = [asyncio.create_task(buoys.put(Buoy(name=f"n{number}"))) for number in range(5)]
    await asyncio.gather(*writing)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await buoys.get("n1")
    with pytest.raises(Unavailable, match="closed"):
        await buoys.put(Buoy(name="n9"))


# --- Any history --------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["k1", "k2", "k3"])
LIGHTS = st.lists(st.sampled_from(["r", "g", "b"]), max_size=3).map(tuple)
EXPECTS = st.sampled_from([*Expect, "1", "2"])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, LIGHTS, EXPECTS),
    st.tuples(
        st.just("delete"), KEYS, st.just(()), EXPECTS.filter(lambda expect: expect is not Expect.ABSENT)
    ),
)


def stands_in_the_way(found: Buoy | None, expect: Expect | str) -> type[Exception] | None:
    """The rule of Expect, once more and plainly."""
    if expect is Expect.ANY:
        return None
    if expect is Expect.ABSENT:
        return Conflict if found else None
    if found is None:
        return NotFound
    return PreconditionFailed if isinstance(expect, str) and expect != found.etag else None


@settings(deadline=None, max_examples=60)
@given(history=st.lists(st.lists(STEPS, min_size=1, max_size=4), max_size=8))
async def test_any_history_leaves_what_a_dictionary_would_hold(
    history: list[list[tuple[str, str, tuple[str, ...], Expect | str]]],
) -> None:
    store = SqliteStore.open(None, kinds=BOTH)
    buoys = store.records(BUOYS, 1)
    model: dict[str, Buoy] = {}
    for steps in history:
        after, refused = dict(model), None
        changes: list[Put[Any] | Delete] = []
        for verb, key, lights, expect in steps:
            record = Buoy(name=key, etag=str(len(lights)), lights=lights)
            changes.append(Put(BUOYS, 1, record, expect) if verb == "put" else Delete(BUOYS, 1, key, expect))
            refused = refused or stands_in_the_way(after.get(key), expect)
            if verb == "put":
                after[key] = record
            else:
                after.pop(key, None)
        if refused is None:
            await store.apply(changes)
            model = after
        else:
            with pytest.raises(refused):
                await store.apply(changes)
        assert (await buoys.page(limit=9)).records == [model[key] for key in sorted(model)]
        for light in "rgb":
            lit = [model[key] for key in sorted(model) if light in model[key].lights]
            assert await buoys.find("light", light) == lit
            assert await buoys.count("light", light) == len(lit)
    await store.close()


async def test_clearing_a_scope_leaves_the_others_as_they_were(store: Store) -> None:
    for scope in (1, 2):
        await store.records(BUOYS, scope).put(Buoy(name="n1", lights=("red",)))
        await store.records(CHAINS, scope).put(Buoy(name="n1"))

    await store.apply([Clear(1)])

    assert [await names(store.records(kind, 1)) for kind in BOTH] == [[], []]
    assert await store.records(BUOYS, 1).find("light", "red") == []
    assert [await names(store.records(kind, 2)) for kind in BOTH] == [["n1"], ["n1"]]
    assert len(await store.records(BUOYS, 2).find("light", "red")) == 1


async def test_a_scope_is_cleared_only_if_all_the_rest_can_be_done(store: Store) -> None:
    await store.records(BUOYS, 1).put(Buoy(name="n1"))

    with pytest.raises(NotFound):
        await store.apply([Clear(1), Delete(CHAINS, 2, "gone")])

    assert await names(store.records(BUOYS, 1)) == ["n1"]
