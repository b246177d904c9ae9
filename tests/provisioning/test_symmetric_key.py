from __future__ import annotations

import base64
from typing import Any

import pytest

from moorage.credentials.sas import derive_key, new_key
from moorage.errors import Invalid
from moorage.provisioning.attestation.mechanism import (
    attestation_from,
    read_attestation,
    read_group_attestation,
)
from moorage.provisioning.attestation.symmetric_key import SymmetricKeyAttestation

PRIMARY, SECONDARY = (base64.b64encode(bytes(range(length))).decode() for length in (32, 64))
BOTH = SymmetricKeyAttestation(PRIMARY, SECONDARY)


def read(
    keys: dict[str, Any] | None, stored: SymmetricKeyAttestation | None = None
) -> SymmetricKeyAttestation:
    made = read_attestation({"type": "symmetricKey", "symmetricKey": keys}, stored)
    assert isinstance(made, SymmetricKeyAttestation)
    return made


def test_keys_that_are_given_are_taken() -> None:
    assert read({"primaryKey": PRIMARY, "secondaryKey": SECONDARY}) == BOTH


@pytest.mark.parametrize("nothing", [None, {}, {"primaryKey": None, "secondaryKey": ""}])
def test_keys_that_are_not_given_are_made(nothing: dict[str, Any] | None) -> None:
    made = read(nothing)
    assert made.primary_key != made.secondary_key
    assert read(nothing) != made


def test_keys_that_are_not_given_again_are_kept() -> None:
    assert read({"primaryKey": None}, stored=BOTH) == BOTH
    assert read(None, stored=BOTH) == BOTH
    other = new_key()
    assert read({"secondaryKey": other}, stored=BOTH) == SymmetricKeyAttestation(PRIMARY, other)


@pytest.mark.parametrize(
    "key",
    ["not base64!", "c2hvcnQ=", "AAAA" * 22, "AAAA" * 5, 7],
    ids=["text", "5 bytes", "66 bytes", "15 bytes", "number"],
)
def test_keys_that_break_the_rules(key: object) -> None:
    with pytest.raises(Invalid, match=r"attestation\.symmetricKey\.primaryKey"):
        read({"primaryKey": key})


def test_what_is_shown_and_what_is_kept() -> None:
    assert BOTH.to_json(secrets=True)["symmetricKey"] == {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}
    assert PRIMARY not in repr(BOTH) + str(BOTH.to_json(secrets=False))
    assert attestation_from(BOTH.to_document()) == BOTH


def test_the_published_derivation() -> None:
    """[dps 5.4]"""
    group = SymmetricKeyAttestation("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", SECONDARY)
    device = group.derived("sample-device-1")
    assert device.primary_key == "HqBf0pEwL8diy4sh5G9XY3YLVYHJwI1QGtiR/6eDYm0="
    assert device.secondary_key == derive_key(SECONDARY, "sample-device-1")


def test_a_group_has_no_tpm() -> None:
    with pytest.raises(Invalid, match="individual enrollments"):
        read_group_attestation({"type": "TPM", "tpm": {}}, None)
