"""Adding a device, and its own page: identity, status, keys, thumbprints."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from moorage.credentials.x509 import read_certificate
from moorage.portal.api import Api, Service
from moorage.portal.certificate_upload import MAX_CERTIFICATE
from tests.support.certificates import certificate
from tests.support.visitor import PageSeen, Visitor

LIST = "/hubs/hub/devices"
NEW = f"{LIST}/~new"
DEVICE = f"{LIST}/pump-7"
SCRIPT = "<img src=x onerror=alert(1)>"
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


@pytest.fixture
def hub(visitor: Visitor) -> Service:
    return Api(visitor.server.inside_api()).hub("hub")


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, str]:
    """Certificate and key of a device, in PEM, and the thumbprint."""
    pem, key = (path.read_bytes() for path in certificate(tmp_path_factory.mktemp("pump"), "pump-7"))
    return pem, key, read_certificate(pem).sha256


async def create(
    visitor: Visitor, files: dict[str, tuple[str, bytes]] | None = None, **fields: Any
) -> PageSeen:
    return await visitor.send(
        await visitor.get(NEW), NEW, {"device_id": "pump-7", **fields}, files=files or {}
    )


async def test_a_device_with_keys_that_the_hub_makes(visitor: Visitor, hub: Service) -> None:
    page = await create(visitor)
    assert (page.path, page.title) == (DEVICE, "pump-7")
    assert "pump-7 was added." in page.text
    identity = await hub.get("/devices/pump-7")
    assert (identity["authentication"]["type"], identity["status"]) == ("sas", "enabled")
    assert len(identity["authentication"]["symmetricKey"]["primaryKey"]) == 44


async def test_a_device_with_given_keys(visitor: Visitor, hub: Service) -> None:
    await create(visitor, auto_keys=None, primary_key=KEY, secondary_key="", status="disabled")
    identity = await hub.get("/devices/pump-7")
    keys = identity["authentication"]["symmetricKey"]
    assert (keys["primaryKey"], identity["status"]) == (KEY, "disabled")
    assert len(keys["secondaryKey"]) == 44


async def test_a_device_with_a_certificates_thumbprint(
    visitor: Visitor, hub: Service, pump: tuple[bytes, bytes, str]
) -> None:
    pem, _, thumbprint = pump
    await create(
        visitor,
        {"primary_certificate": ("device.pem", pem)},
        authentication="selfSigned",
        secondary_thumbprint=":".join(["ab"] * 20),
    )
    authentication = (await hub.get("/devices/pump-7"))["authentication"]
    assert authentication["x509Thumbprint"] == {
        "primaryThumbprint": thumbprint,
        "secondaryThumbprint": "AB" * 20,
    }
    page = await visitor.get(DEVICE)
    assert "X.509 self-signed" in page.text
    assert "x509=true" in page.text


async def test_a_device_by_ca_with_a_parent(visitor: Visitor, hub: Service) -> None:
    await create(visitor, device_id="gateway", edge="on")
    page = await create(visitor, authentication="certificateAuthority", parent="gateway")
    assert page.title == "pump-7"
    scope = (await hub.get("/devices/gateway"))["deviceScope"]
    assert (await hub.get("/devices/pump-7"))["parentScopes"] == [scope]
    assert f'<a href="{LIST}/gateway">gateway</a>' in page.html
    (children,) = re.findall(rf'href="({LIST}\?query=[^"]+)"', (await visitor.get(f"{LIST}/gateway")).html)
    found = await visitor.get(unescape(children))
    assert f'href="{DEVICE}"' in found.html
    assert f'href="{LIST}/gateway"' not in found.html


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"device_id": ""}, 400, "A device has an id."),
        ({"device_id": "a b"}, 400, "an id has 1 to 128"),
        ({"device_id": "a/b"}, 400, "an id has 1 to 128"),
        ({"device_id": SCRIPT}, 400, "an id has 1 to 128"),
        ({"auto_keys": None, "primary_key": "nonsense"}, 400, "primary_key"),
        ({"authentication": "selfSigned"}, 400, "needs a thumbprint"),
        ({"authentication": "selfSigned", "primary_thumbprint": SCRIPT}, 400, "40 or 64"),
        ({"parent": "nobody"}, 400, "nobody is no IoT Edge device of this hub."),
        ({"device_id": "taken"}, 409, "A device of this id exists already."),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    visitor: Visitor, hub: Service, fields: dict[str, Any], status: int, problem: str
) -> None:
    await hub.put("/devices/taken", {})
    page = await create(visitor, **fields)
    assert page.status == status
    (said,) = re.findall(r'<p class="problem" (id="problem-[a-z_]+">.*?)</p>', page.html)
    assert problem in unescape(said)
    assert "<img src=x" not in page.html
    assert fields.get("device_id", "pump-7") in dict(page.form(NEW).fields)["device_id"]
    assert len(await hub.get("/devices")) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"nonsense", "This file is no certificate"),
        (b" ", "This file is empty"),
        (b"x" * (MAX_CERTIFICATE + 1), "larger than 64 KiB"),
    ],
)
async def test_a_file_that_is_no_certificate(
    visitor: Visitor, hub: Service, content: bytes, problem: str
) -> None:
    page = await create(visitor, {"primary_certificate": ("x.pem", content)}, authentication="selfSigned")
    assert page.status == 400
    assert problem in page.text
    assert await hub.get("/devices") == []


async def test_a_private_key_is_refused(
    visitor: Visitor, hub: Service, pump: tuple[bytes, bytes, str]
) -> None:
    pem, key, _ = pump
    page = await create(visitor, {"secondary_certificate": ("x.pem", pem + key)}, authentication="selfSigned")
    assert page.status == 400
    assert "There is a private key in this file." in page.text
    assert await hub.get("/devices") == []


async def test_keys_are_shown_when_they_are_asked_for(visitor: Visitor, hub: Service) -> None:
    identity = await hub.put("/devices/pump-7", {})
    key = identity["authentication"]["symmetricKey"]["primaryKey"]
    hidden, shown = await visitor.get(DEVICE), await visitor.get(f"{DEVICE}?keys=shown")
    assert key not in unescape(hidden.html)
    assert f";DeviceId=pump-7;SharedAccessKey={key}" in shown.text


async def test_keys_are_renewed_and_swapped(visitor: Visitor, hub: Service) -> None:
    keys = (await hub.put("/devices/pump-7", {}))["authentication"]["symmetricKey"]
    asked = await visitor.send(await visitor.get(DEVICE), f"{DEVICE}/keys", {"do": "swap"})
    assert "cannot connect any more" in asked.title
    assert "have changed places" in (await visitor.send(asked, f"{DEVICE}/keys")).text
    swapped = (await hub.get("/devices/pump-7"))["authentication"]["symmetricKey"]
    assert swapped == {"primaryKey": keys["secondaryKey"], "secondaryKey": keys["primaryKey"]}
    asked = await visitor.send(await visitor.get(DEVICE), f"{DEVICE}/keys", {"do": "primary"})
    assert "has a new key" in (await visitor.send(asked, f"{DEVICE}/keys")).text
    renewed = (await hub.get("/devices/pump-7"))["authentication"]["symmetricKey"]
    assert renewed["secondaryKey"] == swapped["secondaryKey"]
    assert renewed["primaryKey"] not in swapped.values()


async def test_a_device_is_disabled_with_a_reason(visitor: Visitor, hub: Service) -> None:
    before = await hub.put("/devices/pump-7", {"capabilities": {"iotEdge": True}})
    page = await visitor.send(
        await visitor.get(DEVICE), f"{DEVICE}/identity", {"status": "disabled", "status_reason": SCRIPT}
    )
    assert "pump-7 was saved." in page.text
    assert "<img src=x" not in page.html
    after = await hub.get("/devices/pump-7")
    assert (after["status"], after["statusReason"]) == ("disabled", SCRIPT)
    assert after["authentication"] == before["authentication"]
    assert after["deviceScope"] == before["deviceScope"]


@pytest.mark.parametrize("below", ["", "/modules/cam"])
async def test_thumbprints_are_changed(visitor: Visitor, hub: Service, below: str) -> None:
    """Also those of a module; and whoever was overtaken keeps what was written."""
    sent = {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB" * 20}}}
    await hub.put("/devices/pump-7", sent)
    if below:
        await hub.put(f"/devices/pump-7{below}", sent)
    page, form = await visitor.get(f"{DEVICE}{below}"), f"{DEVICE}{below}/thumbprints"
    await visitor.send(page, form, {"secondary_thumbprint": "cd" * 32}, files={})
    prints = (await hub.get(f"/devices/pump-7{below}"))["authentication"]["x509Thumbprint"]
    assert prints == {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": "CD" * 32}
    seen = await visitor.send(page, form, {"secondary_thumbprint": "ef" * 20}, files={})
    assert seen.status == 412
    assert "CD" * 32 in seen.text
    assert ("secondary_thumbprint", "ef" * 20) in seen.form(form).fields
    wrong = await visitor.send(seen, form, {"primary_thumbprint": "nonsense"}, files={})
    assert wrong.status == 400
    assert 'id="problem-primary_thumbprint"' in wrong.html


async def test_a_reason_that_is_too_long(visitor: Visitor, hub: Service) -> None:
    await hub.put("/devices/pump-7", {})
    page = await visitor.send(await visitor.get(DEVICE), f"{DEVICE}/identity", {"status_reason": "x" * 129})
    assert page.status == 400
    assert 'id="problem-status_reason"' in page.html


async def test_who_was_overtaken_sees_both_and_can_save_again(visitor: Visitor, hub: Service) -> None:
    identity = await hub.put("/devices/pump-7", {})
    page = await visitor.get(DEVICE)
    other = {**identity, "status": "disabled", "statusReason": "stolen"}
    await hub.put("/devices/pump-7", other, if_match=identity["etag"])
    seen = await visitor.send(page, f"{DEVICE}/identity", {"status": "disabled", "status_reason": "mine"})
    assert seen.status == 412
    assert "Somebody has changed this meanwhile." in seen.text
    assert "stolen" in seen.text
    assert ("status_reason", "mine") in seen.form(f"{DEVICE}/identity").fields
    assert "was saved" in (await visitor.send(seen, f"{DEVICE}/identity")).text
    assert (await hub.get("/devices/pump-7"))["statusReason"] == "mine"


async def test_how_a_device_is_connected_is_kept_up_to_date(visitor: Visitor, hub: Service) -> None:
    identity = await hub.put("/devices/pump-7", {})
    (live,) = re.findall(r'data-live="([^"]+)"', (await visitor.get(DEVICE)).html)
    assert (await visitor.fragment(unescape(live))).status == 204
    await hub.put("/devices/pump-7", {**identity, "status": "disabled"}, if_match="*")
    news = await visitor.fragment(unescape(live))
    assert "Disabled" in news.text
    assert (await visitor.fragment(news.headers["moorage-next"])).status == 204


async def test_a_device_that_is_deleted_while_somebody_looks_at_it(visitor: Visitor, hub: Service) -> None:
    await hub.put("/devices/pump-7", {})
    (live,) = re.findall(r'data-live="([^"]+)"', (await visitor.get(DEVICE)).html)
    await hub.delete("/devices/pump-7")
    news = await visitor.fragment(unescape(live))
    assert (news.status, news.text) == (200, "This has been deleted meanwhile.")
    assert (await visitor.fragment(news.headers["moorage-next"])).status == 204


async def test_a_device_that_is_not_there(visitor: Visitor) -> None:
    page = await visitor.get(DEVICE)
    assert (page.status, page.title) == (404, "This could not be done")
