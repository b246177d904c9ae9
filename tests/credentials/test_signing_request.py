"""Signing requests as devices send them: what is taken, and why the rest is not."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.signing_request import MAX_SIZE, decode_request, read_request
from moorage.credentials.workshop.request import make_request, registration_text
from moorage.credentials.workshop.subject import read_subject
from moorage.errors import Invalid, TooLarge

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

KEYS: dict[str, Key] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "K-256": ec.generate_private_key(ec.SECP256K1()),
    "RSA-1024": rsa.generate_private_key(65537, 1024),
    "RSA-2048": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def request(key: Key = KEYS["P-256"], *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names or ("pump-7",)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)
    return signed.public_bytes(Encoding.DER)


GOOD = request()


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "RSA-2048"])
def test_keys_that_are_taken(kind: str) -> None:
    read = read_request(request(KEYS[kind]))
    assert read.common_name == "pump-7"
    assert read.public_key == KEYS[kind].public_key()


@pytest.mark.parametrize(
    ("kind", "why"),
    [("K-256", "on the curve secp256k1"), ("RSA-1024", "has 1024 bits"), ("Ed25519", "neither EC nor RSA")],
)
def test_keys_that_are_not(kind: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read_request(request(KEYS[kind]))


def test_a_request_that_somebody_else_signed() -> None:
    """The public key of one request under the signature of another."""
    der = bytearray(GOOD)
    der[-1] ^= 1
    with pytest.raises(Invalid, match="csr"):
        read_request(bytes(der))
    other = request(KEYS["P-256"], "pump-8")
    at = GOOD.index(b"pump-7")
    forged = GOOD[:at] + b"pump-8" + GOOD[at + 6 :]
    assert len(forged) >= len(other) - 4
    with pytest.raises(Invalid, match="signature does not hold"):
        read_request(forged)


@pytest.mark.parametrize("names", [(), ("pump-7", "pump-8")])
def test_one_common_name_is_asked_for(names: tuple[str, ...]) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    key = ec.generate_private_key(ec.SECP256R1())
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    with pytest.raises(Invalid, match=f"has {len(names)} common names"):
        read_request(signed.public_bytes(Encoding.DER))


def test_what_a_device_sends_is_base64_of_der() -> None:
    made, _ = make_request(read_subject("pump-7"))
    assert decode_request(registration_text(made)) == made.public_bytes(Encoding.DER)
    assert decode_request(base64.encodebytes(GOOD).decode()) == GOOD


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "must be text"),
        ("!!!", "not base64"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "it is PEM"),
        ("é", "not base64"),
    ],
)
def test_what_is_no_base64_of_der(text: object, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        decode_request(text)


def test_requests_have_a_size() -> None:
    with pytest.raises(TooLarge):
        decode_request("A" * (2 * MAX_SIZE + 1))
    with pytest.raises(TooLarge):
        read_request(bytes(MAX_SIZE + 1))


@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_damaged_request_is_the_same_or_invalid(at: int, byte: int) -> None:
    damaged = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    if damaged == GOOD:
        return
    with pytest.raises(Invalid):
        read_request(damaged)


@given(content=st.binary(max_size=100))
def test_any_bytes_are_invalid(content: bytes) -> None:
    with pytest.raises(Invalid):
        read_request(content)
