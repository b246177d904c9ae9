"""Certificates that tests present: made by openssl as people do it, or quickly by `cryptography`."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CertificateFiles = tuple[Path, Path]
"""A certificate and its private key, in PEM files."""


def openssl_certificate(folder: Path, common_name: str, *, pass_phrase: str) -> CertificateFiles:
    """The quickstart's own command: a self-signed RSA-4096 certificate with the `usr_cert` extensions."""
    certificate, key = folder / "python-device.pem", folder / "python-device.key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-outform", "PEM", "-x509", "-sha256", "-newkey", "rsa:4096", "-days", "365"),
            *("-keyout", str(key), "-out", str(certificate), "-extensions", "usr_cert"),
            *("-subj", f"/CN={common_name}", "-passout", f"pass:{pass_phrase}"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def certificate(
    folder: Path,
    common_name: str,
    *,
    not_before: datetime.timedelta = datetime.timedelta(minutes=-5),
    not_after: datetime.timedelta = datetime.timedelta(days=30),
    name: str | None = None,
    addresses: Sequence[str] = (),
) -> CertificateFiles:
    """A self-signed P-256 certificate and its key, in PEM files; times are counted from now.

    With `addresses`, IP addresses, it is that of a server that is reached at them.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + not_before)
        .not_valid_after(now + not_after)
    )
    if addresses:
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key, hashes.SHA256())
    stem = name or common_name
    certificate_file, key_file = folder / f"{stem}.pem", folder / f"{stem}.key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file
