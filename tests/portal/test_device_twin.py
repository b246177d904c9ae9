"""The twin on its page: edited in parts and as a whole, replaced and merged, and saved by two at once."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest

from moorage.hub.twins import Report
from moorage.portal.api import Api, Service
from tests.support.visitor import PageSeen, Visitor

PAGE = "/hubs/hub/devices/pump-7/twin"
TWIN = "/twins/pump-7"
SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def hub(visitor: Visitor) -> Service:
    """With a device pump-7 that has a twin."""
    hub = Api(visitor.server.inside_api()).hub("hub")
    await hub.put("/devices/pump-7", {})
    await hub.patch(
        TWIN, {"tags": {"site": "Busan"}, "properties": {"desired": {"period": 5, "mode": SCRIPT}}}
    )
    return hub


async def save(visitor: Visitor, page: PageSeen, **fields: str) -> PageSeen:
    return await visitor.send(page, PAGE, dict(fields))


def fields(page: PageSeen) -> dict[str, str]:
    return dict(page.form(PAGE).fields)


async def test_both_parts_are_shown_without_what_the_hub_says_of_them(visitor: Visitor, hub: Service) -> None:
    page = await visitor.get(PAGE)
    assert json.loads(fields(page)["tags"]) == {"site": "Busan"}
    assert json.loads(fields(page)["desired"]) == {"period": 5, "mode": SCRIPT}
    assert "$lastUpdated" in page.text
    assert "<img src=x" not in page.html


async def test_replacing_takes_away_what_is_not_there(visitor: Visitor, hub: Service) -> None:
    page = await save(visitor, await visitor.get(PAGE), tags='{"floor": 3}', desired="")
    assert "The twin of pump-7 was saved." in page.text
    twin = await hub.get(TWIN)
    assert twin["tags"] == {"floor": 3}
    assert "period" not in twin["properties"]["desired"]


async def test_merging_leaves_what_is_not_named(visitor: Visitor, hub: Service) -> None:
    await save(
        visitor, await visitor.get(PAGE), how="patch", tags="", desired='{"mode": null, "x": {"y": 1}}'
    )
    twin = await hub.get(TWIN)
    assert twin["tags"] == {"site": "Busan"}
    desired = {name: value for name, value in twin["properties"]["desired"].items() if name[0] != "$"}
    assert desired == {"period": 5, "x": {"y": 1}}


async def test_the_twin_as_one_document(visitor: Visitor, hub: Service) -> None:
    page = await visitor.get(f"{PAGE}?view=whole")
    shown = json.loads(fields(page)["twin"])
    assert shown == await hub.get(TWIN)
    shown["tags"] = {"site": "Seoul"}
    shown["properties"]["desired"]["period"] = 7
    saved = await save(visitor, page, twin=json.dumps(shown))
    assert "was saved" in saved.text
    assert "twin" in fields(saved)
    twin = await hub.get(TWIN)
    assert (twin["tags"], twin["properties"]["desired"]["period"]) == ({"site": "Seoul"}, 7)


@pytest.mark.parametrize(
    ("field", "text", "problem"),
    [
        ("tags", '{"a": 1,\n "b": }', "line 2, column 7"),
        ("tags", "[1]", "must be a JSON object"),
        ("tags", '{"a.b": 1}', "tags"),
        ("desired", '{"a": 1e999}', "Infinity is no JSON number"),
        ("desired", '{"a": "' + "x" * 5000 + '"}', "desired"),
        ("desired", '{"$x": 1}', "desired"),
    ],
)
async def test_what_is_wrong_stands_at_its_part_and_nothing_is_lost(
    visitor: Visitor, hub: Service, field: str, text: str, problem: str
) -> None:
    page = await save(visitor, await visitor.get(PAGE), **{field: text})
    assert page.status in (400, 413)
    (said,) = re.findall(rf'id="problem-{field}">(.*?)</p>', page.html)
    assert problem in unescape(said)
    assert fields(page)[field] == text
    assert (await hub.get(TWIN))["tags"] == {"site": "Busan"}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"tags": 5}', '{"properties": []}', '{"properties": {"desired": [1]}}']
)
async def test_a_document_that_is_no_twin_changes_nothing(visitor: Visitor, hub: Service, text: str) -> None:
    before = await hub.get(TWIN)
    page = await save(visitor, await visitor.get(f"{PAGE}?view=whole"), twin=text)
    assert page.status == 400
    assert 'id="problem-twin"' in page.html
    assert fields(page)["twin"] == text
    assert await hub.get(TWIN) == before


async def test_who_was_overtaken_sees_both_and_can_save_again(visitor: Visitor, hub: Service) -> None:
    for view, field in (("", "tags"), ("?view=whole", "twin")):
        page = await visitor.get(f"{PAGE}{view}")
        await hub.patch(TWIN, {"tags": {"by": "somebody else", "view": view}})
        mine = '{"tags": {"by": "me"}}' if view else '{"by": "me"}'
        seen = await save(visitor, page, **{field: mine})
        assert seen.status == 412
        assert "Somebody has changed this twin meanwhile." in seen.text
        assert '"by": "somebody else"' in seen.text
        assert fields(seen)[field] == mine
        assert "was saved" in (await save(visitor, seen)).text
        assert (await hub.get(TWIN))["tags"] == {"by": "me"}


async def test_what_is_reported_keeps_itself_up_to_date(visitor: Visitor, hub: Service) -> None:
    page = await visitor.get(PAGE)
    live = next(
        unescape(each) for each in re.findall(r'data-live="([^"]+)"', page.html) if "/reported" in each
    )
    assert (await visitor.fragment(live)).status == 204
    await visitor.server.hubs.named("hub").twins.report("pump-7", [Report({"mode": SCRIPT})])
    news = await visitor.fragment(live)
    assert f'"mode": "{SCRIPT}"' in news.text
    assert "<img src=x" not in news.html
    assert "has been changed" not in news.text
    await hub.patch(TWIN, {"tags": {"by": "somebody else"}})
    assert "The twin has been changed" in (await visitor.fragment(news.headers["moorage-next"])).text


async def test_the_twin_of_a_module(visitor: Visitor, hub: Service) -> None:
    await hub.put("/devices/pump-7/modules/cam", {})
    path = "/hubs/hub/devices/pump-7/modules/cam/twin"
    page = await visitor.get(path)
    await visitor.send(page, path, {"tags": '{"a": 1}'})
    assert (await hub.get("/twins/pump-7/modules/cam"))["tags"] == {"a": 1}
    assert "tags" not in await hub.get(TWIN) or (await hub.get(TWIN))["tags"] == {"site": "Busan"}
