"""A TPM in a few lines, for tests without swtpm: what a device's TPM does with an activation blob.

Written from the device's side of the specification, with the library's own CFB, so that it does not repeat the
mistakes of `credentials/tpm.py`; tests/system holds both against swtpm.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import struct
from dataclasses import dataclass
from urllib.parse import quote

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from moorage.credentials.tpm import StorageKey, default_registration_id

# fixedTPM, fixedParent, sensitiveDataOrigin, restricted, decrypt, and how each is authorized.
EK_ATTRIBUTES, SRK_ATTRIBUTES = 0x0003_00B2, 0x0003_0472
EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")

SHA256, SHA384 = 0x000B, 0x000C
_HASHES = {SHA256: hashes.SHA256(), SHA384: hashes.SHA384()}


def public_area(
    key: rsa.RSAPublicKey,
    attributes: int = SRK_ATTRIBUTES,
    policy: bytes = b"",
    *,
    kind: int = 0x0001,
    name_algorithm: int = SHA256,
    symmetric: bytes = b"\x00\x06\x00\x80\x00\x43",
) -> bytes:
    """A TPM2B_PUBLIC."""
    numbers = key.public_numbers()
    body = struct.pack(">HHIH", kind, name_algorithm, attributes, len(policy)) + policy + symmetric
    body += struct.pack(">HHIH", 0x0010, key.key_size, 0, key.key_size // 8)
    body += numbers.n.to_bytes(key.key_size // 8, "big")
    return struct.pack(">H", len(body)) + body


@functools.cache
def private_key(index: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few keys, made once a run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


class Refused(Exception):
    """The TPM does not open it."""


@dataclass
class SoftwareTpm:
    """`index` numbers the TPM: another one has other keys. `key` is the HMAC key imported last.

    With `storage_root_of` it has the SRK of the TPM of that number, as if it had been cleared.
    """

    index: int = 0
    bits: int = 2048
    name_algorithm: int = SHA256
    key: bytes | None = None
    storage_root_of: int | None = None

    def __post_init__(self) -> None:
        self._ek = private_key(2 * self.index, self.bits)
        root = self.index if self.storage_root_of is None else self.storage_root_of
        self._srk = private_key(2 * root + 1, self.bits)
        algorithm = self.name_algorithm
        self.endorsement_key = public_area(
            self._ek.public_key(), EK_ATTRIBUTES, EK_POLICY, name_algorithm=algorithm
        )
        self.storage_root_key = public_area(self._srk.public_key(), name_algorithm=algorithm)

    @property
    def keys(self) -> dict[str, str]:
        """The `tpm` member of a register request, or of an enrollment."""
        return {
            "endorsementKey": base64.b64encode(self.endorsement_key).decode(),
            "storageRootKey": base64.b64encode(self.storage_root_key).decode(),
        }

    @property
    def registration_id(self) -> str:
        return default_registration_id(StorageKey.read("endorsementKey", self.endorsement_key))

    def activate(self, blob: bytes) -> None:
        """ActivateCredential, Import and Load. Raises Refused."""
        parts = []
        while blob:
            size = int.from_bytes(blob[:2], "big")
            parts.append(blob[2 : 2 + size])
            blob = blob[2 + size :]
        credential, credential_seed, private, duplicate_seed, public, _ = parts
        srk_name = self._name(self.storage_root_key[2:])
        identity = self._open(self._ek, credential_seed, b"IDENTITY\0", credential, srk_name)
        wrapping_key = _take_sized(identity)[0]
        name = struct.pack(">H", SHA256) + hashlib.sha256(public).digest()
        wrapped = self._open(self._srk, duplicate_seed, b"DUPLICATE\0", private, name)
        integrity, sensitive = _take_sized(_decrypt(wrapping_key, wrapped))
        if integrity != hashlib.sha256(sensitive + name).digest():
            raise Refused("inner integrity")
        self.key = _check_object(public, _take_sized(sensitive)[0])

    def sign(self, content: bytes) -> bytes:
        assert self.key is not None
        return hmac.digest(self.key, content, "sha256")

    def token(self, resource: str, expiry: int) -> str:
        """A SAS token as clients make it: signed over the resource as it stands in the token."""
        written = quote(resource, safe="")
        signature = base64.b64encode(self.sign(f"{written}\n{expiry}".encode())).decode()
        return (
            f"SharedAccessSignature sr={written}&sig={quote(signature, safe='')}&se={expiry}&skn=registration"
        )

    def _name(self, area: bytes) -> bytes:
        digest = hashlib.new(_HASHES[self.name_algorithm].name, area).digest()
        return struct.pack(">H", self.name_algorithm) + digest

    def _open(
        self, key: rsa.RSAPrivateKey, encrypted_seed: bytes, label: bytes, content: bytes, name: bytes
    ) -> bytes:
        algorithm = _HASHES[self.name_algorithm]
        try:
            seed = key.decrypt(encrypted_seed, padding.OAEP(padding.MGF1(algorithm), algorithm, label))
        except ValueError:
            raise Refused("the seed is for another key") from None
        integrity, encrypted = _take_sized(content)
        integrity_key = self._derive(seed, b"INTEGRITY", b"", algorithm.digest_size)
        if integrity != hmac.digest(integrity_key, encrypted + name, algorithm.name):
            raise Refused("outer integrity")
        return _decrypt(self._derive(seed, b"STORAGE", name, 16), encrypted)

    def _derive(self, seed: bytes, label: bytes, context: bytes, size: int) -> bytes:
        return KBKDFHMAC(
            _HASHES[self.name_algorithm],
            Mode.CounterMode,
            size,
            rlen=4,
            llen=4,
            location=CounterLocation.BeforeFixed,
            label=label,
            context=context,
            fixed=None,
        ).derive(seed)


def _check_object(public: bytes, sensitive: bytes) -> bytes:
    """The HMAC key, when public and sensitive area belong together."""
    kind, algorithm, attributes, policy, scheme, scheme_hash = struct.unpack(">HHIHHH", public[:14])
    if (kind, algorithm, policy, scheme, scheme_hash) != (
        8,
        SHA256,
        0,
        5,
        SHA256,
    ) or not attributes >> 18 & 1:
        raise Refused("not a key for HMAC-SHA256")
    if attributes & 0x12:
        raise Refused("an object fixed to another TPM")
    kind, auth = struct.unpack(">HH", sensitive[:4])
    obfuscation, rest = _take_sized(sensitive[4:])
    key, rest = _take_sized(rest)
    if kind != 8 or auth or rest or public[14:] != b"\0\x20" + hashlib.sha256(obfuscation + key).digest():
        raise Refused("public and sensitive area do not belong together")
    return key


def _take_sized(content: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(content[:2], "big")
    return content[2 : 2 + size], content[2 + size :]


def _decrypt(key: bytes, content: bytes) -> bytes:
    return Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor().update(content)
