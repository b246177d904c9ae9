"""The DPS device API without a protocol: who asks, what for, and the answer, its pace and its refusals.

    Device (as a door has read it) + body or operation id → Provisioner → Answer (status, JSON, retry-after)

Each door turns an `Answer` into what its protocol has for it. What a device says never raises here: a refusal is an
answer too, with a decision record behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Literal

from moorage.adapters import api_versions, faults
from moorage.errors import Invalid, MoorageError, NotSupported
from moorage.interfaces import Clock, Peer
from moorage.provisioning.challenge import KEY_NAME, TpmChallenge, TpmKeys
from moorage.provisioning.provisioner import Proof, Provisioner, RegistrationRequest
from moorage.provisioning.registration import RegistrationState, Status, read_register_body
from moorage.provisioning.service import ApiVersion

log = logging.getLogger("moorage.dps")

Pace = Literal["fast", "azure"]

# Device programs that were seen to take a final answer to the register request itself. All others get
# 202 and poll, as IoT Edge insists on and C, C#, Java and Node were only ever exercised with [dps 6.1].
ANSWERED_AT_ONCE = ("azure-iot-device-provisioning-py/",)

RETRY_AFTER: dict[Pace, int] = {"fast": 1, "azure": 3}  # seconds [dps 6.5]

MAX_ID = 128  # characters of a registration id [dps 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Who asks: what a protocol tells of a device before its request is looked at.

    `api_version` and `agent` (the ClientVersion or user agent) are as the device wrote them, "" where it did not.
    """

    id_scope: str
    registration_id: str
    api_version: str
    agent: str = ""
    proof: Proof | None
    tpm: TpmKeys | None = None  # told, and proven, before the request
    peer: Peer
    tracking_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is HTTP's, `retry_after` in seconds; `error` is what a refusal was made of."""

    status: int
    body: dict[str, Any]
    retry_after: int | None = None
    error: MoorageError | None = None


class DeviceApi:
    """What a device may ask of a provisioning service, by whichever door it comes."""

    def __init__(self, provisioner: Provisioner, *, pace: Pace) -> None:
        self.provisioner = provisioner
        self._pace = pace

    @property
    def clock(self) -> Clock:
        return self.provisioner.clock

    async def register(self, device: Device, body: bytes) -> Answer:
        """Attest and assign. 202 with the operation to poll; 200 at once only for whom that is known to suit."""
        return await self._answered(device, self._register(device, body))

    async def poll(self, device: Device, operation_id: str) -> Answer:
        """What became of an operation: 200 when it has ended, however it did; 202 while it runs [dps 6.3]."""
        return await self._answered(device, self._poll(device, operation_id))

    async def look_up(self, device: Device, body: bytes) -> Answer:
        """200 with what is known of a device that has registered before, 404 of any other [dps 8]."""
        return await self._answered(device, self._look_up(device, body))

    async def _answered(self, device: Device, work: Awaitable[Answer]) -> Answer:
        try:
            return await work
        except MoorageError as error:
            return self.refusal(error, device.peer, device.tracking_id)
        except Exception:
            log.exception("registration failed", extra={"tracking_id": device.tracking_id})
            return self.refusal(MoorageError("internal error"), device.peer, device.tracking_id)

    async def _register(self, device: Device, body: bytes) -> Answer:
        request = self._read("register", device, body)
        state = await self.provisioner.register(request, device.proof)
        at_once = self._pace == "fast" and device.agent.startswith(ANSWERED_AT_ONCE)
        if at_once and state.status is not Status.ASSIGNING:
            return Answer(200, state.operation_status(request.api_version))
        return Answer(202, state.accepted(), RETRY_AFTER[self._pace])

    async def _look_up(self, device: Device, body: bytes) -> Answer:
        request = self._read("look up", device, body)
        state = await self.provisioner.look_up(request, device.proof)
        return Answer(200, state.to_json(request.api_version))

    def _read(self, operation: str, device: Device, body: bytes) -> RegistrationRequest:
        """Raises Invalid, NotSupported."""
        try:
            if len(device.registration_id) > MAX_ID:
                raise Invalid("registrationId", f"has at most {MAX_ID} characters")
            api_version = api_versions.device(device.api_version)
            said = read_register_body(body, device.registration_id)
            if said.tpm is not None and device.peer.door.startswith("mqtt"):
                raise NotSupported("TPM attestation over MQTT", "register over HTTPS or AMQP, as with Azure")
            if said.csr is not None:
                _check_may_ask(operation, api_version)
        except MoorageError as error:
            self.note_refusal(operation, device.registration_id, error, device.peer, device.tracking_id)
            raise
        return RegistrationRequest(
            id_scope=device.id_scope,
            registration_id=device.registration_id,
            api_version=api_version,
            payload=said.payload,
            tpm=device.tpm or said.tpm,
            csr=said.csr,
            tracking_id=device.tracking_id,
            door=device.peer.door,
            address=device.peer.address,
        )

    async def _poll(self, device: Device, operation_id: str) -> Answer:
        request = self._read("poll", device, b"")  # what clients send along says nothing [dps trap 9]
        state = await self.provisioner.poll(request, device.proof, operation_id)
        return self._outcome(state, request.api_version)

    def _outcome(self, state: RegistrationState, api_version: ApiVersion) -> Answer:
        if state.status is not Status.ASSIGNING:
            return Answer(200, state.operation_status(api_version))
        # IoT Edge reads no answer without the state, and the state not without its id [dps trap 12].
        working = {"registrationId": state.registration_id, "status": Status.ASSIGNING.value}
        return Answer(202, state.accepted() | {"registrationState": working}, RETRY_AFTER[self._pace])

    def refusal(self, error: MoorageError, peer: Peer, tracking_id: str) -> Answer:
        """`error` as a device is told it."""
        if isinstance(error, NotSupported) and peer.door != "https":
            # Not 501: what is 429 or more, Python and Node ask again for ever [dps trap 14].
            error = Invalid("", str(error))
        status, body, retry_after = faults.dps_error(error, tracking_id, self.clock.now())
        if isinstance(error, TpmChallenge):
            # Where `keyName` or text is missing the C client takes it for a refusal [dps 12.2].
            body |= {"authenticationKey": error.authentication_key, "keyName": KEY_NAME}
        return Answer(status, body, retry_after, error)

    def note_refusal(
        self, operation: str, subject: str, error: MoorageError, peer: Peer, tracking_id: str
    ) -> None:
        """Leave a decision record of what is refused before the provisioning service gets to judge it."""
        self.provisioner.note_refusal(operation, subject, error, tracking_id, peer)


def _check_may_ask(operation: str, api_version: ApiVersion) -> None:
    """Whether a signing request has a place in this request [dps 20.1]. Raises Invalid."""
    if operation != "register":
        raise Invalid("csr", "has no place in a lookup: a certificate is issued when the device registers")
    if not api_version.issuance:
        raise Invalid(
            "csr", f"needs the api-version 2025-07-01-preview or a later one, not {api_version.text}"
        )
