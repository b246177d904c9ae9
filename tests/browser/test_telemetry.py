"""Telemetry as it comes in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Locator, expect

from tests.browser.conftest import Portal, window
from tests.conftest import RunningServer
from tests.support.mqtt_device import device_token, send
from tests.support.services import Hub

JSON = f"$.ct={quote('application/json', safe='')}&$.ce=utf-8"


class Sender:
    """A device of the hub before which the portal stands."""

    def __init__(self, portal: Portal, device_id: str) -> None:
        self._env = portal.server.env
        self._host = self._env["IOTHUB_HOSTNAME"]
        self.device_id = device_id
        made = Hub(self._env).call("PUT", f"/devices/{device_id}", {"deviceId": device_id})
        self._key = made.body["authentication"]["symmetricKey"]["primaryKey"]

    def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        token = device_token(self._host, self.device_id, self._key)
        assert send(self._host, self._env["MOORAGE_CA_FILE"], self.device_id, token, messages) == 0


def first(portal: Portal) -> Locator:
    return portal.page.locator(".event").first


def telemetry_of(portal: Portal) -> str:
    """The page of the first hub, as the menu leads to it."""
    portal.page.get_by_role("link", name="Telemetry").first.click()
    expect(portal.page.get_by_role("heading", level=1)).to_have_text("Telemetry")
    return portal.page.url


def test_without_script(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    with window(chromium, server, pictures, java_script_enabled=False) as portal:
        url = telemetry_of(portal)
        Sender(portal, "plain-1").send([("", b"for those without")])
        portal.page.goto(f"{url}?device=plain-1")
        expect(first(portal)).to_contain_text("for those without")
        expect(portal.page.get_by_role("button", name="Pause")).to_be_hidden()
        portal.page.get_by_role("link", name="Open event").click()
        expect(portal.page.get_by_role("heading", name="Raw frame")).to_be_visible()


def test_from_nothing_to_a_tail(fresh_portal: Portal) -> None:
    portal = fresh_portal
    page = portal.page
    telemetry_of(portal)
    expect(page.get_by_role("heading", name="Nothing has come in yet")).to_be_visible()
    portal.look("telemetry-empty")

    pump, fan = Sender(portal, "pump-7"), Sender(portal, "fan-1")
    pump.send([(JSON, b'{"temperature": 21.5, "pressure": 4.2, "alarms": ["valve", "seal"]}')])
    expect(page.locator(".event")).to_have_count(1)
    expect(page.get_by_role("heading", name="Nothing has come in yet")).to_be_hidden()
    fan.send([("level=storm&site=north", b"rising"), ("$.ct=image%2Fpng", bytes(range(40)))])
    pump.send([(JSON + "&alert=high", b'{"temperature": 48.25}'), ("", b"x" * 9_000)])
    expect(page.locator(".event")).to_have_count(5)
    expect(first(portal)).to_contain_text("Cut: the body has 9,000 bytes")
    portal.look("telemetry")

    page.get_by_role("button", name="Pause").click()
    pump.send([("", b"while it was held")])
    page.get_by_role("button", name="Go on").click()
    expect(first(portal)).to_contain_text("while it was held")

    page.get_by_role("link", name="level=storm").click()
    expect(page.locator(".event")).to_have_count(1)
    expect(page.get_by_label("Property")).to_have_value("level=storm")
    page.get_by_role("link", name="Show all").click()
    page.get_by_role("link", name="fan-1").first.click()
    expect(page).to_have_url(re.compile(r"\?device=fan-1$"))
    expect(page.locator(".event")).to_have_count(2)
    fan.send([("", b"again")])
    pump.send([("", b"not meant")])
    expect(page.locator(".event")).to_have_count(3)
    expect(first(portal)).to_contain_text("again")

    page.get_by_role("link", name="Open event").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Raw frame")
    expect(drawer).to_contain_text("000000  00 53 72")
    portal.look("telemetry-drawer")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.get_by_role("link", name="Open event").first.click()
    drawer.get_by_role("link", name="Open as a page").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Event ")
    portal.look("telemetry-event")
