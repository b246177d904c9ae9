"""The first page: first steps, figures that go on by themselves, what is to be copied."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Portal
from tests.browser.test_telemetry import Sender
from tests.support.services import Dps


def test_from_first_steps_to_figures(fresh_portal: Portal) -> None:
    portal = fresh_portal
    page = portal.page
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    portal.look("overview-first-steps")
    Sender(portal, "pump-7").send([("", b"1"), ("", b"2")])
    card = page.locator(".card", has=page.get_by_role("heading", name="Messages"))
    expect(card.locator(".figure")).to_have_text("2")

    enrollment = {"registrationId": "pump-7", "attestation": {"type": "symmetricKey"}}
    dps = Dps(portal.server.env)
    assert dps.call("PUT", "/enrollments/pump-7", enrollment).status == 200
    assert dps.call("POST", "/moorage/v1/hubs", {"name": "second"}).status == 201
    page.reload()
    expect(page.get_by_role("heading", name="First steps")).to_be_hidden()
    page.get_by_label("IoT hub", exact=True).select_option("second")
    expect(page).to_have_url(re.compile("hub=second"))
    page.get_by_role("link", name="Show keys").click()
    page.get_by_role("link", name="Python", exact=True).click()
    expect(page.get_by_role("link", name="Python", exact=True)).to_have_attribute("aria-current", "page")
    page.get_by_role("button", name="Copy IoT hub (iothubowner)").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch("HostName=[^;]+;SharedAccessKeyName=iothubowner;SharedAccessKey=.{44}", copied)
    portal.look("overview-keys")
