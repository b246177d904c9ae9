"""Who may register: the enrollment that decides over a device, and whether the device's proof satisfies it.

An individual enrollment alone decides where there is one, whatever its state or mechanism: that is how a
single device is shut out of a group. Groups come after it [dps 6.6].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moorage.credentials.decision import Finding
from moorage.credentials.etag import new_etag
from moorage.credentials.sas import parse_token
from moorage.credentials.x509 import thumbprints
from moorage.errors import Conflict, NotFound, PreconditionFailed, Unauthorized, Unavailable
from moorage.interfaces import Records, Store
from moorage.provisioning import enrollment as enrollments
from moorage.provisioning.attestation.issuer import CaReferences, SigningCertificates
from moorage.provisioning.attestation.proof import ENROLLED, Attested, Claim, SasProof, X509Proof
from moorage.provisioning.attestation.symmetric_key import SymmetricKeyAttestation
from moorage.provisioning.attestation.tpm import TpmAttestation
from moorage.provisioning.challenge import TpmKeys
from moorage.provisioning.enrollment import (
    Enrollment,
    EnrollmentGroup,
    IndividualEnrollment,
    check_registration_id,
)
from moorage.provisioning.issuers import Issuers, NoGroup
from moorage.provisioning.registration import RegistrationState


@dataclass(frozen=True, slots=True)
class Admitted:
    """A device that has proven itself, and the enrollment by whose terms it is served."""

    enrollment: Enrollment
    registration_id: str
    attested: Attested

    @property
    def device_id(self) -> str:
        """Its name in the hub: a group's device is called there as it calls itself [dps 4]."""
        if isinstance(self.enrollment, IndividualEnrollment):
            return self.enrollment.hub_device_id
        return self.registration_id

    def known_as(self, previous: RegistrationState | None) -> Admitted:
        """A group's device keeps the spelling it first came in, lest another one make a second device of it."""
        if previous is None or not isinstance(self.enrollment, EnrollmentGroup):
            return self
        return replace(self, registration_id=previous.registration_id)

    @property
    def enrollment_group_id(self) -> str | None:
        group = self.enrollment
        return group.enrollment_group_id if isinstance(group, EnrollmentGroup) else None


