"""A server full of what devices and services may write, all of it as if to become a part of a page."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.conftest import RunningServer
from tests.support.authorities import root
from tests.support.mqtt_device import device_token, send
from tests.support.services import Dps, Hub

MARK = "\"'><b class=mark>x</b><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
NAME = "'\"><b/class=mark>x</b>"
"""The same where blanks and dots are not allowed."""
MARKED = ".mark, img[src='x'], main script, dialog script"
"""What there is on no page, unless a mark has become a part of it."""

DEVICE = "d-:.+%_#*?!(),=@$'" + "long" * 27 + "id"
SENDER = "s-:._*!(),=@$'" + "long" * 27 + "id"
"""One whose id stands in a topic as it is."""
MODULE = "m-:.+%_#*?!(),=@$'" + "long" * 27 + "id"
ENROLLMENT = "e-._:" + "long" * 30 + "-id"
GROUP = "g-._:" + "long" * 30 + "-id"
POLICY = "p_-.@" + "long" * 14
CERTIFICATE = "c-._" + "long" * 15


class Marked:
    """What is in it; `secrets` are all keys, none of which a page shows by itself."""

    def __init__(self, server: RunningServer) -> None:
        self.env = server.env
        self.dps, self.hub = Dps(server.env), Hub(server.env)
        self.secrets: list[str] = []
        self._enrollments()
        self._settings()
        self._devices()
        self._send()
        self._refused()

    def parameters(self) -> Mapping[str, str]:
        """By the names of parameters in routes."""
        (linked, *_) = self._of(self.dps, "GET", "/moorage/v1/linkedHubs")
        found = {
            "hub": "hub",
            "certificate": CERTIFICATE,
            "policy": POLICY,
            "device": DEVICE,
            "module": MODULE,
            "name": linked["name"],
            "sequence": str(self.message["sequenceNumber"]),
            "partition:int": str(self.event["partition"]),
            "number:int": str(self.event["sequenceNumber"]),
        }
        return {name: quote(value, safe="") for name, value in found.items()}

    def _of(self, service: Dps | Hub, method: str, path: str, body: object = None, **options: Any) -> Any:
        answer = service.call(method, path, body, **options)
        assert answer.status < 300, (path, answer)
        return answer.body

    def _enrollments(self) -> None:
        twin = {"tags": {NAME: MARK}, "properties": {"desired": {NAME: MARK}}}
        for path, named in (
            (f"/enrollments/{quote(ENROLLMENT)}", {"registrationId": ENROLLMENT, "deviceId": DEVICE}),
            (f"/enrollmentGroups/{quote(GROUP)}", {"enrollmentGroupId": GROUP}),
        ):
            made = self._of(
                self.dps,
                "PUT",
                path,
                {
                    **named,
                    "attestation": {"type": "symmetricKey"},
                    "initialTwin": twin,
                    "allocationPolicy": "custom",
                    "customAllocationDefinition": {
                        "webhookUrl": f"https://localhost/{quote(NAME)}?code=x",
                        "apiVersion": "2021-10-01",
                    },
                    **({"optionalDeviceInformation": {NAME: MARK}} if "deviceId" in named else {}),
                },
            )
            self.secrets += made["attestation"]["symmetricKey"].values()
        self._of(
            self.dps,
            "PUT",
            "/enrollments/by-certificate",
            {
                "registrationId": "by-certificate",
                "attestation": {
                    "type": "x509",
                    "x509": {"clientCertificates": {"primary": {"certificate": root(NAME).pem}}},
                },
            },
        )

    def _settings(self) -> None:
        for below, owner, rights in (
            ("/service/policies", self.dps, ["EnrollmentRead"]),
            ("/hubs/hub/policies", self.hub, ["RegistryRead"]),
        ):
            made = self._of(owner, "PUT", f"/moorage/v1{below}/{quote(POLICY)}", {"rights": rights})
            self.secrets += [made["primaryKey"], made["secondaryKey"]]
        for below, owner in (("/caCertificates", self.dps), ("/hubs/hub/certificates", self.hub)):
            wanted = {"properties": {"certificate": root(MARK[:60]).pem, "isVerified": False}}
            self._of(owner, "PUT", f"/moorage/v1{below}/{quote(CERTIFICATE)}", wanted)

    def _devices(self) -> None:
        path = f"/devices/{quote(DEVICE, safe='')}"
        made = self._of(
            self.hub,
            "PUT",
            path,
            {"deviceId": DEVICE, "status": "enabled", "statusReason": MARK[:128]},
        )
        self.secrets += made["authentication"]["symmetricKey"].values()
        module = {"deviceId": DEVICE, "moduleId": MODULE, "managedBy": MARK}
        made = self._of(self.hub, "PUT", f"{path}/modules/{quote(MODULE, safe='')}", module)
        self.secrets += made["authentication"]["symmetricKey"].values()
        tags = {NAME: MARK, **{f"tag{number}": "value" * 20 for number in range(12)}}
        twin = {"tags": tags, "properties": {"desired": {NAME: {NAME: [MARK]}, "long": "x" * 600}}}
        twins = f"/twins/{quote(DEVICE, safe='')}"
        self._of(self.hub, "PATCH", twins, twin)
        self._of(self.hub, "PATCH", f"{twins}/modules/{quote(MODULE, safe='')}", twin)
        message = {
            "messageId": NAME,
            "correlationId": NAME,
            "contentType": MARK,
            "properties": {NAME: MARK},
            "body": base64.b64encode(json.dumps({NAME: MARK}).encode()).decode(),
        }
        control = f"/moorage/v1/hubs/hub{path}/messages"
        self._of(self.hub, "POST", control, message)
        (self.message, *_) = self._of(self.hub, "GET", control)

    def _send(self) -> None:
        """Telemetry, as text and as JSON."""
        made = self._of(self.hub, "PUT", f"/devices/{quote(SENDER, safe='')}", {"deviceId": SENDER})
        host, key = self.env["IOTHUB_HOSTNAME"], made["authentication"]["symmetricKey"]["primaryKey"]
        mark, name = quote(MARK, safe=""), quote(NAME, safe="")
        sent = [
            (f"{name}={mark}&$.ct={mark}&$.mid={name}&$.cid={name}", MARK.encode()),
            ("$.ct=application%2Fjson&$.ce=utf-8", json.dumps({NAME: MARK}).encode()),
        ]
        token = device_token(host, SENDER, key)
        assert send(host, self.env["MOORAGE_CA_FILE"], SENDER, token, sent) == 0
        (self.event, *_) = self._of(self.hub, "GET", "/moorage/v1/hubs/hub/events")["events"]

    def _refused(self) -> None:
        """Attempts to register, and to connect, that come to nothing."""
        host, port = self.dps.host, self.dps.port
        trust = ssl.create_default_context(cafile=self.env["MOORAGE_CA_FILE"])
        for named in (ENROLLMENT, NAME, MARK):
            connection = http.client.HTTPSConnection(host, port, context=trust, timeout=30)
            path = f"/{self.env['PROVISIONING_IDSCOPE']}/registrations/{quote(named, safe='')}/register"
            body = json.dumps({"registrationId": named, "payload": {NAME: MARK}})
            token = f"SharedAccessSignature sr={quote(MARK, safe='')}&sig=x&se=9999999999&skn={quote(MARK, safe='')}"
            headers = {"Content-Type": "application/json", "Authorization": token}
            connection.request("PUT", f"{path}?api-version=2019-03-31", body, headers)
            assert connection.getresponse().status >= 400
            connection.close()
        host = self.env["IOTHUB_HOSTNAME"]
        assert send(host, self.env["MOORAGE_CA_FILE"], NAME, MARK) != 0
