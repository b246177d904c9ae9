"""docs/quickstart-portal.md, step by step: a browser, Microsoft's SDK, and the commands of the page."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Portal
from tests.support.documents import DOCS, EXAMPLES, bash_blocks
from tests.support.shell import Shell, run

PAGE = "quickstart-portal.md"
DEVICE = "Python-device-01"
PATIENCE = 60.0  # seconds for a command


class Reader:
    """Somebody who follows the page. `take` keeps the pictures that it shows."""

    def __init__(self, portal: Portal, folder: Path) -> None:
        self.portal = portal
        self.page: Page = portal.page
        self.taken: set[str] = set()
        self._folder = folder
        (folder / "examples").symlink_to(EXAMPLES)

    def type_in(self, block: str) -> str:
        """What a block of the page prints."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = Shell(self.portal.server).env | {"PATH": path}
        done = run("bash", "-euo", "pipefail", "-c", block, env=env, cwd=self._folder, patience=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def follow(self, *names: str) -> None:
        """Links of the menu, or of the page."""
        for name in names:
            self.page.get_by_role("link", name=name, exact=True).first.click()

    def take(self, name: str) -> None:
        self.taken.add(f"{name}.png")
        self.portal.picture(name)

    def row(self, text: str) -> Locator:
        return self.page.get_by_role("row").filter(has_text=text)


def test_the_quickstart_in_the_portal(fresh_portal: Portal, tmp_path: Path) -> None:
    reader, page = Reader(fresh_portal, tmp_path), fresh_portal.page
    make_certificate, run_device = bash_blocks(PAGE)

    scope = fresh_portal.server.env["PROVISIONING_IDSCOPE"]
    expect(page.get_by_role("main")).to_contain_text(scope)
    page.get_by_role("button", name="Copy ID Scope").click()
    assert page.evaluate("navigator.clipboard.readText()") == scope
    reader.take("overview")

    reader.type_in(make_certificate)
    reader.follow("Manage enrollments", "Individual enrollments", "Add individual enrollment")
    page.get_by_label("Primary certificate file (.pem or .cer)").set_input_files(
        tmp_path / "python-device.pem"
    )
    expect(page.locator(".preview").first).to_contain_text(f"CN={DEVICE}")
    reader.take("add-individual-enrollment")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text(DEVICE)

    reader.follow("Registrations")
    watching = fresh_portal.context.new_page()
    watching.goto(f"{fresh_portal.url}/hubs/hub/telemetry")
    assert "sent message 10" in reader.type_in(run_device)

    attempt = page.get_by_role("link", name=DEVICE, exact=True)  # it has appeared by itself
    expect(attempt).to_be_visible()
    attempt.click()
    expect(page.get_by_role("dialog")).to_contain_text("Every check held.")
    reader.take("registration")
    page.keyboard.press("Escape")

    reader.follow("Devices")
    expect(reader.row(DEVICE)).to_contain_text("Enabled")
    reader.take("devices")

    arrived = watching.get_by_role("main")
    for number in range(1, 11):
        expect(arrived).to_contain_text(re.compile(rf"\b{number}\b"))
    reader.follow("Telemetry")
    expect(page.get_by_role("main")).to_contain_text(DEVICE)
    reader.take("telemetry")

    for place, answer in (
        ("Devices", "No device"),
        ("Manage enrollments", "No device may register on its own yet"),
    ):
        reader.follow(place)
        reader.row(DEVICE).get_by_role("checkbox").check()
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(reader.row(DEVICE)).to_have_count(0)
        expect(page.get_by_role("main")).to_contain_text(answer)

    shown = set(re.findall(r"\(pictures/([^)]+)\)", (DOCS / PAGE).read_text("utf-8")))
    assert shown == reader.taken
    assert all((DOCS / "pictures" / name).exists() for name in shown)
