"""Linked hubs, CA certificates and policies in a browser, and certificates that are made there."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Portal


def test_what_a_service_is_set_up_with(fresh_portal: Portal, tmp_path: Path) -> None:
    portal = fresh_portal
    page = portal.open("/certificates")
    portal.look("certificates-none")
    page.get_by_role("link", name="Make a certificate for me").click()
    page.get_by_label("A root CA", exact=False).first.check()
    page.get_by_label("Common name").fill("my-root")
    portal.look("make-certificate")
    with page.expect_download() as download:
        page.get_by_role("button", name="Make and download").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    root_file = tmp_path / "my-root.pem"
    root_file.write_bytes(archive.read("my-root.pem"))

    page = portal.open("/certificates")
    page.get_by_text("Add a certificate").click()
    page.get_by_label("Certificate name").fill("my-root")
    page.get_by_label("Certificate .pem or .cer file").set_input_files(root_file)
    expect(page.locator(".preview")).to_contain_text("my-root")
    portal.look("certificates-add")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Generate verification code").click()
    portal.look("certificate")
    portal.open("/certificates")
    portal.look("certificates")

    portal.open("/linked-hubs")
    portal.look("linked-hubs")
    page.locator("main table a").first.click()
    portal.look("linked-hub")

    portal.open("/policies")
    portal.look("policies")
    page.get_by_role("link", name="provisioningserviceowner").click()
    page.get_by_role("link", name="Show keys").click()
    portal.look("policy")
