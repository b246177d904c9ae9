"""What the service remembers of a device that came to register: its state, and the JSON both APIs show of it.

A record outlives its enrollment. It holds the ids of its latest operations, so that a device may go on
polling for an answer over a restart of the server, and over another attempt of its own [dps 6.6, trap 43].
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from enum import StrEnum
from typing import Any

from moorage.credentials.signing_request import decode_request
from moorage.credentials.tpm import read_storage_key
from moorage.errors import Invalid
from moorage.hub.twin import timestamp
from moorage.interfaces import Kind
from moorage.provisioning.attestation.proof import Attested
from moorage.provisioning.challenge import TpmKeys
from moorage.provisioning.custom_allocation import Chosen
from moorage.provisioning.hub_registry import DeviceData
from moorage.provisioning.reading import Document, optional_object, text
from moorage.provisioning.service import ApiVersion

KEPT_OPERATIONS = 8  # of one device; every one of them is answered with the latest outcome

NO_HUB = 400208  # no hub is linked, or none is eligible [dps 17.2]
HUB_REFUSED = 400209
ALLOCATION_FAILED = 400207  # whom an enrollment names for custom allocation did not name a hub
ENROLLMENT_GONE = 404201


class Status(StrEnum):
    """`unassigned` never goes out: C takes it for a TPM challenge [dps 6.4]."""

    ASSIGNING = "assigning"
    ASSIGNED = "assigned"
    FAILED = "failed"
    DISABLED = "disabled"


class Substatus(StrEnum):
    INITIAL_ASSIGNMENT = "initialAssignment"
    DEVICE_DATA_MIGRATED = "deviceDataMigrated"
    DEVICE_DATA_RESET = "deviceDataReset"
    REPROVISIONED = "reprovisionedToInitialAssignment"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device's place: the internal id of the hub, the host name it was told, and its name there."""

    hub: int
    host_name: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt to register ended. `proof` tells by what: an X.509 leaf's SHA-256 thumbprint."""

    status: Status
    proof: str
    substatus: Substatus | None = None
    error_code: int | None = None
    error_message: str | None = None
    payload: Any = None  # for the device, from whoever chose its hub; any JSON value
    authentication_key: str | None = field(
        default=None, repr=False
    )  # for its TPM: an activation blob, base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What an operation needs to go on without the request that began it, over a restart too.

    `certificate` is the X.509 leaf presented, DER; `payload` what the device sent, any JSON value; `csr` its signing
    request, DER. `target` is where the device goes, once that is settled and another server is to be told; `chosen`
    who has settled it, and `carried` what goes along.
    """

    api_version: ApiVersion
    attested: Attested
    certificate: bytes | None = None
    payload: Any = None
    csr: bytes | None = None
    tracking_id: str = ""
    door: str = ""
    address: str = ""
    chosen: Chosen | None = None
    target: Assignment | None = None
    carried: DeviceData | None = None

    def to_document(self) -> dict[str, Any]:
        version, certificate = self.api_version, self.certificate
        return {
            "apiVersion": [
                version.text,
                version.reprovisioning,
                version.precise_substatus,
                version.issuance,
            ],
            "attested": self.attested.to_document(),
            "certificate": base64.b64encode(certificate).decode() if certificate is not None else None,
            "csr": base64.b64encode(self.csr).decode() if self.csr is not None else None,
            "payload": self.payload,
            "trackingId": self.tracking_id,
            "door": self.door,
            "address": self.address,
            "chosen": asdict(self.chosen) if self.chosen else None,
            "target": list(astuple(self.target)) if self.target else None,
            "carried": self.carried.to_document() if self.carried else None,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Pending:
        certificate, csr = document["certificate"], document.get("csr")
        return cls(
            api_version=ApiVersion(*document["apiVersion"]),
            attested=Attested.from_document(document["attested"]),
            certificate=base64.b64decode(certificate) if certificate is not None else None,
            csr=base64.b64decode(csr) if csr is not None else None,
            payload=document["payload"],
            tracking_id=document["trackingId"],
            door=document["door"],
            address=document["address"],
            chosen=Chosen(**chosen) if (chosen := document.get("chosen")) else None,
            target=Assignment(*target) if (target := document.get("target")) else None,
            carried=DeviceData.from_document(carried) if (carried := document.get("carried")) else None,
        )


@dataclass(frozen=True, slots=True)
class IssuedChain:
    """The certificates that a device was given: base64 of DER, leaf first, root last [dps 20.1].

    `request` is the SHA-256 of the signing request that they answer, in hexadecimal.
    """

    request: str
    chain: tuple[str, ...]


def new_operation_id() -> str:
    """Clients put it into topics and paths as it is, so it is made of `[0-9a-f.-]` only [dps 4]."""
    return f"5.{secrets.token_hex(8)}.{uuid.uuid4()}"


def new_registration_etag() -> str:
    """Base64 of the quoted text, the same string in both APIs [dps trap 23]."""
    return base64.b64encode(f'"{uuid.uuid4()}"'.encode()).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrationState:
    """A registration record. Times are in microseconds.

    `assignment` is the latest there was. While `status` is failed or disabled it is not shown, but kept: the
    device comes back to it, or moves on from it. `operations` are ids of the latest attempts, newest last.
    `mechanism` is the attestation type it proved itself by, `enrollment_group_id` the group it came under.
    `pending` is there while `status` is assigning, and what the latest operation goes on from. `issued` is what the
    latest attempt asked for and was given.
    """

    registration_id: str
    outcome: Outcome
    assignment: Assignment | None
    operations: tuple[str, ...]
    created: int
    updated: int
    etag: str
    mechanism: str = "x509"
    enrollment_group_id: str | None = None
    pending: Pending | None = None
    issued: IssuedChain | None = None

    @property
    def operation_id(self) -> str:
        return self.operations[-1]

    @property
    def status(self) -> Status:
        return self.outcome.status

    @property
    def substatus(self) -> Substatus | None:
        return self.outcome.substatus

    @property
    def error_code(self) -> int | None:
        return self.outcome.error_code

    @property
    def error_message(self) -> str | None:
        return self.outcome.error_message

    @property
    def assigned_hub(self) -> str | None:
        return self.assignment.host_name if self.assignment and self.status is Status.ASSIGNED else None

    @property
    def device_id(self) -> str | None:
        return self.assignment.device_id if self.assignment and self.status is Status.ASSIGNED else None

    def to_json(self, api_version: ApiVersion) -> dict[str, Any]:
        """The record as the service API shows it [dps 16.2]. What is not there is left out."""
        shown: dict[str, Any] = {
            "registrationId": self.registration_id,
            "createdDateTimeUtc": timestamp(self.created),
            "assignedHub": self.assigned_hub,
            "deviceId": self.device_id,
            "status": self.status.value,
            "substatus": told_substatus(self.substatus, api_version),
            "errorCode": self.error_code,
            "errorMessage": self.error_message,
            "payload": self.outcome.payload,
            "lastUpdatedDateTimeUtc": timestamp(self.updated),
            "etag": self.etag,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def operation_status(self, api_version: ApiVersion) -> dict[str, Any]:
        """The answer to a device whose operation has ended [dps 6.3]."""
        state = self.to_json(api_version)
        if self.status is Status.ASSIGNED:
            state = {**self._attestation_json(), **state}
            if self.issued is not None and api_version.issuance:
                state["issuedCertificateChain"] = list(self.issued.chain)
        return {"operationId": self.operation_id, "status": self.status.value, "registrationState": state}

    def _attestation_json(self) -> dict[str, Any]:
        """By what the device came: an individual enrollment's key is not mentioned [dps 6.4]."""
        if self.enrollment_group_id is not None:
            return {self.mechanism: {"enrollmentGroupId": self.enrollment_group_id}}
        if self.outcome.authentication_key is not None:
            return {"tpm": {"authenticationKey": self.outcome.authentication_key}}
        return {"x509": {}} if self.mechanism == "x509" else {}

    def accepted(self) -> dict[str, Any]:
        """The first answer, from which the device goes on to poll [dps 6.3]."""
        return {"operationId": self.operation_id, "status": Status.ASSIGNING.value}

    def ended(
        self, outcome: Outcome, assignment: Assignment | None, now: int, issued: IssuedChain | None = None
    ) -> RegistrationState:
        """The record once its operation under way has come to `outcome`. `assignment` None keeps the one there was."""
        return replace(
            self,
            outcome=outcome,
            assignment=assignment or self.assignment,
            updated=now,
            etag=new_registration_etag(),
            pending=None,
            issued=issued,
        )


