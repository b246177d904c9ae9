"""Changes of twins: what is told of them, and what becomes of those that meet [hub-device 7.2, hub-service 6.2]."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Invalid, NotFound, PreconditionFailed
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.session import Principal, Session, Sessions
from moorage.hub.twin import KIND, Twin, new_twin
from moorage.hub.twin_change import Operation, patch_twin, replace_twin, report
from moorage.hub.twins import OtherVersion, Report, Twins
from moorage.interfaces import Clock, Expect, Put, Store
from tests.support.sessions import ClosingLink
from tests.support.twins import SeenChanges

NOW = 1_777_717_230_123_456
AT = "2026-05-02T10:20:30.1234560Z"


def twin(tags: dict[str, Any] | None = None, desired: dict[str, Any] | None = None) -> Twin:
    return new_twin("pump-7", NOW, tags, desired)


def desired(document: object) -> dict[str, Any]:
    return {"properties": {"desired": document}}


# --- One change ---------------------------------------------------------------------------------------------


def test_a_patch_says_what_was_written() -> None:
    made = twin({"site": "A"}, {"a": 1})
    change = patch_twin(made, NOW, {"tags": {"site": None}, **desired({"a": None, "$version": 7})})
    assert (change.operation, change.before) == (Operation.UPDATE, made)
    assert (change.tags, change.desired, change.reported) == ({"site": None}, {"a": None}, None)
    assert (change.after.version, change.after.revision) == (made.version + 1, made.revision + 1)


def test_a_patch_of_nothing_is_a_write_all_the_same() -> None:
    change = patch_twin(twin(), NOW, {})
    assert (change.tags, change.desired) == (None, None)
    assert (change.after.version, change.after.desired.version) == (3, 1)
    assert patch_twin(twin(), NOW, desired({})).after.desired.version == 2


def test_a_replacement_says_all_there_is() -> None:
    change = replace_twin(twin({"site": "A"}, {"a": 1}), NOW, desired({"b": {"c": None}, "d": None}))
    assert (change.operation, change.tags, change.desired) == (Operation.REPLACE, {}, {"b": {}})
    assert change.after.desired.version == 2
    stamp = {"$lastUpdated": AT, "$lastUpdatedVersion": 2}
    assert change.after.desired.metadata == {**stamp, "b": stamp}


def test_what_is_reported_carries_no_version_in_its_metadata() -> None:
    change = report(twin(), NOW, {"a": {"b": 1}, "gone": None})
    assert change.reported == {"a": {"b": 1}, "gone": None}, "events tell what was deleted"
    at = {"$lastUpdated": AT}
    assert change.after.reported.metadata == {**at, "a": {**at, "b": at}}
    assert (change.after.version, change.after.revision) == (3, 1)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text("abc", max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = st.dictionaries(st.sampled_from("abc"), DOCUMENTS, max_size=3)


def merged(values: Any, patch: Any) -> Any:
    """RFC 7396, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(values) if isinstance(values, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def same_shape(values: Any, metadata: Any) -> bool:
    below = values if isinstance(values, dict) else {}
    return set(metadata) - {"$lastUpdated", "$lastUpdatedVersion"} == set(below) and all(
        same_shape(value, metadata[key]) for key, value in below.items()
    )


@given(first=SECTIONS, second=SECTIONS, replaced=st.booleans())
def test_patches_merge_as_the_standard_says_and_metadata_mirrors_the_values(
    first: dict[str, Any], second: dict[str, Any], replaced: bool
) -> None:
    made = patch_twin(twin(), NOW, desired(first)).after
    write = replace_twin if replaced else patch_twin
    for changed, before in (
        (write(made, NOW, desired(second)).after.desired, {} if replaced else merged({}, first)),
        (report(report(twin(), NOW, first).after, NOW, second).after.reported, merged({}, first)),
    ):
        assert changed.values == merged(before, second)
        assert same_shape(changed.values, changed.metadata)
        assert changed.version == 3


@given(first=SECTIONS, second=SECTIONS)
def test_a_device_that_merges_what_it_is_told_has_what_the_twin_has(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The promise behind a notification, also where null clears all."""
    made = patch_twin(twin(), NOW, desired(first))
    change = patch_twin(made.after, NOW, desired(second))
    cleared = patch_twin(change.after, NOW, desired(None))
    seen: Any = {}
    for each in (made, change, cleared):
        seen = merged(seen, each.desired)
        assert seen == each.after.desired.values


# --- Of a hub -----------------------------------------------------------------------------------------------


@pytest.fixture
async def twins(identities: Identities) -> Twins:
    """With the twin of pump-7."""
    await identities.create(IdentitySettings(device_id="pump-7", authentication=Authentication.symmetric()))
    return identities.twins


@pytest.fixture
def link(sessions: Sessions, clock: Clock) -> ClosingLink:
    link = ClosingLink()
    sessions.open(Session(Principal("pump-7", "1", "device", "sas"), clock.now(), link))
    return link


async def test_changes_are_told_in_order_and_only_once_they_are_durable(
    twins: Twins, link: ClosingLink
) -> None:
    seen = SeenChanges()
    twins.observe(seen)
    writes = [twins.patch("pump-7", desired({f"k{n}": n})) for n in range(5)]
    reports = [twins.report("pump-7", [Report({"n": n}), Report({"m": n})]) for n in range(5)]
    await asyncio.gather(*writes, *reports, twins.replace("pump-7", {"tags": {"a": 1}}))
    assert [change.after.version for change in seen] == list(range(3, 3 + len(seen)))
    assert all(before.after == after.before for before, after in itertools.pairwise(seen))
    assert seen[-1].after == await twins.get("pump-7")
    told = [change.after.desired.version for change in seen if change.desired is not None]
    assert [version for _, version in link.desired] == told == list(range(2, 2 + len(told)))


async def test_many_who_write_one_twin_at_once_each_read_it_once(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    get = twins.get

    async def looking(device_id: str, module_id: str | None = None) -> Twin:
        nonlocal looked
        looked += 1
        return await get(device_id, module_id)

    monkeypatch.setattr(twins, "get", looking)
    writes = [twins.patch("pump-7", {"tags": {f"t{n}": n}}) for n in range(30)]
    reports = [twins.report("pump-7", [Report({f"r{n}": n})]) for n in range(30)]
    await asyncio.gather(*writes, *reports)
    assert looked == 60
    kept = await get("pump-7")
    assert kept.tags == {f"t{n}": n for n in range(30)}
    assert kept.reported.values == {f"r{n}": n for n in range(30)}


async def test_one_who_gives_up_does_not_keep_others_from_a_twin(twins: Twins) -> None:
    first, second, third = (
        asyncio.ensure_future(twins.patch("pump-7", {"tags": {"n": n}})) for n in range(3)
    )
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert (await twins.get("pump-7")).tags == {"n": 2}


async def test_a_refused_write_is_told_to_nobody(twins: Twins, link: ClosingLink) -> None:
    seen = SeenChanges()
    twins.observe(seen)
    with pytest.raises(Invalid):
        await twins.patch("pump-7", desired({"$a": 1}))
    with pytest.raises(PreconditionFailed):
        await twins.replace("pump-7", desired({"a": 1}), "AAAAAAAAAAI=")
    (outcome,) = await twins.report("pump-7", [Report({"$a": 1})])
    assert isinstance(outcome, Invalid)
    with pytest.raises(NotFound):
        await twins.patch("pump-8", desired({"a": 1}))
    assert (seen, link.desired) == ([], [])


async def test_one_refused_report_leaves_the_others(twins: Twins) -> None:
    first, second, third, fourth = await twins.report(
        "pump-7", [Report({"a": 1}, 1), Report([]), Report({"b": 1}, 1), Report({"c": 1}, 2)]
    )
    assert isinstance(second, Invalid)
    assert isinstance(third, OtherVersion)
    assert "at version 2, not 1" in str(third)
    assert isinstance(first, Twin)
    assert isinstance(fourth, Twin)
    assert (first.reported.version, fourth.reported.version) == (2, 3)
    assert (await twins.get("pump-7")).reported.values == {"a": 1, "c": 1}


async def test_a_condition_holds_against_services_and_not_against_the_device(twins: Twins) -> None:
    read = await twins.get("pump-7")
    await twins.report("pump-7", [Report({"a": 1})])
    changed = await twins.patch("pump-7", {"tags": {"a": 1}}, read.service_etag)
    assert changed.version == 4
    outcomes = await asyncio.gather(
        *(twins.patch("pump-7", {"tags": {"n": n}}, changed.service_etag) for n in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Twin) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, PreconditionFailed) for outcome in outcomes) == 4


async def test_a_twin_that_goes_while_it_is_written(
    twins: Twins, identities: Identities, store: Store
) -> None:
    outcomes = await asyncio.gather(
        identities.delete("pump-7"),
        twins.patch("pump-7", {"tags": {"a": 1}}),
        twins.report("pump-7", [Report({"a": 1})]),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    assert [type(outcome) for outcome in outcomes[1:]] == [NotFound, NotFound]


async def test_a_twin_of_before_there_were_reports(store: Store, twins: Twins) -> None:
    """It was kept with one count for both, version and etag."""
    document = KIND.to_document(await twins.get("pump-7")) | {"version": 9}
    del document["revision"]
    old = KIND.from_document(document)
    assert old.service_etag == "AAAAAAAAAAg="
    await store.apply([Put(KIND, 7, old, Expect.ANY)])
    assert (await twins.patch("pump-7", {"tags": {"a": 1}}, "AAAAAAAAAAg=")).version == 10
