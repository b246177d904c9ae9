"""A server that goes away while pages are open, and comes back: said, retried, and nothing that was written is lost."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, expect

from tests.browser.conftest import window
from tests.conftest import StartServer
from tests.support.services import Hub

PATIENCE = 15_000  # milliseconds
WRITTEN = '{"site": "harbour"}'
WRITTEN_LATER = '{\n  "site": "quay"\n}'


def test_a_restart(chromium: Browser, start_server: StartServer, pictures: Path) -> None:
    server = start_server()
    Hub(server.env).call("PUT", "/devices/pump-7", {"deviceId": "pump-7"})
    with window(chromium, server, pictures) as portal:
        port = str(urlsplit(portal.url).port)
        twin = portal.context.new_page()
        twin.goto(f"{portal.url}/hubs/hub/devices/pump-7/twin")
        twin.get_by_label("Tags").fill(WRITTEN)
        page = portal.open("/hubs/hub/devices")

        server.stop()
        expect(page.locator("#connection")).to_have_text("The server does not answer. Trying again…")
        portal.look("server-gone")
        portal.server = start_server("--portal-port", port, data=server.data, address=server.address)
        expect(page.locator("#connection")).to_have_text("The server answers again.", timeout=PATIENCE)
        expect(twin.get_by_label("Tags")).to_have_value(WRITTEN)
        twin.get_by_role("button", name="Save").click()
        expect(twin.get_by_role("status").first).to_have_text("The twin of pump-7 was saved.")

        twin.get_by_label("Tags").fill(WRITTEN_LATER)
        elsewhere = portal.context.new_page()
        elsewhere.goto(portal.url)
        elsewhere.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        expect(twin.locator("#connection")).to_contain_text("Your session has ended.")
        portal.sign_in()
        expect(twin.locator("#connection")).to_have_text("The server answers again.", timeout=PATIENCE)
        twin.get_by_role("button", name="Save").click()
        expect(twin.get_by_role("heading", level=1)).to_have_text(
            "You have signed in anew since this form was shown"
        )
        portal.page = twin
        portal.look("form-of-an-earlier-session")
        twin.get_by_role("button", name="Send it now").click()
        expect(twin.get_by_role("status").first).to_have_text("The twin of pump-7 was saved.")
        expect(twin.get_by_label("Tags")).to_have_value(WRITTEN_LATER)
        portal.said.clear()  # chromium tells of each request that came to nothing
