"""Registrations on their way from an admitted device to an outcome [dps 6.6].

    the hub can be chosen here   identity, twin and registration record in one commit, and that is the outcome
    somebody has to be asked     first the record alone, `assigning`, with all that is needed to go on; then the
                                 asking, in the background; then the outcome, in one commit as above
    another server is told       the same; before it is told, the record says what it will be told

An operation under way is in its record, not in this process. Whoever meets one that nobody works on takes it up: the
server as it starts, a poll, or the device that registers again. So a stop or a crash delays an operation and loses
none; what was being asked is asked again. Nothing is ever committed twice: the outcome is written onto the very
version of the record that was read, and only while it is that operation's.

Nothing is locked. Whoever loses a race reads again: the other's registration of the same device, by the same
proof, is as good an answer as one of its own [dps trap 43].
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from moorage.credentials.decision import Exchange, Finding
from moorage.errors import Invalid, MoorageError, Unavailable
from moorage.hub.authentication import CERTIFICATE_AUTHORITY, Authentication
from moorage.interfaces import (
    AllocatorAnswer,
    Background,
    Change,
    Clock,
    CustomAllocator,
    Expect,
    Put,
    Records,
    Store,
)
from moorage.provisioning import enrollment as enrollments
from moorage.provisioning import registration as registrations
from moorage.provisioning.admission import Admitted
from moorage.provisioning.allocation import choose, eligible
from moorage.provisioning.assignment import Move, Route, disconnect, hub_changes
from moorage.provisioning.custom_allocation import (
    Chosen,
    DeviceContext,
    NotChosen,
    Question,
    allocation_request,
    check_payload,
    masked_text,
    read_answer,
)
from moorage.provisioning.enrollment import EnrollmentGroup, IndividualEnrollment
from moorage.provisioning.enrollments import ATTEMPTS, LOST
from moorage.provisioning.hub_registry import HubRefused, Hubs, Reach, Registries
from moorage.provisioning.issuance import Issuance, request_digest
from moorage.provisioning.registration import (
    Assignment,
    IssuedChain,
    Outcome,
    Pending,
    RegistrationState,
    Status,
    attempted,
)
from moorage.provisioning.service import AllocationPolicy, LinkedHub
from moorage.provisioning.terms import ReprovisionPolicy
from moorage.provisioning.verdicts import Verdicts

log = logging.getLogger("moorage.provisioning")

MAX_SHOWN = 4000  # characters of a question and of an answer that an operator is shown


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Who can be asked, by the scheme of the URL that names him, and where the asking runs.

    Without a `background` nobody can be asked.
    """

    allocators: Mapping[str, CustomAllocator] = field(default_factory=dict)
    background: Background | None = None
    reach: Reach | None = None  # for hubs of other servers


class Directory(NamedTuple):
    """What an operation looks up of its service, as it is at that moment: the linked hubs and the default policy."""

    linked_hubs: Callable[[], Awaitable[Sequence[LinkedHub]]]
    default_policy: Callable[[], Awaitable[AllocationPolicy]]


class _NoPlace(NamedTuple):
    """Why no hub can be assigned: a code of DPS and a sentence."""

    code: int
    why: str


class _Step(NamedTuple):
    """The record after one step, and the changes in the hubs that belong into its commit.

    `question` is what has to be asked before there is an outcome. While there is none the record is `assigning`.
    """

    state: RegistrationState
    changes: Sequence[Change] = ()
    leaves: Assignment | None = None
    question: Question | None = None

    @property
    def goes_on(self) -> bool:
        return self.state.status is Status.ASSIGNING


