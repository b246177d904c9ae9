"""Key pairs and certificates of every sort that a device may present, made while the tests run."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

NEW_KEY: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA-4096": lambda: rsa.generate_private_key(65537, 4096),
}


@dataclass(frozen=True)
class Credential:
    """A private key and the certificates that go with it, leaf first."""

    key: Key
    certificates: tuple[x509.Certificate, ...]

    @property
    def chain(self) -> tuple[bytes, ...]:
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in self.certificates)

    @property
    def chain_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.certificates)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The chain file and the key file."""
        chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
        chain_file.write_bytes(self.chain_pem)
        key_file.write_bytes(self.key_pem)
        return chain_file, key_file


def issue(
    name: str,
    kind: str = "P-256",
    *,
    by: Credential | None = None,
    days: tuple[int, int] = (-1, 30),
    names: Sequence[str] = (),
    authority: bool = False,
) -> Credential:
    """A new key of `kind` and its certificate, self-signed or issued `by`; valid from and until, in days from now."""
    key = NEW_KEY[kind]()
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificates[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general(n) for n in names]), critical=False
        )
    signer = key if by is None else by.key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(signer, algorithm)
    return Credential(key, (certificate, *(() if by is None else by.certificates)))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def with_stolen_certificate(victim: Credential) -> Credential:
    """The victim's certificate with a key of our own, which claims to be the victim's.

    Libraries compare a key with a certificate by the public half that the key's encoding carries, so they are told
    the victim's. What is signed with it gives the lie away. [RFC 5915 3]
    """
    own = ec.generate_private_key(ec.SECP256R1())
    point = victim.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    honest = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    own_point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return _Forged(victim.key, victim.certificates, honest.replace(own_point, point))


@dataclass(frozen=True)
class _Forged(Credential):
    encoded: bytes

    @property
    def key_pem(self) -> bytes:
        import base64

        body = base64.encodebytes(self.encoded)
        return b"-----BEGIN EC PRIVATE KEY-----\n" + body + b"-----END EC PRIVATE KEY-----\n"
