"""What a device presents, and what an attestation makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moorage.credentials.tpm import StorageKey
from moorage.hub.authentication import Authentication
from moorage.provisioning.challenge import Challenge, TpmKeys

ID_SCOPE = "id scope"
ENROLLED = "enrollment exists"
PRESENTED = "certificate presented"
MATCHES = "certificate enrolled"
COMMON_NAME = "certificate common name"
VALIDITY = "certificate validity"
CHAIN = "certificate chain"
CA_VERIFIED = "CA certificate verified"
CERTIFICATE_CHECKS = frozenset(
    {ID_SCOPE, ENROLLED, PRESENTED, MATCHES, COMMON_NAME, VALIDITY, CHAIN, CA_VERIFIED}
)
"""Checks whose failure is told as 401002; all others, those of tokens, as 401000 [dps 17.2]."""


@dataclass(frozen=True, slots=True)
class X509Proof:
    """What TLS brought: DER, leaf first. The handshake has proven possession of the leaf's key."""

    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SasProof:
    """A device's SAS token, as text."""

    token: str


Proof = X509Proof | SasProof


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says to be the device `registration_id`, in its own spelling, of the service `id_scope`.

    `now` is when it says so, in microseconds; `door` where. `tpm` are the keys it told beside its proof, and
    `challenge` what it was asked to prove them by, or is to be.
    """

    id_scope: str
    registration_id: str
    proof: Proof | None
    now: int
    challenge: Challenge
    tpm: TpmKeys | None = None
    door: str = ""

    @property
    def resource(self) -> str:
        """What a SAS token has to be for [dps 5.2]."""
        return f"{self.id_scope}/registrations/{self.registration_id}"

    @property
    def brought(self) -> str:
        """The kind of proof, in words."""
        match self.proof:
            case X509Proof(chain) if chain:
                return "a client certificate"
            case SasProof():
                return "a SAS token"
            case _:
                return "nothing" if self.tpm is None else "the keys of a TPM"


@dataclass(frozen=True, slots=True)
class Attested:
    """A proof that holds: by what (an X.509 leaf's SHA-256, a key's name), and how the hub is to know the device.

    Of a TPM, `storage_root_key` is now proven, and `authentication_key` is the activation blob, base64, by which it
    takes the hub's key home.
    """

    by: str
    authentication: Authentication
    authentication_key: str | None = field(default=None, repr=False)
    storage_root_key: StorageKey | None = None

    def to_document(self) -> dict[str, Any]:
        """For an operation that goes on later; the hub's own record of the device holds the same keys."""
        known = self.authentication
        return {
            "by": self.by,
            "authentication": [known.type, *known.keys, *known.thumbprints],
            "authenticationKey": self.authentication_key,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Attested:
        known = Authentication(*document["authentication"])
        return cls(document["by"], known, document.get("authenticationKey"))
