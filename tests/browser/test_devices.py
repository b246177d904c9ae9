"""The device explorer in a browser: it fills up by itself, and devices are found, added, looked at and deleted."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser.conftest import Portal, window
from tests.conftest import RunningServer
from tests.support.mqtt_device import device_token, send
from tests.support.services import Hub

LIST = "/hubs/hub/devices"


def test_the_first_device_appears_by_itself_and_devices_are_deleted(fresh_portal: Portal) -> None:
    portal = fresh_portal
    hub = Hub(portal.server.env)
    page = portal.open(LIST)
    expect(page.get_by_role("heading", name="No device yet")).to_be_visible()
    portal.look("devices-empty")
    hub.call("PUT", "/devices/pump-7", {"deviceId": "pump-7"})
    expect(page.get_by_role("link", name="pump-7")).to_be_visible()
    for number in range(8, 15):
        device = {"deviceId": f"pump-{number}", "status": "disabled" if number % 3 == 0 else "enabled"}
        hub.call(
            "PUT", f"/devices/pump-{number}", {**device, "statusReason": "In repair" if number == 9 else None}
        )
        hub.call("PATCH", f"/twins/pump-{number}", {"tags": {"site": "Busan", "floor": number}})
    expect(page.get_by_role("link", name="pump-14")).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).to_be_disabled()
    page.get_by_label("Select pump-8").check()
    page.get_by_label("Select pump-9").check()
    portal.look("devices")
    page.get_by_role("button", name="Delete").click()
    portal.look("devices-delete")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Devices deleted: 2")).to_be_visible()
    expect(page.get_by_role("link", name="pump-9")).to_have_count(0)
    page.get_by_text("Find devices using a query").click()
    page.get_by_label("Query", exact=True).fill("SELECT * FROM devices WHERE tags.floor == 12")
    page.get_by_role("button", name="Run query").click()
    expect(page.get_by_text("Line 1, column")).to_be_visible()
    portal.said.clear()  # chromium tells of the 400
    portal.look("devices-query-wrong")


def test_without_script(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    hub = Hub(server.env)
    for number in (1, 2):
        hub.call("PUT", f"/devices/plain-{number}", {"deviceId": f"plain-{number}"})
    with window(chromium, server, pictures, java_script_enabled=False) as portal:
        page = portal.open(f"{LIST}?device_id=plain")
        page.get_by_role("link", name="plain-1").click()
        page.get_by_role("link", name="Device twin").click()
        page.get_by_role("textbox", name="Tags").fill('{"site": "Jeju"}')
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("The twin of plain-1 was saved.")).to_be_visible()
        page.get_by_role("navigation", name="Where you are").get_by_role("link", name="Devices").click()
        page.get_by_label("Device ID").fill("plain")
        page.get_by_role("button", name="Search").click()
        page.get_by_label("Select plain-1").check()
        page.get_by_label("Select plain-2").check()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Delete the selected devices: 2")
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("Devices deleted: 2")).to_be_visible()
        expect(page.get_by_text("No device is like that.")).to_be_visible()


def test_in_korean(chromium: Browser, server: RunningServer, pictures: Path) -> None:
    Hub(server.env).call("PUT", "/devices/browser-lamp", {"deviceId": "browser-lamp"})
    with window(chromium, server, pictures, locale="ko-KR") as portal:
        page = portal.open(f"{LIST}?device_id=browser-lamp")
        expect(page.get_by_role("heading", level=1)).to_have_text("디바이스")
        portal.look("devices-korean")
        page.get_by_role("link", name="browser-lamp").click()
        page.get_by_role("link", name="디바이스 쌍").click()
        portal.look("device-twin-korean")


def test_a_device_is_added_and_looked_at(portal: Portal) -> None:
    page = portal.open(f"{LIST}/~new")
    portal.look("device-new")
    page.get_by_text("X.509 self-signed").click()
    portal.look("device-new-x509")
    page.get_by_text("Symmetric key").click()
    page.get_by_label("Device ID").fill("browser-pump")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("browser-pump")
    page.get_by_role("link", name="Show keys").click()
    portal.look("device")


def test_the_pages_of_a_device(portal: Portal) -> None:
    hub = Hub(portal.server.env)
    made = hub.call("PUT", "/devices/browser-valve", {"deviceId": "browser-valve"})
    desired = {"period": 5, "limits": {"low": 1, "high": 90}}
    hub.call("PATCH", "/twins/browser-valve", {"tags": {"site": "Busan"}, "properties": {"desired": desired}})
    device = f"{LIST}/browser-valve"
    page = portal.open(f"{device}/twin")
    portal.look("device-twin")
    page.get_by_role("textbox", name="Tags").fill('{"site": }')
    expect(page.get_by_text("Not JSON, line 1, column 10")).to_be_visible()
    page.get_by_role("textbox", name="Tags").fill('{"site": "Seoul"}')
    hub.call("PATCH", "/twins/browser-valve", {"tags": {"site": "Incheon"}})
    expect(page.get_by_text("The twin has been changed since this page was made.")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Somebody has changed this twin meanwhile.")).to_be_visible()
    portal.said.clear()  # chromium tells of the 412
    portal.look("device-twin-overtaken")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The twin of browser-valve was saved.")).to_be_visible()

    portal.open(f"{device}/method")
    page.get_by_label("Method name").fill("reboot")
    page.get_by_role("button", name="Invoke method").click()
    expect(page.get_by_text("The device is not connected")).to_be_visible()
    portal.look("device-method")

    portal.open(f"{device}/messages")
    page.get_by_role("textbox", name="Message body").fill('{"open": true}')
    page.get_by_role("textbox", name="Properties").fill("urgent=yes")
    page.get_by_text("More about the message").click()
    page.get_by_label("Message ID").fill("order-1")
    page.get_by_role("button", name="Send message").click()
    expect(page.get_by_text("The message waits for browser-valve.")).to_be_visible()
    portal.look("device-messages")
    page.get_by_role("link", name="order-1").click()
    expect(page.get_by_role("dialog")).to_contain_text('"open": true')
    portal.look("device-message")

    portal.open(f"{device}/modules")
    portal.look("device-modules-none")
    hub.call(
        "PUT", "/devices/browser-valve/modules/camera", {"moduleId": "camera", "deviceId": "browser-valve"}
    )
    page.get_by_role("link", name="Refresh").click()
    portal.look("device-modules")
    page.get_by_role("link", name="camera").click()
    portal.look("module")

    portal.open(f"{device}/connections")
    portal.look("device-connections-none")
    watching = portal.context.new_page()
    watching.goto(f"{portal.url}{LIST}?device_id=browser-valve")
    host, ca_file = portal.server.env["IOTHUB_HOSTNAME"], portal.server.env["MOORAGE_CA_FILE"]
    key = made.body["authentication"]["symmetricKey"]["primaryKey"]
    assert send(host, ca_file, "browser-valve", device_token(host, "browser-valve", key)) == 0
    expect(page.get_by_text("It said goodbye")).to_be_visible()
    expect(watching.locator("td time").first).to_be_visible(timeout=15_000)  # when it was last heard of
    watching.close()
    portal.look("device-connections")
