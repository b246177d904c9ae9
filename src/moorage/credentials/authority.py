"""The local certificate authority: made once for a user, trusted once; it issues what the server presents."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moorage.errors import Invalid
from moorage.interfaces import Clock

KeyType = Literal["ec", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

STANDARD_NAMES = (
    "localhost",
    "127.0.0.1",
    "::1",
    "*.azure-devices.net",
    "*.azure-devices-provisioning.net",
    "global.azure-devices-provisioning.net",
)
"""What every server certificate covers, so that with a DNS alias an unchanged device works too."""

_AUTHORITY_LIFE = timedelta(days=3652)
_SERVER_LIFE = timedelta(days=397)  # with the head start below 398, the most that Apple's clients accept
_HEAD_START = timedelta(days=1)  # clients whose clocks are behind
_RENEW_BEFORE = timedelta(days=30)
_MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name


class ServerCertificate(NamedTuple):
    """PEM: the chain without its root, leaf first, and its key."""

    chain: bytes
    key: bytes


class LocalAuthority:
    """Issues server certificates. `certificate_file` is what clients are to trust."""

    def __init__(
        self, certificate_file: Path, chain: Sequence[x509.Certificate], key: PrivateKey, clock: Clock
    ):
        """`chain` is the issuing certificate and, if it is not the root, those above it."""
        self.certificate_file = certificate_file
        self._chain = chain
        self._certificate = chain[0]
        self._key = key
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> LocalAuthority:
        """The authority kept in `folder`, made now if there is none; several may do so at the same time."""
        folder.mkdir(parents=True, exist_ok=True)
        key_file, certificate_file = folder / "ca-key.pem", folder / "ca.pem"
        if not key_file.exists():
            _create(key_file, _key_pem(_new_key("ec")))
        # From here on all agree on the key; without a certificate any that it signs for itself will do.
        if not certificate_file.exists():
            certificate = _self_signed(_read_key(key_file), _moment(clock))
            _create(certificate_file, certificate.public_bytes(Encoding.PEM), mode=0o644)
        return cls.load(certificate_file, key_file, clock)

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path, clock: Clock) -> LocalAuthority:
        """An authority of the operator's own. Raises Invalid when the two files do not make one."""
        chain = _read_chain(certificate_file)
        key = _read_key(key_file)
        if _public_bytes(chain[0].public_key()) != _public_bytes(key.public_key()):
            raise Invalid(str(key_file), f"it is not the key of {certificate_file}")
        if not _may_sign(chain[0]):
            raise Invalid(str(certificate_file), "it is not the certificate of an authority (CA:TRUE)")
        return cls(certificate_file, chain, key, clock)

    @property
    def certificate_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self._chain)

    def issue_server(self, names: Iterable[str], key_type: KeyType = "ec") -> ServerCertificate:
        """A new certificate for the standard names and `names`: host names, `*.` allowed, and addresses."""
        now = _moment(self._clock)
        if now >= self._certificate.not_valid_after_utc:
            raise Invalid(str(self.certificate_file), "the authority's certificate has expired")
        covered = _all_names(names)
        key = _new_key(key_type)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_common_name(_server_common_name(covered)))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _HEAD_START)
            .not_valid_after(min(now + _SERVER_LIFE, self._certificate.not_valid_after_utc))
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in covered]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False, key_type=key_type), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._authority_key_identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        above = [issuer for issuer in self._chain if issuer.subject != issuer.issuer]
        chain = b"".join(sent.public_bytes(Encoding.PEM) for sent in [certificate, *above])
        return ServerCertificate(chain, _key_pem(key))

    def server_file(self, folder: Path, names: Iterable[str], key_type: KeyType = "ec") -> Path:
        """`server.pem` in `folder`: chain and key in one file, so that they fit whenever they are read.

        Issued anew when it is missing, expires within 30 days, lacks a name or comes from elsewhere.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file, names = folder / "server.pem", list(names)
        if not self._serves(file, names, key_type):
            issued = self.issue_server(names, key_type)
            _replace(file, issued.chain + issued.key)
        return file

    def _serves(self, file: Path, names: Sequence[str], key_type: KeyType) -> bool:
        try:
            certificate = _read_chain(file)[0]
            key = _read_key(file)
            certificate.verify_directly_issued_by(self._certificate)
            covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (Invalid, OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        now = _moment(self._clock)
        return (
            isinstance(key, _KEY_CLASSES[key_type])
            and _public_bytes(key.public_key()) == _public_bytes(certificate.public_key())
            and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE
            and set(covered) >= {_general_name(name) for name in _all_names(names)}
        )

    def bundle(self, file: Path) -> Path:
        """Writes the public roots and this authority to `file`, for clients that read one bundle only."""
        content = Path(certifi.where()).read_bytes() + b"\n# Moorage\n" + self.certificate_pem
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            _replace(file, content, mode=0o644)
        return file

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            extension = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


# --- Certificates ----------------------------------------------------------------------------------------


def _self_signed(key: PrivateKey, now: datetime) -> x509.Certificate:
    # The digits keep two authorities on one machine apart: clients look an issuer up by its name.
    name = _common_name(f"Moorage local CA {secrets.token_hex(4)}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HEAD_START)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, signs_certificates: bool, key_type: KeyType = "ec") -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=key_type == "rsa" and not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _server_common_name(names: Sequence[str]) -> str:
    """The first name that fits; those that were asked for come before the standard ones."""
    return next(name for name in names if len(name) <= _MAX_COMMON_NAME)


def _all_names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*(name.lower() for name in names), *STANDARD_NAMES]))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        # International names are written in ASCII. [RFC 5280 7.2]
        return x509.DNSName(name if name.isascii() else name.encode("idna").decode())
    except ValueError:
        raise Invalid("name", f"{name!r} is no host name") from None


# --- Keys and files --------------------------------------------------------------------------------------

_KEY_CLASSES = {"ec": ec.EllipticCurvePrivateKey, "rsa": rsa.RSAPrivateKey}


def _new_key(key_type: KeyType) -> PrivateKey:
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read_key(file: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(_key_block(file.read_bytes()), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(str(file), f"it holds no private key in PEM without a password ({error})") from None
    if not isinstance(key, PrivateKey):
        raise Invalid(str(file), "the key is neither EC nor RSA")
    return key


def _key_block(content: bytes) -> bytes:
    """The private key alone, of a file that may hold certificates before it."""
    start = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", content)
    return content[start.start() :] if start else content


def _read_chain(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise Invalid(str(file), f"it holds no certificate in PEM ({error})") from None


def _moment(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now() // 1_000_000, UTC)


def _create(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `file` whole, or leave the file that somebody else put there first."""
    temporary = _written_beside(file, content, mode)
    try:
        os.link(temporary, file)  # unlike a rename it never replaces
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not file.exists():
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(file: Path, content: bytes, mode: int = 0o600) -> None:
    os.replace(_written_beside(file, content, mode), file)


def _written_beside(file: Path, content: bytes, mode: int) -> Path:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    return temporary
