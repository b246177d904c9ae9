"""Manage enrollments as a person does it: a certificate chosen and shown, an enrollment that appears by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from moorage.credentials.sas import derive_key
from tests.browser.conftest import Portal, window
from tests.conftest import RunningServer
from tests.support.authorities import certify
from tests.support.commands import moorage
from tests.support.services import Dps

DATES: Any = {"start": datetime(2020, 1, 1, tzinfo=UTC), "end": datetime(2100, 1, 1, tzinfo=UTC)}
PUMP = certify("browser-pump", None, **DATES)


def file(name: str, content: bytes | str) -> FilePayload:
    whole = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "application/octet-stream", "buffer": whole}


def test_from_the_empty_list_to_the_first_device(fresh_portal: Portal) -> None:
    page = fresh_portal.open("/enrollments")
    expect(page.get_by_text("No device may register on its own yet")).to_be_visible()
    fresh_portal.look("enrollments-empty")
    page.get_by_role("link", name="Add individual enrollment").click()

    page.get_by_label("Primary certificate file (.pem or .cer)").set_input_files(file("pump.pem", PUMP.pem))
    preview = page.locator(".preview").first
    expect(preview).to_contain_text(PUMP.certificate.sha256)
    page.get_by_label("Registration ID", exact=True).fill("another-pump")
    page.get_by_label("Registration ID", exact=True).blur()
    expect(preview).to_contain_text("Its common name is browser-pump, the registration ID another-pump")
    fresh_portal.look("enrollment-warning")
    page.get_by_label("Registration ID", exact=True).fill("browser-pump")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("browser-pump")
    fresh_portal.look("enrollment")

    page.get_by_label("Menu").get_by_role("link", name="Manage enrollments").click()
    expect(page.get_by_role("link", name="browser-pump")).to_be_visible()
    key = {"type": "symmetricKey"}
    Dps(fresh_portal.server.env).call(
        "PUT", "/enrollments/lathe", {"registrationId": "lathe", "attestation": key}
    )
    expect(page.get_by_role("link", name="lathe")).to_be_visible()  # by itself
    page.get_by_label("Select browser-pump").check()
    fresh_portal.look("enrollments")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Individual enrollments deleted: 1")).to_be_visible()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 50 MB."""
    made = tmp_path_factory.mktemp("film") / "film.pem"
    made.write_bytes(b"x" * (50 << 20))
    return made


def test_a_private_key_and_a_film(portal: Portal, film: Path) -> None:
    page = portal.open("/enrollments/new")
    field = page.get_by_label("Primary certificate file (.pem or .cer)")
    preview = page.locator(".preview").first
    field.set_input_files(file("pump.key", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"))
    expect(preview).to_contain_text("There is a private key in this file")
    expect(field).to_have_js_property("value", "")  # and so it is not sent again
    portal.look("enrollment-private-key")
    field.set_input_files(film)
    expect(preview).to_contain_text("larger than 64 KiB")
    page.get_by_label("Symmetric key", exact=True).check()
    expect(field).to_be_hidden()
    page.get_by_label("Registration ID", exact=True).fill("a b")
    page.get_by_label("Initial device twin state").fill('{\n  "tags": }')
    expect(page.get_by_text("Not JSON, line 2, column 11")).to_be_visible()
    page.get_by_label("Initial device twin state").fill("{}")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_text("must be 1 to 128 letters")).to_be_visible()
    portal.look("enrollment-refused")
    portal.said.clear()  # chromium tells of the 400


def test_without_script(chromium: Browser, server: RunningServer, pictures: Path, film: Path) -> None:
    with window(chromium, server, pictures, java_script_enabled=False) as portal:
        page = portal.open("/enrollments/new")
        field = page.get_by_label("Primary certificate file (.pem or .cer)")
        field.set_input_files(film)
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_text("1,024 KiB")).to_be_visible()
        portal.open("/enrollments/new")
        field.set_input_files(file("pump.cer", PUMP.der))
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("browser-pump")
        portal.said.clear()  # chromium tells of the 413


def test_somebody_else_was_faster(portal: Portal) -> None:
    dps = Dps(portal.server.env)
    document = {"registrationId": "press", "attestation": {"type": "symmetricKey"}, "deviceId": "before"}
    dps.call("PUT", "/enrollments/press", document)
    page = portal.open("/enrollments/press")
    page.get_by_label("Device ID").fill("mine")
    current = dps.get("/enrollments/press")
    theirs = {**current, "deviceId": "theirs", "initialTwin": {"tags": {"site": "north"}}}
    dps.call("PUT", "/enrollments/press", theirs, headers={"If-Match": current["etag"]})
    page.get_by_role("button", name="Save").first.click()
    expect(page.get_by_text("Somebody else has saved this enrollment meanwhile")).to_be_visible()
    portal.look("enrollment-overtaken")
    page.get_by_role("button", name="Save mine anyway").click()
    expect(page.get_by_text("has been saved")).to_be_visible()
    portal.look("enrollment-symmetric-key")
    portal.said.clear()  # chromium tells of the 412


def test_a_group(portal: Portal) -> None:
    dps = Dps(portal.server.env)
    page = portal.open("/enrollment-groups/new")
    page.get_by_label("X.509 certificates uploaded").check()
    portal.look("enrollment-group-new")
    page.get_by_label("Symmetric key", exact=True).check()
    page.get_by_label("Group name").fill("line-4")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("line-4")
    page.get_by_role("link", name="Show keys").click()
    portal.look("enrollment-group")
    page.get_by_role("link", name="Compute device key").click()
    page.get_by_label("Registration ID").fill("robot-7")
    page.get_by_role("button", name="Compute device key").click()
    mechanism = dps.call("POST", "/enrollmentGroups/line-4/attestationmechanism").body
    key = derive_key(mechanism["symmetricKey"]["primaryKey"], "robot-7")
    expect(page.get_by_text(key)).to_be_visible()
    portal.look("enrollment-group-device-key")
    page.get_by_role("link", name="Registration records").click()
    expect(page.get_by_text("No device of this group has registered yet")).to_be_visible()
    moorage(
        portal.server,
        "device",
        "registration",
        "create",
        "--registration-id",
        "robot-7",
        "--symmetric-key",
        key,
    )
    page.get_by_role("link", name="Refresh").click()
    expect(page.get_by_role("link", name="robot-7").first).to_be_visible()
    portal.look("enrollment-group-records")
    portal.open("/enrollment-groups")
    portal.look("enrollment-groups")


def test_a_certificate_is_dropped(portal: Portal) -> None:
    fan, page = certify("browser-fan", None, **DATES), portal.open("/enrollments/new")
    dropped = page.evaluate_handle(
        "text => { const data = new DataTransfer(); data.items.add(new File([text], 'fan.pem')); return data; }",
        fan.pem,
    )
    page.locator("[data-drop]").first.dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.locator(".preview").first).to_contain_text(fan.certificate.sha256)
    page.get_by_label("Registration ID", exact=True).fill("browser-fan")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("browser-fan")
