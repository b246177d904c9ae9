"""What became of a request, told to the operator: a decision record, a line in the log, and one more in the counts."""

from __future__ import annotations

import logging

from moorage.credentials.decision import Decisions, Finding
from moorage.errors import MoorageError, Unauthorized
from moorage.interfaces import Clock
from moorage.provisioning.counts import Counts
from moorage.provisioning.registration import ALLOCATION_FAILED, HUB_REFUSED, RegistrationState, Status

log = logging.getLogger("moorage.provisioning")


class Verdicts:
    def __init__(self, decisions: Decisions, clock: Clock) -> None:
        self._decisions = decisions
        self._clock = clock
        self.counts = Counts()

    def attested(self, finding: Finding, mechanism: str) -> None:
        """The proof holds; what becomes of the request is still to be seen."""
        self.counts.attestations[mechanism, finding.door, "accepted"] += 1

    def not_attested(self, finding: Finding) -> None:
        """The proof does not hold; `refused` follows."""
        self.counts.attestations[finding.presented, finding.door, "refused"] += 1

    def refused(self, finding: Finding, error: MoorageError) -> None:
        if finding.operation == "register":
            self.counts.registrations[finding.presented, "refused"] += 1
        self._tell_refused(finding, error)

    def _tell_refused(self, finding: Finding, error: MoorageError) -> None:
        self._decisions.refuse(finding, error, self._clock.now(), log)

    def ended(self, finding: Finding, state: RegistrationState) -> None:
        """Of a registration that was attested."""
        self.counts.registrations[state.mechanism, state.status] += 1
        if flaw := _flaw(state):
            self._tell_refused(finding, flaw)
            return
        if state.assignment is not None:
            substatus = state.outcome.substatus or ""
            self.counts.assignments[state.assignment.host_name, state.mechanism, substatus] += 1
        finding.hold("hub assigned")
        self._decisions.add(finding.accepted(self._clock.now()))
        log.info(
            "registration assigned",
            extra={
                "registration_id": state.registration_id,
                "hub": state.assigned_hub,
                "tracking_id": finding.tracking_id,
            },
        )


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
    if state.status is not Status.FAILED:
        return None
    if state.error_code == ALLOCATION_FAILED:
        return Unauthorized(
            state.error_message or "",
            check="custom allocation",
            remedy="Look at what was asked and answered, mend the webhook or function, and let the device come again.",
        )
    if state.error_code == HUB_REFUSED:
        return Unauthorized(
            state.error_message or "",
            check="hub accepts",
            remedy="See whether the linked hub is there, and whether its connection string has RegistryWrite and "
            "ServiceConnect.",
        )
    return Unauthorized(
        state.error_message or "",
        check="hub assigned",
        remedy="Link a hub that the enrollment's allocation policy and iotHubs allow.",
    )