def told_substatus(substatus: Substatus | None, api_version: ApiVersion) -> str | None:
    """What a caller of this version may be told: older ones have no word for coming again [dps 3]."""
    if substatus is None or not api_version.reprovisioning:
        return None
    if substatus is Substatus.REPROVISIONED and not api_version.precise_substatus:
        return Substatus.INITIAL_ASSIGNMENT.value
    return substatus.value


def attempted(
    previous: RegistrationState | None,
    registration_id: str,
    *,
    outcome: Outcome,
    assignment: Assignment | None,
    mechanism: str,
    enrollment_group_id: str | None,
    issued: IssuedChain | None = None,
    now: int,
) -> RegistrationState:
    """The record after one more attempt. `assignment` None keeps the one there was."""
    operations = (*(previous.operations if previous else ()), new_operation_id())
    return RegistrationState(
        registration_id=registration_id,
        outcome=outcome,
        assignment=assignment or (previous.assignment if previous else None),
        operations=operations[-KEPT_OPERATIONS:],
        created=previous.created if previous else now,
        updated=now,
        etag=new_registration_etag(),
        mechanism=mechanism,
        enrollment_group_id=enrollment_group_id,
        issued=issued,
    )


@dataclass(frozen=True, slots=True)
class RegisterBody:
    """What the body of a register request says. `payload` is any JSON value, None without one [dps 6.2].

    `csr` is a signing request in DER. [dps 20.1]
    """

    payload: Any = None
    tpm: TpmKeys | None = None
    csr: bytes | None = None


