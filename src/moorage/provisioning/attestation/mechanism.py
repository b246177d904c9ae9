"""The table of attestation mechanisms, and the way from JSON and from a stored document to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from moorage.errors import Invalid, NotSupported
from moorage.provisioning.attestation.issuer import GROUP, INDIVIDUAL, CaReferences, SigningCertificates
from moorage.provisioning.attestation.symmetric_key import SymmetricKeyAttestation
from moorage.provisioning.attestation.tpm import TpmAttestation
from moorage.provisioning.attestation.x509 import X509Attestation
from moorage.provisioning.reading import Document, optional_object, required_object, text

Attestation = X509Attestation | SigningCertificates | CaReferences | SymmetricKeyAttestation | TpmAttestation


class Mechanism(Protocol):
    """What `type` names: a class of attestations, or several that share the name."""

    @property
    def type(self) -> str: ...

    def read(self, document: Document, stored: object) -> Attestation: ...

    def from_document(self, document: Mapping[str, Any]) -> Attestation: ...


MECHANISMS: Mapping[str, Mechanism] = {
    kind.type.lower(): kind for kind in (INDIVIDUAL, SymmetricKeyAttestation, TpmAttestation)
}
GROUP_MECHANISMS: Mapping[str, Mechanism] = {
    kind.type.lower(): kind for kind in (GROUP, SymmetricKeyAttestation)
}
_NOT_YET = {"none": "enrollment without attestation"}
_NOT_YET_GROUP: Mapping[str, str] = {}
_WITHOUT_DATA = {SymmetricKeyAttestation.type.lower()}  # the keys are made then


def read_attestation(document: Document, stored: Attestation | None) -> Attestation:
    """From the `attestation` member of an individual enrollment [dps 16.2]. Raises Invalid, NotSupported."""
    return _read(document, stored, MECHANISMS, _NOT_YET)


def read_group_attestation(document: Document, stored: Attestation | None) -> Attestation:
    """From that of an enrollment group. Raises Invalid, NotSupported."""
    if (text(document, "type", "attestation.") or "").lower() == "tpm":
        raise Invalid(
            "attestation.type", "'tpm' is for individual enrollments: each TPM has a key of its own"
        )
    return _read(document, stored, GROUP_MECHANISMS, _NOT_YET_GROUP)


def _read(
    document: Document,
    stored: Attestation | None,
    known: Mapping[str, Mechanism],
    not_yet: Mapping[str, str],
) -> Attestation:
    types = ", ".join(mechanism.type for mechanism in known.values())
    named = text(document, "type", "attestation.")
    if named is None:
        raise Invalid("attestation.type", f"is required: {types}")
    if named.lower() in not_yet:
        raise NotSupported(not_yet[named.lower()], f"use one of {types}")
    mechanism = known.get(named.lower())
    if mechanism is None:
        raise Invalid("attestation.type", f"{named!r} is not an attestation type: {types}")
    if named.lower() in _WITHOUT_DATA:
        return mechanism.read(optional_object(document, mechanism.type, "attestation.") or {}, stored)
    return mechanism.read(required_object(document, mechanism.type, "attestation."), stored)


def attestation_from(document: Mapping[str, Any]) -> Attestation:
    """From the stored document."""
    return MECHANISMS[document["type"].lower()].from_document(document)
