"""Fills a Moorage through its public REST APIs: device identities in the hub, enrollments in DPS."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from fleet import Device, slices
from servers import BenchError

HUB_API_VERSION = "2021-04-12"
DPS_API_VERSION = "2021-10-01"
BULK = 100  # identities a call; the hub takes no more
WRITERS = 8  # connections that write enrollments at a time, so that they share commits
TOKEN_SECONDS = 3600


def parse_connection_string(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)


def sas_token(resource: str, policy: str, key: bytes) -> str:
    """A shared access signature good for an hour. `resource` is written percent-encoded, as most clients do."""
    encoded, expiry = quote(resource, safe=""), int(time.time()) + TOKEN_SECONDS
    digest = hmac.new(key, f"{encoded}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}&skn={policy}"


class _ConnectionAt(http.client.HTTPSConnection):
    """HTTPS to a host under a name, at an address that the name need not resolve to."""

    def __init__(self, address: str, host: str, port: int, trust: ssl.SSLContext) -> None:
        super().__init__(host, port, context=trust, timeout=60)
        self._address, self._trust = address, trust

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)


class RestClient:
    """One keep-alive connection to the service of a connection string."""

    def __init__(self, connection_string: str, *, address: str, ca_file: str, api_version: str) -> None:
        parts = parse_connection_string(connection_string)
        host, _, port = parts["HostName"].partition(":")
        self._connection = _ConnectionAt(
            address, host, int(port or 443), ssl.create_default_context(cafile=ca_file)
        )
        self._api_version = api_version
        self._headers = {
            "Authorization": sas_token(
                parts["HostName"], parts["SharedAccessKeyName"], base64.b64decode(parts["SharedAccessKey"])
            ),
            "Content-Type": "application/json",
        }

    def call(self, method: str, path: str, body: Any = None, *, wanted: int) -> Any:
        """The JSON answered, None when there is none. Raises BenchError unless the status is `wanted`."""
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, f"{path}?api-version={self._api_version}", content, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != wanted:
            raise BenchError(f"{method} {path}: {response.status} {answer[:500].decode(errors='replace')}")
        return json.loads(answer) if answer else None

    def close(self) -> None:
        self._connection.close()


class Registry:
    """What the operator of a Moorage under test writes into it."""

    def __init__(self, environment: Mapping[str, str], address: str) -> None:
        self._environment, self._address = environment, address

    def create_identities(self, devices: Sequence[Device]) -> None:
        """Device identities that are known by the thumbprint of their certificate."""
        client = self._client("IOTHUB_CONNECTION_STRING", HUB_API_VERSION)
        for part in slices(devices, BULK):
            client.call("POST", "/devices", [_identity(device) for device in part], wanted=200)
        client.close()

    def enroll(self, devices: Sequence[Device]) -> None:
        """One individual enrollment a device, attested by its certificate."""
        self._in_parallel("PUT", devices, wanted=200)

    def put_group(self, name: str, attestation: Mapping[str, Any]) -> None:
        """An enrollment group."""
        client = self._client("PROVISIONING_SERVICE_CONNECTION_STRING", DPS_API_VERSION)
        body = {"enrollmentGroupId": name, "attestation": attestation}
        client.call("PUT", f"/enrollmentGroups/{name}", body, wanted=200)
        client.close()

    def delete_enrollments(self, devices: Sequence[Device]) -> None:
        self._in_parallel("DELETE", devices, wanted=204)

    def _in_parallel(self, method: str, devices: Sequence[Device], *, wanted: int) -> None:
        def write(part: Iterable[Device]) -> None:
            client = self._client("PROVISIONING_SERVICE_CONNECTION_STRING", DPS_API_VERSION)
            for device in part:
                body = _enrollment(device) if method == "PUT" else None
                client.call(method, f"/enrollments/{device.device_id}", body, wanted=wanted)
            client.close()

        with ThreadPoolExecutor(WRITERS) as writers:
            for _ in writers.map(write, slices(devices, -(-len(devices) // WRITERS))):
                pass

    def _client(self, variable: str, api_version: str) -> RestClient:
        return RestClient(
            self._environment[variable],
            address=self._address,
            ca_file=self._environment["MOORAGE_CA_FILE"],
            api_version=api_version,
        )


def _identity(device: Device) -> dict[str, Any]:
    return {
        "id": device.device_id,
        "importMode": "create",
        "status": "enabled",
        "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": device.thumbprint}},
    }


def _enrollment(device: Device) -> dict[str, Any]:
    certificate = {"certificate": base64.b64encode(device.certificate).decode()}
    return {
        "registrationId": device.device_id,
        "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": certificate}}},
        "provisioningStatus": "enabled",
    }
