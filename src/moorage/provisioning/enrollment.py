"""The individual enrollment: one device that may register, how it proves itself and what it is then given.

Three forms of one record: the dataclass, the JSON of the service API [dps 16.2], and the stored document. The
first two differ by more than spelling: JSON is read leniently and shown by api-version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from moorage.errors import Invalid, NotSupported
from moorage.hub.identity import check_device_id
from moorage.hub.twin import read_initial_twin, timestamp
from moorage.interfaces import Kind
from moorage.provisioning.attestation import Attestation, attestation_from, member, read_attestation
from moorage.provisioning.etag import new_etag
from moorage.provisioning.registration import RegistrationState
from moorage.provisioning.service import AllocationPolicy, ApiVersion, LinkedHub

E = TypeVar("E", bound=StrEnum)

_REGISTRATION_ID = re.compile(r"[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]")  # [dps 4]

# Members that Azure acts on and this release does not: refused when given, never passed over.
_NOT_YET = {
    "customAllocationDefinition": "custom allocation",
    "credentialPolicyName": "certificate issuance",
    "clientCertificateIssuancePolicy": "certificate issuance",
}


class ProvisioningStatus(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class ReprovisionPolicy:
    """What a later registration does [dps 14]: allocate again, and take the twin along if the hub changes."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "updateHubAssignment": self.update_hub_assignment,
            "migrateDeviceData": self.migrate_device_data,
        }


NEVER = ReprovisionPolicy(update_hub_assignment=False)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Which hubs the enrollment allows, and how one is chosen. `policy` None leaves that to the service."""

    policy: AllocationPolicy | None = None
    iot_hubs: tuple[str, ...] = ()
    iot_hub_host_name: str | None = None  # the older way to name one hub

    def __post_init__(self) -> None:
        if self.policy is AllocationPolicy.STATIC and len(self.named) != 1:
            raise Invalid("iotHubs", "with the allocation policy 'static', name exactly one linked hub")

    @property
    def named(self) -> tuple[str, ...]:
        """Host names; empty allows every linked hub."""
        if self.iot_hubs:
            return self.iot_hubs
        return (self.iot_hub_host_name,) if self.iot_hub_host_name else ()

    def policy_or(self, default: AllocationPolicy) -> AllocationPolicy:
        if self.policy is not None:
            return self.policy
        return AllocationPolicy.STATIC if self.iot_hub_host_name else default  # [dps 13.1]


@dataclass(frozen=True, kw_only=True, slots=True)
class IndividualEnrollment:
    """`registration_id` keeps the spelling it was created with. Times are in microseconds.

    `initial_twin` is as written, and valid by the hub's rules: `{"tags": …, "properties": {"desired": …}}`.
    `reprovision_policy` None was never declared: the default holds, but old devices stay [dps 14.4].
    """

    registration_id: str
    attestation: Attestation
    device_id: str | None = None
    optional_device_information: Mapping[str, Any] | None = None
    iot_edge: bool = False
    initial_twin: Mapping[str, Any] | None = None
    provisioning_status: ProvisioningStatus = ProvisioningStatus.ENABLED
    reprovision_policy: ReprovisionPolicy | None = None
    allocation: Allocation = Allocation()
    created: int
    updated: int
    etag: str

    def __post_init__(self) -> None:
        check_registration_id(self.registration_id)
        if self.device_id is not None:
            check_device_id(self.device_id)

    @property
    def enabled(self) -> bool:
        return self.provisioning_status is ProvisioningStatus.ENABLED

    @property
    def hub_device_id(self) -> str:
        """The device's name in the hub."""
        return self.device_id or self.registration_id

    def reprovisioning(self, api_version: ApiVersion) -> ReprovisionPolicy:
        """The policy for a device of this version: old ones stay where they are unless told [dps 14.4]."""
        if self.reprovision_policy is not None:
            return self.reprovision_policy
        return ReprovisionPolicy() if api_version.reprovisioning else NEVER

    def to_json(
        self, api_version: ApiVersion, registration: RegistrationState | None = None
    ) -> dict[str, Any]:
        """As the service API shows it; `registration` is for a single one, not in queries [dps trap 46]."""
        shown: dict[str, Any] = {"registrationId": self.registration_id, "deviceId": self.device_id}
        if registration is not None:
            shown["registrationState"] = registration.to_json(api_version)
        shown |= {
            "optionalDeviceInformation": self.optional_device_information,
            "attestation": self.attestation.to_json(),
            "capabilities": {"iotEdge": self.iot_edge},
            "iotHubHostName": self.allocation.iot_hub_host_name,
            "initialTwin": self.initial_twin,
            "etag": f'"{self.etag}"',
            "provisioningStatus": self.provisioning_status.value,
            "createdDateTimeUtc": timestamp(self.created),
            "lastUpdatedDateTimeUtc": timestamp(self.updated),
        }
        if api_version.reprovisioning:
            policy = self.allocation.policy
            shown |= {
                "reprovisionPolicy": (self.reprovision_policy or ReprovisionPolicy()).to_json(),
                "allocationPolicy": policy.value if policy else None,
                "iotHubs": list(self.allocation.iot_hubs) or None,
                "customAllocationDefinition": None,
            }
        return shown

    def check_hubs(self, linked: Sequence[LinkedHub]) -> None:
        """Raises Invalid when the enrollment names a hub that is not linked."""
        known = {hub.host_name.lower() for hub in linked}
        for name in self.allocation.named:
            if name.lower() not in known:
                names = ", ".join(sorted(known)) or "none"
                raise Invalid("iotHubs", f"{name!r} is not a linked hub; linked: {names}")


