"""`kill -9` while a webhook is being asked: after the restart the same device gets the answer to the same operation."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import RunningServer, StartServer
from tests.support.certificates import CertificateFiles, certificate
from tests.support.services import Dps, Hub
from tests.support.waiting import eventually
from tests.support.webhook import WebhookServer

DEVICE = "asked-about"


class Told(NamedTuple):
    status: int
    body: dict[str, Any]


class Device:
    """Registers over HTTPS by its certificate, as `curl` would."""

    def __init__(self, server: RunningServer, files: CertificateFiles) -> None:
        self._server = server
        self._trust = ssl.create_default_context(cafile=server.env["MOORAGE_CA_FILE"])
        self._trust.load_cert_chain(*files)

    def register(self, payload: object) -> Told:
        body = {"registrationId": DEVICE, "payload": payload}
        return self._call("PUT", "register", json.dumps(body))

    def poll(self, operation_id: str) -> Told:
        return self._call("GET", f"operations/{operation_id}", None)

    def _call(self, method: str, path: str, body: str | None) -> Told:
        scope = self._server.env["PROVISIONING_IDSCOPE"]
        connection = http.client.HTTPSConnection(
            self._server.address, self._server.https_port, context=self._trust, timeout=30
        )
        try:
            target = f"/{scope}/registrations/{DEVICE}/{path}?api-version=2021-06-01"
            connection.request(method, target, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return Told(response.status, json.loads(response.read()))
        finally:
            connection.close()


@pytest.mark.parametrize("end", [RunningServer.kill, RunningServer.stop], ids=["killed", "stopped"])
def test_an_operation_outlives_the_server_that_began_it(
    start_server: StartServer, tmp_path: Path, end: Callable[[RunningServer], None]
) -> None:
    files = certificate(tmp_path, DEVICE)
    server = start_server()
    webhook = WebhookServer()
    webhook.answer = {"iotHubHostName": server.env["IOTHUB_HOSTNAME"], "payload": {"welcome": "back"}}
    with webhook.serving():
        webhook.open.clear()
        custom = {"allocationPolicy": "custom", "customAllocationDefinition": webhook.definition()}
        Dps(server.env).put_enrollment(DEVICE, files[0], **custom)
        begun = Device(server, files).register({"model": "toaster"})
        assert (begun.status, begun.body["status"]) == (202, "assigning")
        eventually(lambda: webhook.asked, what="the webhook is asked")
        end(server)

        server = start_server(data=server.data, address=server.address)
        device = Device(server, files)
        # Nobody has polled yet: the start itself goes on with it.
        eventually(lambda: len(webhook.asked) == 2, what="the webhook is asked again")
        assert webhook.asked[1] == webhook.asked[0]
        waiting = device.poll(begun.body["operationId"])
        assert waiting.status == 202
        assert waiting.body["registrationState"] == {"registrationId": DEVICE, "status": "assigning"}
        webhook.open.set()
        ended = eventually(
            lambda: told if (told := device.poll(begun.body["operationId"])).status == 200 else None,
            what="the operation ends",
        )

    assert ended is not None
    state = ended.body["registrationState"]
    assert (ended.body["operationId"], state["status"]) == (begun.body["operationId"], "assigned")
    assert (state["assignedHub"], state["payload"]) == (server.env["IOTHUB_HOSTNAME"], {"welcome": "back"})
    assert Hub(server.env).get(f"/devices/{DEVICE}")["authentication"]["type"] == "selfSigned"
    assert len(webhook.asked) == 2
