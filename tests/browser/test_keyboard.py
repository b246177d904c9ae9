"""The portal without a mouse: everything is reached by Tab, and the focus is where a reader expects it."""

from __future__ import annotations

import ssl
from http.client import HTTPSConnection

from playwright.sync_api import Page, expect

from tests.browser.conftest import Portal
from tests.conftest import RunningServer
from tests.support.services import Hub

MOST = 120  # keys pressed on the way to something
FOCUSED = """() => {
  const at = document.activeElement;
  const name = at.getAttribute("aria-label") ?? at.labels?.[0]?.innerText ?? at.innerText ?? "";
  return name.trim().replace(/\\s+/g, " ");
}"""


def reach(page: Page, name: str, *, key: str = "Tab") -> None:
    """Press `key` until what has the focus is called `name`, and can be seen to have it."""
    for _ in range(MOST):
        page.keyboard.press(key)
        if str(page.evaluate(FOCUSED)).removesuffix(" *") == name:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{name} does not show that it has the focus"
            return
    raise AssertionError(f"{name!r} is not reached by {key}")


def enter(page: Page) -> None:
    with page.expect_navigation():
        page.keyboard.press("Enter")


def follow(page: Page, *names: str) -> None:
    for name in names:
        reach(page, name)
        enter(page)


def refuse_somebody(server: RunningServer) -> None:
    """An attempt to register, for the list of them."""
    trust = ssl.create_default_context(cafile=server.env["MOORAGE_CA_FILE"])
    host, _, port = server.env["PROVISIONING_SERVICE_CONNECTION_STRING"].split(";")[0][9:].partition(":")
    connection = HTTPSConnection(host, int(port or 443), context=trust)
    path = f"/{server.env['PROVISIONING_IDSCOPE']}/registrations/stranger/register?api-version=2019-03-31"
    headers = {"Content-Type": "application/json", "Authorization": "none"}
    connection.request("PUT", path, '{"registrationId": "stranger"}', headers)
    connection.getresponse().read()
    connection.close()


def test_an_enrollment_and_a_twin(fresh_portal: Portal) -> None:
    page = fresh_portal.open("/")
    follow(page, "Manage enrollments", "+ Add individual enrollment")
    reach(page, "X.509 client certificates")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    reach(page, "Registration ID")
    page.keyboard.type("pump-7")
    follow(page, "Create")
    expect(page.get_by_role("status").first).to_contain_text("The enrollment pump-7 has been created.")

    follow(page, "Manage enrollments")
    reach(page, "Select pump-7")
    page.keyboard.press("Space")
    reach(page, "Delete", key="Shift+Tab")
    enter(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete individual enrollments: 1")
    follow(page, "Delete")
    expect(page.get_by_role("status").first).to_contain_text("Individual enrollments deleted: 1.")

    Hub(fresh_portal.server.env).call("PUT", "/devices/pump-7", {"deviceId": "pump-7"})
    follow(page, "Devices", "pump-7", "Device twin")
    reach(page, "Tags")
    page.keyboard.press("Control+A")
    page.keyboard.type('{"site": "harbour"}')
    follow(page, "Save")
    expect(page.get_by_role("status").first).to_have_text("The twin of pump-7 was saved.")

    refuse_somebody(fresh_portal.server)
    follow(page, "Registrations")
    reach(page, "stranger")
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog")
    expect(drawer).to_be_visible()
    for _ in range(12):  # the focus does not get behind it
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("link", name="stranger")).to_be_focused()
