"""Certificates in bulk: a CA and a server for the peer, and devices by the thousand, all ECDSA P-256."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VALID = timedelta(days=30)


@dataclass(frozen=True)
class Device:
    """One device: its id, which is also its certificate's common name, and what proves it (DER)."""

    device_id: str
    certificate: bytes
    key: bytes

    @property
    def thumbprint(self) -> str:
        return hashlib.sha256(self.certificate).hexdigest().upper()


class Authority:
    """A CA for one run. `name` is its common name."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            _builder(name, name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.name = name

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


def make_devices(prefix: str, count: int, authority: Authority | None = None) -> list[Device]:
    """`count` devices, `{prefix}-0` and on, signed by `authority` or else by themselves."""
    return [_make_device(f"{prefix}-{number}", authority) for number in range(count)]


def write_device_list(path: Path, devices: Iterable[Device], *, user_name: str = "-") -> Path:
    """The load generator's device list; `{id}` in the user name stands for the device's id."""
    with path.open("w", encoding="ascii") as lines:
        for device in devices:
            certificate, key = (base64.b64encode(part).decode() for part in (device.certificate, device.key))
            lines.write("\t".join((device.device_id, user_name, "-", certificate, key)) + "\n")
    return path


def slices(devices: Sequence[Device], size: int) -> list[Sequence[Device]]:
    return [devices[start : start + size] for start in range(0, len(devices), size)]


def _make_device(device_id: str, authority: Authority | None) -> Device:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_name, issuer_key = (authority.name, authority.key) if authority else (device_id, key)
    certificate = _builder(device_id, issuer_name, key.public_key()).sign(issuer_key, hashes.SHA256())
    return Device(
        device_id,
        certificate.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
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