def check_registration_id(registration_id: str) -> None:
    """[dps 4]"""
    if not _REGISTRATION_ID.fullmatch(registration_id):
        raise Invalid(
            "registrationId",
            "must be 1 to 128 letters, digits and - . _ : and end in a letter, a digit or a dash",
        )


def read_registration_id(document: Mapping[str, Any]) -> str:
    """The id that `document`, the body of a PUT, is about. Raises Invalid."""
    registration_id = _text(document, "registrationId")
    if registration_id is None:
        raise Invalid("registrationId", "is required")
    check_registration_id(registration_id)
    return registration_id


def read_enrollment(
    document: Mapping[str, Any], *, stored: IndividualEnrollment | None, api_version: ApiVersion, now: int
) -> IndividualEnrollment:
    """The enrollment that `document`, the body of a PUT, declares. Unknown and read-only members are ignored.

    `stored` is the record it replaces: its spelling of the id, its creation time, and the certificates that
    come back as `info` only are kept. Raises Invalid, NotSupported.
    """
    for name, meaning in _NOT_YET.items():
        if document.get(name):
            raise NotSupported(meaning, f"leave out {name!r}")
    status = _choice(document, "provisioningStatus", ProvisioningStatus) or ProvisioningStatus.ENABLED
    enrollment = IndividualEnrollment(
        registration_id=stored.registration_id if stored else read_registration_id(document),
        attestation=read_attestation(
            member(document, "attestation", ""), stored.attestation if stored else None
        ),
        device_id=_text(document, "deviceId"),
        optional_device_information=_object(document, "optionalDeviceInformation"),
        iot_edge=_boolean(_object(document, "capabilities") or {}, "iotEdge", "capabilities.", default=False),
        initial_twin=_checked_initial_twin(_object(document, "initialTwin")),
        provisioning_status=status,
        allocation=Allocation(iot_hub_host_name=_text(document, "iotHubHostName")),
        created=stored.created if stored else now,
        updated=now,
        etag=new_etag(),
    )
    if api_version.reprovisioning:
        return replace(
            enrollment,
            reprovision_policy=_read_reprovision_policy(_object(document, "reprovisionPolicy")),
            allocation=_read_allocation(document),
        )
    if stored is None:
        return enrollment
    # What the caller's version has no words for stays as it is.
    return replace(
        enrollment,
        reprovision_policy=stored.reprovision_policy,
        allocation=replace(stored.allocation, iot_hub_host_name=enrollment.allocation.iot_hub_host_name),
    )


