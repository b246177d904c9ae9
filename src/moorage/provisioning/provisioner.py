"""The verbs of a provisioning service: enroll a device, let it register, tell what became of it.

    register: id scope → enrollment → attest → allocate → identity, twin and registration record in one commit

Nothing is locked. Whoever loses a race reads again: the other's registration of the same device, by the same
proof, is as good an answer as one of its own [dps trap 43].
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from moorage.credentials import policy as policies
from moorage.credentials.decision import Decisions, Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import parse_token
from moorage.credentials.x509 import thumbprints
from moorage.errors import (
    Conflict,
    Invalid,
    MoorageError,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from moorage.interfaces import Change, Clock, Expect, Page, Peer, Put, Records, Store, T
from moorage.provisioning import enrollment as enrollments
from moorage.provisioning import registration as registrations
from moorage.provisioning.allocation import choose
from moorage.provisioning.assignment import Hubs, Move, disconnect, hub_changes
from moorage.provisioning.attestation import ENROLLED, ID_SCOPE, Attested, Proof, SasProof, X509Proof
from moorage.provisioning.enrollment import (
    IndividualEnrollment,
    ReprovisionPolicy,
    read_enrollment,
    read_registration_id,
)
from moorage.provisioning.etag import Condition, expectation
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

__all__ = ["BulkFailure", "Proof", "Provisioner", "RegistrationRequest", "SasProof", "X509Proof"]

log = logging.getLogger("moorage.provisioning")

MAX_BULK = 10  # enrollments in one call [dps 19]
MAX_POLICIES = 100
BULK_MODES = ("create", "update", "updateIfMatchETag", "delete")

_ATTEMPTS = 20  # at one write; each time it is lost, somebody else's has succeeded
_LOST = (Conflict, NotFound, PreconditionFailed)  # what a store says to whoever was slower


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


class BulkFailure(NamedTuple):
    registration_id: str
    error: MoorageError


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
        self._enrollments = store.records(enrollments.KIND, scope)
        self._registrations = store.records(registrations.KIND, scope)

    # Devices

    async def register(self, request: RegistrationRequest, proof: Proof | None) -> RegistrationState:
        """Attest and assign; the state returned has ended as assigned, failed or disabled [dps 6.6].

        Raises Unauthorized when the proof does not hold, which leaves a decision alone, and Unavailable.
        """
        finding = self._finding("register", request.registration_id, request.tracking_id)
        finding.door, finding.address = request.door, request.address
        _present(finding, proof)
        try:
            enrollment = await self._enrollment_for(request, proof, finding)
            now = self.clock.now()
            attested = enrollment.attestation.attest(proof, request.registration_id, now, finding)
            state = await self._settle(enrollment, attested, request.api_version)
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

    def _check_scope(self, id_scope: str) -> None:
        if not self.service.answers_to(id_scope):
            raise Unauthorized(
                f"no provisioning service has the id scope {id_scope[:64]!r}",
                check=ID_SCOPE,
                remedy=f"Use the id scope {self.service.id_scope}.",
            )

    async def _enrollment_for(
        self, request: RegistrationRequest, proof: Proof | None, finding: Finding
    ) -> IndividualEnrollment:
        """Where there is an individual enrollment, it alone decides; groups come after it [dps 6.6]."""
        self._check_scope(request.id_scope)
        finding.hold(ID_SCOPE)
        enrollment = await self._enrollments.get(request.registration_id.lower())
        if enrollment is None:
            raise Unauthorized(
                f"there is no enrollment for the registration id {request.registration_id[:128]!r}",
                check=ENROLLED,
                remedy=await self._remedy_unknown(proof),
            )
        finding.known = True
        finding.subject = enrollment.registration_id
        finding.consider(f"individual enrollment {enrollment.registration_id}")
        finding.hold(ENROLLED)
        return enrollment

    async def _remedy_unknown(self, proof: Proof | None) -> str:
        if isinstance(proof, X509Proof) and proof.chain:
            found = await self._enrollments.find("thumbprint", thumbprints(proof.chain[0]).sha256)
            if found:
                return (
                    f"This certificate is enrolled as {found[0].registration_id!r}: register under that id."
                )
        return "Create an individual enrollment with this registration id and the device's certificate."

    async def _settle(
        self, enrollment: IndividualEnrollment, attested: Attested, api_version: ApiVersion
    ) -> RegistrationState:
        key = enrollment.registration_id.lower()
        lost_to: str | None = None  # the etag of the record when an attempt was lost
        for attempt in range(_ATTEMPTS):
            previous = await self._registrations.get(key)
            etag = previous.etag if previous else None
            if attempt and previous and etag != lost_to and _answers(previous, enrollment, attested):
                return previous
            lost_to = etag
            step = await self._step(enrollment, attested, api_version, previous)
            put = Put(registrations.KIND, self.service.scope, step.state, etag or Expect.ABSENT)
            try:
                await self._store.apply([*step.changes, put])
            except _LOST:
                continue
            if step.leaves:
                disconnect(self._hubs, step.leaves)
            return step.state
        raise Unavailable(f"too many changes to {enrollment.registration_id!r} at once; try again")

    async def _step(
        self,
        enrollment: IndividualEnrollment,
        attested: Attested,
        api_version: ApiVersion,
        previous: RegistrationState | None,
    ) -> _Step:
        """The record after this attempt, and the changes in the hubs that go with it."""
        last = previous.assignment if previous else None
        now = self.clock.now()

        def ended(outcome: Outcome, target: Assignment | None = None) -> RegistrationState:
            return attempted(
                previous, enrollment.registration_id, outcome=outcome, assignment=target, now=now
            )

        if not enrollment.enabled:
            return _Step(ended(Outcome(Status.DISABLED, attested.by)), ())
        policy = enrollment.reprovisioning(api_version)
        target = await self._target(enrollment, policy, last)
        if isinstance(target, _NoPlace):
            return _Step(ended(Outcome(Status.FAILED, attested.by, None, target.code, target.why)), ())
        move = Move(last, target)
        changes = await hub_changes(self._hubs, move, enrollment, attested.authentication, policy)
        outcome = Outcome(Status.ASSIGNED, attested.by, move.substatus(policy))
        return _Step(ended(outcome, target), changes, move.leaves)

    async def _target(
        self, enrollment: IndividualEnrollment, policy: ReprovisionPolicy, last: Assignment | None
    ) -> Assignment | _NoPlace:
        """Where the device is to be [dps 13.1, 14]."""
        linked = await self.linked_hubs()
        if last and not policy.update_hub_assignment:
            for hub in linked:
                if hub.hub == last.hub:
                    return self._served(hub, last.device_id)
        allocation = enrollment.allocation
        chosen = choose(
            enrollment.registration_id,
            allocation.policy_or(await self._default_policy()),
            linked,
            allocation.named,
        )
        if chosen is not None:
            return self._served(chosen, enrollment.hub_device_id)
        why = "No linked hub is eligible for this device" if linked else "No hub is linked to the service"
        return _NoPlace(registrations.NO_HUB, why)

    def _served(self, hub: LinkedHub, device_id: str) -> Assignment | _NoPlace:
        if hub.hub in self._hubs:
            return Assignment(hub.hub, hub.host_name, device_id)
        return _NoPlace(registrations.HUB_REFUSED, f"The linked hub {hub.host_name} is not served here")

    async def _default_policy(self) -> AllocationPolicy:
        """As it is now, for it is the operator's to change."""
        return (await self._services.get(str(self.service.scope)) or self.service).allocation_policy

    # Enrollments

    async def enroll(
        self, document: Mapping[str, Any], *, if_match: str | None, api_version: ApiVersion
    ) -> IndividualEnrollment:
        """Create the enrollment that `document` declares, or with `if_match` replace it [dps 16.3].

        Raises Invalid, NotSupported, Conflict, PreconditionFailed.
        """
        registration_id = read_registration_id(document)
        condition = Condition.read(if_match)
        linked = await self.linked_hubs()
        for _ in range(_ATTEMPTS):
            stored = await self._enrollments.get(registration_id.lower())
            if condition is not None:
                condition.check(stored, "enrollment", registration_id)
            elif stored is not None:
                raise Conflict("enrollment", registration_id)
            enrollment = read_enrollment(
                document, stored=stored, api_version=api_version, now=self.clock.now()
            )
            enrollment.check_hubs(linked)
            try:
                await self._enrollments.put(enrollment, expect=stored.etag if stored else Expect.ABSENT)
            except _LOST:
                continue
            log.info("enrollment written", extra={"registration_id": enrollment.registration_id})
            return enrollment
        raise Unavailable(f"too many changes to {registration_id!r} at once; try again")

    async def enrollment(self, registration_id: str) -> IndividualEnrollment:
        """Raises NotFound."""
        stored = await self._enrollments.get(registration_id.lower())
        if stored is None:
            raise NotFound("enrollment", registration_id)
        return stored

    async def delete_enrollment(self, registration_id: str, *, if_match: str | None = None) -> None:
        """What it led to stays, here and in the hub [dps 14.3]. Raises NotFound, PreconditionFailed."""
        await _delete(self._enrollments, "enrollment", registration_id, if_match)
        log.info("enrollment deleted", extra={"registration_id": registration_id})

    async def query_enrollments(self, *, after: str | None = None, limit: int) -> Page[IndividualEnrollment]:
        """By registration id in lower case, past `after`."""
        return await self._enrollments.page(after=after, limit=limit)

    async def attestation_mechanism(self, registration_id: str) -> dict[str, Any]:
        """Raises NotFound."""
        return (await self.enrollment(registration_id)).attestation.to_json()

    async def bulk_enroll(
        self, mode: object, documents: object, api_version: ApiVersion
    ) -> list[BulkFailure]:
        """Up to ten enrollments, each by itself; those that could not be done [dps 16.5]. Raises Invalid."""
        known = {name.lower(): name for name in BULK_MODES}
        if not isinstance(mode, str) or mode.lower() not in known:
            raise Invalid("mode", f"must be one of {', '.join(BULK_MODES)}")
        failures = []
        for document in _bulk_documents(documents):
            try:
                await self._bulk_item(known[mode.lower()], document, api_version)
            except MoorageError as error:
                failures.append(BulkFailure(str(document.get("registrationId") or ""), error))
        return failures

    async def _bulk_item(self, mode: str, document: Mapping[str, Any], api_version: ApiVersion) -> None:
        if mode == "delete":
            await self.delete_enrollment(read_registration_id(document))
            return
        if_match = {"create": None, "update": "*"}.get(mode, str(document.get("etag") or ""))
        await self.enroll(document, if_match=if_match, api_version=api_version)

    # Registration records

    async def registration(self, registration_id: str) -> RegistrationState:
        """Raises NotFound."""
        state = await self._registrations.get(registration_id.lower())
        if state is None:
            raise NotFound("registration", registration_id)
        return state

    async def delete_registration(self, registration_id: str, *, if_match: str | None = None) -> None:
        """The next registration counts as the first [dps 14.3]. Raises NotFound, PreconditionFailed."""
        await _delete(self._registrations, "registration", registration_id, if_match)
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


