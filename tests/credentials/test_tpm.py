"""TPM keys are read with care, and an activation blob opens in the one TPM it was made for."""

from __future__ import annotations

import base64
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.tpm import (
    MAX_HMAC_KEY,
    StorageKey,
    activation_blob,
    blob_structures,
    default_registration_id,
    new_hmac_key,
    read_storage_key,
)
from moorage.errors import Invalid
from tests.support.software_tpm import SHA384, SRK_ATTRIBUTES, Refused, SoftwareTpm, private_key, public_area

TPM = SoftwareTpm()
EK = StorageKey.read("ek", TPM.endorsement_key)
SRK = StorageKey.read("srk", TPM.storage_root_key)
BLOB = activation_blob(EK, SRK, bytes(16))


def blob_for(tpm: SoftwareTpm, key: bytes) -> bytes:
    return activation_blob(
        StorageKey.read("ek", tpm.endorsement_key), StorageKey.read("srk", tpm.storage_root_key), key
    )


@given(key=st.binary(min_size=16, max_size=MAX_HMAC_KEY))
def test_the_tpm_that_has_both_keys_gets_the_hmac_key(key: bytes) -> None:
    TPM.activate(activation_blob(EK, SRK, key))
    assert TPM.key == key


@pytest.mark.parametrize(("bits", "algorithm"), [(3072, SHA384), (4096, 0x000B)])
def test_larger_keys_and_other_name_algorithms_open_it_too(bits: int, algorithm: int) -> None:
    tpm, key = SoftwareTpm(bits=bits, name_algorithm=algorithm), new_hmac_key()
    tpm.activate(blob_for(tpm, key))
    assert tpm.key == key


def test_a_tpm_that_lacks_either_key_gets_nothing() -> None:
    other = SoftwareTpm(index=1)
    for made_for in (
        (StorageKey.read("ek", other.endorsement_key), SRK),
        (EK, StorageKey.read("srk", other.storage_root_key)),
    ):
        with pytest.raises(Refused):
            TPM.activate(activation_blob(*made_for, new_hmac_key()))


def test_no_two_blobs_for_one_key_share_a_part_but_the_empty_ones() -> None:
    key = new_hmac_key()
    first, second = _parts(activation_blob(EK, SRK, key)), _parts(activation_blob(EK, SRK, key))
    assert len(first) == 6
    assert first[5] == b""
    assert all(one != other for one, other in zip(first[:5], second[:5], strict=True))


def test_a_blob_comes_apart_into_what_a_tpm_takes() -> None:
    blob = activation_blob(EK, SRK, new_hmac_key())
    parts = blob_structures(blob)
    assert b"".join(parts) == blob
    assert [len(part) - 2 for part in parts] == [int.from_bytes(part[:2], "big") for part in parts]


@given(cut=st.integers(0, 700), padding=st.binary(max_size=3))
def test_a_blob_cut_short_or_with_more_behind_it_is_none(cut: int, padding: bytes) -> None:
    changed = BLOB[:cut] + padding
    if changed != BLOB:
        with pytest.raises(Invalid, match="six structures"):
            blob_structures(changed)


def test_a_blob_for_the_usual_keys_fits_the_frames_of_sasl_in_two_halves() -> None:
    # The C client takes 470 bytes at a time, Java's exactly two of them [dps 12.3].
    assert len(activation_blob(EK, SRK, bytes(MAX_HMAC_KEY))) <= 2 * 470


@pytest.mark.parametrize("size", [0, 15, MAX_HMAC_KEY + 1])
def test_a_key_that_would_be_weak_or_hashed_is_not_wrapped(size: int) -> None:
    with pytest.raises(ValueError, match="HMAC key"):
        activation_blob(EK, SRK, bytes(size))


def test_a_name_is_the_algorithm_and_the_hash_of_the_public_area() -> None:
    assert SRK.name == b"\x00\x0b" + hashlib.sha256(TPM.storage_root_key[2:]).digest()
    assert SRK.name_text == SRK.name.hex()


def test_a_device_without_a_registration_id_is_named_by_its_endorsement_key() -> None:
    named = default_registration_id(EK)
    digest = base64.b32decode(named.upper() + "=" * (-len(named) % 8))
    assert digest == hashlib.sha256(TPM.endorsement_key).digest()
    assert named == named.lower()


# --- What is read ----------------------------------------------------------------------------------------


def test_base64_with_line_breaks_is_read() -> None:
    assert read_storage_key("ek", base64.encodebytes(TPM.endorsement_key).decode()) == EK


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", "A" * 5000, "ÄÖÜ="])
def test_text_that_is_no_key_is_invalid(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_storage_key("attestation.tpm.endorsementKey", text)
    assert refused.value.field == "attestation.tpm.endorsementKey"


@given(garbage=st.binary(max_size=700))
def test_garbage_is_invalid_and_nothing_worse(garbage: bytes) -> None:
    for content in (garbage, struct.pack(">H", len(garbage)) + garbage):
        with pytest.raises(Invalid):
            StorageKey.read("ek", content)


@given(cut=st.integers(0, len(TPM.endorsement_key) - 1), padding=st.binary(min_size=1, max_size=4))
def test_a_key_cut_short_or_with_more_behind_it_is_invalid(cut: int, padding: bytes) -> None:
    for content in (TPM.endorsement_key[:cut], TPM.endorsement_key + padding):
        for resized in (content, struct.pack(">H", max(0, len(content) - 2)) + content[2:]):
            with pytest.raises(Invalid):
                StorageKey.read("ek", resized)


@given(at=st.integers(0, len(TPM.endorsement_key) - 1), value=st.integers(0, 255))
def test_one_wrong_byte_makes_another_key_or_none(at: int, value: int) -> None:
    content = bytearray(TPM.endorsement_key)
    content[at] = value
    try:
        key = StorageKey.read("ek", bytes(content))
    except Invalid:
        return
    activation_blob(key, SRK, new_hmac_key())
    assert (key.name == EK.name) == (bytes(content) == TPM.endorsement_key)


KEY = private_key(0).public_key()


@pytest.mark.parametrize(
    ("area", "why"),
    [
        (public_area(KEY, kind=0x0023), "elliptic curve"),
        (public_area(KEY, kind=0x0008), "no RSA key"),
        (public_area(KEY, name_algorithm=0x0004), "SHA-256, 384, 512"),
        (public_area(KEY, SRK_ATTRIBUTES & ~(1 << 1)), "lacks fixedTPM"),
        (public_area(KEY, SRK_ATTRIBUTES & ~(1 << 17)), "lacks decrypt"),
        (public_area(KEY, SRK_ATTRIBUTES | 1 << 18), "may sign"),
        (public_area(KEY, symmetric=b"\x00\x10"), "else than AES"),
        (public_area(KEY, symmetric=b"\x00\x06\x00\x80\x00\x42"), "else than AES in CFB"),
        (public_area(private_key(0, 1024).public_key()), "2048, 3072, 4096 bits"),
    ],
)
def test_what_is_no_storage_key_of_one_tpm_is_refused_with_the_reason(area: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        StorageKey.read("endorsementKey", area)


def _parts(blob: bytes) -> list[bytes]:
    parts = []
    while blob:
        size = int.from_bytes(blob[:2], "big")
        parts.append(blob[2 : 2 + size])
        blob = blob[2 + size :]
    return parts
