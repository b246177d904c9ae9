"""Devices: the list of a hub, what is found in it, and what is done to several at once."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from moorage.adapters.inside import InsideApi
from moorage.portal.api import Api, Service
from moorage.portal.device_address import Address
from moorage.portal.device_search import marked
from moorage.portal.devices import SHOWN
from tests.support.visitor import PageSeen, Visitor

ODD_IDS = ["a%2Fb", "#", "'", "a?b", ".", "..", "x;y", "100%", "a+b", "@$*!(),=:_"]
SCRIPT = "<img src=x onerror=alert(1)>"


def rows(page: PageSeen) -> list[str]:
    """Where the devices of the list lead to."""
    return re.findall(r'<th scope="row"><a href="([^"]+)"', page.html)


async def add(visitor: Visitor, *ids: str, **members: Any) -> None:
    api = hub_api(visitor)
    for at in range(0, len(ids), 100):
        items = [{"id": each, "importMode": "create", **members} for each in ids[at : at + 100]]
        await api.post("/devices", items)


def hub_api(visitor: Visitor) -> Service:
    return Api(visitor.server.inside_api()).hub("hub")


async def test_with_no_device_the_page_teaches(visitor: Visitor) -> None:
    page = await visitor.get("/hubs/hub/devices")
    assert (page.status, page.title) == (200, "Devices")
    assert "No device yet" in page.text
    assert "moorage hub device-identity create --device-id my-device" in page.text


async def test_a_device_is_listed_with_what_is_known_of_it(visitor: Visitor) -> None:
    await add(visitor, "pump-7", status="disabled", statusReason=SCRIPT, tags={"site": SCRIPT})
    page = await visitor.get("/hubs/hub/devices")
    assert rows(page) == ["/hubs/hub/devices/pump-7"]
    assert "Disabled" in page.text
    assert "Disconnected Symmetric key" in page.text
    assert "0 IoT Device" in page.text
    assert f"site: {SCRIPT}" in page.text
    assert "<img src=x" not in page.html


async def test_a_hub_that_is_not_there(visitor: Visitor) -> None:
    for path in ("/hubs/nowhere/devices", "/hubs/nowhere/devices/~new", "/hubs/nowhere/devices/d"):
        assert (await visitor.get(path)).status == 404


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("device_id=pump", ["pump-1", "pump-2"]),
        ("device_id=PUMP", []),
        ("device_id=o%27b", ["o'b"]),
        ("device_id=%5C", []),
        ("status=disabled", ["o'b"]),
        ("status=nonsense&device_id=pump-1", ["pump-1"]),
        ("connection=Connected", []),
        ("authentication=sas&device_id=pump-2", ["pump-2"]),
        ("query=SELECT+*+FROM+devices+WHERE+tags.n+%3D+2", ["pump-2"]),
    ],
)
async def test_devices_are_found(visitor: Visitor, asked: str, found: list[str]) -> None:
    await add(visitor, "pump-1")
    await add(visitor, "pump-2", tags={"n": 2})
    await add(visitor, "o'b", status="disabled")
    page = await visitor.get(f"/hubs/hub/devices?{asked}")
    assert rows(page) == [Address("hub", each).page for each in found]
    assert ("No device is like that." in page.text) == (not found)


async def test_a_query_that_is_wrong_is_shown_with_its_place(visitor: Visitor) -> None:
    query = f"SELECT * FROM devices\nWHERE status == '{SCRIPT}'"
    page = await visitor.get(f"/hubs/hub/devices?query={quote(query)}")
    assert page.status == 400
    assert "Line 2, column 15: expected" in page.text
    (marked,) = re.findall(r'<pre class="body"[^>]*>(.*?)</pre>', page.html, re.S)
    assert marked.endswith("\n" + " " * 14 + "^")
    assert "<img" not in page.html.replace('<img src="/static', "")
    assert ("query", query) in [field for form in page.forms() for field in form.fields]


def test_a_long_line_is_shown_from_a_bit_before_its_place() -> None:
    assert marked("x" * 30 + "!y", 31) == "…" + "x" * 24 + "!y\n" + " " * 25 + "^"
    assert marked("ab!", 3) == "ab!\n  ^"


async def test_any_other_query_shows_a_table(visitor: Visitor) -> None:
    await add(visitor, "a", "b")
    page = await visitor.get(
        "/hubs/hub/devices?query=" + quote("SELECT status, COUNT() AS n FROM devices GROUP BY status")
    )
    assert "status n enabled 2" in page.text


async def test_modules_can_be_asked_for(visitor: Visitor) -> None:
    await add(visitor, "a")
    await hub_api(visitor).put("/devices/a/modules/m", {})
    page = await visitor.get("/hubs/hub/devices?query=" + quote("SELECT * FROM devices.modules"))
    assert rows(page) == ["/hubs/hub/devices/a/modules/m"]


async def test_the_list_goes_on_page_by_page(visitor: Visitor) -> None:
    ids = [f"d{number:03}" for number in range(SHOWN + 3)]
    await add(visitor, *ids)
    first = await visitor.get("/hubs/hub/devices?device_id=d")
    (next_page,) = re.findall(r'rel="next" href="([^"]+)"', first.html)
    second = await visitor.get(next_page.replace("&amp;", "&"))
    assert [path.rpartition("/")[2] for path in rows(first) + rows(second)] == ids
    assert 'rel="next"' not in second.html
    assert "data-live=" not in second.html


async def test_a_page_asks_for_no_more_than_it_shows(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(visitor, *(f"d{number:03}" for number in range(SHOWN * 3)))
    calls: list[tuple[str, str | None]] = []
    ask = InsideApi.__call__

    async def counted(self: InsideApi, *asked: Any) -> Any:
        calls.append((asked[2].partition("?")[0], asked[3].get("x-ms-max-item-count")))
        return await ask(self, *asked)

    monkeypatch.setattr(InsideApi, "__call__", counted)
    page = await visitor.get("/hubs/hub/devices")
    assert len(rows(page)) == SHOWN
    assert calls == [("/devices/query", str(SHOWN)), ("/moorage/v1/hubs", None)]


async def test_the_list_keeps_itself_up_to_date(visitor: Visitor) -> None:
    page = await visitor.get("/hubs/hub/devices")
    (live,) = re.findall(r'data-live="([^"]+)"', page.html)
    live = live.replace("&amp;", "&")
    assert (await visitor.fragment(live)).status == 204
    await add(visitor, "first")
    news = await visitor.fragment(live)
    assert rows(news) == ["/hubs/hub/devices/first"]
    assert (await visitor.fragment(news.headers["moorage-next"])).status == 204


async def test_who_asks_by_a_query_asks_once(visitor: Visitor) -> None:
    page = await visitor.get("/hubs/hub/devices?query=" + quote("SELECT * FROM devices"))
    assert "data-live=" not in page.html


async def change(visitor: Visitor, do: str, *ids: str, **more: str) -> PageSeen:
    page = await visitor.get("/hubs/hub/devices?device_id=d")
    form = next(form for form in page.forms() if ("back", "device_id=d") in form.fields)
    fields = [*form.fields, ("do", do), *(("select", each) for each in ids), *more.items()]
    return await visitor.post("/hubs/hub/devices", fields)


async def test_several_are_deleted_once_it_was_confirmed(visitor: Visitor) -> None:
    ids = [f"d{number:03}" for number in range(120)]
    await add(visitor, *ids, "other")
    asked = await change(visitor, "delete", *ids)
    assert asked.title == "Delete the selected devices: 120"
    assert (await hub_api(visitor).get("/statistics/devices"))["totalDeviceCount"] == 121
    done = await visitor.send(asked, "/hubs/hub/devices")
    assert "Devices deleted: 120" in done.text
    assert [each["deviceId"] for each in await hub_api(visitor).get("/devices")] == ["other"]


async def test_what_could_not_be_deleted_is_told(visitor: Visitor) -> None:
    await add(visitor, "d1")
    done = await change(visitor, "delete", "d1", "d2", SCRIPT, confirmed="on")
    assert "Devices deleted: 1" in done.text
    assert "d2: DeviceNotFound" in done.text
    assert "<img src=x" not in done.html


async def test_several_are_disabled_and_keep_the_rest(visitor: Visitor) -> None:
    await add(visitor, "d1", "d2", statusReason="new", capabilities={"iotEdge": True})
    api = hub_api(visitor)
    before = [await api.get(f"/devices/{each}") for each in ("d1", "d2")]
    done = await change(visitor, "disable", "d1", "d2", "gone")
    assert "Devices disabled: 2" in done.text
    assert "gone: " in done.text
    after = [await api.get(f"/devices/{each}") for each in ("d1", "d2")]
    changed = {"status": "disabled", "etag": "", "statusUpdatedTime": ""}
    assert [{**each, **changed} for each in after] == [{**each, **changed} for each in before]
    assert "Devices enabled: 2" in (await change(visitor, "enable", "d1", "d2")).text


async def test_without_a_selection_nothing_is_done(visitor: Visitor) -> None:
    assert "Select a device first." in (await change(visitor, "delete", confirmed="on")).text
    await add(visitor, "d1")
    assert (await change(visitor, "explode", "d1")).status == 400


@pytest.mark.parametrize("device_id", ODD_IDS)
async def test_ids_may_be_odd(visitor: Visitor, device_id: str) -> None:
    await add(visitor, device_id)
    (path,) = rows(await visitor.get("/hubs/hub/devices"))
    path = path.replace("&amp;", "&").replace("&#39;", "'")
    page = await visitor.get(path)
    assert (page.status, page.title) == (200, device_id)
    asked = await visitor.send(page, f"{path}/delete")
    assert "Devices deleted: 1" in (await visitor.send(asked, f"{path}/delete")).text
