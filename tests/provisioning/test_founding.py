"""The first start of a server, and later ones under other names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moorage.credentials import policy
from moorage.errors import Unavailable
from moorage.hub.hubs import Hubs
from moorage.interfaces import Clock, Store
from moorage.provisioning.founding import Names, follow_names, provisioning_service
from moorage.provisioning.linked_hubs import LinkedHubs
from tests.support.frontage import PaperFrontage

NAMES = Names(hub="localhost", hub_also=("localhost", "127.0.0.1"), dps="localhost", dps_also=("127.0.0.1",))


async def started(store: Store, clock: Clock, names: Names = NAMES) -> tuple[Hubs, LinkedHubs, str]:
    """The hubs and the id scope of a server that starts under `names`."""
    service = await provisioning_service(store, names, partition_count=2, now=clock.now())
    hubs, linked = Hubs(store=store, clock=clock), LinkedHubs(store, service.scope)
    await hubs.open()
    await follow_names(hubs, linked, names)
    hubs.attach(PaperFrontage())
    return hubs, linked, service.id_scope


async def test_a_new_server_has_one_hub_which_is_linked(store: Store, clock: Clock) -> None:
    hubs, linked, _ = await started(store, clock)
    hub = hubs.first.hub
    assert (hub.name, hub.scope, hub.partition_count) == ("localhost", 2, 2)
    assert [each.host_name for each in await linked.all()] == ["localhost"]
    assert await store.records(policy.KIND, 1).get("provisioningserviceowner") is not None
    assert await store.records(policy.KIND, 2).get("iothubowner") is not None


async def test_it_is_the_same_at_the_next_start(store: Store, clock: Clock) -> None:
    hubs, _, id_scope = await started(store, clock)
    await hubs.create("beta")
    again, _, same = await started(store, clock)
    assert same == id_scope
    assert [(hub.name, hub.etag) for hub in again] == [(hub.name, hub.etag) for hub in hubs]


async def test_the_first_hub_keeps_its_names_and_is_advertised_by_the_new_one(
    store: Store, clock: Clock
) -> None:
    await started(store, clock)
    hubs, linked, _ = await started(store, clock, replace(NAMES, hub="hub.example.org"))
    hub = hubs.first.hub
    assert (hub.name, hub.advertised_host) == ("localhost", "hub.example.org")
    assert {"localhost", "hub.example.org"} < set(hub.host_names)
    assert [each.host_name for each in await linked.all()] == ["hub.example.org"]


async def test_a_name_that_has_become_another_hubs_stays_with_that_one(store: Store, clock: Clock) -> None:
    hubs, _, _ = await started(store, clock)
    await hubs.create("beta", host_names=["127.0.0.2"])

    again, _, _ = await started(store, clock, replace(NAMES, hub_also=("127.0.0.1", "127.0.0.2")))

    found = again.by_host("127.0.0.2")
    assert found is not None
    assert found[0].name == "beta"
    assert "127.0.0.2" not in again.first.hub.host_names
    with pytest.raises(Unavailable, match="another hub"):
        await started(store, clock, replace(NAMES, hub="127.0.0.2"))


@pytest.mark.parametrize(
    ("host", "name"),
    [("hub.example.org", "hub"), ("localhost", "localhost"), ("127.0.0.9", "hub")],
)
async def test_the_first_hub_has_a_name_that_can_be_typed(
    store: Store, clock: Clock, host: str, name: str
) -> None:
    hubs, _, _ = await started(store, clock, replace(NAMES, hub=host))
    assert hubs.first.hub.name == name
