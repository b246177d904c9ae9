"""Proofs in bulk: a CA and a server for the peer, and devices by the thousand, with certificates or with keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VALID = timedelta(days=30)


@dataclass(frozen=True)
class Device:
    """One device: its id, which is also its certificate's common name, and what proves it (DER).

    `issuers` are certificates that it sends along.
    """

    device_id: str
    certificate: bytes
    key: bytes
    issuers: tuple[bytes, ...] = ()

    def fields(self) -> tuple[str, str, str]:
        """Password, certificates and key in the load generator's device list."""
        return "-", _base64(b"".join((self.certificate, *self.issuers))), _base64(self.key)

    @property
    def base64_certificate(self) -> str:
        return _base64(self.certificate)

    @property
    def thumbprint(self) -> str:
        return hashlib.sha256(self.certificate).hexdigest().upper()


@dataclass(frozen=True)
class KeyDevice:
    """One device that proves itself by a token, which is good for a day."""

    device_id: str
    token: str

    def fields(self) -> tuple[str, str, str]:
        return self.token, "-", "-"


class Authority:
    """A CA for one run, or with an `issuer` an intermediate one. `name` is its common name."""

    def __init__(self, name: str, issuer: Authority | None = None) -> None:
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())
        issuer_name, issuer_key = (issuer.name, issuer.key) if issuer else (name, self.key)
        self.certificate = (
            _builder(name, issuer_name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue_server(self, address: str, folder: Path) -> None:
        """Writes `ca.pem`, `server.pem` and `server.key` for a server at an IP address."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = _builder("bench server", self.name, key.public_key()).add_extension(names, critical=False)
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))
        (folder / "server.pem").write_bytes(
            builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        )
        (folder / "server.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )


def make_devices(
    prefix: str, count: int, authority: Authority | None = None, *, send_issuer: bool = False
) -> list[Device]:
    """`count` devices, `{prefix}-0` and on, signed by `authority` or else by themselves."""
    issuers = (authority.certificate.public_bytes(Encoding.DER),) if authority and send_issuer else ()
    return [_make_device(f"{prefix}-{number}", authority, issuers) for number in range(count)]


def make_key_devices(id_scope: str, keys: Iterable[tuple[str, str]]) -> list[KeyDevice]:
    """Devices by registration id and base64 of their key."""
    expiry = int(time.time()) + 86_400
    return [KeyDevice(name, _token(f"{id_scope}/registrations/{name}", key, expiry)) for name, key in keys]


def derived_key(group_key: str, registration_id: str) -> str:
    """That of a device in an enrollment group."""
    return _base64(hmac.digest(base64.b64decode(group_key), registration_id.encode(), "sha256"))


def write_device_list(path: Path, devices: Iterable[Device | KeyDevice], *, user_name: str = "-") -> Path:
    """The load generator's device list; `{id}` in the user name stands for the device's id."""
    with path.open("w", encoding="ascii") as lines:
        for device in devices:
            lines.write("\t".join((device.device_id, user_name, *device.fields())) + "\n")
    return path


def slices(devices: Sequence[Device], size: int) -> list[Sequence[Device]]:
    return [devices[start : start + size] for start in range(0, len(devices), size)]


def _token(resource: str, key: str, expiry: int) -> str:
    encoded = quote(resource, safe="")
    signature = hmac.digest(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), "sha256")
    return f"SharedAccessSignature sr={encoded}&sig={quote(_base64(signature), safe='')}&se={expiry}&skn=registration"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _make_device(device_id: str, authority: Authority | None, issuers: tuple[bytes, ...]) -> Device:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_name, issuer_key = (authority.name, authority.key) if authority else (device_id, key)
    certificate = _builder(device_id, issuer_name, key.public_key()).sign(issuer_key, hashes.SHA256())
    return Device(
        device_id,
        certificate.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        issuers,
    )


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    began = datetime.now(UTC) - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + VALID)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
