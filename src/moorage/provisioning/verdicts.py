"""What became of a request, told to the operator: a decision record and a line in the log."""

from __future__ import annotations

import logging

from moorage.credentials.decision import Decisions, Finding
from moorage.errors import MoorageError, Unauthorized
from moorage.interfaces import Clock
from moorage.provisioning.registration import ALLOCATION_FAILED, HUB_REFUSED, RegistrationState, Status

log = logging.getLogger("moorage.provisioning")


class Verdicts:
    def __init__(self, decisions: Decisions, clock: Clock) -> None:
        self._decisions = decisions
        self._clock = clock

    def refused(self, finding: Finding, error: MoorageError) -> None:
        self._decisions.add(finding.refused(self._clock.now(), error))
        log.warning(
            "%s refused",
            finding.operation,
            extra={
                "registration_id": finding.subject,
                "tracking_id": finding.tracking_id,
                "reason": str(error),
            },
        )

    def ended(self, finding: Finding, state: RegistrationState) -> None:
        """Of a registration that was attested."""
        if flaw := _flaw(state):
            self.refused(finding, flaw)
            return
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
