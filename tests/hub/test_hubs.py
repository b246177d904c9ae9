"""The hubs of one server: found by host, made, kept, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from moorage.app import KINDS
from moorage.credentials import policy
from moorage.errors import Conflict, InUse, Invalid, NotFound, PreconditionFailed, Unavailable
from moorage.hub import authority, device_identity, module_identity, scopes, twin
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.hubs import Hubs, check_host, founding
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import HUB_DELETED, Principal, Session
from moorage.interfaces import Change, Clock, Expect, Kind, Put, Store
from moorage.store.sqlite import SqliteStore
from tests.support.frontage import PaperFrontage
from tests.support.sessions import ClosingLink


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = SqliteStore.open(None, kinds=KINDS)
    yield opened
    await opened.close()


@pytest.fixture
def frontage() -> PaperFrontage:
    return PaperFrontage()


async def opened(store: Store, clock: Clock, frontage: PaperFrontage) -> Hubs:
    hubs = Hubs(store=store, clock=clock, reserved=("dps.example.net",))
    await hubs.open()
    hubs.attach(frontage)
    return hubs


@pytest.fixture
async def hubs(store: Store, hub: Hub, clock: Clock, frontage: PaperFrontage) -> Hubs:
    """With the first one, of scope 7."""
    await store.apply(founding(hub))
    return await opened(store, clock, frontage)


def found(hubs: Hubs, host: str) -> str | None:
    known = hubs.by_host(host)
    return known[0].name if known is not None else None


async def add_device(identities: Identities, device_id: str) -> None:
    keys = Authentication.symmetric("MDEyMzQ1Njc4OWFiY2RlZg==")
    await identities.create(IdentitySettings(device_id=device_id, authentication=keys))


async def test_any_name_means_the_only_hub_and_none_of_several(hubs: Hubs) -> None:
    assert found(hubs, "hub.azure-devices.net") == "hub"

    await hubs.create("beta")

    assert found(hubs, "hub.azure-devices.net") is None
    assert found(hubs, "LOCALHOST:8443") == "hub"
    assert found(hubs, "127.0.0.2") == "beta"


async def test_a_hub_has_an_id_policies_and_records_of_its_own(hubs: Hubs, store: Store) -> None:
    beta = await hubs.create("beta", partition_count=2)

    assert (beta.scope, beta.partition_count, beta.advertised_host) == (8, 2, "127.0.0.2")
    owners = [await store.records(policy.KIND, hub.scope).get("iothubowner") for hub in hubs]
    assert len({owner.primary_key for owner in owners if owner is not None}) == len(hubs) == 2
    await add_device(hubs.named("BETA"), "pump-7")
    with pytest.raises(NotFound):
        await hubs.first.get("pump-7")


async def test_hubs_are_there_again_after_a_restart(
    hubs: Hubs, store: Store, clock: Clock, frontage: PaperFrontage
) -> None:
    await hubs.create("beta", host_names=["Beta.Example.net", "127.0.0.9"])

    again = await opened(store, clock, frontage)

    assert [hub.name for hub in again] == ["hub", "beta"]
    assert found(again, "127.0.0.9") == found(again, "beta.example.NET") == "beta"


@pytest.mark.parametrize(
    "name", ["", "a", "ab", "-beta", "beta-", "be ta", "beta.net", "b" * 51, "be/ta", "béta", "beta\n"]
)
async def test_names_that_are_none(hubs: Hubs, name: str, frontage: PaperFrontage) -> None:
    with pytest.raises(Invalid):
        await hubs.create(name)
    assert frontage.reached == []


@pytest.mark.parametrize(
    "host", ["", "https://x", "x:8443", "a b", "x/y", "-x", "x..y", ".x", "x." * 130, "é.net", "user@x"]
)
def test_host_names_that_are_none(host: str) -> None:
    with pytest.raises(Invalid):
        check_host(host)


def test_host_names_are_written_one_way() -> None:
    assert [check_host(text) for text in ("Hub.LOCAL", "0:0::1", "a_b")] == ["hub.local", "::1", "a_b"]


@pytest.mark.parametrize("host", ["localhost", "dps.example.net", "taken.example.net"])
async def test_a_host_name_is_of_one_only(hubs: Hubs, host: str) -> None:
    await hubs.create("other", host_names=["taken.example.net"])
    with pytest.raises(Invalid, match="in use"):
        await hubs.create("beta", host_names=[host])


async def test_a_name_is_of_one_only_also_while_it_is_made(hubs: Hubs) -> None:
    made = await asyncio.gather(
        *(hubs.create(name) for name in ("beta", "BETA", "gamma", "delta")), return_exceptions=True
    )

    assert sum(isinstance(each, Conflict) for each in made) == 1
    kept = list(hubs)
    assert sorted(hub.name.lower() for hub in kept) == ["beta", "delta", "gamma", "hub"]
    assert len({hub.scope for hub in kept}) == len({hub.advertised_host for hub in kept}) == 4


async def test_what_cannot_be_reached_is_not_kept(hubs: Hubs, frontage: PaperFrontage) -> None:
    frontage.broken = True
    with pytest.raises(Unavailable):
        await hubs.create("beta")
    frontage.broken = False
    assert (await hubs.create("beta")).scope == 8


async def test_what_cannot_be_kept_is_not_reached(hubs: Hubs, frontage: PaperFrontage) -> None:
    async def too_much(hub: Hub) -> Sequence[Change]:
        raise Invalid("linkedHubs", "too many")

    with pytest.raises(Invalid):
        await hubs.create("beta", beside=too_much)

    assert frontage.reached == []
    assert len(hubs) == 1


async def test_before_there_is_a_frontage_nothing_is_made(store: Store, hub: Hub, clock: Clock) -> None:
    await store.apply(founding(hub))
    starting = Hubs(store=store, clock=clock)
    await starting.open()
    with pytest.raises(Unavailable):
        await starting.create("beta")


async def test_deletion_takes_all_but_the_others(
    hubs: Hubs, store: Store, clock: Clock, frontage: PaperFrontage
) -> None:
    await hubs.create("beta")
    beta = hubs.named("beta")
    for identities in (hubs.first, beta):
        await add_device(identities, "pump-7")
    told: list[str] = []
    reasons: list[str] = []
    hubs.at_end(lambda hub: told.append(hub.name))
    principal = Principal("pump-7", "1", "device", "sas")
    beta.sessions.open(Session(principal, clock.now(), ClosingLink(reasons)))
    drops = beta.sessions.drops

    await hubs.delete("beta")

    assert (told, reasons, frontage.reached) == (["beta"], [HUB_DELETED], [])
    assert beta.sessions.drops > drops, "whoever is just being judged looks again"
    kinds: list[Kind[Any]] = [
        device_identity.KIND,
        twin.KIND,
        module_identity.KIND,
        twin.MODULE_KIND,
        policy.KIND,
        authority.KIND,
    ]
    for kind in kinds:
        assert await store.records(kind, 8).count() == 0
    assert await store.records(device_identity.KIND, 7).count() == 1
    with pytest.raises(NotFound):
        hubs.named("beta")
    assert found(hubs, "127.0.0.2") == "hub", "it is the only one again"


async def test_an_id_is_never_given_again(
    hubs: Hubs, store: Store, clock: Clock, frontage: PaperFrontage
) -> None:
    for scope in (8, 9):
        assert (await hubs.create("beta")).scope == scope
        await hubs.delete("beta")
    again = await opened(store, clock, frontage)
    assert (await again.create("beta")).scope == 10


async def test_the_first_hub_stays(hubs: Hubs) -> None:
    with pytest.raises(InUse, match="first"):
        await hubs.delete("hub")
    assert found(hubs, "localhost") == "hub"


async def test_a_change_is_seen_at_once_and_guarded_by_the_etag(hubs: Hubs) -> None:
    changes: list[int] = []

    async def count() -> None:
        changes.append(len(hubs))

    hubs.on_change(count)
    hub = hubs.first.hub
    wider = Hub(**{**vars(hub), "host_names": (*hub.host_names, "hub.example.net")})

    renewed = await hubs.put(wider)

    assert renewed.etag != hub.etag
    assert found(hubs, "hub.example.net") == "hub"
    with pytest.raises(PreconditionFailed):
        await hubs.put(wider)
    assert changes == [1]


async def test_a_scope_taken_by_somebody_else_meanwhile_is_passed_over(hubs: Hubs, store: Store) -> None:
    async def taken_first(hub: Hub) -> Sequence[Change]:
        if hub.scope == 8:
            await store.apply([Put(scopes.KIND, 0, scopes.ScopeSequence(last=8), Expect.ABSENT)])
        return ()

    assert (await hubs.create("beta", beside=taken_first)).scope == 9
