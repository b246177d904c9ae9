"""What the device's pages do to a device that is there: Microsoft's SDK at the other end."""

from __future__ import annotations

from queue import Queue
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, Message, MethodRequest, MethodResponse
from playwright.sync_api import expect

from tests.browser.conftest import Portal
from tests.support.devices import device_client, sas_device
from tests.support.services import Hub

# azure-iot-device offers exactly TLS 1.2, and paho forgets the sockets that wake its thread.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:ssl\.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

DEVICE = "browser-live-pump"
PATIENCE = 15.0  # seconds


def follow(client: IoTHubDeviceClient) -> Queue[tuple[str, Any]]:
    """What the device is told, in order; it answers every method."""
    told: Queue[tuple[str, Any]] = Queue()

    def called(request: MethodRequest) -> None:
        told.put(("method", (request.name, request.payload)))
        client.send_method_response(
            MethodResponse.create_from_method_request(request, 200, {"pressure": 4.2})
        )

    def received(message: Message) -> None:
        told.put(("message", (message.data, dict(message.custom_properties))))

    client.on_method_request_received = called
    client.on_message_received = received
    client.on_twin_desired_properties_patch_received = lambda patch: told.put(("desired", patch["period"]))
    return told


def test_a_method_a_message_and_a_twin(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    server, page = portal.server, portal.page
    monkeypatch.setenv("SSL_CERT_FILE", server.env["SSL_CERT_FILE"])
    with device_client(sas_device(Hub(server.env), DEVICE)) as client:
        client.connect()
        told = follow(client)
        client.patch_twin_reported_properties({"firmware": "1.2.3"})

        portal.open(f"/hubs/hub/devices/{DEVICE}")
        expect(page.get_by_role("main")).to_contain_text("Connected")
        page.get_by_role("link", name="Direct method").click()
        page.get_by_label("Method name").fill("measure")
        page.get_by_role("textbox", name="Payload").fill('{"unit": "bar"}')
        page.get_by_role("button", name="Invoke method").click()
        expect(page.get_by_label("Payload that the device gave")).to_contain_text('"pressure": 4.2')
        assert told.get(timeout=PATIENCE) == ("method", ("measure", {"unit": "bar"}))

        page.get_by_role("link", name="Message to Device").click()
        page.get_by_role("textbox", name="Message body").fill("open the valve")
        page.get_by_role("textbox", name="Properties").fill("urgent=yes")
        page.get_by_role("button", name="Send message").click()
        assert told.get(timeout=PATIENCE) == ("message", (b"open the valve", {"urgent": "yes"}))

        page.get_by_role("link", name="Device twin").click()
        expect(page.get_by_role("main")).to_contain_text('"firmware": "1.2.3"')
        page.get_by_role("textbox", name="Desired properties").fill('{"period": 5}')
        page.get_by_role("button", name="Save").click()
        assert told.get(timeout=PATIENCE) == ("desired", 5)

        client.send_message("steady")
        portal.open(f"/hubs/hub/telemetry?device={DEVICE}")
        expect(page.get_by_role("main")).to_contain_text("steady")
