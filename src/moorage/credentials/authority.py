"""The local certificate authority: made once for a user, trusted once; it issues what the server presents."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from moorage.credentials import files
from moorage.credentials.issuing import (
    MAX_COMMON_NAME,
    Profile,
    Validity,
    common_name,
    may_sign,
    moment,
    sign,
)
from moorage.credentials.keys import (
    KEY_CLASSES,
    KeyType,
    PrivateKey,
    key_pem,
    new_key,
    public_bytes,
    read_key,
)
from moorage.errors import Invalid
from moorage.interfaces import Clock

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
_RENEW_BEFORE = timedelta(days=30)


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
            files.create(key_file, key_pem(new_key("ec")))
        # From here on all agree on the key; without a certificate any that it signs for itself will do.
        if not certificate_file.exists():
            certificate = _self_signed(_read_key(key_file), moment(clock.now()))
            files.create(
                certificate_file, certificate.public_bytes(Encoding.PEM), mode=files.CERTIFICATE_MODE
            )
        return cls.load(certificate_file, key_file, clock)

    @classmethod
    def load(cls, certificate_file: Path, key_file: Path, clock: Clock) -> LocalAuthority:
        """An authority of the operator's own. Raises Invalid when the two files do not make one."""
        chain = _read_chain(certificate_file)
        key = _read_key(key_file)
        if public_bytes(chain[0].public_key()) != public_bytes(key.public_key()):
            raise Invalid(str(key_file), f"it is not the key of {certificate_file}")
        if not may_sign(chain[0]):
            raise Invalid(str(certificate_file), "it is not the certificate of an authority (CA:TRUE)")
        return cls(certificate_file, chain, key, clock)

    @property
    def certificate_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self._chain)

    def issue_server(self, names: Iterable[str], key_type: KeyType = "ec") -> ServerCertificate:
        """A new certificate for the standard names and `names`: host names, `*.` allowed, and addresses."""
        now = moment(self._clock.now())
        if now >= self._certificate.not_valid_after_utc:
            raise Invalid(str(self.certificate_file), "the authority's certificate has expired")
        covered = _all_names(names)
        key = new_key(key_type)
        certificate = sign(
            common_name(_server_common_name(covered)),
            key.public_key(),
            Validity.starting(now, _SERVER_LIFE).within(self._certificate),
            Profile(
                extended_usages=[ExtendedKeyUsageOID.SERVER_AUTH],
                names=[_general_name(name) for name in covered],
            ),
            key=self._key,
            issuer=self._certificate,
        )
        above = [issuer for issuer in self._chain if issuer.subject != issuer.issuer]
        chain = b"".join(sent.public_bytes(Encoding.PEM) for sent in [certificate, *above])
        return ServerCertificate(chain, key_pem(key))

    def server_file(self, folder: Path, names: Iterable[str], key_type: KeyType = "ec") -> Path:
        """`server.pem` in `folder`: chain and key in one file, so that they fit whenever they are read.

        Issued anew when it is missing, expires within 30 days, lacks a name or comes from elsewhere.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file, names = folder / "server.pem", list(names)
        if not self._serves(file, names, key_type):
            issued = self.issue_server(names, key_type)
            files.replace(file, issued.chain + issued.key)
        return file

    def _serves(self, file: Path, names: Sequence[str], key_type: KeyType) -> bool:
        try:
            certificate = _read_chain(file)[0]
            key = _read_key(file)
            certificate.verify_directly_issued_by(self._certificate)
            covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (Invalid, OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        now = moment(self._clock.now())
        return (
            isinstance(key, KEY_CLASSES[key_type])
            and public_bytes(key.public_key()) == public_bytes(certificate.public_key())
            and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE
            and set(covered) >= {_general_name(name) for name in _all_names(names)}
        )

    def bundle(self, file: Path) -> Path:
        """Writes the public roots and this authority to `file`, for clients that read one bundle only."""
        content = Path(certifi.where()).read_bytes() + b"\n# Moorage\n" + self.certificate_pem
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            files.replace(file, content, mode=files.CERTIFICATE_MODE)
        return file


# --- Certificates ----------------------------------------------------------------------------------------


def _self_signed(key: PrivateKey, now: datetime) -> x509.Certificate:
    # The digits keep two authorities on one machine apart: clients look an issuer up by its name.
    name = common_name(f"Moorage local CA {secrets.token_hex(4)}")
    validity = Validity.starting(now, _AUTHORITY_LIFE)
    return sign(name, key.public_key(), validity, Profile(ca=True, path_length=0), key=key)


def _server_common_name(names: Sequence[str]) -> str:
    """The first name that fits; those that were asked for come before the standard ones."""
    return next(name for name in names if len(name) <= MAX_COMMON_NAME)


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


# --- Files -----------------------------------------------------------------------------------------------


def _read_key(file: Path) -> PrivateKey:
    try:
        return read_key(file.read_bytes())
    except Invalid as error:
        raise Invalid(str(file), error.why) from None


def _read_chain(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise Invalid(str(file), f"it holds no certificate in PEM ({error})") from None
