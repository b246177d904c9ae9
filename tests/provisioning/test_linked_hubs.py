"""Linking hubs to a provisioning service, and what that does to allocation."""

from __future__ import annotations

import pytest

from moorage.credentials.etag import Condition
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.interfaces import Store
from moorage.provisioning import service as services
from moorage.provisioning.linked_hubs import LinkedHubs, LinkTerms
from moorage.provisioning.service import MAX_LINKED_HUBS, LinkedHub

DPS = 1


@pytest.fixture
def linked(store: Store) -> LinkedHubs:
    return LinkedHubs(store, DPS)


def numbered(number: int) -> Hub:
    host = f"hub-{number}.example.net"
    return Hub(scope=number, name=f"hub-{number}", host_names=(host,), advertised_host=host, created=0)


async def test_a_link_carries_what_the_operator_decides(linked: LinkedHubs, hub_b: Identities) -> None:
    terms = LinkTerms(weight=3, eligible=False, location="north", latency_ms=12)

    made = await linked.link(hub_b.hub, terms)

    assert (made.host_name, made.hub, LinkTerms.of(made)) == ("hub-b.example.net", hub_b.hub.scope, terms)
    assert await linked.get("HUB-B.example.net") == made == await linked.of(hub_b.hub)


async def test_a_link_of_an_older_release_has_no_place(linked: LinkedHubs) -> None:
    document = {"hub": 2, "hostName": "localhost", "weight": 1, "eligible": True, "etag": "1"}
    held = services.LINKED_HUB_KIND.from_document(document)
    assert (held.location, held.latency_ms) == (None, None)


async def test_a_hub_is_linked_once(linked: LinkedHubs, hub_b: Identities) -> None:
    await linked.link(hub_b.hub, LinkTerms())
    with pytest.raises(Conflict):
        await linked.link(hub_b.hub, LinkTerms())
    with pytest.raises(Conflict):
        await linked.linking(hub_b.hub)


async def test_there_is_room_for_fifty(linked: LinkedHubs) -> None:
    for number in range(10, 10 + MAX_LINKED_HUBS):
        await linked.link(numbered(number), LinkTerms())
    with pytest.raises(TooLarge):
        await linked.link(numbered(9), LinkTerms())


@pytest.mark.parametrize(
    "terms",
    [
        LinkTerms(weight=0),
        LinkTerms(weight=1001),
        LinkTerms(latency_ms=-1),
        LinkTerms(latency_ms=60_001),
        LinkTerms(location="x" * 129),
    ],
)
async def test_terms_out_of_range(linked: LinkedHubs, hub_b: Identities, terms: LinkTerms) -> None:
    with pytest.raises(Invalid):
        await linked.link(hub_b.hub, terms)


async def test_terms_change_under_their_etag(linked: LinkedHubs, hub_b: Identities) -> None:
    made = await linked.link(hub_b.hub, LinkTerms())

    changed = await linked.change("hub-b.example.net", LinkTerms(weight=9), Condition.read(f'"{made.etag}"'))

    assert changed.weight == 9
    with pytest.raises(PreconditionFailed):
        await linked.change("hub-b.example.net", LinkTerms(), Condition.read(made.etag))
    with pytest.raises(PreconditionFailed):
        await linked.unlink("hub-b.example.net", Condition.read(made.etag))
    await linked.unlink("hub-b.example.net", Condition.read(changed.etag))
    with pytest.raises(NotFound):
        await linked.get("hub-b.example.net")


@pytest.mark.parametrize("verb", ["get", "unlink"])
async def test_a_hub_that_is_not_linked(linked: LinkedHubs, verb: str) -> None:
    with pytest.raises(NotFound):
        await getattr(linked, verb)("hub-z.example.net")


def test_a_linked_hub_is_stored_whole() -> None:
    kind = services.LINKED_HUB_KIND
    held = LinkedHub(hub=3, host_name="h", weight=2, eligible=False, location="n", latency_ms=1, etag="e")
    assert kind.from_document(kind.to_document(held)) == held
