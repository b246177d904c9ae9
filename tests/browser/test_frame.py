"""What is around every page: signing in, languages and themes, the keyboard, a server that goes away."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser.conftest import Portal, window
from tests.conftest import RunningServer, StartServer
from tests.support.commands import moorage


def test_the_overview(portal: Portal) -> None:
    expect(portal.page.get_by_role("heading", level=1)).to_have_text("Overview")
    portal.look("overview")


def test_who_is_not_signed_in(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    with window(chromium, server, pictures, signed_in=False) as portal:
        portal.open("/")
        expect(portal.page.get_by_role("heading", level=1)).to_have_text("Sign in")
        portal.look("sign-in")
        portal.said.clear()  # chromium tells of the 401


def test_in_korean(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    with window(chromium, server, pictures, locale="ko-KR") as portal:
        expect(portal.page.get_by_role("heading", level=1)).to_have_text("개요")
        portal.look("overview-korean")
        portal.page.get_by_label("언어").select_option("en")
        expect(portal.page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_a_theme_is_kept(portal: Portal) -> None:
    portal.page.get_by_label("Theme").select_option("dark")
    expect(portal.page.locator("html")).to_have_attribute("data-theme", "dark")
    portal.open("/")
    expect(portal.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_without_script(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    with window(chromium, server, pictures, java_script_enabled=False) as portal:
        portal.page.get_by_label("Theme").select_option("dark")
        portal.page.get_by_role("button", name="Apply").click()
        expect(portal.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_keyboard_alone(portal: Portal) -> None:
    page = portal.open("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_what_is_copied(portal: Portal) -> None:
    page = portal.open("/")
    page.get_by_role("button", name="Copy ID Scope").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    scope = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"0ne[0-9A-F]{8}", scope)


def test_nothing_comes_from_elsewhere(portal: Portal) -> None:
    asked: list[str] = []
    portal.page.on("request", lambda request: asked.append(request.url))
    portal.open("/")
    assert asked
    assert all(url.startswith(portal.url) for url in asked)


def test_moorage_portal_prints_a_link(chromium: Browser, start_server: StartServer, pictures: Path) -> None:
    server = start_server()
    with window(chromium, server, pictures, signed_in=False) as portal:
        printed = moorage(server, "portal").stdout.strip()
        portal.page.goto(printed)
        expect(portal.page.get_by_role("heading", level=1)).to_have_text("Overview")