def _answers(state: RegistrationState, enrollment: IndividualEnrollment, attested: Attested) -> bool:
    """Whether this registration, made meanwhile, is the one that was to be made."""
    wanted = Status.ASSIGNED if enrollment.enabled else Status.DISABLED
    return state.status is wanted and state.outcome.proof == attested.by


def _flaw(state: RegistrationState) -> MoorageError | None:
    """Why a registration that was attested did not end in a hub, in the words of a refusal."""
    if state.status is Status.DISABLED:
        return Unauthorized(
            f"the individual enrollment {state.registration_id!r} is disabled",
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


def _bulk_documents(documents: object) -> list[Mapping[str, Any]]:
    if not isinstance(documents, list) or not all(isinstance(document, Mapping) for document in documents):
        raise Invalid("enrollments", "must be a list of enrollments")
    if not 1 <= len(documents) <= MAX_BULK:
        raise Invalid("enrollments", f"must hold 1 to {MAX_BULK} enrollments, not {len(documents)}")
    ids = [str(document.get("registrationId")).lower() for document in documents]
    if len(set(ids)) < len(ids):
        raise Invalid("enrollments", "name the same registration id twice")
    return documents


async def _delete(records: Records[T], noun: str, registration_id: str, if_match: str | None) -> None:
    key = registration_id.lower()
    record = await records.get(key)
    if record is None:
        raise NotFound(noun, registration_id)
    expect = expectation(record, Condition.read(if_match), noun, registration_id)
    try:
        await records.delete(key, expect=expect)
    except NotFound:
        raise NotFound(noun, registration_id) from None
    except PreconditionFailed:
        raise PreconditionFailed(noun, registration_id) from None
