"""TPM 2.0 keys as devices present them, and the activation blob that only their TPM can open [dps 12].

A device has an endorsement key (EK), which names the TPM, and a storage root key (SRK), under which the TPM keeps
other keys. The blob carries a fresh HMAC key to them, in two wraps of which each needs the other:

    EK  ─ MakeCredential ─▶ inner wrapping key, given out only by a TPM that holds EK and SRK both
    SRK ─ Duplicate ──────▶ the HMAC key, encrypted by that wrapping key and then to the SRK

So whoever signs with the HMAC key sits beside that TPM, which never lets go of the key. Tags such as
[TPM 1.23.3] name part and section of the TPM 2.0 Library specification, revision 1.59.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from moorage.errors import Invalid

_RSA, _ECC, _KEYED_HASH = 0x0001, 0x0023, 0x0008
_HMAC, _AES, _CFB, _NULL = 0x0005, 0x0006, 0x0043, 0x0010
_SHA256 = 0x000B
_HASHES: Mapping[int, tuple[str, type[hashes.HashAlgorithm]]] = {
    _SHA256: ("sha256", hashes.SHA256),
    0x000C: ("sha384", hashes.SHA384),
    0x000D: ("sha512", hashes.SHA512),
}
_MODULUS_BITS = (2048, 3072, 4096)
_AES_BITS = (128, 192, 256)

# TPMA_OBJECT [TPM 2.8.3]
_USER_WITH_AUTH, _NO_DA, _SIGN = 1 << 6, 1 << 10, 1 << 18
_OF_A_STORAGE_KEY = {1 << 1: "fixedTPM", 1 << 4: "fixedParent", 1 << 16: "restricted", 1 << 17: "decrypt"}

MAX_PUBLIC = 1024  # bytes of a TPM2B_PUBLIC; one with a 4096-bit modulus and a SHA-512 policy has 608
MAX_HMAC_KEY = 64  # bytes: the block of SHA-256, more would be hashed first
_WRAPPING_KEY = 16  # bytes of AES-128, the only inner wrap that clients open [dps 12.1]


@dataclass(frozen=True)
class StorageKey:
    """The public area of an RSA storage key that never leaves its TPM: an EK or an SRK.

    `marshalled` is the whole TPM2B_PUBLIC, as devices send it and operators enroll it.
    """

    marshalled: bytes
    modulus: int
    exponent: int
    symmetric_bits: int  # of AES-CFB, by which the key protects what is stored under it
    name_algorithm: int

    @classmethod
    def read(cls, field: str, marshalled: bytes) -> StorageKey:
        """Raises Invalid, naming `field`, for whatever is not such a key. [TPM 2.12.2]"""
        if len(marshalled) > MAX_PUBLIC:
            raise Invalid(field, f"a TPM2B_PUBLIC has at most {MAX_PUBLIC} bytes, this has {len(marshalled)}")
        return _Reader(field, marshalled).storage_key()

    @cached_property
    def name(self) -> bytes:
        """The hash that stands for the key inside a TPM, behind the number of its algorithm. [TPM 1.16]"""
        return struct.pack(">H", self.name_algorithm) + self.hashed(self.marshalled[2:])

    @property
    def name_text(self) -> str:
        """The name as tpm2_readpublic prints it."""
        return self.name.hex()

    @property
    def hash_name(self) -> str:
        return _HASHES[self.name_algorithm][0]

    def hashed(self, content: bytes) -> bytes:
        return hashlib.new(self.hash_name, content).digest()

    @property
    def digest_size(self) -> int:
        return hashlib.new(self.hash_name).digest_size


def read_storage_key(field: str, text: str) -> StorageKey:
    """From base64, as in JSON. Raises Invalid."""
    if len(text) > 2 * MAX_PUBLIC:
        raise Invalid(field, f"is base64 of a TPM2B_PUBLIC, at most {MAX_PUBLIC} bytes")
    try:
        marshalled = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise Invalid(field, "is not base64; give the TPM2B_PUBLIC that tpm2_readpublic -o writes") from None
    return StorageKey.read(field, marshalled)


def default_registration_id(endorsement_key: StorageKey) -> str:
    """The registration id of a device that was given none: a hash of its EK [dps 12]."""
    digest = hashlib.sha256(endorsement_key.marshalled).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


class _Reader:
    """Takes a TPM2B_PUBLIC apart, field by field; every length is checked before it is believed."""

    def __init__(self, field: str, content: bytes) -> None:
        self._field = field
        self._content = content
        self._at = 0

    def storage_key(self) -> StorageKey:
        if self._word() != len(self._content) - 2:
            raise self._invalid("its size field is not the number of bytes behind it")
        kind, name_algorithm, attributes = self._word(), self._word(), self._long()
        self._check_kind(kind, name_algorithm, attributes)
        self._sized()  # authPolicy: the device's business
        symmetric_bits = self._symmetric()
        if self._word() != _NULL:
            raise self._invalid("a storage key has no signing or encryption scheme")
        bits, exponent = self._word(), self._long() or 65_537
        modulus = int.from_bytes(self._sized(), "big")
        if self._at != len(self._content):
            raise self._invalid("there are bytes behind its modulus")
        if bits not in _MODULUS_BITS or modulus.bit_length() != bits:
            raise self._invalid(f"its modulus must have {', '.join(map(str, _MODULUS_BITS))} bits")
        key = StorageKey(self._content, modulus, exponent, symmetric_bits, name_algorithm)
        if not _makes_a_key(key):
            raise self._invalid("its modulus and exponent make no RSA key")
        return key

    def _check_kind(self, kind: int, name_algorithm: int, attributes: int) -> None:
        if kind == _ECC:
            raise self._invalid("it is an elliptic curve key; use the TPM's RSA key, as Azure's clients do")
        if kind != _RSA:
            raise self._invalid(f"it is no RSA key (type {kind:#06x})")
        if name_algorithm not in _HASHES:
            raise self._invalid(f"its name algorithm {name_algorithm:#06x} is none of SHA-256, 384, 512")
        missing = [word for bit, word in _OF_A_STORAGE_KEY.items() if not attributes & bit]
        if missing or attributes & _SIGN:
            # Anything weaker may be known outside of the TPM, and then proves nothing about it.
            lacking = f"lacks {' and '.join(missing)}" if missing else "may sign"
            raise self._invalid(f"it is no storage key bound to one TPM: it {lacking}")

    def _symmetric(self) -> int:
        algorithm = self._word()
        if algorithm != _AES:
            raise self._invalid("it protects what is under it by something else than AES")
        bits, mode = self._word(), self._word()
        if bits not in _AES_BITS or mode != _CFB:
            raise self._invalid("it protects what is under it by something else than AES in CFB mode")
        return bits

    def _word(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def _long(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _sized(self) -> bytes:
        return self._take(self._word())

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) < count:
            raise self._invalid("it is cut short")
        self._at += count
        return taken

    def _invalid(self, why: str) -> Invalid:
        return Invalid(self._field, f"is not the TPM2B_PUBLIC of an RSA storage key: {why}")


def _makes_a_key(key: StorageKey) -> bool:
    try:
        _public_key(key)
    except ValueError:
        return False
    return key.modulus % 2 == 1  # which the library leaves to whoever encrypts


def _public_key(key: StorageKey) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()


# --- The activation blob ---------------------------------------------------------------------------------


def new_hmac_key() -> bytes:
    return secrets.token_bytes(32)


def activation_blob(endorsement_key: StorageKey, storage_root_key: StorageKey, hmac_key: bytes) -> bytes:
    """`hmac_key` (16 to 64 bytes) for the TPM that holds both keys: the six structures of [dps 12.1]."""
    if not 16 <= len(hmac_key) <= MAX_HMAC_KEY:
        raise ValueError(f"an HMAC key of {len(hmac_key)} bytes")
    wrapping_key = secrets.token_bytes(_WRAPPING_KEY)
    public, sensitive = _hmac_object(hmac_key)
    name = struct.pack(">H", _SHA256) + hashlib.sha256(public).digest()
    id_object, credential_seed = _credential(endorsement_key, storage_root_key.name, wrapping_key)
    private, duplicate_seed = _duplicate(storage_root_key, name, sensitive, wrapping_key)
    uri = b""  # Azure puts an encrypted address here, which its clients pass over
    return b"".join(map(_size, (id_object, credential_seed, private, duplicate_seed, public, uri)))


def blob_structures(blob: bytes) -> tuple[bytes, ...]:
    """What `activation_blob` has put together, each behind its size, as a TPM takes them. Raises Invalid."""
    found, at = [], 0
    while at < len(blob):
        end = at + 2 + int.from_bytes(blob[at : at + 2], "big")
        found.append(blob[at:end])
        at = end
    if at != len(blob) or len(found) != 6:
        raise Invalid(
            "authenticationKey", "is no activation blob: that has six structures behind their sizes"
        )
    return tuple(found)


def _hmac_object(key: bytes) -> tuple[bytes, bytes]:
    """TPMT_PUBLIC and TPMT_SENSITIVE of a key for HMAC-SHA256. [TPM 2.12.2, 2.12.3]"""
    obfuscation = secrets.token_bytes(32)
    unique = hashlib.sha256(obfuscation + key).digest()
    attributes = _USER_WITH_AUTH | _NO_DA | _SIGN
    public = struct.pack(">HHIHHH", _KEYED_HASH, _SHA256, attributes, 0, _HMAC, _SHA256) + _size(unique)
    sensitive = struct.pack(">HH", _KEYED_HASH, 0) + _size(obfuscation) + _size(key)
    return public, sensitive


def _credential(key: StorageKey, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """TPMS_ID_OBJECT and encrypted seed: `secret` for the holder of `key` and of what has `name`. [TPM 1.24]"""
    seed, encrypted_seed = _new_seed(key, b"IDENTITY\0")
    return _protect(key, seed, name, _size(secret)), encrypted_seed


def _duplicate(parent: StorageKey, name: bytes, sensitive: bytes, wrapping_key: bytes) -> tuple[bytes, bytes]:
    """_PRIVATE and encrypted seed: `sensitive` for import under `parent`, in both wraps. [TPM 1.23.3]"""
    sized = _size(sensitive)
    integrity = _size(hashlib.sha256(sized + name).digest())
    seed, encrypted_seed = _new_seed(parent, b"DUPLICATE\0")
    return _protect(parent, seed, name, _encrypt(wrapping_key, integrity + sized)), encrypted_seed


def _new_seed(key: StorageKey, label: bytes) -> tuple[bytes, bytes]:
    """A random seed, in the clear and for `key` alone. [TPM 1.B.10]"""
    seed = secrets.token_bytes(key.digest_size)
    algorithm = _HASHES[key.name_algorithm][1]()
    oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, label)
    return seed, _public_key(key).encrypt(seed, oaep)


def _protect(key: StorageKey, seed: bytes, name: bytes, content: bytes) -> bytes:
    """`content` encrypted by what `seed` gives, behind an HMAC that binds it to `name`."""
    encrypted = _encrypt(_kdfa(key.hash_name, seed, b"STORAGE", name, key.symmetric_bits), content)
    integrity_key = _kdfa(key.hash_name, seed, b"INTEGRITY", b"", 8 * key.digest_size)
    return _size(hmac.digest(integrity_key, encrypted + name, key.hash_name)) + encrypted


def _kdfa(hash_name: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """SP 800-108 in counter mode. [TPM 1.11.4]"""
    tail = label + b"\0" + context + struct.pack(">I", bits)
    size, derived, counter = bits // 8, b"", 0
    while len(derived) < size:
        counter += 1
        derived += hmac.digest(key, struct.pack(">I", counter) + tail, hash_name)
    return derived[:size]


def _encrypt(key: bytes, content: bytes) -> bytes:
    """AES in CFB mode from a zero vector; the library has that mode no more where it will stay."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    block, encrypted = bytes(16), bytearray()
    for at in range(0, len(content), 16):
        stream = encryptor.update(block)
        block = bytes(a ^ b for a, b in zip(content[at : at + 16], stream, strict=False))
        encrypted += block
    return bytes(encrypted)


def _size(content: bytes) -> bytes:
    """A TPM2B: the content behind its length."""
    return struct.pack(">H", len(content)) + content
