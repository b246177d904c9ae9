"""The verbs of a provisioning service: let a device register, tell what became of it, and what operators manage.

register: id scope → admission → operations, which bring the device to its hub
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorage.credentials import policy as policies
from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.decision import Decisions, Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import parse_token
from moorage.credentials.tpm import StorageKey
from moorage.errors import Invalid, MoorageError, NotFound, Throttled, TooLarge, Unauthorized
from moorage.interfaces import Clock, Expect, Page, Peer, Store
from moorage.provisioning import enrollment as enrollment_records
from moorage.provisioning import registration as registrations
from moorage.provisioning.admission import Admission, Admitted
from moorage.provisioning.allocation import with_latencies
from moorage.provisioning.attestation.proof import ID_SCOPE, Claim, Proof, SasProof, X509Proof
from moorage.provisioning.attestation.tpm import TpmAttestation, check_possession
from moorage.provisioning.challenge import Challenges, TpmChallenge, TpmKeys
from moorage.provisioning.enrollment import (
    EnrollmentGroup,
    IndividualEnrollment,
    read_enrollment,
    read_group,
)
from moorage.provisioning.enrollments import Enrollments, delete_record
from moorage.provisioning.hub_registry import Hubs
from moorage.provisioning.issuance import CredentialPolicies, Issuance
from moorage.provisioning.operations import Directory, Operations, Outside
from moorage.provisioning.registration import Pending, RegistrationState
from moorage.provisioning.service import (
    LINKED_HUB_KIND,
    MAX_LINKED_HUBS,
    SERVICE_KIND,
    AllocationPolicy,
    ApiVersion,
    LinkedHub,
    ProvisioningService,
)
from moorage.provisioning.terms import Allocation
from moorage.provisioning.throttle import NO_LIMITS, RateLimits, Throttle
from moorage.provisioning.transfer import Transfer
from moorage.provisioning.verdicts import Verdicts

__all__ = ["Proof", "Provisioner", "RegistrationRequest", "SasProof", "X509Proof"]

log = logging.getLogger("moorage.provisioning")

MAX_POLICIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRequest:
    """A device asks for its hub. `payload` is for a custom allocation webhook; nothing else reads it.

    `csr` is a signing request in DER, of a device that asks for a certificate too.
    """

    id_scope: str
    registration_id: str
    api_version: ApiVersion
    payload: Any = None
    tpm: TpmKeys | None = None
    csr: bytes | None = None
    tracking_id: str = ""
    door: str = ""
    address: str = ""


class Provisioner:
    """One provisioning service. What a verb returns is durable."""

    def __init__(
        self,
        service: ProvisioningService,
        *,
        store: Store,
        clock: Clock,
        hubs: Hubs,
        decisions: Decisions,
        outside: Outside | None = None,
        latencies: Mapping[int, float] | None = None,
        limits: RateLimits = NO_LIMITS,
    ) -> None:
        """`latencies` are milliseconds to linked hubs, by id, as they are measured meanwhile."""
        self.service = service
        self.clock = clock
        self._latencies = {} if latencies is None else latencies
        self._outside = outside or Outside()
        self._verdicts = Verdicts(decisions, clock)
        self.counts = self._verdicts.counts
        self._throttle = Throttle(limits, clock)
        scope = service.scope
        self._services = store.records(SERVICE_KIND, 0)
        self._linked = store.records(LINKED_HUB_KIND, scope)
        self._policies = store.records(policies.KIND, scope)
        self._admission = Admission(store, scope)
        self.ca_certificates = CaCertificates(store, scope, clock)
        self._challenges = Challenges(secrets.token_bytes(32))
        self.credential_policies = CredentialPolicies(store, scope, clock)
        self.enrollments: Enrollments[IndividualEnrollment] = Enrollments(
            enrollment_records.KIND,
            read_enrollment,
            self.linked_hubs,
            self._check_allocation,
            self.ca_certificates,
            self.credential_policies,
            noun="enrollment",
            id_member="registrationId",
            list_member="enrollments",
            scope=scope,
            store=store,
            clock=clock,
        )
        self.transfer = Transfer(self.enrollments, store)
        self.groups: Enrollments[EnrollmentGroup] = Enrollments(
            enrollment_records.GROUP_KIND,
            read_group,
            self.linked_hubs,
            self._check_allocation,
            self.ca_certificates,
            self.credential_policies,
            noun="enrollment group",
            id_member="enrollmentGroupId",
            list_member="enrollmentGroups",
            scope=scope,
            store=store,
            clock=clock,
        )
        self._registrations = store.records(registrations.KIND, scope)
        self._operations = Operations(
            scope,
            Directory(self.linked_hubs, self._default_policy),
            store=store,
            clock=clock,
            hubs=hubs,
            verdicts=self._verdicts,
            issuance=Issuance(
                store, scope, clock, name=f"Moorage {service.id_scope}", policies=self.credential_policies
            ),
            outside=self._outside,
        )

    # Devices

    async def register(self, request: RegistrationRequest, proof: Proof | None) -> RegistrationState:
        """Attest and assign; the state returned has ended as assigned, failed or disabled [dps 6.6].

        Or it is assigning, where somebody has to be asked and takes his time: polls tell what comes of it.
        Raises Unauthorized when the proof does not hold, which leaves a decision alone, Invalid, Throttled and
        Unavailable; TpmChallenge, an Unauthorized that leaves none while nothing was refused, when a TPM has to
        prove itself.
        """
        finding = self._asked("register", request, proof)
        try:
            admitted = await self._admit(self._claim_of(request, proof), finding)
            self._throttle.registration()
            return await self._operations.begin(admitted, _pending(request, proof, admitted), finding)
        except MoorageError as error:
            self._refused(finding, error)
            raise

    def challenge(self, id_scope: str, registration_id: str, keys: TpmKeys) -> bytes:
        """The activation blob for a TPM that shows its keys before it says what it wants, as over AMQP [dps 12.3].

        Whether it is enrolled is told to its register request, where clients look for that. Raises Invalid.
        """
        claim = self._claim(id_scope, registration_id, None)
        return claim.challenge.blob(keys.endorsement_key, _storage_root_key(keys))

    def check_answer(
        self,
        id_scope: str,
        registration_id: str,
        keys: TpmKeys,
        proof: SasProof,
        tracking_id: str,
        peer: Peer,
    ) -> None:
        """Whether the TPM that has `keys` signed `proof`. Raises Unauthorized, Invalid, which leave a decision."""
        finding = Finding.from_peer(peer, tracking_id, "connect", registration_id, scope=self.service.scope)
        _present(finding, proof)
        finding.present_tpm(keys.endorsement_key, keys.storage_root_key)
        claim = self._claim(id_scope, registration_id, proof, door=peer.door)
        try:
            check_possession(claim, keys.endorsement_key, _storage_root_key(keys), finding)
        except MoorageError as error:
            self._verdicts.not_attested(finding)
            self._refused(finding, error)
            raise
        self._verdicts.attested(finding, TpmAttestation.type)

    async def look_up(self, request: RegistrationRequest, proof: Proof | None) -> RegistrationState:
        """What is known of the device that asks. Raises NotFound when it has never registered, Unauthorized."""
        finding = self._asked("look up", request, proof)
        try:
            admitted = await self._admit(self._claim_of(request, proof), finding)
            return await self.registration(admitted.registration_id)
        except MoorageError as error:
            self._refused(finding, error)
            raise

    async def poll(
        self, request: RegistrationRequest, proof: Proof | None, operation_id: str
    ) -> RegistrationState:
        """What has become of an operation, told to the device alone: over MQTT anybody may connect in its name.

        Raises NotFound, Unauthorized, Throttled; each leaves a decision.
        """
        finding = self._asked("poll", request, proof)
        try:
            await self._admit(self._claim_of(request, proof), finding)
            return await self.operation(request.id_scope, request.registration_id, operation_id)
        except MoorageError as error:
            self._refused(finding, error)
            raise

    async def operation(self, id_scope: str, registration_id: str, operation_id: str) -> RegistrationState:
        """The outcome of one of the device's latest operations. Raises NotFound, Unauthorized, Throttled."""
        self._check_scope(id_scope)
        state = await self._registrations.get(registration_id.lower())
        if state is None or operation_id not in state.operations:
            raise NotFound("operation", operation_id)
        self._throttle.poll(state.registration_id)
        state = await self._operations.latest(state)
        # All its operations have the latest outcome; the answer names the one asked for.
        return replace(state, operations=(*state.operations, operation_id))

    async def resume(self) -> int:
        """Go on with the registrations that were under way when the server ended; how many they are."""
        return await self._operations.resume()

    def note_refusal(
        self, operation: str, subject: str, error: MoorageError, tracking_id: str, peer: Peer
    ) -> None:
        """Note that a device's "connect", "register" or "poll" was turned away before its proof was judged."""
        finding = Finding.from_peer(peer, tracking_id, operation, subject, scope=self.service.scope)
        self._refused(finding, error)

    def _asked(self, operation: str, request: RegistrationRequest, proof: Proof | None) -> Finding:
        finding = self._finding(operation, request.registration_id, request.tracking_id)
        finding.door, finding.address = request.door, request.address
        _present(finding, proof)
        if request.tpm is not None:
            finding.present_tpm(request.tpm.endorsement_key, request.tpm.storage_root_key)
        return finding

    async def _admit(self, claim: Claim, finding: Finding) -> Admitted:
        """Raises Unauthorized."""
        self._check_scope(claim.id_scope)
        finding.hold(ID_SCOPE)
        try:
            admitted = await self._admission.admit(claim, finding)
        except (Unauthorized, NotFound) as error:
            if not _only_asks(error):
                self._verdicts.not_attested(finding)
            raise
        self._verdicts.attested(finding, admitted.enrollment.attestation.type)
        return admitted

    def _claim_of(self, request: RegistrationRequest, proof: Proof | None) -> Claim:
        return self._claim(
            request.id_scope, request.registration_id, proof, tpm=request.tpm, door=request.door
        )

    def _claim(
        self,
        id_scope: str,
        registration_id: str,
        proof: Proof | None,
        *,
        tpm: TpmKeys | None = None,
        door: str = "",
    ) -> Claim:
        now = self.clock.now()
        challenge = self._challenges.to(id_scope, registration_id, now)
        return Claim(id_scope, registration_id, proof, now, challenge, tpm, door)

    def _check_scope(self, id_scope: str) -> None:
        if not self.service.answers_to(id_scope):
            raise Unauthorized(
                f"no provisioning service has the id scope {id_scope[:64]!r}",
                check=ID_SCOPE,
                remedy=f"Use the id scope {self.service.id_scope}.",
            )

    async def _default_policy(self) -> AllocationPolicy:
        """As it is now, for it is the operator's to change."""
        return (await self._services.get(str(self.service.scope)) or self.service).allocation_policy

    def _check_allocation(self, allocation: Allocation) -> None:
        """Raises Invalid when it names somebody who can never be asked."""
        if allocation.custom is None:
            return
        allocator = self._outside.allocators.get(allocation.custom.scheme)
        if allocator is None:
            raise Invalid(
                "customAllocationDefinition.webhookUrl", f"{allocation.custom.scheme}: asks nobody here"
            )
        allocator.check(allocation.custom.webhook_url)

    # Registration records

    async def registration(self, registration_id: str) -> RegistrationState:
        """Raises NotFound."""
        state = await self._registrations.get(registration_id.lower())
        if state is None:
            raise NotFound("registration", registration_id)
        return state

    async def query_registrations(
        self, enrollment_group_id: str, *, after: str | None = None, limit: int
    ) -> Page[RegistrationState]:
        """Of the devices that came through that group. Raises NotFound for a group that never was.

        A group that is gone still shows those it had: records outlive it [dps trap 39].
        """
        where = ("enrollment_group", enrollment_group_id.lower())
        page = await self._registrations.page(after=after, limit=limit, where=where)
        if not page.records and after is None:
            await self.groups.get(enrollment_group_id)
        return page

    async def delete_registration(self, registration_id: str, *, if_match: str | None = None) -> None:
        """The next registration counts as the first [dps 14.3]. Raises NotFound, PreconditionFailed."""
        await delete_record(self._registrations, "registration", registration_id, if_match)
        log.info("registration deleted", extra={"registration_id": registration_id})

    # The service itself

    async def linked_hubs(self) -> Sequence[LinkedHub]:
        """As devices are assigned to them: with latencies that nobody has said, but that were measured."""
        return with_latencies((await self._linked.page(limit=MAX_LINKED_HUBS)).records, self._latencies)

    async def link_hub(self, hub: LinkedHub) -> LinkedHub:
        """Link it, or change how it is linked. Raises Invalid, TooLarge."""
        others = [other for other in await self.linked_hubs() if other.hub != hub.hub]
        if len(others) >= MAX_LINKED_HUBS:
            raise TooLarge("iotHubs", f"a service has at most {MAX_LINKED_HUBS} linked hubs")
        if any(other.host_name.lower() == hub.host_name.lower() for other in others):
            raise Invalid("hostName", f"{hub.host_name} is the name of another linked hub")
        return await self._linked.put(hub, expect=Expect.ANY)

    async def unlink_hub(self, hub: int) -> None:
        """Devices assigned to it stay in it until they register again. Raises NotFound."""
        if await self._linked.get(str(hub)) is None:
            raise NotFound("linked hub", str(hub))
        await self._linked.delete(str(hub), expect=Expect.ANY)

    async def authorize(
        self, token: str | None, *, resource: str | Sequence[str], right: str, finding: Finding
    ) -> SharedAccessPolicy:
        """The policy whose key signed a caller's token, when it has `right`. A refusal leaves a decision.

        Raises Unauthorized, and Throttled.
        """
        found = (await self._policies.page(limit=MAX_POLICIES)).records
        now = self.clock.now()
        try:
            policy = policies.authorize(
                token, resource=resource, right=right, policies=found, now=now, finding=finding
            )
            self._throttle.service_operation()
            return policy
        except (Unauthorized, Throttled) as error:
            self._refused(finding, error)
            raise

    def _finding(self, operation: str, subject: str, tracking_id: str) -> Finding:
        return Finding(operation, subject, scope=self.service.scope, tracking_id=tracking_id)

    def _refused(self, finding: Finding, error: MoorageError) -> None:
        if not _only_asks(error):
            self._verdicts.refused(finding, error)


def _only_asks(error: MoorageError) -> bool:
    """A challenge to a TPM that has shown no proof yet is a question, not a refusal."""
    return isinstance(error, TpmChallenge) and error.refused is None


def _pending(request: RegistrationRequest, proof: Proof | None, admitted: Admitted) -> Pending:
    """What goes with the operation where it has to go on by itself."""
    return Pending(
        api_version=request.api_version,
        attested=admitted.attested,
        certificate=proof.chain[0] if isinstance(proof, X509Proof) and proof.chain else None,
        payload=request.payload,
        csr=request.csr,
        tracking_id=request.tracking_id,
        door=request.door,
        address=request.address,
    )


def _present(finding: Finding, proof: Proof | None) -> None:
    if isinstance(proof, X509Proof):
        finding.present_chain(proof.chain)
    elif isinstance(proof, SasProof):
        try:
            finding.present_token(parse_token(proof.token))
        except Unauthorized as error:
            finding.fail("token form", str(error))


def _storage_root_key(keys: TpmKeys) -> StorageKey:
    if keys.storage_root_key is None:
        raise Invalid("storageRootKey", "is needed beside the endorsement key")
    return keys.storage_root_key
