"""X.509 certificates as devices and operators bring them: read leniently, judged elsewhere.

Trust belongs to the record that names a certificate, not to the certificate: a self-signed leaf, an expired
one, one without key usage or with an authority key id of an odd form are all read.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from moorage.errors import Invalid, Unauthorized

_PEM_BLOCK = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
_PKCS7_BLOCK = re.compile(rb"-----BEGIN (PKCS7|CMS)-----(.+?)-----END", re.DOTALL)
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # the type of a PKCS#7 of certificates, DER

MAX_IN_FILE = 100  # certificates that are looked at

# Short names as .NET prints them; it writes every other type as OID.x.y.z.
_SHORT_NAMES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "S",
    NameOID.COUNTRY_NAME: "C",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.EMAIL_ADDRESS: "E",
    NameOID.SERIAL_NUMBER: "SERIALNUMBER",
    NameOID.STREET_ADDRESS: "STREET",
    NameOID.TITLE: "T",
    NameOID.GIVEN_NAME: "G",
    NameOID.SURNAME: "SN",
}
_NEEDS_QUOTES = re.compile(r'[,+"=<>#;\n\r]|^\s|\s$|^$')


class Thumbprints(NamedTuple):
    """Hashes of a certificate's DER, hexadecimal in upper case."""

    sha1: str
    sha256: str


@lru_cache(maxsize=256)  # of what is just presented, asked for where it is judged and where it is noted
def thumbprints(der: bytes) -> Thumbprints:
    return Thumbprints(_sha1(der), _sha256(der))


def _sha1(der: bytes) -> str:
    # A name for the certificate that Azure's clients use, not a protection of anything.
    return hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()


def _sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest().upper()


class Certificate:
    """The facts of one certificate, each worked out when first asked for; equal when the DER is."""

    def __init__(self, der: bytes) -> None:
        """Raises Invalid when `der` is no certificate."""
        self.der = der
        try:
            self.parsed = x509.load_der_x509_certificate(der)
            self.subject_name = self.parsed.subject
        except (ValueError, x509.InvalidVersion) as error:
            raise Invalid("certificate", f"it cannot be parsed ({error})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        return f"<Certificate {self.subject} {self.sha256}>"

    @cached_property
    def common_name(self) -> str | None:
        """The last CN of the subject, which is the most specific one; None without any."""
        names = self.subject_name.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[-1].value) if names else None

    @cached_property
    def subject(self) -> str:
        """`CN=sample-device-1, O=Contoso`: as .NET prints it, most specific part first. [dps 11.4]"""
        return name_text(self.subject_name)

    @cached_property
    def issuer(self) -> str:
        return name_text(self.parsed.issuer)

    @cached_property
    def subject_key(self) -> str:
        """The subject as issuers are looked up by: equal for names that differ in spelling only."""
        return _name_key(self.subject_name)

    @cached_property
    def issuer_key(self) -> str:
        """The same of the issuer. Raises ValueError when it is no text."""
        return _name_key(self.parsed.issuer)

    @cached_property
    def serial(self) -> str:
        """Hexadecimal, upper case, whole bytes."""
        text = f"{self.parsed.serial_number:X}"
        return text if len(text) % 2 == 0 else "0" + text

    @cached_property
    def not_before(self) -> int:
        """Microseconds since 1970."""
        return _microseconds(self.parsed.not_valid_before_utc)

    @cached_property
    def not_after(self) -> int:
        """Microseconds since 1970."""
        return _microseconds(self.parsed.not_valid_after_utc)

    @cached_property
    def public_key(self) -> CertificatePublicKeyTypes:
        """Raises ValueError or UnsupportedAlgorithm for a key that cannot be used."""
        return self.parsed.public_key()

    @cached_property
    def sha1(self) -> str:
        return _sha1(self.der)

    @cached_property
    def sha256(self) -> str:
        return _sha256(self.der)

    @cached_property
    def version(self) -> int:
        """1 or 3."""
        return 1 if self.parsed.version is x509.Version.v1 else 3

    def to_pem(self) -> str:
        text = base64.encodebytes(self.der).decode().replace("\n", "")
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def read_certificate(source: str | bytes) -> Certificate:
    """The certificate in `source`: PEM (the first of several), DER, or the base64 of either.

    Raises Invalid for anything else. [dps 11.4]
    """
    content = source.encode("utf-8", "replace") if isinstance(source, str) else source
    content = content.removeprefix(b"\xef\xbb\xbf")  # what Windows editors put before a text
    content = _without_base64(content)
    if b"-----BEGIN" in content:
        block = _PEM_BLOCK.search(content)
        if block is None:
            raise Invalid("certificate", "the PEM text holds no certificate")
        content = _decoded(block[2])
    return _whole(Certificate(content))


