"""TPM: an individual enrollment names a TPM by its endorsement key, and a challenge proves that it is there.

A device that has answered the challenge is given the key by which its hub will know it, in a blob that only the
same TPM opens [dps 12, 15].
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.credentials.decision import Finding
from moorage.credentials.sas import parse_token, signed_by
from moorage.credentials.tpm import StorageKey, activation_blob, new_hmac_key, read_storage_key
from moorage.errors import Invalid, NotSupported, Unauthorized
from moorage.hub.authentication import Authentication
from moorage.provisioning.attestation.proof import Attested, Claim, SasProof
from moorage.provisioning.attestation.token import TOKEN, check_token
from moorage.provisioning.challenge import TpmChallenge
from moorage.provisioning.reading import Document, text

ENDORSEMENT_KEY, STORAGE_ROOT_KEY = "endorsement key", "storage root key"
POSSESSION = "TPM challenge answered"


@dataclass(frozen=True, slots=True)
class TpmAttestation:
    """`storage_root_key` None is not known yet: the device's first registration tells it, and from then on it stays."""

    endorsement_key: StorageKey
    storage_root_key: StorageKey | None = None

    type = "tpm"

    @classmethod
    def read(cls, document: Document, stored: object) -> TpmAttestation:
        """From the `tpm` member. Without a storage root key the next one that comes will do, whatever was before."""
        where = "attestation.tpm."
        endorsement_key = text(document, "endorsementKey", where)
        storage_root_key = text(document, "storageRootKey", where)
        if endorsement_key is None:
            raise Invalid(f"{where}endorsementKey", "is required: base64 of its TPM2B_PUBLIC")
        return cls(
            read_storage_key(f"{where}endorsementKey", endorsement_key),
            read_storage_key(f"{where}storageRootKey", storage_root_key) if storage_root_key else None,
        )

    def to_json(self, *, secrets: bool) -> dict[str, Any]:
        """The whole mechanism. Both keys are public, and told to whoever may read enrollments [dps 16.2]."""
        return {"type": self.type, "tpm": self._keys(), "x509": None, "symmetricKey": None}

    def to_document(self) -> dict[str, Any]:
        return {"type": self.type, **self._keys()}

    def _keys(self) -> dict[str, str | None]:
        root = self.storage_root_key
        return {
            "endorsementKey": _base64(self.endorsement_key.marshalled),
            "storageRootKey": _base64(root.marshalled) if root else None,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TpmAttestation:
        root = document["storageRootKey"]
        return cls(
            read_storage_key("endorsementKey", document["endorsementKey"]),
            read_storage_key("storageRootKey", root) if root else None,
        )

    def attest(self, claim: Claim, finding: Finding) -> Attested:
        """Raises TpmChallenge where the TPM has to prove itself first, Unauthorized where it cannot."""
        if claim.door.startswith("mqtt"):
            raise NotSupported(
                "TPM attestation over MQTT",
                "its challenge has no place there, in Azure neither; register over HTTPS or AMQP",
            )
        self._check_endorsement_key(claim)
        finding.hold(ENDORSEMENT_KEY)
        storage_root_key = self._root_key(claim)
        finding.hold(STORAGE_ROOT_KEY)
        check_possession(claim, self.endorsement_key, storage_root_key, finding)
        key = new_hmac_key()
        return Attested(
            by=f"TPM {self.endorsement_key.name_text}",
            authentication=Authentication.symmetric(_base64(key)),
            authentication_key=_base64(activation_blob(self.endorsement_key, storage_root_key, key)),
            storage_root_key=storage_root_key,
        )

    def _check_endorsement_key(self, claim: Claim) -> None:
        if claim.tpm is None:
            return  # IoT Edge tells its keys with the first request only; the challenge was made for this one
        told, enrolled = claim.tpm.endorsement_key.name_text, self.endorsement_key.name_text
        if told != enrolled:
            raise Unauthorized(
                f"the endorsement key presented has the name {told}, the one enrolled {enrolled}",
                check=ENDORSEMENT_KEY,
                remedy="Enroll the endorsement key of this device's TPM, or register by the TPM that is enrolled.",
            )

    def _root_key(self, claim: Claim) -> StorageKey:
        """The storage root key enrolled; where none is, the one told now, or when the challenge was asked for."""
        told = claim.tpm.storage_root_key if claim.tpm else None
        if self.storage_root_key is None:
            found = told or claim.challenge.storage_root_key
            if found is None:
                raise Unauthorized(
                    f"the enrollment has no storage root key yet, and the device presented {claim.brought} only",
                    check=STORAGE_ROOT_KEY,
                    remedy="Send tpm.endorsementKey and tpm.storageRootKey in the body of the register request.",
                )
            return found
        if told is not None and told.name != self.storage_root_key.name:
            raise Unauthorized(
                f"the storage root key presented has the name {told.name_text}, "
                f"the one enrolled {self.storage_root_key.name_text}",
                check=STORAGE_ROOT_KEY,
                remedy="If the TPM was cleared, put its new storage root key into the enrollment, or leave it out "
                "there and have the next registration tell it.",
            )
        return self.storage_root_key


def check_possession(
    claim: Claim, endorsement_key: StorageKey, storage_root_key: StorageKey, finding: Finding
) -> None:
    """Raises TpmChallenge unless the claim's token answers one to these keys, Unauthorized when it is not good else."""
    challenge = claim.challenge
    if not isinstance(claim.proof, SasProof):
        if claim.door == "https":
            raise TpmChallenge(challenge.blob(endorsement_key, storage_root_key))
        raise Unauthorized(
            f"the enrollment asks for a TPM's answer to a challenge, and the device presented {claim.brought}",
            check=POSSESSION,
            remedy="Connect with the SASL mechanism TPM, or register over HTTPS.",
        )
    token = parse_token(claim.proof.token)
    finding.hold(TOKEN)
    keys = challenge.keys(endorsement_key, storage_root_key)
    if not signed_by(token, keys):
        refused = Unauthorized(
            "the SAS token was not signed with the key of a challenge of the last ten minutes",
            check=POSSESSION,
            remedy="Activate the authentication key of a new challenge in the TPM, and sign with that.",
        )
        if claim.door != "https":
            raise refused
        raise TpmChallenge(challenge.blob(endorsement_key, storage_root_key), refused)
    finding.hold(POSSESSION)
    check_token(token, keys, claim, finding)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
