"""`hubs/{hub}/consumerGroups`: made and deleted while the built-in endpoint is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moorage.adapters.http import HttpAdapter
from moorage.wire.amqp import LinkDetached, Receiver, conditions
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.asgi import Caller
from tests.support.site import Site

GROUPS = "/moorage/v1/hubs/hub/consumerGroups"

Call = Callable[..., AmqpPeer]


async def reading(site: Site, call: Call, group: str) -> tuple[AmqpPeer, Receiver]:
    """A connection that reads in `group`. Raises Refused."""
    peer = call()
    await peer.open()
    await peer.claim(site.token("service"))
    return peer, await peer.attach_receiver(f"moorage/ConsumerGroups/{group}/Partitions/0", credit=10)


async def test_a_group_from_its_making_to_its_end(operator: Caller) -> None:
    assert (await operator.call("GET", GROUPS)).json() == [{"name": "$Default"}]
    answer = await operator.call("PUT", f"{GROUPS}/Analytics")
    assert (answer.status, answer.json()) == (201, {"name": "Analytics"})
    answer = await operator.call("PUT", f"{GROUPS}/analytics", {"name": "analytics"})
    assert (answer.status, answer.json()) == (200, {"name": "Analytics"})
    assert (await operator.call("GET", f"{GROUPS}/ANALYTICS")).json() == {"name": "Analytics"}
    assert (await operator.call("GET", GROUPS)).json() == [{"name": "$Default"}, {"name": "Analytics"}]
    assert (await operator.call("DELETE", f"{GROUPS}/analytics")).status == 204
    for method in ("GET", "DELETE"):
        answer = await operator.call(method, f"{GROUPS}/analytics")
        assert (answer.status, answer.json()["errorCode"]) == (404, 404000)


async def test_what_cannot_be(operator: Caller) -> None:
    for method, path, body in (
        ("PUT", f"{GROUPS}/no%20space", None),
        ("PUT", f"{GROUPS}/x", {"name": "y"}),
        ("PUT", f"{GROUPS}/x", {"retention": 7}),
        ("DELETE", f"{GROUPS}/%24Default", None),
    ):
        answer = await operator.call(method, path, body)
        assert (answer.status, answer.json()["errorCode"]) == (400, 400000)
    assert (await operator.call("GET", GROUPS)).json() == [{"name": "$Default"}]


async def test_who_may(site: Site, app: HttpAdapter) -> None:
    for policy, method, path, status in (
        ("service", "GET", GROUPS, 200),
        ("service", "GET", f"{GROUPS}/$Default", 200),
        ("service", "PUT", f"{GROUPS}/x", 401),
        ("registryReadWrite", "PUT", f"{GROUPS}/x", 401),
        ("registryReadWrite", "GET", GROUPS, 401),
        ("service", "DELETE", f"{GROUPS}/x", 401),
        ("iothubowner", "PUT", f"{GROUPS}/x", 201),
    ):
        answer = await Caller(app, token=site.token(policy)).call(method, path)
        assert answer.status == status, (policy, method, path)


async def test_a_new_group_is_read_at_once(site: Site, call: Call, operator: Caller) -> None:
    """By a connection that was there before, too."""
    peer, _ = await reading(site, call, "$Default")
    address = "moorage/ConsumerGroups/analytics/Partitions/0"
    with pytest.raises(Refused) as raised:
        await peer.attach_receiver(address)
    assert raised.value.condition == conditions.NOT_FOUND
    await operator.call("PUT", f"{GROUPS}/analytics")
    await peer.attach_receiver(address)


async def test_readers_of_a_deleted_group_are_closed_with_the_reason(
    site: Site, call: Call, operator: Caller
) -> None:
    await operator.call("PUT", f"{GROUPS}/analytics")
    (reader, link), (other, _) = await reading(site, call, "ANALYTICS"), await reading(site, call, "$Default")
    await operator.call("DELETE", f"{GROUPS}/analytics")
    error = await reader.detached(link)
    assert error is not None
    assert error.condition == conditions.RESOURCE_DELETED
    assert "the consumer group 'analytics' was deleted" in (error.description or "")
    assert not other.seen(LinkDetached)
    assert site.refusals()[-1].error == "the consumer group 'analytics' was deleted"

    with pytest.raises(Refused):
        await reading(site, call, "analytics")
    await operator.call("PUT", f"{GROUPS}/analytics")
    for _ in range(5):  # all places are free
        await reading(site, call, "analytics")
