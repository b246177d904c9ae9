"""Private keys of certificates: made, written and read as PEM."""

from __future__ import annotations

import re
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from moorage.errors import Invalid

KeyType = Literal["ec", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

KEY_CLASSES = {"ec": ec.EllipticCurvePrivateKey, "rsa": rsa.RSAPrivateKey}


def new_key(key_type: KeyType, *, rsa_bits: int = 2048) -> PrivateKey:
    """On the curve P-256, or RSA."""
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
    return ec.generate_private_key(ec.SECP256R1())


def encryption(pass_phrase: str | None) -> KeySerializationEncryption:
    return BestAvailableEncryption(pass_phrase.encode()) if pass_phrase else NoEncryption()


def key_pem(key: PrivateKey, pass_phrase: str | None = None) -> bytes:
    """PKCS#8, encrypted when there is a pass phrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption(pass_phrase))


def public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo, DER: equal for keys that belong together."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_key(content: bytes, pass_phrase: str | None = None) -> PrivateKey:
    """The private key in PEM, which may have certificates before it. Raises Invalid, field "private key"."""
    try:
        key = load_pem_private_key(_key_block(content), pass_phrase.encode() if pass_phrase else None)
    except TypeError:
        why = (
            "it is not encrypted, and takes no pass phrase"
            if pass_phrase
            else "it is encrypted: give its pass phrase"
        )
        raise Invalid("private key", why) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("private key", f"no private key in PEM can be read ({error})") from None
    if not isinstance(key, PrivateKey):
        raise Invalid("private key", "the key is neither EC nor RSA")
    return key


def _key_block(content: bytes) -> bytes:
    """The private key alone, of a file that may hold certificates before it."""
    start = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", content)
    return content[start.start() :] if start else content
