"""A certificate signed otherwise than its builder lets one: taken apart by DER, signed, put together again.

`Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature BIT STRING }`, and the algorithm
stands a second time as the third part of tbsCertificate. [RFC 5280 4.1]
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509

_SEQUENCE, _BIT_STRING = 0x30, 0x03

SHA1_WITH_RSA = bytes.fromhex("300d06092a864886f70d0101050500")
ECDSA_WITH_SHA1 = bytes.fromhex("300906072a8648ce3d0401")


def signature_algorithm(certificate: x509.Certificate) -> bytes:
    """AlgorithmIdentifier, DER."""
    return _parts(certificate.tbs_certificate_bytes)[2]


def signed_again(
    certificate: x509.Certificate, algorithm: bytes, sign: Callable[[bytes], bytes]
) -> x509.Certificate:
    """The same certificate under another signature. `sign` is given tbsCertificate as it then is."""
    version, serial, _, *rest = _parts(certificate.tbs_certificate_bytes)
    signed = _element(_SEQUENCE, b"".join((version, serial, algorithm, *rest)))
    signature = _element(_BIT_STRING, b"\0" + sign(signed))
    return x509.load_der_x509_certificate(_element(_SEQUENCE, signed + algorithm + signature))


def _parts(sequence: bytes) -> list[bytes]:
    """The elements within a SEQUENCE, each whole."""
    at, end = _span(sequence, 0)
    parts = []
    while at < end:
        _, next_at = _span(sequence, at)
        parts.append(sequence[at:next_at])
        at = next_at
    return parts


def _span(content: bytes, at: int) -> tuple[int, int]:
    """Where the value of the element at `at` starts and ends. [X.690 8.1.3]"""
    length, start = content[at + 1], at + 2
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(content[at + 2 : start], "big")
    return start, start + length


def _element(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + value