def read_certificates(source: str | bytes) -> list[Certificate]:
    """Like `read_certificate`, with those that follow the first one in PEM. Raises Invalid."""
    first = read_certificate(source)
    content = source.encode("utf-8", "replace") if isinstance(source, str) else source
    blocks = list(_PEM_BLOCK.finditer(_without_base64(content.removeprefix(b"\xef\xbb\xbf"))))
    return [first, *(_whole(Certificate(_decoded(block[2]))) for block in blocks[1:MAX_IN_FILE])]


def read_from_collection(source: str | bytes) -> Certificate:
    """As `read_certificate`, and from PKCS#7 as well: PEM, DER, or the base64 of either.

    A PKCS#7 file is a set without order: of a chain in it, the certificate that issued none of the others.
    """
    content = source.encode("utf-8", "replace") if isinstance(source, str) else source
    content = _without_base64(content.removeprefix(b"\xef\xbb\xbf"))
    block = _PKCS7_BLOCK.search(content)
    if block is not None:
        content = _decoded(block[2])
    if _SIGNED_DATA not in content[:32]:
        return read_certificate(content)
    held = _from_pkcs7(content)
    issuers = {each.issuer_key for each in held if each.issuer_key != each.subject_key}
    lowest = [each for each in held if each.subject_key not in issuers]
    if len(lowest) != 1:
        raise Invalid("certificate", f"the PKCS#7 holds {len(held)} certificates; give the one that is meant")
    return lowest[0]


def _from_pkcs7(content: bytes) -> list[Certificate]:
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7  # rarely needed

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Windows exports is BER now and then, which is read too
            held = pkcs7.load_der_pkcs7_certificates(content)
        return [_whole(Certificate(each.public_bytes(Encoding.DER))) for each in held]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("certificate", f"the PKCS#7 cannot be parsed ({error})") from None


def _without_base64(content: bytes) -> bytes:
    """The content of what is written in base64 altogether; anything else as it is."""
    return _decoded(content) if b"-----BEGIN" not in content and content.isascii() else content


def _whole(certificate: Certificate) -> Certificate:
    """`certificate`, once the facts that are kept of it have been read: none shall fail to show later on."""
    try:
        certificate.issuer, certificate.issuer_key, certificate.not_before, certificate.not_after  # noqa: B018
    except ValueError as error:
        raise Invalid("certificate", f"it cannot be parsed ({error})") from None
    return certificate


def _decoded(content: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except ValueError:
        raise Invalid("certificate", "it is neither PEM nor DER, nor the base64 of either") from None


def explain_missing_name(subject: str) -> str:
    """Why a certificate may have come without a common name, and what to do; `subject` as `Certificate` has it."""
    if subject:
        return f"Its subject is {subject[:200]!r}, without a CN."
    return (
        "Its subject is empty. openssl makes such a certificate of -subj '//CN=name' outside Git Bash: "
        "the two slashes are for Git Bash alone, elsewhere write '/CN=name'."
    )


def check_validity(certificate: Certificate, now: int) -> None:
    """Raises Unauthorized when `now` (microseconds) lies outside of the certificate's dates."""
    if now < certificate.not_before:
        why = f"the certificate is not valid before {utc_text(certificate.not_before)}"
    elif now > certificate.not_after:
        why = f"the certificate expired at {utc_text(certificate.not_after)}"
    else:
        return
    raise Unauthorized(
        why,
        check="certificate validity",
        remedy="Issue a new certificate, and compare the clocks of the two machines.",
    )


def utc_text(microseconds: int) -> str:
    """`2027-01-01T00:00:00Z`"""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def _name_key(name: x509.Name) -> str:
    """A hash over the parts in order, letter case (of ASCII) and repeated blanks aside. [RFC 5280 7.1]

    The kind of string does not count either: tools that renew a CA have changed it.
    """
    parts = [sorted(_attribute_key(part) for part in rdn) for rdn in name.rdns]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _attribute_key(attribute: x509.NameAttribute[str | bytes]) -> tuple[str, bytes]:
    value = attribute.value
    if isinstance(value, str):
        value = b" ".join(value.encode("utf-8", "surrogatepass").lower().split())
    return attribute.oid.dotted_string, value


def name_text(name: x509.Name) -> str:
    return ", ".join(" + ".join(_attribute_text(part) for part in rdn) for rdn in reversed(name.rdns))


def _attribute_text(attribute: x509.NameAttribute[str | bytes]) -> str:
    oid = attribute.oid
    value = attribute.value if isinstance(attribute.value, str) else attribute.value.hex().upper()
    if _NEEDS_QUOTES.search(value):
        value = '"' + value.replace('"', '""') + '"'
    return f"{_SHORT_NAMES.get(oid) or 'OID.' + oid.dotted_string}={value}"
