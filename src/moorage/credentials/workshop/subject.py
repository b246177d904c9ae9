"""The subject of a certificate as people type it, in the shells that they type it in."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from moorage.credentials.issuing import MAX_COMMON_NAME, common_name
from moorage.errors import Invalid

_TYPES = {
    "cn": NameOID.COMMON_NAME,
    "o": NameOID.ORGANIZATION_NAME,
    "ou": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "l": NameOID.LOCALITY_NAME,
    "s": NameOID.STATE_OR_PROVINCE_NAME,
    "st": NameOID.STATE_OR_PROVINCE_NAME,
    "c": NameOID.COUNTRY_NAME,
    "dc": NameOID.DOMAIN_COMPONENT,
    "e": NameOID.EMAIL_ADDRESS,
    "emailaddress": NameOID.EMAIL_ADDRESS,
    "serialnumber": NameOID.SERIAL_NUMBER,
}
_OID = re.compile(r"[0-2](\.[0-9]+)+")
_PART = re.compile(r"\s*([A-Za-z]+|[0-9.]+)=(.*)", re.DOTALL)
# Git Bash takes a lone leading slash for a folder of its own and writes the folder's Windows name instead.
_TURNED_INTO_A_PATH = re.compile(r"[A-Za-z]:[/\\].*?(?=/[A-Za-z0-9.]+=)")


def read_subject(text: str) -> x509.Name:
    r"""`/CN=name/O=Contoso` as for openssl, `CN=name, O=Contoso`, or a plain name, which becomes the CN.

    Two slashes in front, as Git Bash needs them, are read as one, and what Git Bash makes of a single one is
    undone. A slash, comma or backslash within a value is written behind a backslash. Raises Invalid.
    """
    text = _TURNED_INTO_A_PATH.sub("", text.strip(), count=1)
    if text.startswith("/"):
        return _name(_split(text.lstrip("/"), "/"))
    if _PART.match(text):
        return _name(_split(text, ","))
    return _name([f"CN={text}"])


def _split(text: str, separator: str) -> list[str]:
    return re.findall(rf"(?:\\.|[^{separator}\\])+", text, re.DOTALL)


def _name(parts: list[str]) -> x509.Name:
    if not parts:
        raise Invalid("--subject", "it is empty; give the device's name, as in pump-7 or /CN=pump-7")
    return x509.Name([_attribute(part) for part in parts])


def _attribute(part: str) -> x509.NameAttribute[str]:
    match = _PART.fullmatch(part)
    if match is None:
        raise Invalid(
            "--subject", f"{part[:100]!r} is not of the form CN=name; put a \\ before a slash or comma"
        )
    kind, value = match[1], re.sub(r"\\(.)", r"\1", match[2]).strip()
    oid = _TYPES.get(kind.lower())
    if oid is None and not _OID.fullmatch(kind):
        raise Invalid(
            "--subject", f"{kind[:40]!r} is none of {', '.join(sorted(_TYPES)).upper()}, and no OID"
        )
    if not value:
        raise Invalid("--subject", f"{kind[:40]} has no value")
    if oid is NameOID.COMMON_NAME:
        return check_common_name(value)
    try:
        return x509.NameAttribute(oid or ObjectIdentifier(kind), value)
    except ValueError as error:
        raise Invalid("--subject", f"{kind[:40]}: {error}") from None


def check_common_name(text: str) -> x509.NameAttribute[str]:
    """Raises Invalid. It is the encoded length that certificates limit."""
    size = len(text.encode("utf-8", "replace"))
    if not 1 <= size <= MAX_COMMON_NAME:
        raise Invalid("--subject", f"a common name has 1 to {MAX_COMMON_NAME} bytes, not {size}")
    try:
        (attribute,) = common_name(text)
    except ValueError as error:
        raise Invalid("--subject", f"CN: {error}") from None
    return attribute  # type: ignore[return-value]


def name_of(subject: x509.Name) -> str:
    """The common name; empty without one."""
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""
