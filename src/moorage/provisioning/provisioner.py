"""The verbs of a provisioning service: let a device register, tell what became of it, and what operators manage.

    register: id scope → admission → allocate → identity, twin and registration record in one commit

Nothing is locked. Whoever loses a race reads again: the other's registration of the same device, by the same
proof, is as good an answer as one of its own [dps trap 43].
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from moorage.credentials import policy as policies
from moorage.credentials.decision import Decisions, Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import parse_token
from moorage.errors import Invalid, MoorageError, NotFound, TooLarge, Unauthorized, Unavailable
from moorage.interfaces import Change, Clock, Expect, Page, Peer, Put, Store
from moorage.provisioning import enrollment as enrollment_records
from moorage.provisioning import registration as registrations
from moorage.provisioning.admission import Admission, Admitted
from moorage.provisioning.allocation import choose
from moorage.provisioning.assignment import Hubs, Move, disconnect, hub_changes
from moorage.provisioning.attestation.proof import ID_SCOPE, Claim, Proof, SasProof, X509Proof
from moorage.provisioning.ca_certificates import CaCertificates
from moorage.provisioning.enrollment import (
    EnrollmentGroup,
    IndividualEnrollment,
    read_enrollment,
    read_group,
)
from moorage.provisioning.enrollments import ATTEMPTS, LOST, Enrollments, delete_record
from moorage.provisioning.registration import Assignment, Outcome, RegistrationState, Status, attempted
from moorage.provisioning.service import (
    LINKED_HUB_KIND,
    MAX_LINKED_HUBS,
    SERVICE_KIND,
    AllocationPolicy,
    ApiVersion,
    LinkedHub,
    ProvisioningService,
)
from moorage.provisioning.terms import ReprovisionPolicy

__all__ = ["Proof", "Provisioner", "RegistrationRequest", "SasProof", "X509Proof"]

log = logging.getLogger("moorage.provisioning")

MAX_POLICIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRequest:
    """A device asks for its hub. `payload` is for a custom allocation webhook; nothing else reads it."""

    id_scope: str
    registration_id: str
    api_version: ApiVersion
    payload: Any = None
    tracking_id: str = ""
    door: str = ""
    address: str = ""


class _NoPlace(NamedTuple):
    """Why no hub can be assigned: a code of DPS and a sentence."""

    code: int
    why: str


class _Step(NamedTuple):
    """One attempt, before its commit."""

    state: RegistrationState
    changes: Sequence[Change]
    leaves: Assignment | None = None


class Provisioner:
    """One provisioning service. What a verb returns is durable."""

    def __init__(
        self, service: ProvisioningService, *, store: Store, clock: Clock, hubs: Hubs, decisions: Decisions
    ) -> None:
        self.service = service
        self.clock = clock
        self._store = store
        self._hubs = hubs
        self._decisions = decisions
        scope = service.scope
        self._services = store.records(SERVICE_KIND, 0)
        self._linked = store.records(LINKED_HUB_KIND, scope)
        self._policies = store.records(policies.KIND, scope)
        self.ca_certificates = CaCertificates(store, scope, clock)
        self._admission = Admission(store, scope)
        self.enrollments: Enrollments[IndividualEnrollment] = Enrollments(
            enrollment_records.KIND,
            read_enrollment,
            self.linked_hubs,
            noun="enrollment",
            id_member="registrationId",
            list_member="enrollments",
            scope=scope,
            store=store,
            clock=clock,
        )
        self.groups: Enrollments[EnrollmentGroup] = Enrollments(
            enrollment_records.GROUP_KIND,
            read_group,
            self.linked_hubs,
            noun="enrollment group",
            id_member="enrollmentGroupId",
            list_member="enrollmentGroups",
            scope=scope,
            store=store,
            clock=clock,
        )
        self._registrations = store.records(registrations.KIND, scope)

    # Devices

    async def register(self, request: RegistrationRequest, proof: Proof | None) -> RegistrationState:
        """Attest and assign; the state returned has ended as assigned, failed or disabled [dps 6.6].

        Raises Unauthorized when the proof does not hold, which leaves a decision alone, and Unavailable.
        """
        finding = self._asked("register", request, proof)
        try:
            admitted = await self._admit(request, proof, finding)
            state = await self._settle(admitted, request.api_version)
        except MoorageError as error:
            self._refused(finding, error)
            raise
        if flaw := _flaw(state):
            self._refused(finding, flaw)
        else:
            finding.hold("hub assigned")
            self._decisions.add(finding.accepted(self.clock.now()))
            log.info(
                "registration assigned",
                extra={
                    "registration_id": state.registration_id,
                    "hub": state.assigned_hub,
                    "tracking_id": request.tracking_id,
                },
            )
        return state

    async def look_up(self, request: RegistrationRequest, proof: Proof | None) -> RegistrationState:
        """What is known of the device that asks. Raises NotFound when it has never registered, Unauthorized."""
        finding = self._asked("look up", request, proof)
        try:
            admitted = await self._admit(request, proof, finding)
            return await self.registration(admitted.registration_id)
        except MoorageError as error:
            self._refused(finding, error)
            raise

    async def operation(self, id_scope: str, registration_id: str, operation_id: str) -> RegistrationState:
        """The outcome of one of the device's latest operations. Raises NotFound, Unauthorized."""
        self._check_scope(id_scope)
        state = await self._registrations.get(registration_id.lower())
        if state is None or operation_id not in state.operations:
            raise NotFound("operation", operation_id)
        # All its operations have the latest outcome; the answer names the one asked for.
        return replace(state, operations=(*state.operations, operation_id))

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
        return finding

    async def _admit(self, request: RegistrationRequest, proof: Proof | None, finding: Finding) -> Admitted:
        """Raises Unauthorized."""
        self._check_scope(request.id_scope)
        finding.hold(ID_SCOPE)
        claim = Claim(request.id_scope, request.registration_id, proof, self.clock.now())
        return await self._admission.admit(claim, finding)

    def _check_scope(self, id_scope: str) -> None:
        if not self.service.answers_to(id_scope):
            raise Unauthorized(
                f"no provisioning service has the id scope {id_scope[:64]!r}",
                check=ID_SCOPE,
                remedy=f"Use the id scope {self.service.id_scope}.",
            )

    async def _settle(self, admitted: Admitted, api_version: ApiVersion) -> RegistrationState:
        key = admitted.registration_id.lower()
        lost_to: str | None = None  # the etag of the record when an attempt was lost
        for attempt in range(ATTEMPTS):
            previous = await self._registrations.get(key)
            etag = previous.etag if previous else None
            if attempt and previous and etag != lost_to and _answers(previous, admitted):
                return previous
            lost_to = etag
            step = await self._step(admitted.known_as(previous), api_version, previous)
            put = Put(registrations.KIND, self.service.scope, step.state, etag or Expect.ABSENT)
            try:
                await self._store.apply([*step.changes, put])
            except LOST:
                continue
            if step.leaves:
                disconnect(self._hubs, step.leaves)
            return step.state
        raise Unavailable(f"too many changes to {admitted.registration_id!r} at once; try again")

    async def _step(
        self, admitted: Admitted, api_version: ApiVersion, previous: RegistrationState | None
    ) -> _Step:
        """The record after this attempt, and the changes in the hubs that go with it."""
        terms, attested = admitted.enrollment.terms, admitted.attested
        last = previous.assignment if previous else None
        now = self.clock.now()

        def ended(outcome: Outcome, target: Assignment | None = None) -> RegistrationState:
            return attempted(
                previous,
                admitted.registration_id,
                outcome=outcome,
                assignment=target,
                mechanism=admitted.enrollment.attestation.type,
                enrollment_group_id=admitted.enrollment_group_id,
                now=now,
            )

        if not terms.enabled:
            return _Step(ended(Outcome(Status.DISABLED, attested.by)), ())
        policy = terms.reprovisioning(api_version)
        target = await self._target(admitted, policy, last)
        if isinstance(target, _NoPlace):
            return _Step(ended(Outcome(Status.FAILED, attested.by, None, target.code, target.why)), ())
        move = Move(last, target)
        changes = await hub_changes(self._hubs, move, terms, attested.authentication, policy)
        outcome = Outcome(Status.ASSIGNED, attested.by, move.substatus(policy))
        return _Step(ended(outcome, target), changes, move.leaves)

    async def _target(
        self, admitted: Admitted, policy: ReprovisionPolicy, last: Assignment | None
    ) -> Assignment | _NoPlace:
        """Where the device is to be [dps 13.1, 14]."""
        linked = await self.linked_hubs()
        if last and not policy.update_hub_assignment:
            for hub in linked:
                if hub.hub == last.hub:
                    return self._served(hub, last.device_id)
        allocation = admitted.enrollment.terms.allocation
        chosen = choose(
            admitted.registration_id,
            allocation.policy_or(await self._default_policy()),
            linked,
            allocation.named,
        )
        if chosen is not None:
            return self._served(chosen, admitted.device_id)
        why = "No linked hub is eligible for this device" if linked else "No hub is linked to the service"
        return _NoPlace(registrations.NO_HUB, why)

    def _served(self, hub: LinkedHub, device_id: str) -> Assignment | _NoPlace:
        if hub.hub in self._hubs:
            return Assignment(hub.hub, hub.host_name, device_id)
        return _NoPlace(registrations.HUB_REFUSED, f"The linked hub {hub.host_name} is not served here")

    async def _default_policy(self) -> AllocationPolicy:
        """As it is now, for it is the operator's to change."""
        return (await self._services.get(str(self.service.scope)) or self.service).allocation_policy

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
        return (await self._linked.page(limit=MAX_LINKED_HUBS)).records

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

        Raises Unauthorized.
        """
        found = (await self._policies.page(limit=MAX_POLICIES)).records
        now = self.clock.now()
        try:
            return policies.authorize(
                token, resource=resource, right=right, policies=found, now=now, finding=finding
            )
        except Unauthorized as error:
            self._refused(finding, error)
            raise

    def _finding(self, operation: str, subject: str, tracking_id: str) -> Finding:
        return Finding(operation, subject, scope=self.service.scope, tracking_id=tracking_id)

    def _refused(self, finding: Finding, error: MoorageError) -> None:
        self._decisions.add(finding.refused(self.clock.now(), error))
        log.warning(
            "%s refused",
            finding.operation,
            extra={
                "registration_id": finding.subject,
                "tracking_id": finding.tracking_id,
                "reason": str(error),
            },
        )


def _present(finding: Finding, proof: Proof | None) -> None:
    if isinstance(proof, X509Proof):
        finding.present_chain(proof.chain)
    elif isinstance(proof, SasProof):
        try:
            finding.present_token(parse_token(proof.token))
        except Unauthorized as error:
            finding.fail("token form", str(error))


def _answers(state: RegistrationState, admitted: Admitted) -> bool:
    """Whether this registration, made meanwhile, is the one that was to be made."""
    wanted = Status.ASSIGNED if admitted.enrollment.terms.enabled else Status.DISABLED
    return state.status is wanted and state.outcome.proof == admitted.attested.by


def _flaw(state: RegistrationState) -> MoorageError | None:
    """Why a registration that was attested did not end in a hub, in the words of a refusal."""
    if state.status is Status.DISABLED:
        group = state.enrollment_group_id
        named = f"enrollment group {group!r}" if group else f"individual enrollment {state.registration_id!r}"
        return Unauthorized(
            f"the {named} is disabled",
            check="enrollment enabled",
            remedy="Set its provisioningStatus to enabled.",
        )
    if state.status is Status.FAILED:
        return Unauthorized(
            state.error_message or "",
            check="hub assigned",
            remedy="Link a hub that the enrollment's allocation policy and iotHubs allow.",
        )
    return None
