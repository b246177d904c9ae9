"""Certificates with their keys: a root, what it issues, and both in every form that an SDK takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from moorage.credentials.issuing import Profile, Validity, common_name, may_sign, sign
from moorage.credentials.keys import KeyType, PrivateKey, encryption, key_pem, new_key, public_bytes
from moorage.credentials.workshop.subject import check_common_name, name_of
from moorage.errors import Invalid

MAX_DAYS = 36_500

_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Credential:
    """A certificate and its key. `above` is the chain that leads to the root, nearest first, the root last."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()

    def __post_init__(self) -> None:
        if public_bytes(self.certificate.public_key()) != public_bytes(self.key.public_key()):
            raise Invalid("private key", "it is not the key of the certificate")

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Leaf first."""
        return (self.certificate, *self.above)

    @property
    def common_name(self) -> str:
        """Empty without one."""
        return name_of(self.certificate.subject)


class Wish(NamedTuple):
    """What can be chosen of any certificate. `days` count from `now`; the issuer's own end cuts them short."""

    subject: x509.Name
    now: datetime
    days: int
    key_type: KeyType = "ec"
    rsa_bits: int = 2048

    @property
    def validity(self) -> Validity:
        if not 1 <= self.days <= MAX_DAYS:
            raise Invalid("--days", f"is 1 to {MAX_DAYS}, not {self.days}")
        return Validity.starting(self.now, timedelta(days=self.days))

    def key(self) -> PrivateKey:
        return new_key(self.key_type, rsa_bits=self.rsa_bits)


def make_root(wish: Wish, *, path_length: int | None = None) -> Credential:
    key = wish.key()
    profile = Profile(ca=True, path_length=path_length)
    return Credential(sign(wish.subject, key.public_key(), wish.validity, profile, key=key), key)


def make_intermediate(wish: Wish, issuer: Credential, *, path_length: int | None = None) -> Credential:
    """Raises Invalid when `issuer` may not issue it."""
    _check_issuer(issuer, wish.now, ca=True)
    return issue(wish, issuer, Profile(ca=True, path_length=path_length))


def make_device(wish: Wish, issuer: Credential | None = None) -> Credential:
    """A client certificate, signed by itself when there is no issuer. Raises Invalid."""
    profile = Profile(extended_usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    if issuer is None:
        key = wish.key()
        return Credential(sign(wish.subject, key.public_key(), wish.validity, profile, key=key), key)
    _check_issuer(issuer, wish.now, ca=False)
    return issue(wish, issuer, profile)


def make_proof(code: str, issuer: Credential, now: datetime, days: int = 1) -> Credential:
    """Proof of possession of a CA's key: a certificate whose common name is the verification code [dps 11.3]."""
    check_common_name(code.strip())
    _check_issuer(issuer, now, ca=False)
    return issue(Wish(common_name(code.strip()), now, days), issuer, Profile())


def issue(wish: Wish, issuer: Credential, profile: Profile) -> Credential:
    """Whatever `profile` says, and whether or not `issuer` may: bad certificates are made by this too."""
    key = wish.key()
    certificate = sign(
        wish.subject,
        key.public_key(),
        wish.validity.within(issuer.certificate),
        profile,
        key=issuer.key,
        issuer=issuer.certificate,
    )
    return Credential(certificate, key, issuer.chain)


def _check_issuer(issuer: Credential, now: datetime, *, ca: bool) -> None:
    certificate = issuer.certificate
    if not may_sign(certificate):
        raise Invalid("--issuer", f"{issuer.common_name or 'it'} is not the certificate of a CA (CA:TRUE)")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise Invalid("--issuer", f"{issuer.common_name} is not valid now")
    for below, above in enumerate(issuer.chain, start=1 if ca else 0):
        limit = _path_length(above)
        if limit is not None and below > limit:
            name = above.subject.rfc4514_string()
            raise Invalid("--issuer", f"the path length of {name} allows {limit} CAs below it, not {below}")


def _path_length(certificate: x509.Certificate) -> int | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None


# --- Forms -----------------------------------------------------------------------------------------------


def pem(chain: Sequence[x509.Certificate]) -> bytes:
    """One after the other, as they come."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def pfx(credential: Credential, pass_phrase: str | None) -> bytes:
    """PKCS#12 of certificate, key and chain: what .NET and Windows take."""
    return pkcs12.serialize_key_and_certificates(
        (credential.common_name or "device").encode(),
        credential.key,
        credential.certificate,
        credential.above,
        encryption(pass_phrase),
    )


class Form(NamedTuple):
    """What a credential is as a file: its name ends in `suffix`, and nobody else may read it when it is `secret`."""

    role: str
    suffix: str
    content: bytes
    secret: bool


def forms(credential: Credential, pass_phrase: str | None = None) -> list[Form]:
    """All that SDKs take. Keys are encrypted when there is a pass phrase."""
    return [
        Form("certificate", ".pem", pem([credential.certificate]), secret=False),
        Form("key", ".key.pem", key_pem(credential.key, pass_phrase), secret=True),
        Form("fullChain", ".fullchain.pem", pem(credential.chain), secret=False),
        Form("pfx", ".pfx", pfx(credential, pass_phrase), secret=True),
    ]


def file_stem(name: str) -> str:
    """What the names of a credential's files begin with."""
    return _NO_FILE_NAME.sub("_", name).lstrip(".") or "certificate"
