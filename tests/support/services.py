"""Plain HTTPS against a running server: what a back end without an SDK would write."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from moorage.credentials.sas import make_token


def with_key(connection_string: str, key: str) -> str:
    """The connection string of somebody who has another key."""
    return re.sub("SharedAccessKey=[^;]*", f"SharedAccessKey={key}", connection_string)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Https:
    """One service by its connection string."""

    def __init__(
        self, connection_string: str, ca_file: str, api_version: str, *, lifetime: int = 600
    ) -> None:
        parts = dict(part.split("=", 1) for part in connection_string.split(";"))
        self.host, _, port = parts["HostName"].partition(":")
        self.port = int(port or 443)
        self.policy, self.key = parts["SharedAccessKeyName"], parts["SharedAccessKey"]
        self.api_version = api_version
        self.lifetime = lifetime  # seconds that a token is good for; longer where the server's clock is ahead
        self._trust = ssl.create_default_context(cafile=ca_file)

    def token(self, *, lifetime: int | None = None, key: str | None = None, policy: str | None = None) -> str:
        expiry = int(time.time()) + (self.lifetime if lifetime is None else lifetime)
        return make_token(self.host, key or self.key, expiry, policy or self.policy)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        api_version: str | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        connection = http.client.HTTPSConnection(self.host, self.port, context=self._trust, timeout=30)
        try:
            connection.request(
                method,
                f"{path}?api-version={api_version or self.api_version}",
                raw if raw is not None else (json.dumps(body) if body is not None else None),
                {"Authorization": self.token(), "Content-Type": "application/json", **(headers or {})},
            )
            response = connection.getresponse()
            text = response.read()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, json.loads(text) if text else None)
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, answer
        return answer.body


class Dps(Https):
    def __init__(self, env: Mapping[str, str], **options: Any) -> None:
        login = env["PROVISIONING_SERVICE_CONNECTION_STRING"]
        super().__init__(login, env["SSL_CERT_FILE"], "2021-10-01", **options)

    def put_enrollment(self, registration_id: str, certificate: Path, **members: object) -> dict[str, Any]:
        pem = certificate.read_text()
        document = {
            "registrationId": registration_id,
            "attestation": {
                "type": "x509",
                "x509": {"clientCertificates": {"primary": {"certificate": pem}}},
            },
            **members,
        }
        answer = self.call("PUT", f"/enrollments/{registration_id}", document)
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.body
        return body

    def put_key_enrollment(self, registration_id: str) -> tuple[str, str]:
        """The two keys that the service has made."""
        return self._put_keys(f"/enrollments/{registration_id}", {"registrationId": registration_id})

    def put_key_group(self, enrollment_group_id: str) -> tuple[str, str]:
        """The same of a group: its devices have keys derived from these."""
        named = {"enrollmentGroupId": enrollment_group_id}
        return self._put_keys(f"/enrollmentGroups/{enrollment_group_id}", named)

    def _put_keys(self, path: str, named: Mapping[str, str]) -> tuple[str, str]:
        answer = self.call("PUT", path, {**named, "attestation": {"type": "symmetricKey"}})
        assert answer.status == 200, answer
        keys = answer.body["attestation"]["symmetricKey"]
        return keys["primaryKey"], keys["secondaryKey"]


class Hub(Https):
    """`operator` is the owner of the provisioning service beside it, who sees the decisions of both."""

    def __init__(self, env: Mapping[str, str], **options: Any) -> None:
        super().__init__(env["IOTHUB_CONNECTION_STRING"], env["SSL_CERT_FILE"], "2021-04-12", **options)
        self.operator = Dps(env, **options)
