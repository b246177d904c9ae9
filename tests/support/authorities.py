"""Certificate authorities for tests: roots, intermediates and leaves with everything about them at choice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moorage.credentials.x509 import Certificate

Algorithm = Literal["p256", "rsa", "pss", "ed25519", "rsa1024"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@cache
def key(algorithm: Algorithm = "p256", number: int = 0) -> PrivateKey:
    """Made once a run: `number` tells several of one kind apart."""
    match algorithm:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)
        case _:
            return rsa.generate_private_key(65537, 2048)


def name(*parts: str) -> x509.Name:
    """A common name, or `O`, `OU` … before it."""
    *above, common = parts
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, part) for part in above]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


CA = x509.BasicConstraints(ca=True, path_length=None)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key, which can issue others."""

    certificate: Certificate
    key: PrivateKey
    algorithm: Algorithm = "p256"

    @property
    def der(self) -> bytes:
        return self.certificate.der

    @property
    def pem(self) -> str:
        return self.certificate.to_pem()

    @property
    def subject(self) -> x509.Name:
        return self.certificate.subject_name

    def issue(self, subject: str | x509.Name, **options: Any) -> Issued:
        """A leaf, as `certify` makes it."""
        return certify(subject, self, **options)

    def authority(self, subject: str | x509.Name, **options: Any) -> Issued:
        """An intermediate below this one."""
        return certify(subject, self, **{"extensions": [(CA, True), (usage(signs=True), True)], **options})

    def write(self, folder: Path, *above: Issued, stem: str | None = None) -> tuple[Path, Path]:
        """Files for a device program: the chain, this one first, and the key."""
        stem = stem or self.certificate.common_name or "nameless"
        chain, key_file = folder / f"{stem}.pem", folder / f"{stem}.key.pem"
        chain.write_text("".join(each.pem for each in (self, *above)))
        key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return chain, key_file


def root(subject: str | x509.Name = "root", **options: Any) -> Issued:
    """A self-signed CA certificate."""
    return certify(subject, None, **{"extensions": [(CA, True), (usage(signs=True), True)], **options})


def certify(
    subject: str | x509.Name,
    issuer: Issued | None,
    *,
    algorithm: Algorithm = "p256",
    number: int = 0,
    extensions: list[tuple[x509.ExtensionType, bool]] | None = None,
    start: datetime = START,
    end: datetime = END,
    issuer_name: x509.Name | None = None,
    key_ids: bool = False,
) -> Issued:
    """Signed by `issuer`, or by itself. Without `extensions` a leaf as samples have it, with EKU clientAuth."""
    own = key(algorithm, number)
    subject = name(subject) if isinstance(subject, str) else subject
    by, signer = (own, algorithm) if issuer is None else (issuer.key, issuer.algorithm)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name or (issuer.subject if issuer else subject))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if extensions is None:
        extensions = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        ]
    if key_ids:
        subject_key_id = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
        authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
        extensions = [*extensions, (subject_key_id, False), (authority_key_id, False)]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(
        by,
        None if signer == "ed25519" else hashes.SHA256(),
        rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32) if signer == "pss" else None,
    )
    return Issued(Certificate(signed.public_bytes(serialization.Encoding.DER)), own, algorithm)


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


def shifted(days: int) -> datetime:
    return NOW + timedelta(days=days)
