"""Certificate signing requests (PKCS#10), as a device makes them."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from moorage.credentials.keys import KeyType, PrivateKey, new_key


def make_request(
    subject: x509.Name, key_type: KeyType = "ec", *, rsa_bits: int = 2048
) -> tuple[x509.CertificateSigningRequest, PrivateKey]:
    key = new_key(key_type, rsa_bits=rsa_bits)
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()), key


def registration_text(request: x509.CertificateSigningRequest) -> str:
    """What a device puts into `csr` when it registers: base64 of DER, without armour [dps 20.1]."""
    return base64.b64encode(request.public_bytes(Encoding.DER)).decode()
