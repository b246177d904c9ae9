"""Every page of the portal, full of what devices and services may write: nothing of it becomes a part of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from playwright.sync_api import Page

from tests.browser.conftest import Portal
from tests.support.marked import ENROLLMENT, GROUP, MARK, MARKED, Marked
from tests.support.portal_routes import routes

WIDTHS = (360, 2560)  # CSS pixels
FILES = ("/ca.pem", "/download", "/frame")
"""Ends of what is downloaded."""
FRAGMENTS = ("/counts", "/rows", "/live", "/state", "/queue", "/reported", "/key")


def addresses(parameters: Mapping[str, str]) -> Iterator[str]:
    """Of every page. A new parameter needs a value in `Marked.parameters`."""
    for route in routes("GET"):
        enrollment = GROUP if route.path.startswith("/enrollment-groups") else ENROLLMENT
        values = {**parameters, "id": quote(enrollment, safe="")}
        yield re.sub(r"\{([\w:]+)\}", lambda found, values=values: values[found[1]], route.path)  # type: ignore[misc]


def assert_harmless(page: Page, address: str) -> None:
    assert page.locator(MARKED).count() == 0, f"a mark has become a part of {address}"
    assert page.title() != "taken", address


def test_nothing_that_is_written_becomes_a_part_of_a_page(fresh_portal: Portal) -> None:
    portal, page = fresh_portal, fresh_portal.page
    marked = Marked(portal.server)
    mark = quote(MARK, safe="")
    subjects = [
        *addresses(marked.parameters()),
        f"/enrollments?search={mark}",
        f"/enrollments/{mark}",
        f"/hubs/{mark}/devices",
        "/hubs/hub/devices?query=SELECT%20*%20FROM%20devices",
        f"/hubs/hub/devices?query={mark}",
        f"/hubs/hub/devices?device_id={mark}",
        f"/hubs/hub/telemetry?device={mark}&property={mark}",
        f"/registrations?operation=&subject={mark}",
        "/registrations?operation=",
        f"/?env={mark}&hub={mark}",
    ]
    for address in subjects:
        if address.endswith(FILES):
            answer = page.request.get(f"{portal.url}{address}")
            assert "attachment" in answer.headers["content-disposition"], address
            continue
        page.set_viewport_size({"width": WIDTHS[0], "height": 740})
        portal.open(address)
        assert_harmless(page, address)
        shown = page.content()
        assert not [key for key in marked.secrets if key in shown], f"{address} shows a key"
        if address.partition("?")[0].endswith(FRAGMENTS):
            continue
        name = re.sub(r"[^a-z]+", "-", address.lower())[:60].strip("-")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 740})
            page.screenshot(path=portal._pictures / f"{name}-{width}.png", full_page=True)
            portal.check_width(f"{address} at {width}")
        portal.check_with_axe(address)
        for drawer in page.locator("a[data-drawer]").all()[:6]:
            drawer.click()
            page.locator("dialog[open]").wait_for()
            assert_harmless(page, f"a drawer of {address}")
            page.keyboard.press("Escape")
    portal.said = [each for each in portal.said if "Failed to load resource" not in each]  # 404 and the like
