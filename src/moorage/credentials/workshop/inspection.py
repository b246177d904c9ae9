"""What a file of certificates, requests or keys holds, in facts that may be shown: never a secret."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
    pkcs7,
    pkcs12,
)

from moorage.credentials.x509 import Certificate, explain_missing_name, name_text, utc_text
from moorage.errors import Invalid

Facts = dict[str, Any]

MAX_SIZE = 1024 * 1024  # bytes
MAX_ITEMS = 1000

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_PFX = re.compile(
    rb"\x30(?:[\x01-\x7f]|\x80|\x81.|\x82..|\x83...)\x02\x01\x03", re.DOTALL
)  # version 3 [RFC 7292 4]
_WEAK_HASHES = ("md5", "sha1")
_WEAK_RSA = 2048  # bits; what is below is refused by today's TLS stacks


def inspect(content: bytes, now: datetime, pass_phrase: str | None = None) -> list[Facts]:
    """One object for each thing in `content`: PEM, DER, PKCS#7, PFX, or the base64 of any.

    Every object has `kind` and `remarks`, what a person should know. Raises Invalid when it is none of them.
    """
    if len(content) > MAX_SIZE:
        raise Invalid("file", f"it has more than {MAX_SIZE} bytes")
    try:
        found = _items(content.removeprefix(b"\xef\xbb\xbf"), now, pass_phrase)
        items = list(islice(found, MAX_ITEMS))
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Invalid("file", f"it cannot be read ({error})") from None
    if not items:
        raise Invalid("file", "it holds no certificate, request or key that can be read")
    _match_keys(items)
    return items


def holds_private_key(content: bytes) -> bool:
    """Whether a private key is in it, or may be: in any form that `inspect` looks into, locked or broken ones too."""
    if len(content) > MAX_SIZE:
        raise Invalid("file", f"it has more than {MAX_SIZE} bytes")
    if b"PRIVATE KEY" in content or _PFX.match(content):
        return True
    decoded = _base64(content) if content.isascii() else None
    if decoded and decoded != content and (b"PRIVATE KEY" in decoded or _PFX.match(decoded)):
        return True
    return _is_der_key(decoded or content)


def _is_der_key(content: bytes) -> bool:
    try:
        load_der_private_key(content, None)
    except TypeError:
        return True  # it asks for the pass phrase
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _items(content: bytes, now: datetime, pass_phrase: str | None) -> Iterator[Facts]:
    blocks = list(_BLOCK.finditer(content))
    if blocks:
        for block in blocks:
            yield from _pem_block(block[1].decode(), block[0], now, pass_phrase)
        return
    if content.isascii() and (decoded := _base64(content)):
        yield from _items(decoded, now, pass_phrase)
        return
    yield from _der(content, now, pass_phrase)


def _base64(content: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except ValueError:
        return None


def _pem_block(label: str, block: bytes, now: datetime, pass_phrase: str | None) -> Iterator[Facts]:
    body = _base64(b"".join(line for line in block.splitlines()[1:-1] if b":" not in line)) or b""
    if label in ("CERTIFICATE", "X509 CERTIFICATE"):
        yield _certificate(body, now)
    elif label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
        yield _request(body)
    elif label == "PKCS7":
        yield from _pkcs7(body, now)
    elif label.endswith("PRIVATE KEY"):
        yield _private_key(lambda secret: load_pem_private_key(block, secret), pass_phrase)
    elif label.endswith("PUBLIC KEY"):
        yield _public_key(load_pem_public_key(block))
    elif label != "EC PARAMETERS":  # these come before a key, and say nothing that it does not
        yield {"kind": label.lower(), "remarks": ["This kind is not looked into."]}


def _der(content: bytes, now: datetime, pass_phrase: str | None) -> Iterator[Facts]:
    """The first reading that holds. A PFX is told from the rest by its version."""
    if _PFX.match(content):
        yield from _pfx(content, now, pass_phrase)
        return
    readings: tuple[Callable[[], Iterator[Facts]], ...] = (
        lambda: iter([_certificate(content, now)]),
        lambda: iter([_request(content)]),
        lambda: iter([_private_key(lambda secret: load_der_private_key(content, secret), pass_phrase)]),
        lambda: iter([_public_key(load_der_public_key(content))]),
        lambda: _pkcs7(content, now),
    )
    for reading in readings:
        try:
            found = list(reading())
        except (Invalid, ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
        yield from found
        return


# --- Kinds -----------------------------------------------------------------------------------------------


def _certificate(der: bytes, now: datetime) -> Facts:
    certificate = Certificate(der)
    parsed = x509.load_der_x509_certificate(der)
    remarks = list(_remarks(certificate, parsed, now))
    facts: Facts = {
        "kind": "certificate",
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "selfSigned": _self_signed(parsed),
        "sha1Thumbprint": certificate.sha1,
        "sha256Thumbprint": certificate.sha256,
        "serialNumber": certificate.serial,
        "notBeforeUtc": utc_text(certificate.not_before),
        "notAfterUtc": utc_text(certificate.not_after),
        **_key_facts(parsed.public_key()),
        "signatureHash": _hash_name(parsed),
    }
    try:
        facts |= _usages(parsed.extensions)
    except ValueError as error:
        remarks.append(f"Its extensions cannot be read: {error}.")
    return facts | {"remarks": remarks}


def _remarks(certificate: Certificate, parsed: x509.Certificate, now: datetime) -> Iterator[str]:
    if not certificate.subject:
        yield explain_missing_name("")
    if now < parsed.not_valid_before_utc:
        yield "It is not valid yet."
    if now > parsed.not_valid_after_utc:
        yield "It has expired."
    if _hash_name(parsed) in _WEAK_HASHES:
        yield f"It is signed with {_hash_name(parsed)}, which today's TLS stacks refuse."
    yield from _key_remarks(parsed.public_key())


def _key_remarks(key: object) -> Iterator[str]:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAK_RSA:
        yield f"Its RSA key has {key.key_size} bits, which today's TLS stacks refuse."


def _self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _hash_name(certificate: x509.Certificate) -> str | None:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return certificate.signature_algorithm_oid.dotted_string
    return algorithm.name if algorithm else None


def _usages(extensions: x509.Extensions) -> Facts:
    facts: Facts = {"ca": False}
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=ca, path_length=limit):
                facts["ca"] = ca
                if limit is not None:
                    facts["pathLength"] = limit
            case x509.KeyUsage() as usage:
                facts["keyUsage"] = [word for name, word in _KEY_USAGES.items() if _set(usage, name)]
            case x509.ExtendedKeyUsage() as usages:
                facts["extendedKeyUsage"] = [
                    _EXTENDED_USAGES.get(oid.dotted_string, oid.dotted_string) for oid in usages
                ]
            case x509.SubjectAlternativeName() as names:
                facts["names"] = [str(name.value) for name in names]
            case _:
                pass
    return facts


_KEY_USAGES = {
    "digital_signature": "digitalSignature",
    "content_commitment": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}
_EXTENDED_USAGES = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "2.5.29.37.0": "any",
}


def _set(usage: x509.KeyUsage, name: str) -> bool:
    return bool(getattr(usage, name))


def _request(der: bytes) -> Facts:
    request = x509.load_der_x509_csr(der)
    subject = name_text(request.subject)
    remarks = [] if subject else [explain_missing_name("")]
    if not request.is_signature_valid:
        remarks.append("Its signature does not hold: it was not made with the key that it names.")
    remarks += _key_remarks(request.public_key())
    facts = {"kind": "certificate request", "subject": subject, **_key_facts(request.public_key())}
    return facts | _usages(request.extensions) | {"remarks": remarks}


def _private_key(load: Callable[[bytes | None], object], pass_phrase: str | None) -> Facts:
    encrypted = False
    try:
        key = load(None)
    except TypeError:
        encrypted = True
        if not pass_phrase:
            remark = "With its pass phrase it can be told which certificate it belongs to."
            return {"kind": "private key", "encrypted": True, "remarks": [remark]}
        key = load(pass_phrase.encode())
    except UnsupportedAlgorithm:
        return {"kind": "private key", "remarks": ["It is of an unknown kind."]}
    public = key.public_key()  # type: ignore[attr-defined]
    return {
        "kind": "private key",
        "encrypted": encrypted,
        **_key_facts(public),
        "remarks": list(_key_remarks(public)),
    }


def _public_key(key: object) -> Facts:
    return {"kind": "public key", **_key_facts(key), "remarks": list(_key_remarks(key))}


def _key_facts(key: Any) -> Mapping[str, Any]:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {"key": _key_text(key), "publicKeySha256": hashlib.sha256(der).hexdigest().upper()}


def _key_text(key: object) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return type(key).__name__


def _pkcs7(der: bytes, now: datetime) -> Iterator[Facts]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # openssl does not sort the set; the parser takes it, and remarks on it
        certificates = pkcs7.load_der_pkcs7_certificates(der)
    for certificate in certificates:
        yield _certificate(certificate.public_bytes(Encoding.DER), now) | {"within": "PKCS#7"}


def _pfx(content: bytes, now: datetime, pass_phrase: str | None) -> Iterator[Facts]:
    try:
        loaded = pkcs12.load_pkcs12(content, pass_phrase.encode() if pass_phrase else None)
    except ValueError:
        why = "it does not open with this pass phrase" if pass_phrase else "give its pass phrase"
        raise Invalid("PFX", why) from None
    within = {"within": "PFX"}
    if loaded.key is not None:
        key = loaded.key
        yield _private_key(lambda _: key, None) | {"encrypted": bool(pass_phrase)} | within
    for held in filter(None, (loaded.cert, *loaded.additional_certs)):
        yield _certificate(held.certificate.public_bytes(Encoding.DER), now) | within


def _match_keys(items: list[Facts]) -> None:
    """Says of each private key which of the certificates beside it is its own."""
    certificates = [item for item in items if item["kind"] == "certificate"]
    for item in items:
        if item["kind"] != "private key" or "publicKeySha256" not in item or not certificates:
            continue
        own = [each["subject"] for each in certificates if each["publicKeySha256"] == item["publicKeySha256"]]
        if own:
            item["belongsTo"] = own
        else:
            item["remarks"].append("It belongs to none of the certificates here.")