class Operations:
    """All registrations of one service that are under way. What a verb returns is durable."""

    def __init__(
        self,
        scope: int,
        directory: Directory,
        *,
        store: Store,
        clock: Clock,
        hubs: Hubs,
        verdicts: Verdicts,
        issuance: Issuance,
        outside: Outside,
    ) -> None:
        self._scope = scope
        self._directory = directory
        self._store = store
        self._clock = clock
        self._hubs = hubs
        self._registries = Registries(hubs, directory.linked_hubs, outside.reach)
        self._verdicts = verdicts
        self._issuance = issuance
        self._outside = outside
        self._registrations: Records[RegistrationState] = store.records(registrations.KIND, scope)
        self._individual: Records[IndividualEnrollment] = store.records(enrollments.KIND, scope)
        self._groups: Records[EnrollmentGroup] = store.records(enrollments.GROUP_KIND, scope)
        self._working: set[str] = set()  # ids of the operations that this process works on

    async def begin(self, admitted: Admitted, pending: Pending, finding: Finding) -> RegistrationState:
        """Bring an admitted device to its outcome, or as far as it gets before others have to be waited for.

        The state has ended as assigned, failed or disabled, or is assigning and goes on without the caller: then
        it may be the operation of an earlier request that still runs. Raises Invalid, Unavailable.
        """
        key = admitted.registration_id.lower()
        lost_to: str | None = None  # the etag of the record when an attempt was lost
        for attempt in range(ATTEMPTS):
            previous = await self._registrations.get(key)
            etag = previous.etag if previous else None
            if previous and _runs(previous, admitted, pending):
                return await self.latest(previous)
            if attempt and previous and etag != lost_to and _answers(previous, admitted, pending):
                self._verdicts.ended(finding, previous)
                return previous
            lost_to = etag
            step = await self._step(admitted.known_as(previous), pending, previous)
            if not await self._commit(step, etag or Expect.ABSENT):
                continue
            if step.goes_on:
                return await self.latest(step.state, finding)
            self._verdicts.ended(finding, step.state)
            return step.state
        raise Unavailable(f"too many changes to {admitted.registration_id!r} at once; try again")

    async def latest(self, state: RegistrationState, finding: Finding | None = None) -> RegistrationState:
        """The record as it is now. One that is assigning is taken up if nobody works on it.

        What takes no longer than the grace of the background has then ended.
        """
        if state.status is not Status.ASSIGNING or not (grace := self._take_up(state, finding)):
            return state
        await grace
        return await self._registrations.get(state.registration_id.lower()) or state

    async def resume(self) -> int:
        """Take up what an earlier process has left, and say how much that is; returns without waiting for it."""
        left = await self._registrations.find("status", Status.ASSIGNING.value)
        for state in left:
            self._take_up(state)
        return len(left)

    def _take_up(self, state: RegistrationState, finding: Finding | None = None) -> Awaitable[None] | None:
        """Begin to work on an operation; None when this process does already."""
        background = self._outside.background
        if background is None or state.operation_id in self._working:
            return None
        self._working.add(state.operation_id)
        return background.start(self._work(state, finding or self._found_again(state)))

    def _found_again(self, state: RegistrationState) -> Finding:
        """What is still known of a request whose process is gone."""
        finding = Finding("register", state.registration_id, scope=self._scope)
        finding.known = True
        if pending := state.pending:
            finding.tracking_id = pending.tracking_id
            finding.door, finding.address = pending.door, pending.address
            finding.present_chain((pending.certificate,) if pending.certificate else ())
        finding.consider(f"operation {state.operation_id}, taken up again")
        return finding

    async def _work(self, state: RegistrationState, finding: Finding) -> None:
        """From `assigning` to the outcome."""
        try:
            await self._finish(state, finding)
        except MoorageError as error:
            # It stays assigning: the next poll takes it up again.
            log.warning(
                "registration held up",
                extra={
                    "registration_id": state.registration_id,
                    "tracking_id": finding.tracking_id,
                    "reason": str(error),
                },
            )
        finally:
            self._working.discard(state.operation_id)

    async def _finish(self, state: RegistrationState, finding: Finding) -> None:
        answer: Chosen | NotChosen | None = None
        for _ in range(ATTEMPTS):
            current = await self._registrations.get(state.registration_id.lower())
            if current is None or current.operation_id != state.operation_id or current.pending is None:
                return  # the operator has deleted it, or a later registration has taken its place
            step = await self._next_step(current, current.pending, answer)
            if step.question is not None:
                answer = await self._ask(step.question, finding)
            elif await self._commit(step, current.etag) and not step.goes_on:
                self._verdicts.ended(finding, step.state)
                return
        raise Unavailable(f"too many changes to {state.registration_id!r} at once")

    async def _next_step(
        self, current: RegistrationState, pending: Pending, answer: Chosen | NotChosen | None
    ) -> _Step:
        admitted = await self._readmitted(current, pending)
        if admitted is None:
            gone = Outcome(
                Status.FAILED, pending.attested.by, None, registrations.ENROLLMENT_GONE, "Enrollment deleted"
            )
            return _Step(current.ended(gone, None, self._clock.now()))
        try:
            return await self._step(admitted, pending, current, answer, goes_on=True)
        except (Invalid, HubRefused) as error:
            # The device has its operation: what a hub does not take has become the outcome of that.
            refused = Outcome(Status.FAILED, pending.attested.by, None, registrations.HUB_REFUSED, str(error))
            return _Step(current.ended(refused, None, self._clock.now()))

    async def _readmitted(self, state: RegistrationState, pending: Pending) -> Admitted | None:
        """By the terms of its enrollment as they are now, without a second look at its proof."""
        group, key = state.enrollment_group_id, state.registration_id.lower()
        enrollment = await (self._groups.get(group.lower()) if group else self._individual.get(key))
        return Admitted(enrollment, state.registration_id, pending.attested) if enrollment else None

    async def _commit(self, step: _Step, expect: Expect | str) -> bool:
        """False when somebody else was faster."""
        put = Put(registrations.KIND, self._scope, step.state, expect)
        try:
            await self._store.apply([*step.changes, put])
        except LOST:
            return False
        if step.leaves:
            disconnect(self._hubs, step.leaves)
        return True

    # One step

    async def _step(
        self,
        admitted: Admitted,
        pending: Pending,
        previous: RegistrationState | None,
        answer: Chosen | NotChosen | None = None,
        *,
        goes_on: bool = False,
    ) -> _Step:
        """The record after this step. `goes_on` when `previous` is this very operation, of which `answer` came."""
        terms, attested = admitted.enrollment.terms, admitted.attested
        last = await self._last_place(previous)
        now = self._clock.now()

        def then(
            outcome: Outcome, target: Assignment | None = None, issued: IssuedChain | None = None
        ) -> RegistrationState:
            if goes_on and previous is not None:
                return previous.ended(outcome, target, now, issued)
            return attempted(
                previous,
                admitted.registration_id,
                outcome=outcome,
                assignment=target,
                mechanism=admitted.enrollment.attestation.type,
                enrollment_group_id=admitted.enrollment_group_id,
                issued=issued,
                now=now,
            )

        if not terms.enabled:
            return _Step(then(Outcome(Status.DISABLED, attested.by)))
        policy = terms.reprovisioning(pending.api_version)
        answer = answer or pending.chosen
        target = await self._target(admitted, pending, policy, last, answer)
        if isinstance(target, _NoPlace):
            return _Step(then(Outcome(Status.FAILED, attested.by, None, target.code, target.why)))
        if isinstance(target, Question):
            check_payload(pending.payload)
            await self._check_request(admitted, pending)
            state = then(Outcome(Status.ASSIGNING, attested.by))
            return _Step(replace(state, pending=pending), question=target)
        move = Move(last, target)
        chosen = answer if isinstance(answer, Chosen) else None
        route = await self._route(move)
        if isinstance(route, _NoPlace):
            return _Step(then(Outcome(Status.FAILED, attested.by, None, route.code, route.why)))
        if route.target.distant and pending.csr is not None:
            why = f"The linked hub {target.host_name} of another server does not know the certificates issued here"
            return _Step(then(Outcome(Status.FAILED, attested.by, None, registrations.HUB_REFUSED, why)))
        if route.distant and pending.target != target:
            # On disk before another server hears of it: whatever happens, it is told the same again.
            state = then(Outcome(Status.ASSIGNING, attested.by))
            return _Step(replace(state, pending=replace(pending, target=target, chosen=chosen)))
        carried = pending.carried
        if carried is None and policy.migrate_device_data:
            carried = await route.data(move)
            if carried is not None and route.distant:
                # So is what goes along: it is gone from where it was before it is known to have arrived.
                state = then(Outcome(Status.ASSIGNING, attested.by))
                return _Step(replace(state, pending=replace(pending, carried=carried)))
        issued = await self._issue(admitted, pending, target)
        changes = await hub_changes(
            route,
            move,
            terms,
            Authentication(CERTIFICATE_AUTHORITY) if issued else attested.authentication,  # [dps 15]
            carried=carried,
            initial_twin=chosen.initial_twin if chosen else None,
        )
        outcome = Outcome(
            Status.ASSIGNED,
            attested.by,
            move.substatus(policy),
            payload=chosen.payload if chosen else None,
            authentication_key=attested.authentication_key,
        )
        trust = await self._trust(target.hub) if issued else []
        return _Step(then(outcome, target, issued), [*trust, *changes], move.leaves)

    # Certificates on request

    async def _check_request(self, admitted: Admitted, pending: Pending) -> None:
        """Before anybody is asked: what will not do is told to the device at once. Raises Invalid."""
        if pending.csr is not None:
            await self._issuance.check(
                pending.csr,
                policy_name=admitted.enrollment.terms.credential_policy_name,
                registration_id=admitted.registration_id,
            )

    async def _issue(self, admitted: Admitted, pending: Pending, target: Assignment) -> IssuedChain | None:
        """None where none was asked for. Raises Invalid."""
        if pending.csr is None:
            return None
        return await self._issuance.issue(
            pending.csr,
            policy_name=admitted.enrollment.terms.credential_policy_name,
            registration_id=admitted.registration_id,
            device_id=target.device_id,
        )

    async def _trust(self, hub: int) -> Sequence[Change]:
        """What makes the hub let in devices by the certificates that are issued here, where it does not yet."""
        name, certificates = await self._issuance.authority()
        return await self._hubs[hub].trust(name, certificates)

    # Where to

    async def _target(
        self,
        admitted: Admitted,
        pending: Pending,
        policy: ReprovisionPolicy,
        last: Assignment | None,
        answer: Chosen | NotChosen | None,
    ) -> Assignment | _NoPlace | Question:
        """Where the device is to be [dps 13.1, 14], or what has to be asked to know it."""
        linked = await self._directory.linked_hubs()
        if pending.target and any(hub.hub == pending.target.hub for hub in linked):
            return pending.target
        if last and not policy.update_hub_assignment:
            for hub in linked:
                if hub.hub == last.hub:
                    return self._served(hub, last.device_id)
        allocation = admitted.enrollment.terms.allocation
        by = allocation.policy_or(await self._directory.default_policy())
        candidates = eligible(linked, allocation.named)
        chosen: LinkedHub | None
        if by is AllocationPolicy.CUSTOM and candidates:
            if answer is None:
                return self._question(admitted, pending, last, candidates)
            if isinstance(answer, NotChosen):
                return _NoPlace(registrations.ALLOCATION_FAILED, answer.why)
            chosen = next((hub for hub in candidates if hub.host_name == answer.host_name), None)
        else:
            chosen = choose(admitted.registration_id, by, linked, allocation.named)
        if chosen is not None:
            return self._served(chosen, admitted.device_id)
        why = "No linked hub is eligible for this device" if linked else "No hub is linked to the service"
        return _NoPlace(registrations.NO_HUB, why)

    def _served(self, hub: LinkedHub, device_id: str) -> Assignment | _NoPlace:
        if self._registries.serves(hub):
            return Assignment(hub.hub, hub.host_name, device_id)
        return _NoPlace(registrations.HUB_REFUSED, f"The linked hub {hub.host_name} is not served here")

    async def _last_place(self, previous: RegistrationState | None) -> Assignment | None:
        """A hub of another server that was unlinked and linked again has a new id, and is the same place."""
        last = previous.assignment if previous else None
        if last is None or await self._registries.of(last.hub) is not None:
            return last
        linked = await self._directory.linked_hubs()
        again = next((hub.hub for hub in linked if hub.host_name == last.host_name), last.hub)
        return replace(last, hub=again)

    async def _route(self, move: Move) -> Route | _NoPlace:
        target = await self._registries.of(move.target.hub)
        if target is None:  # it has gone since it was chosen
            return _NoPlace(registrations.HUB_REFUSED, f"The linked hub {move.target.host_name} is gone")
        return Route(target, await self._registries.of(move.leaves.hub) if move.leaves else None)

    # Asking

    def _question(
        self,
        admitted: Admitted,
        pending: Pending,
        last: Assignment | None,
        candidates: Sequence[LinkedHub],
    ) -> Question:
        enrollment = admitted.enrollment
        device = DeviceContext(
            registration_id=admitted.registration_id,
            mechanism=enrollment.attestation.type,
            certificate=pending.certificate,
            current_hub=last.host_name if last else None,
            current_device_id=last.device_id if last else None,
            payload=pending.payload,
        )
        linked = [hub.host_name for hub in candidates]
        # All of the enrollment, whatever the device's own version has words for.
        shown = enrollment.to_json(replace(pending.api_version, reprovisioning=True))
        return Question(
            enrollment.terms.allocation.definition, allocation_request(shown, device, linked), linked
        )

    async def _ask(self, question: Question, finding: Finding) -> Chosen | NotChosen:
        """What was asked and answered goes into `finding`, cut to what an operator can read."""
        definition, request = question.definition, json.dumps(question.document)
        allocator = self._outside.allocators.get(definition.scheme)
        if allocator is None:
            answer = AllocatorAnswer(failure="nobody is there to be asked", detail=definition.scheme)
        else:
            answer = await allocator.ask(definition.webhook_url, request.encode())
        finding.exchange = Exchange(
            asked=definition.masked_url,
            request=masked_text(request, MAX_SHOWN),
            status=answer.status,
            answer=masked_text(answer.body.decode("utf-8", "replace"), MAX_SHOWN),
            seconds=answer.seconds,
            failure=answer.failure,
            detail=answer.detail[-MAX_SHOWN:],
        )
        return read_answer(answer, question.linked)


def _runs(state: RegistrationState, admitted: Admitted, pending: Pending) -> bool:
    """Whether this registration is under way for the same proof, so that it answers another request too.

    A request by another proof, or for another certificate, takes its place: the hub is to know the device by what it
    came with last.
    """
    return (
        state.status is Status.ASSIGNING
        and admitted.enrollment.terms.enabled
        and state.outcome.proof == admitted.attested.by
        and state.enrollment_group_id == admitted.enrollment_group_id
        and (state.pending.csr if state.pending else None) == pending.csr
    )


def _answers(state: RegistrationState, admitted: Admitted, pending: Pending) -> bool:
    """Whether this registration, made meanwhile, is the one that was to be made."""
    wanted = Status.ASSIGNED if admitted.enrollment.terms.enabled else Status.DISABLED
    asked = request_digest(pending.csr) if pending.csr is not None else None
    answered = state.issued.request if state.issued is not None else None
    return (state.status, state.outcome.proof, answered) == (wanted, admitted.attested.by, asked)