def _read_reprovision_policy(document: Mapping[str, Any] | None) -> ReprovisionPolicy | None:
    if document is None:
        return None
    where = "reprovisionPolicy."
    return ReprovisionPolicy(
        update_hub_assignment=_boolean(document, "updateHubAssignment", where, default=True),
        migrate_device_data=_boolean(document, "migrateDeviceData", where, default=True),
    )


def _read_allocation(document: Mapping[str, Any]) -> Allocation:
    policy = _choice(document, "allocationPolicy", AllocationPolicy)
    if policy is AllocationPolicy.CUSTOM:
        raise NotSupported(
            "custom allocation", "use the allocation policy 'hashed', 'geoLatency' or 'static'"
        )
    hubs = document.get("iotHubs")
    if hubs is not None and not (
        isinstance(hubs, list) and all(isinstance(hub, str) and hub for hub in hubs)
    ):
        raise Invalid("iotHubs", "must be a list of host names of linked hubs")
    return Allocation(policy, tuple(hubs or ()), _text(document, "iotHubHostName"))


def _checked_initial_twin(document: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if document is not None:
        read_initial_twin("initialTwin", document)
    return document


def _text(document: Mapping[str, Any], name: str) -> str | None:
    """A string, or None when it is missing, null or empty."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(name, "must be a string")
    return value or None


def _boolean(document: Mapping[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Invalid(f"{where}{name}", "must be true or false")
    return value


def _object(document: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any] | None:
    value = document.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise Invalid(f"{where}{name}", "must be a JSON object")
    return value


def _choice(document: Mapping[str, Any], name: str, choices: type[E]) -> E | None:
    """The member of `choices`, spelt in any case."""
    text = _text(document, name)
    if text is None:
        return None
    for choice in choices:
        if choice.value.lower() == text.lower():
            return choice
    raise Invalid(name, f"{text!r} is none of {', '.join(choice.value for choice in choices)}")


def _to_document(enrollment: IndividualEnrollment) -> dict[str, Any]:
    policy, allocation = enrollment.reprovision_policy, enrollment.allocation
    return {
        "registrationId": enrollment.registration_id,
        "attestation": enrollment.attestation.to_document(),
        "deviceId": enrollment.device_id,
        "optionalDeviceInformation": enrollment.optional_device_information,
        "iotEdge": enrollment.iot_edge,
        "initialTwin": enrollment.initial_twin,
        "provisioningStatus": enrollment.provisioning_status.value,
        "reprovisionPolicy": policy.to_json() if policy else None,
        "allocationPolicy": allocation.policy.value if allocation.policy else None,
        "iotHubs": list(allocation.iot_hubs),
        "iotHubHostName": allocation.iot_hub_host_name,
        "created": enrollment.created,
        "updated": enrollment.updated,
        "etag": enrollment.etag,
    }


def _from_document(document: Mapping[str, Any]) -> IndividualEnrollment:
    policy = document["allocationPolicy"]
    return IndividualEnrollment(
        registration_id=document["registrationId"],
        attestation=attestation_from(document["attestation"]),
        device_id=document["deviceId"],
        optional_device_information=document["optionalDeviceInformation"],
        iot_edge=document["iotEdge"],
        initial_twin=document["initialTwin"],
        provisioning_status=ProvisioningStatus(document["provisioningStatus"]),
        reprovision_policy=_read_reprovision_policy(document["reprovisionPolicy"]),
        allocation=Allocation(
            policy=AllocationPolicy(policy) if policy else None,
            iot_hubs=tuple(document["iotHubs"]),
            iot_hub_host_name=document["iotHubHostName"],
        ),
        created=document["created"],
        updated=document["updated"],
        etag=document["etag"],
    )


KIND = Kind[IndividualEnrollment](
    name="individual_enrollment",
    key=lambda enrollment: enrollment.registration_id.lower(),
    to_document=_to_document,
    from_document=_from_document,
    index={
        "thumbprint": lambda enrollment: [known.sha256 for known in enrollment.attestation.certificates],
    },
)
"""By registration id in any case; by `thumbprint`, SHA-256, to tell an operator whose certificate came."""
