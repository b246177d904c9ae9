"""How a certificate is made of a name, a key, what it may be used for, and whoever signs it.

Shared by the local authority, the workshop and the issuing CA of a provisioning service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID, ObjectIdentifier

from moorage.credentials.keys import PrivateKey

HEAD_START = timedelta(days=1)  # for peers whose clocks are behind
MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name


class Validity(NamedTuple):
    """UTC, whole seconds."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def starting(cls, now: datetime, life: timedelta) -> Validity:
        """`life` counted from `now`; it holds a little before that already."""
        return cls(now - HEAD_START, now + life)

    def within(self, issuer: x509.Certificate) -> Validity:
        """No longer than the issuer's own: a chain is as good as its shortest link."""
        return Validity(
            max(self.not_before, issuer.not_valid_before_utc), min(self.not_after, issuer.not_valid_after_utc)
        )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a certificate is for. `path_length` counts the CAs that may stand below; None is any number.

    A CA may sign certificates, and nobody else, unless `key_cert_sign` says otherwise.
    """

    ca: bool = False
    path_length: int | None = None
    key_cert_sign: bool | None = None
    extended_usages: Sequence[ObjectIdentifier] = ()
    names: Sequence[x509.GeneralName] = ()


def sign(
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    validity: Validity,
    profile: Profile,
    *,
    key: PrivateKey,
    issuer: x509.Certificate | None = None,
) -> x509.Certificate:
    """A certificate signed with `key`, which is that of `issuer`; without an issuer it signs itself."""
    subject_identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.BasicConstraints(profile.ca, profile.path_length), critical=True)
        .add_extension(_key_usage(profile, public_key), critical=True)
        .add_extension(subject_identifier, critical=False)
        .add_extension(_authority_key_identifier(issuer, subject_identifier), critical=False)
    )
    if profile.extended_usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended_usages), critical=False)
    if profile.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(profile.names), critical=False)
    return builder.sign(key, hashes.SHA256())


def _key_usage(profile: Profile, public_key: CertificatePublicKeyTypes) -> x509.KeyUsage:
    signs = profile.ca if profile.key_cert_sign is None else profile.key_cert_sign
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=isinstance(public_key, rsa.RSAPublicKey) and not profile.ca,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(
    issuer: x509.Certificate | None, own: x509.SubjectKeyIdentifier
) -> x509.AuthorityKeyIdentifier:
    if issuer is None:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    try:
        extension = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def moment(microseconds: int) -> datetime:
    """A time of a `Clock` in whole seconds, as certificates have it."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC)
