"""Linked hubs, the service's allocation policy, and hubs of this server."""

from __future__ import annotations

import re

from tests.support.visitor import PageSeen, Visitor

ROOT = "/linked-hubs"


async def the_linked_hub(visitor: Visitor) -> str:
    """The address of its page."""
    page = await visitor.get(ROOT)
    (found,) = re.findall(r'href="(/linked-hubs/[^"]+)"', page.html)
    return str(found)


async def add_hub(visitor: Visitor, name: str, *, link: bool) -> PageSeen:
    page = await visitor.get(ROOT)
    return await visitor.send(page, f"{ROOT}/hubs", {"name": name, "link": "on" if link else None})


async def test_the_terms_of_a_linked_hub(visitor: Visitor) -> None:
    address = await the_linked_hub(visitor)
    page = await visitor.get(address)
    wanted = {
        "allocationWeight": "7",
        "location": "쪽문 <b>",
        "latencyMs": "12.5",
        "applyAllocationPolicy": None,
    }
    saved = await visitor.send(page, address, wanted)
    assert "was saved" in saved.text
    assert [name for name, _ in saved.form(address).fields if name == "applyAllocationPolicy"] == []
    listed = await visitor.get(ROOT)
    for told in ("7", "쪽문 <b>", "12.5", "No"):
        assert told in listed.text
    assert "<b>" not in listed.html.partition("<table>")[2]


async def test_what_is_wrong_stands_at_its_field(visitor: Visitor) -> None:
    address = await the_linked_hub(visitor)
    page = await visitor.get(address)
    for field, value in (("allocationWeight", "1001"), ("allocationWeight", "many"), ("latencyMs", "-1")):
        refused = await visitor.send(page, address, {field: value, "location": "cellar"})
        assert refused.status == 400
        assert f'id="problem-{field}"' in refused.html
        assert 'value="cellar"' in refused.html
        assert f'value="{value}"' in refused.html


async def test_who_was_overtaken_sees_both(visitor: Visitor) -> None:
    address = await the_linked_hub(visitor)
    mine = await visitor.get(address)
    await visitor.send(mine, address, {"location": "theirs"})
    overtaken = await visitor.send(mine, address, {"location": "ours"})
    assert overtaken.status == 412
    assert "theirs" in overtaken.text
    assert 'value="ours"' in overtaken.html
    assert "was saved" in (await visitor.send(overtaken, address)).text
    assert "ours" in (await visitor.get(ROOT)).text


async def test_a_hub_is_added_linked_unlinked_and_deleted(visitor: Visitor) -> None:
    added = await add_hub(visitor, "second", link=False)
    assert "The IoT hub second was added." in added.text
    assert 'href="/hubs/second/devices"' in added.html
    linked = await visitor.send(added, ROOT, {"hub": "second", "connectionString": ""})
    assert "was linked." in linked.text
    address = next(
        each
        for each in re.findall(r'href="(/linked-hubs/[^"]+)"', linked.html)
        if each != first_address(added)
    )
    asked = await visitor.send(await visitor.get(address), f"{address}/delete")
    assert "stay there" in asked.text
    assert "was unlinked." in (await visitor.send(asked, f"{address}/delete")).text
    page = await visitor.get(ROOT)
    asked = await visitor.send(page, f"{ROOT}/hubs/second/delete")
    assert "with all its devices" in asked.text
    gone = await visitor.send(asked, f"{ROOT}/hubs/second/delete")
    assert "The IoT hub second was deleted." in gone.text
    assert "/hubs/second/" not in gone.html


def first_address(page: PageSeen) -> str:
    return str(re.findall(r'href="(/linked-hubs/[^"]+)"', page.html)[0])


async def test_a_name_that_is_taken(visitor: Visitor) -> None:
    refused = await add_hub(visitor, "hub", link=True)
    assert refused.status == 409
    assert 'id="problem-name"' in refused.html


async def test_a_connection_string_that_is_none(visitor: Visitor) -> None:
    page = await visitor.get(ROOT)
    refused = await visitor.send(page, ROOT, {"connectionString": "HostName=only"})
    assert refused.status == 400
    assert 'id="problem-connectionString"' in refused.html


async def test_the_allocation_policy_of_the_service(visitor: Visitor) -> None:
    page = await visitor.get(ROOT)
    saved = await visitor.send(page, f"{ROOT}/allocation", {"allocationPolicy": "geoLatency"})
    assert ("allocationPolicy", "geoLatency") in saved.form(f"{ROOT}/allocation").fields
    refused = await visitor.send(page, f"{ROOT}/allocation", {"allocationPolicy": "custom"})
    assert refused.status == 400


async def test_without_a_linked_hub_the_page_says_what_that_means(visitor: Visitor) -> None:
    address = await the_linked_hub(visitor)
    asked = await visitor.send(await visitor.get(address), f"{address}/delete")
    gone = await visitor.send(asked, f"{address}/delete")
    assert "No hub is linked" in gone.text
