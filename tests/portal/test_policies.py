"""Shared access policies in the portal."""

from __future__ import annotations

import pytest

from moorage.portal.api import Api
from tests.support.visitor import Visitor

OWNERS = pytest.mark.parametrize(
    ("root", "right", "owner"),
    [
        ("/policies", "EnrollmentRead", "provisioningserviceowner"),
        ("/hubs/hub/policies", "ServiceConnect", "iothubowner"),
    ],
)


@OWNERS
async def test_a_policy_is_added_changed_and_deleted(
    visitor: Visitor, root: str, right: str, owner: str
) -> None:
    page = await visitor.get(root)
    assert owner in page.text
    added = await visitor.send(page, root, {"keyName": "reader", "rights": [right]})
    assert "The policy reader was added." in added.text
    shown = await visitor.get(f"{root}/reader")
    changed = await visitor.send(shown, f"{root}/reader", {"rights": ["DeviceConnect", right]})
    assert "The policy reader was saved." in changed.text
    assert f"DeviceConnect, {right}" in (await visitor.get(root)).text
    asked = await visitor.send(changed, f"{root}/reader/delete")
    assert "cannot be undone" in asked.text
    assert "reader" in (await visitor.get(root)).text
    gone = await visitor.send(asked, f"{root}/reader/delete")
    assert "The policy reader was deleted." in gone.text
    assert (await visitor.get(f"{root}/reader")).status == 404


@OWNERS
async def test_keys_come_when_they_are_asked_for(visitor: Visitor, root: str, right: str, owner: str) -> None:
    environment = await visitor.server.environment()
    variable = "IOTHUB_CONNECTION_STRING" if "hubs" in root else "PROVISIONING_SERVICE_CONNECTION_STRING"
    connection_string = environment[variable]
    key = connection_string.partition("SharedAccessKey=")[2]
    page = await visitor.get(f"{root}/{owner}")
    assert key not in page.html
    shown = await visitor.get(f"{root}/{owner}?keys=shown")
    assert key in shown.text
    assert connection_string in shown.text


@OWNERS
async def test_keys_are_made_anew(visitor: Visitor, root: str, right: str, owner: str) -> None:
    page = await visitor.send(await visitor.get(root), root, {"keyName": "reader", "rights": right})
    api = Api(visitor.server.inside_api())
    service, path = (
        (api.hub("hub"), "/moorage/v1/hubs/hub/policies/reader")
        if "hubs" in root
        else (api.dps, "/moorage/v1/service/policies/reader")
    )
    before = await service.get(path)
    page = await visitor.get(f"{root}/reader")
    asked = await visitor.send(page, f"{root}/reader/renew", {"key": "primary"})
    assert (await service.get(path))["primaryKey"] == before["primaryKey"]  # only once it is confirmed
    await visitor.send(asked, f"{root}/reader/renew")
    renewed = await service.get(path)
    assert renewed["primaryKey"] != before["primaryKey"]
    await visitor.send(page, f"{root}/reader/renew", {"key": "swap"})
    swapped = await service.get(path)
    assert swapped["primaryKey"] == before["secondaryKey"]


@OWNERS
async def test_what_is_wrong_stands_at_its_field(visitor: Visitor, root: str, right: str, owner: str) -> None:
    page = await visitor.get(root)
    taken = await visitor.send(page, root, {"keyName": owner, "rights": right})
    assert taken.status == 409
    assert "exists already" in taken.text
    assert f'value="{owner}"' in taken.html  # nothing of the form is lost
    nameless = await visitor.send(page, root, {"keyName": "", "rights": right})
    assert "Give the policy a name." in nameless.text
    without = await visitor.send(page, root, {"keyName": "reader"})
    assert without.status == 400
    assert "at least one" in without.text
    assert (await visitor.send(page, root, {"keyName": "a<b", "rights": right})).status == 400


@OWNERS
async def test_the_owner_stays(visitor: Visitor, root: str, right: str, owner: str) -> None:
    page = await visitor.get(f"{root}/{owner}")
    assert f"{root}/{owner}/delete" not in [form.action for form in page.forms()]
    less = await visitor.send(page, f"{root}/{owner}", {"rights": right})
    assert less.status == 400
    assert "keeps all its rights" in less.text


@OWNERS
async def test_who_was_overtaken_sees_both(visitor: Visitor, root: str, right: str, owner: str) -> None:
    await visitor.send(await visitor.get(root), root, {"keyName": "reader", "rights": right})
    mine = await visitor.get(f"{root}/reader")
    await visitor.send(mine, f"{root}/reader", {"rights": ["DeviceConnect"]})
    overtaken = await visitor.send(mine, f"{root}/reader", {"rights": [right, "DeviceConnect"]})
    assert overtaken.status == 412
    assert "its permissions are now: DeviceConnect." in overtaken.text
    again = await visitor.send(overtaken, f"{root}/reader")  # as it stands, over what is there now
    assert "was saved" in again.text
    assert f"DeviceConnect, {right}" in (await visitor.get(root)).text


async def test_of_a_hub_there_is_not(visitor: Visitor) -> None:
    seen = await visitor.get("/hubs/nowhere/policies")
    assert seen.status == 404
    assert "nowhere" in seen.text
