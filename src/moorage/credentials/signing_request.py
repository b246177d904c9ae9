"""Certificate signing requests (PKCS#10) that devices send when they register: read strictly, and judged whole."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from moorage.errors import Invalid, TooLarge

MAX_SIZE = 8 * 1024  # bytes of DER; one of RSA-4096 with a long subject has about 1,200

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_WEAK_HASHES = ("md5", "sha1")

RequestedKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """One whose maker has the key that it names."""

    common_name: str
    public_key: RequestedKey


def decode_request(text: object) -> bytes:
    """DER, from the `csr` member of a register request: base64 without armour [dps 20.1]. Raises Invalid."""
    if not isinstance(text, str):
        raise Invalid("csr", "must be text: the base64 of a PKCS#10 request in DER")
    if text.lstrip().startswith("-----BEGIN"):
        raise Invalid(
            "csr", "it is PEM: send the base64 of the DER alone, without the lines that begin with -----"
        )
    if len(text) > MAX_SIZE * 2:
        raise TooLarge("csr", f"a request has at most {MAX_SIZE} bytes")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise Invalid("csr", "it is not base64") from None


def read_request(der: bytes) -> SigningRequest:
    """Raises Invalid, field "csr", for one that is malformed, not signed by its key, or whose key is too weak."""
    if len(der) > MAX_SIZE:
        raise TooLarge("csr", f"a request has at most {MAX_SIZE} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        _check_key(key)
        if (digest := request.signature_hash_algorithm) is not None and digest.name in _WEAK_HASHES:
            raise Invalid("csr", f"it is signed over {digest.name.upper()}; sign it over SHA-256")
        if not request.is_signature_valid:
            raise Invalid("csr", "its signature does not hold: it was not made with the key that it names")
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Invalid("csr", f"it is no PKCS#10 request that can be read ({error})") from None
    if len(names) != 1:
        raise Invalid("csr", f"its subject has {len(names)} common names; it takes one, the registration id")
    assert isinstance(key, RequestedKey)  # or _check_key would have raised
    return SigningRequest(str(names[0].value), key)


def _check_key(key: object) -> None:
    match key:
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                raise Invalid("csr", f"its key is on the curve {key.curve.name}, not on {', '.join(_CURVES)}")
        case rsa.RSAPublicKey():
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                raise Invalid(
                    "csr", f"its RSA key has {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}"
                )
        case _:
            raise Invalid("csr", "its key is neither EC nor RSA")