class Admission:
    """The judgement of claims over the enrollments of one service."""

    def __init__(self, store: Store, scope: int) -> None:
        self._individual: Records[IndividualEnrollment] = store.records(enrollments.KIND, scope)
        self._issuers = Issuers(store, scope)
        self._groups: Records[EnrollmentGroup] = store.records(enrollments.GROUP_KIND, scope)

    async def admit(self, claim: Claim, finding: Finding) -> Admitted:
        """Raises Unauthorized, with the checks made in `finding`; NotFound for a TPM that nobody has enrolled."""
        enrollment = await self._individual.get(claim.registration_id.lower())
        if enrollment is not None:
            finding.known = True
            finding.subject = enrollment.registration_id
            finding.consider(str(enrollment))
            finding.hold(ENROLLED)
            attested = await self._attest(enrollment, claim, finding)
            enrollment = await self._pinned(enrollment, attested)
            return Admitted(enrollment, enrollment.registration_id, attested)
        if claim.tpm is not None:  # a TPM comes under no group
            remedy = await self._remedy_unknown_tpm(claim.tpm)
            raise NotFound("enrollment", claim.registration_id[:128], remedy=remedy)
        admitted = await self._by_group(claim, finding)
        if admitted is None:
            raise Unauthorized(
                f"there is no enrollment for the registration id {claim.registration_id[:128]!r}",
                check=ENROLLED,
                remedy="Create an individual enrollment with this registration id and the device's proof, or an "
                "enrollment group that it comes under.",
            )
        return admitted

    async def _attest(self, enrollment: IndividualEnrollment, claim: Claim, finding: Finding) -> Attested:
        match enrollment.attestation:
            case CaReferences() as references:
                return await self._issuers.attest(references, claim, finding)
            case SigningCertificates():
                raise LookupError("signing certificates are read for groups alone")
            case attestation:
                return attestation.attest(claim, finding)

    async def _pinned(self, enrollment: IndividualEnrollment, attested: Attested) -> IndividualEnrollment:
        """The enrollment, with the storage root key that its TPM has proven for the first time [dps 12.1]."""
        attestation = enrollment.attestation
        if not isinstance(attestation, TpmAttestation) or attestation.storage_root_key is not None:
            return enrollment
        proven = replace(attestation, storage_root_key=attested.storage_root_key)
        try:
            pinned = replace(enrollment, attestation=proven, etag=new_etag())
            return await self._individual.put(pinned, expect=enrollment.etag)
        except (Conflict, NotFound, PreconditionFailed):
            # Another request of the same device may have been faster; that does no harm.
            changed = await self._individual.get(enrollment.registration_id.lower())
            if changed is None or changed.attestation != proven:
                raise Unavailable("the enrollment was changed in the meantime; try again") from None
            return changed

    async def _by_group(self, claim: Claim, finding: Finding) -> Admitted | None:
        """None where no group is meant by the proof. Raises Unauthorized where one is, and refuses."""
        if isinstance(claim.proof, SasProof):
            return await self._by_key_group(claim, claim.proof, finding)
        if isinstance(claim.proof, X509Proof) and claim.proof.chain:
            return await self._by_issuer(claim, finding)
        return None

    async def _by_issuer(self, claim: Claim, finding: Finding) -> Admitted:
        try:
            group, attested = await self._issuers.group_of(claim, finding)
        except NoGroup as error:
            error.remedy = await self._remedy_enrolled(claim) or error.remedy
            raise
        check_registration_id(claim.registration_id)
        return Admitted(group, claim.registration_id, attested)

    async def _by_key_group(self, claim: Claim, proof: SasProof, finding: Finding) -> Admitted | None:
        """A token does not say whose it is: the first group whose derived keys made it has it [dps 10]."""
        groups = await self._groups.find("mechanism", SymmetricKeyAttestation.type)
        if not groups:
            return None
        token = parse_token(proof.token)
        for group in groups:
            finding.consider(str(group))
            if not isinstance(group.attestation, SymmetricKeyAttestation):
                continue
            # As the device spells its id; else in lower case, as older clients derive [dps trap 42].
            for spelling in dict.fromkeys((claim.registration_id, claim.registration_id.lower())):
                keys = group.attestation.derived(spelling)
                if keys.signed(token):
                    finding.known = True
                    finding.hold(ENROLLED)
                    check_registration_id(claim.registration_id)
                    return Admitted(group, claim.registration_id, keys.attest(claim, finding))
        raise Unauthorized(
            "the SAS token was made by no enrollment group's derived key, and there is no individual enrollment "
            f"for the registration id {claim.registration_id[:128]!r}",
            check="signature",
            remedy="Derive the device's key from the group's key and the registration id as the device sends it: "
            "moorage dps compute-device-key. The group's own key lets no device in.",
        )

    async def _remedy_unknown_tpm(self, keys: TpmKeys) -> str:
        name = keys.endorsement_key.name_text
        found = await self._individual.find("endorsement_key", name)
        if found:
            return (
                f"This endorsement key is enrolled as {found[0].registration_id!r}: register under that id."
            )
        return f"Create an individual enrollment of type tpm with the endorsement key of the name {name}."

    async def _remedy_enrolled(self, claim: Claim) -> str:
        """Under which other id the certificate is enrolled; empty when it is not."""
        if isinstance(claim.proof, X509Proof) and claim.proof.chain:
            found = await self._individual.find("thumbprint", thumbprints(claim.proof.chain[0]).sha256)
            if found:
                return (
                    f"This certificate is enrolled as {found[0].registration_id!r}: register under that id."
                )
        return ""
