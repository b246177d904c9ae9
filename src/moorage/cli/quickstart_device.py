"""The device of the quickstart: its certificate, and what an operator does for it over REST."""

from __future__ import annotations

import datetime
import itertools
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

from moorage.cli.explain import API_VERSION, decision_lines
from moorage.cli.rest import DPS_API_VERSION, HUB_API_VERSION, Refused, Service
from moorage.cli.target import Login
from moorage.store.folder import RunInfo

NAME = "Python-device"
TAGS = {"location": "quay 7"}
DESIRED = {"telemetryInterval": 10}


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """Files of a self-signed certificate and its encrypted key, PEM."""

    common_name: str
    certificate_file: Path
    key_file: Path
    pass_phrase: str
    thumbprint: str  # SHA-256

    @property
    def pem(self) -> str:
        return self.certificate_file.read_text()


def make_certificate(folder: Path, common_name: str) -> DeviceCertificate:
    """What `openssl req -x509` of Microsoft's quickstart makes: RSA, self-signed, the key under a pass phrase."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pass_phrase = secrets.token_urlsafe(12)
    encryption = BestAvailableEncryption(pass_phrase.encode())
    certificate_file, key_file = folder / "python-device.pem", folder / "python-device.key.pem"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    thumbprint = certificate.fingerprint(hashes.SHA256()).hex().upper()
    return DeviceCertificate(common_name, certificate_file, key_file, pass_phrase, thumbprint)


class Operator:
    """The provisioning service and the hub of one server, as its operator sees them. All methods raise MoorageError."""

    def __init__(self, server: RunInfo) -> None:
        ca_file = server.env.get("SSL_CERT_FILE")
        self.hub_login = Login.parse(server.env["IOTHUB_CONNECTION_STRING"], ca_file)
        dps_login = Login.parse(server.env["PROVISIONING_SERVICE_CONNECTION_STRING"], ca_file)
        self._dps = Service(dps_login, DPS_API_VERSION)
        self._hub = Service(self.hub_login, HUB_API_VERSION)
        self._own = Service(dps_login, API_VERSION)

    def free_name(self) -> str:
        """`Python-device-01`, or the next that neither an enrollment nor a device has."""
        names = (f"{NAME}-{number:02}" for number in itertools.count(1))
        return next(name for name in names if not self._is_taken(name))

    def _is_taken(self, name: str) -> bool:
        return self.enrollment(name) is not None or self.device(name) is not None

    def enroll(self, certificate: DeviceCertificate) -> None:
        """An individual enrollment with an initial twin."""
        x509_part = {"clientCertificates": {"primary": {"certificate": certificate.pem}}}
        document = {
            "registrationId": certificate.common_name,
            "attestation": {"type": "x509", "x509": x509_part},
            "initialTwin": {"tags": TAGS, "properties": {"desired": DESIRED}},
        }
        self._dps.put(_enrollment_path(certificate.common_name), document)

    def enroll_with_key(self, name: str, key: str) -> None:
        """An individual enrollment by a symmetric key, base64; both of its keys are this one."""
        attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
        self._dps.put(_enrollment_path(name), {"registrationId": name, "attestation": attestation})

    def enrollment(self, name: str) -> dict[str, Any] | None:
        return _if_there(self._dps, _enrollment_path(name))

    def registration(self, name: str) -> dict[str, Any] | None:
        return _if_there(self._dps, f"/registrations/{quote(name, safe='')}")

    def device(self, name: str) -> dict[str, Any] | None:
        return _if_there(self._hub, _device_path(name))

    def delete_enrollment(self, name: str) -> None:
        self._dps.delete(_enrollment_path(name))

    def delete_device(self, name: str) -> None:
        self._hub.delete(_device_path(name), if_match='"*"')

    def portal_link(self) -> str:
        """Good for one sign-in, within an hour."""
        return str(self._dps.call("POST", "/moorage/v1/portal/links")[0]["url"])

    def explain(self, name: str) -> str:
        """What `moorage explain` says of the last decision."""
        decisions = self._own.get(f"/moorage/v1/decisions/{quote(name, safe='')}", top="1")
        return "\n".join(line for decision in decisions for line in decision_lines(decision))


def _if_there(service: Service, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = service.get(path)
    except Refused as error:
        if error.status == 404:
            return None
        raise
    return found


def _enrollment_path(name: str) -> str:
    return f"/enrollments/{quote(name, safe='')}"


def _device_path(name: str) -> str:
    return f"/devices/{quote(name, safe='')}"