def read_register_body(body: bytes, registration_id: str) -> RegisterBody:
    """An empty or blank body equals `{}` [dps 6.2].

    The registration id comes from the connection; the body may repeat it. Raises Invalid.
    """
    if not body.strip():
        return RegisterBody()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid("body", "the register request is not JSON") from None
    if not isinstance(document, dict):
        raise Invalid("body", "the register request is not a JSON object")
    named = document.get("registrationId")
    if named is not None and (not isinstance(named, str) or named.lower() != registration_id.lower()):
        raise Invalid("registrationId", f"the body says {named!r}, the connection {registration_id!r}")
    csr = document.get("csr")
    return RegisterBody(
        document.get("payload"), _read_tpm(document), decode_request(csr) if csr is not None else None
    )


def _read_tpm(document: Document) -> TpmKeys | None:
    told = optional_object(document, "tpm")
    if not told:
        return None
    endorsement_key = text(told, "endorsementKey", "tpm.") or ""
    root = text(told, "storageRootKey", "tpm.")
    return TpmKeys(
        read_storage_key("tpm.endorsementKey", endorsement_key),
        read_storage_key("tpm.storageRootKey", root) if root else None,
    )


def _to_document(state: RegistrationState) -> dict[str, Any]:
    outcome, assignment = state.outcome, state.assignment
    return {
        "registrationId": state.registration_id,
        "outcome": {
            "status": outcome.status.value,
            "proof": outcome.proof,
            "substatus": outcome.substatus.value if outcome.substatus else None,
            "errorCode": outcome.error_code,
            "errorMessage": outcome.error_message,
            "payload": outcome.payload,
            "authenticationKey": outcome.authentication_key,
        },
        "assignment": [assignment.hub, assignment.host_name, assignment.device_id] if assignment else None,
        "operations": list(state.operations),
        "created": state.created,
        "updated": state.updated,
        "etag": state.etag,
        "mechanism": state.mechanism,
        "enrollmentGroupId": state.enrollment_group_id,
        "pending": state.pending.to_document() if state.pending else None,
        "issued": [state.issued.request, *state.issued.chain] if state.issued else None,
    }


def _from_document(document: Mapping[str, Any]) -> RegistrationState:
    outcome, assignment = document["outcome"], document["assignment"]
    return RegistrationState(
        registration_id=document["registrationId"],
        outcome=Outcome(
            status=Status(outcome["status"]),
            proof=outcome["proof"],
            substatus=Substatus(outcome["substatus"]) if outcome["substatus"] else None,
            error_code=outcome["errorCode"],
            error_message=outcome["errorMessage"],
            payload=outcome["payload"],
            authentication_key=outcome.get("authenticationKey"),
        ),
        assignment=Assignment(*assignment) if assignment else None,
        operations=tuple(document["operations"]),
        created=document["created"],
        updated=document["updated"],
        etag=document["etag"],
        mechanism=document["mechanism"],
        enrollment_group_id=document["enrollmentGroupId"],
        pending=Pending.from_document(document["pending"]) if document["pending"] else None,
        issued=IssuedChain(issued[0], tuple(issued[1:])) if (issued := document.get("issued")) else None,
    )


def _group_key(state: RegistrationState) -> tuple[str, ...]:
    return (state.enrollment_group_id.lower(),) if state.enrollment_group_id is not None else ()


KIND = Kind[RegistrationState](
    name="registration",
    key=lambda state: state.registration_id.lower(),
    to_document=_to_document,
    from_document=_from_document,
    index={
        "enrollment_group": _group_key,
        "status": lambda state: (state.status.value,) if state.status is Status.ASSIGNING else (),
    },
)
"""By registration id in any case; by `enrollment_group`, its id in lower case, which may be gone by now; by `status`
while that is `assigning`, to find what was under way when the server ended."""
