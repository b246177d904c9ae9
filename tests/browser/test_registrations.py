"""The live feed in a browser, with devices that really come."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Portal
from tests.support.certificates import certificate
from tests.support.commands import moorage


def test_an_attempt_appears_and_is_explained(portal: Portal, tmp_path: Path) -> None:
    page = portal.open("/registrations?subject=stranger-device-7")
    expect(page.get_by_role("heading", name="No attempt yet")).to_be_visible()
    portal.look("registrations-none")
    certificate_file, key_file = certificate(tmp_path, "stranger-device-7")
    done = moorage(
        portal.server,
        *("device", "registration", "create", "--registration-id", "stranger-device-7"),
        *("--certificate-file-path", str(certificate_file), "--key-file-path", str(key_file)),
    )
    assert done.returncode == 1
    link = page.get_by_role("link", name="stranger-device-7")
    expect(link).to_be_visible()
    expect(page.get_by_role("heading", name="No attempt yet")).to_be_hidden()
    portal.look("registrations")
    link.click()
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_role("heading", level=1)).to_have_text("register stranger-device-7")
    expect(drawer).to_contain_text("What would mend it")
    portal.look("registrations-explained")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(link).to_be_focused()
