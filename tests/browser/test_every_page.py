"""Every page of the portal, full of what devices and services may write: nothing of it becomes a part of a page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

from playwright.sync_api import Page

from moorage.portal.pages import FRAGMENT
from tests.browser.conftest import Portal
from tests.support.marked import ENROLLMENT, GROUP, MARK, MARKED, Marked
from tests.support.portal_routes import routes

WIDTHS = (2560, 360)  # CSS pixels
FILES = ("/ca.pem", "/download", "/frame")
"""Ends of what is downloaded."""
PIECES = ("/counts", "/rows", "/live", "/state", "/queue", "/reported", "/key")
"""Ends of what scripts ask for."""


def addresses(parameters: Mapping[str, str]) -> Iterator[str]:
    """Of every page. A new parameter needs a value in `Marked.parameters`."""
    for route in routes("GET"):
        enrollment = GROUP if route.path.startswith("/enrollment-groups") else ENROLLMENT
        values = {**parameters, "id": quote(enrollment, safe="")}
        yield re.sub(r"\{([\w:]+)\}", lambda found, values=values: values[found[1]], route.path)  # type: ignore[misc]


class Walk:
    """Goes on whatever it finds, for each page takes its time; `found` is told at the end."""

    def __init__(self, portal: Portal, marked: Marked) -> None:
        self._portal = portal
        self._page: Page = portal.page
        self._marked = marked
        self._visited = 0
        self.found: list[str] = []

    def visit(self, address: str) -> None:
        self._visited += 1
        path = address.partition("?")[0]
        if path.endswith((*FILES, *PIECES)):
            self._fetch(address, is_file=path.endswith(FILES))
            return
        answered = self._page.goto(f"{self._portal.url}{address}")
        assert answered is not None
        self._hold(answered.status < 500, f"{address} answers {answered.status}")
        self._look(address)
        shown = self._page.content()
        self._hold(not any(key in shown for key in self._marked.secrets), f"{address} shows a key")
        for width in WIDTHS:
            self._page.set_viewport_size({"width": width, "height": 740})
            self._try(self._portal.check_width, f"{address} at {width}")
            if "MOORAGE_PICTURES" in os.environ:
                self._portal.picture_of(f"walk-{self._visited:02}-{width}")
        self._try(self._portal.check_with_axe, address)
        self._open_drawers(address)

    def _fetch(self, address: str, *, is_file: bool) -> None:
        """As a script of the portal does, which puts what it is given into the page."""
        answer = self._page.request.get(f"{self._portal.url}{address}", headers={FRAGMENT: "live"})
        self._hold(answer.status < 500, f"{address} answers {answer.status}")
        if is_file:
            self._hold("attachment" in answer.headers.get("content-disposition", ""), f"{address} is shown")
            return
        self._page.evaluate("html => (document.querySelector('main').innerHTML = html)", answer.text())
        self._look(address)

    def cookies(self) -> list[str]:
        return [cookie.get("value", "") for cookie in self._portal.context.cookies()]

    def _open_drawers(self, address: str) -> None:
        for link in self._page.locator("a[data-drawer]").all()[:3]:
            link.click()
            self._page.locator("dialog[open]").wait_for()
            self._look(f"a drawer of {address}")
            self._page.keyboard.press("Escape")

    def _look(self, name: str) -> None:
        self._hold(self._page.locator(MARKED).count() == 0, f"a mark has become a part of {name}")
        self._hold(self._page.title() != "taken", f"a script of ours ran on {name}")

    def _hold(self, held: bool, otherwise: str) -> None:
        if not held:
            self.found.append(otherwise)

    def _try(self, check: Callable[[str], None], name: str) -> None:
        try:
            check(name)
        except AssertionError as error:
            self.found.append(str(error))


def test_nothing_that_is_written_becomes_a_part_of_a_page(fresh_portal: Portal) -> None:
    marked, mark = Marked(fresh_portal.server), quote(MARK, safe="")
    walk = Walk(fresh_portal, marked)
    for address in (
        *addresses(marked.parameters()),
        f"/enrollments?search={mark}",
        f"/enrollments/{mark}",
        f"/hubs/{mark}/devices",
        "/hubs/hub/devices?query=SELECT%20*%20FROM%20devices",
        f"/hubs/hub/devices?query={mark}",
        f"/hubs/hub/devices?device_id={mark}",
        f"/hubs/hub/telemetry?device={mark}&property={mark}",
        "/registrations?operation=",
        f"/registrations?operation=&subject={mark}",
        f"/?env={mark}&hub={mark}",
    ):
        walk.visit(address)
    log = fresh_portal.server.log
    assert not [key for key in (*marked.secrets, *walk.cookies()) if key in log]
    assert not walk.found, "\n".join(walk.found)
    fresh_portal.said = [each for each in fresh_portal.said if "Failed to load resource" not in each]
