"""A real browser before the portal of a real server: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.conftest import RunningServer, StartServer
from tests.support.node import FOLDER as NODE_CLIENTS
from tests.support.services import Dps

CHROMIUM = "/usr/bin/chromium"
# Root has no sandbox, a container little of /dev/shm.
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
AXE = NODE_CLIENTS / "node_modules" / "axe-core" / "axe.min.js"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATIENCE = 15_000  # milliseconds for what a page is to show or do
DESK, PHONE = (1280, 800), (360, 740)  # CSS pixels


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """No longer than a module: while Playwright is at work in a thread, no event loop of another test can run there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of pages go: a folder of the test run, or the one that MOORAGE_PICTURES names."""
    folder = Path(os.environ.get("MOORAGE_PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Portal:
    """The portal of one server in one browser window. `page` is Playwright's, signed in."""

    def __init__(self, server: RunningServer, context: BrowserContext, pictures: Path) -> None:
        self.server = server
        self.context = context
        self.page: Page = context.new_page()
        self.said: list[str] = []  # errors that the browser's console told of
        self._pictures = pictures
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error":
            self.said.append(text)

    @property
    def url(self) -> str:
        return self.server.env["MOORAGE_PORTAL_URL"]

    def link(self) -> str:
        """A new one, to sign in with."""
        made = Dps(self.server.env).call("POST", "/moorage/v1/portal/links")
        return str(made.body["url"])

    def sign_in(self) -> None:
        self.page.goto(self.link())
        self.page.wait_for_url(f"{self.url}/")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page

    def look(self, name: str) -> None:
        """The page as it stands, in both themes, at a desk and on a phone: axe finds nothing, nothing is cut off at the
        side, and a picture of each is kept."""
        for theme in ("light", "dark"):
            for size in (DESK, PHONE):
                self._show(theme, size)
                where = f"{name}-{theme}-{size[0]}"
                self.picture_of(where)
                self.check_width(where)
                self.check_with_axe(where)
        self._show("light", DESK)

    def _show(self, theme: str, size: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        scheme: Literal["dark", "light"] = "dark" if theme == "dark" else "light"
        self.page.emulate_media(
            color_scheme=scheme, reduced_motion="reduce"
        )  # colours that fade are no theme's

    def picture_of(self, name: str) -> None:
        """The whole page as it stands."""
        self.page.screenshot(path=self._pictures / f"{name}.png", full_page=True)

    def picture(self, name: str) -> None:
        """What can be seen of the page, for the documentation."""
        self.page.screenshot(path=self._pictures / f"{name}.png")

    def check_width(self, name: str) -> None:
        """Nothing makes the page wider than the window."""
        wide = self.page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is {wide} px too wide"

    def check_with_axe(self, name: str) -> None:
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text("utf-8"))
        found: dict[str, Any] = self.page.evaluate(
            "tags => axe.run(document, { runOnly: { type: 'tag', values: tags } })", WCAG
        )
        told = [
            f"{each['id']}: {each['help']}\n  {node['html'][:200]}\n  {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"][:3]
        ]
        assert not told, f"axe on {name}:\n" + "\n".join(told)


@contextmanager
def window(
    browser: Browser, server: RunningServer, pictures: Path, *, signed_in: bool = True, **options: Any
) -> Iterator[Portal]:
    """A window of its own, with cookies of its own. What its console tells of at the end fails the test."""
    context = browser.new_context(
        viewport={"width": DESK[0], "height": DESK[1]},
        locale=options.pop("locale", "en-US"),
        permissions=["clipboard-read", "clipboard-write"],
        **options,
    )
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    portal = Portal(server, context, pictures)
    try:
        if signed_in:
            portal.sign_in()
        yield portal
    finally:
        context.close()
    assert not portal.said, portal.said


@pytest.fixture
def portal(chromium: Browser, server: RunningServer, pictures: Path) -> Iterator[Portal]:
    """Before the server that all tests share."""
    with window(chromium, server, pictures) as opened:
        yield opened


@pytest.fixture
def fresh_portal(chromium: Browser, start_server: StartServer, pictures: Path) -> Iterator[Portal]:
    """Before a server on which nothing has happened yet."""
    with window(chromium, start_server(), pictures) as opened:
        yield opened
