"""Symmetric keys: an individual enrollment's device signs with the keys themselves, a group's with derived ones.

The bare key of a group lets nobody in: a device that holds it could speak for all others [dps 10].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage.credentials.decision import Finding
from moorage.credentials.sas import (
    SasToken,
    check_key,
    derive_key,
    new_key,
    parse_token,
    signed_by,
)
from moorage.errors import Unauthorized
from moorage.hub.authentication import Authentication
from moorage.provisioning.attestation.proof import Attested, Claim, SasProof
from moorage.provisioning.attestation.token import TOKEN, check_token
from moorage.provisioning.reading import Document, text

PRIMARY, SECONDARY = "primary key", "secondary key"


@dataclass(frozen=True, slots=True)
class SymmetricKeyAttestation:
    """Two keys, base64 of 16 to 64 bytes, either of which is good."""

    primary_key: str = field(repr=False)
    secondary_key: str = field(repr=False)

    type = "symmetricKey"

    @classmethod
    def read(cls, document: Document, stored: object) -> SymmetricKeyAttestation:
        """From the `symmetricKey` member. Keys left out are those of `stored`, else new ones [dps 10, 16.2]."""
        where = "attestation.symmetricKey."
        given = text(document, "primaryKey", where), text(document, "secondaryKey", where)
        kept = (stored.primary_key, stored.secondary_key) if isinstance(stored, cls) else (None, None)
        primary, secondary = (key or known or new_key() for key, known in zip(given, kept, strict=True))
        check_key(f"{where}primaryKey", primary)
        check_key(f"{where}secondaryKey", secondary)
        return cls(primary, secondary)

    def to_json(self, *, secrets: bool) -> dict[str, Any]:
        """The whole mechanism. The keys are told to who wrote them or asks for them by name [dps 16.2]."""
        keys = {
            "primaryKey": self.primary_key if secrets else None,
            "secondaryKey": self.secondary_key if secrets else None,
        }
        return {"type": self.type, "tpm": None, "x509": None, "symmetricKey": keys}

    def to_document(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "primaryKey": self.primary_key,
            "secondaryKey": self.secondary_key,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SymmetricKeyAttestation:
        return cls(document["primaryKey"], document["secondaryKey"])

    def derived(self, registration_id: str) -> SymmetricKeyAttestation:
        """The keys of one device of a group [dps 10]. The spelling of the id counts [dps trap 42]."""
        return SymmetricKeyAttestation(
            derive_key(self.primary_key, registration_id), derive_key(self.secondary_key, registration_id)
        )

    def signed(self, token: SasToken) -> bool:
        """Whether one of the two keys made the token, whatever it is for."""
        return signed_by(token, (self.primary_key, self.secondary_key))

    def attest(self, claim: Claim, finding: Finding) -> Attested:
        """Judge the claim by the keys as they stand. Raises Unauthorized; what held goes into `finding`."""
        if not isinstance(claim.proof, SasProof):
            raise Unauthorized(
                f"the enrollment asks for a SAS token, and the device presented {claim.brought}",
                check=TOKEN,
                remedy="Connect with a SAS token made with a key of this enrollment, and without a certificate.",
            )
        token = parse_token(claim.proof.token)
        finding.hold(TOKEN)
        check_token(token, (self.primary_key, self.secondary_key), claim, finding)
        by = PRIMARY if signed_by(token, (self.primary_key,)) else SECONDARY
        return Attested(by, Authentication.symmetric(self.primary_key, self.secondary_key))
