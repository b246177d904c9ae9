"""Consumer groups as an operator makes and deletes them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from moorage.errors import Invalid, NotFound, PreconditionFailed, Unavailable
from moorage.hub.consumer_group import MAX_CONSUMER_GROUPS, ConsumerGroups
from moorage.hub.instance import DEFAULT_CONSUMER_GROUP, Hub

SCOPE = 2


class OneHub:
    """A hub's record, and what became of it; `rivals` others are faster at the next writes."""

    def __init__(self) -> None:
        self.hub = Hub(
            scope=SCOPE, name="hub", host_names=("hub",), advertised_host="hub", created=0, etag="0"
        )
        self.ended: list[tuple[int, str]] = []
        self.rivals = 0
        self.groups = ConsumerGroups(hub=lambda scope: self.hub, put=self._put)
        self.groups.at_end(lambda scope, name: self.ended.append((scope, name)))

    async def _put(self, hub: Hub) -> Hub:
        await asyncio.sleep(0)
        if self.rivals:
            self.rivals -= 1
            self.hub = replace(self.hub, etag=f"{self.hub.etag}'")
        if hub.etag != self.hub.etag:
            raise PreconditionFailed("hub", "2")
        self.hub = replace(hub, etag=f"{hub.etag}+")
        return self.hub


@pytest.fixture
def one() -> OneHub:
    return OneHub()


async def test_a_group_is_there_until_it_is_deleted(one: OneHub) -> None:
    assert await one.groups.create(SCOPE, "Analytics") == ("Analytics", True)
    assert await one.groups.create(SCOPE, "analytics") == ("Analytics", False)
    assert one.groups.list(SCOPE) == one.hub.consumer_groups == (DEFAULT_CONSUMER_GROUP, "Analytics")
    assert one.groups.get(SCOPE, "ANALYTICS") == "Analytics"
    assert one.ended == []
    await one.groups.delete(SCOPE, "analytics")
    assert one.ended == [(SCOPE, "Analytics")]
    with pytest.raises(NotFound):
        one.groups.get(SCOPE, "analytics")
    with pytest.raises(NotFound):
        await one.groups.delete(SCOPE, "analytics")


async def test_the_default_group_stays(one: OneHub) -> None:
    assert await one.groups.create(SCOPE, "$default") == (DEFAULT_CONSUMER_GROUP, False)
    with pytest.raises(Invalid, match="cannot be deleted"):
        await one.groups.delete(SCOPE, "$DEFAULT")
    assert one.groups.list(SCOPE) == (DEFAULT_CONSUMER_GROUP,)


@pytest.mark.parametrize("name", ["", "$x", ".x", "x-", "a b", "a/b", "ä", "x" * 51, "x\n"])
async def test_names_that_cannot_be(one: OneHub, name: str) -> None:
    with pytest.raises(Invalid):
        await one.groups.create(SCOPE, name)


async def test_names_at_the_edge(one: OneHub) -> None:
    for name in ("x", "7", "x" * 50, "a._-b"):
        assert (await one.groups.create(SCOPE, name))[1]


async def test_there_are_twenty_at_the_most(one: OneHub) -> None:
    for number in range(1, MAX_CONSUMER_GROUPS):
        await one.groups.create(SCOPE, f"g{number}")
    with pytest.raises(Invalid, match="at most 20"):
        await one.groups.create(SCOPE, "more")
    assert await one.groups.create(SCOPE, "g7") == ("g7", False)


async def test_none_is_lost_when_several_write_at_once(one: OneHub) -> None:
    names = [f"g{number}" for number in range(8)]
    await asyncio.gather(*(one.groups.create(SCOPE, name) for name in names))
    assert set(one.groups.list(SCOPE)) == {DEFAULT_CONSUMER_GROUP, *names}
    await asyncio.gather(*(one.groups.delete(SCOPE, name) for name in names))
    assert one.groups.list(SCOPE) == (DEFAULT_CONSUMER_GROUP,)
    assert sorted(one.ended) == [(SCOPE, name) for name in names]


async def test_whoever_loses_for_ever_is_told(one: OneHub) -> None:
    one.rivals = 1000
    with pytest.raises(Unavailable):
        await one.groups.create(SCOPE, "x")
    assert one.groups.list(SCOPE) == (DEFAULT_CONSUMER_GROUP,)
