"""Module identities of a device on their pages."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from moorage.portal.api import Api, Service
from tests.support.visitor import PageSeen, Visitor

DEVICE = "/hubs/hub/devices/pump-7"
LIST = f"{DEVICE}/modules"
NEW = f"{LIST}/~new"
SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def hub(visitor: Visitor) -> Service:
    hub = Api(visitor.server.inside_api()).hub("hub")
    await hub.put("/devices/pump-7", {})
    return hub


async def create(visitor: Visitor, **fields: Any) -> PageSeen:
    return await visitor.send(await visitor.get(NEW), NEW, {"module_id": "cam", **fields}, files={})


async def test_with_no_module_the_page_teaches(visitor: Visitor, hub: Service) -> None:
    assert "No module identity yet" in (await visitor.get(LIST)).text


async def test_a_module_is_added_and_has_its_own_page(visitor: Visitor, hub: Service) -> None:
    page = await create(visitor, managed_by=SCRIPT)
    assert (page.path, page.title) == (f"{LIST}/cam", "cam")
    assert SCRIPT in page.text
    assert "<img src=x" not in page.html
    key = (await hub.get("/devices/pump-7/modules/cam"))["authentication"]["symmetricKey"]["primaryKey"]
    shown = await visitor.get(f"{LIST}/cam?keys=shown")
    assert f";DeviceId=pump-7;ModuleId=cam;SharedAccessKey={key}" in shown.text
    assert "cam Disconnected Symmetric key" in (await visitor.get(LIST)).text


@pytest.mark.parametrize("module", ["a%2Fb", "#", "..", "$edge?"])
async def test_ids_may_be_odd(visitor: Visitor, hub: Service, module: str) -> None:
    page = await create(visitor, module_id=module)
    assert (page.status, page.title) == (200, module)
    (path,) = re.findall(r'<th scope="row"><a href="([^"]+)"', (await visitor.get(LIST)).html)
    path = unescape(path)
    assert (await visitor.get(path)).title == module
    asked = await visitor.send(await visitor.get(path), f"{path}/delete")
    assert "Module identities deleted: 1" in (await visitor.send(asked, f"{path}/delete")).text


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"module_id": ""}, "module_id"),
        ({"module_id": "a b"}, "module_id"),
        ({"managed_by": "x" * 257}, "managed_by"),
        ({"auto_keys": None, "primary_key": "nonsense"}, "primary_key"),
        ({"module_id": "taken"}, "module_id"),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    visitor: Visitor, hub: Service, fields: dict[str, Any], field: str
) -> None:
    await hub.put("/devices/pump-7/modules/taken", {})
    page = await create(visitor, **fields)
    assert page.status in (400, 409)
    assert f'id="problem-{field}"' in page.html


async def test_keys_of_a_module_are_renewed(visitor: Visitor, hub: Service) -> None:
    await create(visitor)
    before = (await hub.get("/devices/pump-7/modules/cam"))["authentication"]["symmetricKey"]
    path = f"{LIST}/cam"
    asked = await visitor.send(await visitor.get(path), f"{path}/keys", {"do": "secondary"})
    await visitor.send(asked, f"{path}/keys")
    after = (await hub.get("/devices/pump-7/modules/cam"))["authentication"]["symmetricKey"]
    assert after["primaryKey"] == before["primaryKey"]
    assert after["secondaryKey"] != before["secondaryKey"]


async def test_several_are_deleted_once_it_was_confirmed(visitor: Visitor, hub: Service) -> None:
    for module in ("a", "b", "c"):
        await hub.put(f"/devices/pump-7/modules/{module}", {})
    page = await visitor.get(LIST)
    assert "Select a module identity first." in (await visitor.send(page, LIST)).text
    asked = await visitor.send(await visitor.get(LIST), LIST, {"select": ["a", "b", "gone"]})
    assert asked.title == "Delete the selected module identities: 3"
    done = await visitor.send(asked, LIST)
    assert "Module identities deleted: 2" in done.text
    assert "gone: ModuleNotFound" in done.text
    assert [each["moduleId"] for each in await hub.get("/devices/pump-7/modules")] == ["c"]


async def test_a_module_that_is_not_there(visitor: Visitor, hub: Service) -> None:
    assert (await visitor.get(f"{LIST}/nobody")).status == 404
