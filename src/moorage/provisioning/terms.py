"""What a device is given once it has proven itself: the same of individual enrollments and of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from moorage.errors import Invalid, NotSupported
from moorage.hub.twin import read_initial_twin
from moorage.provisioning.credential_policy import check_policy_name
from moorage.provisioning.custom_allocation import CustomAllocationDefinition, read_definition
from moorage.provisioning.reading import Document, boolean, choice, optional_object, text
from moorage.provisioning.service import AllocationPolicy, ApiVersion, LinkedHub

# Members that Azure acts on and this release does not: refused when given, never passed over.
_NOT_YET = {
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
    """Which hubs the enrollment allows, and how one is chosen. `policy` None leaves that to the service.

    `custom` says whom the policy `custom` asks; it may be there for later under any other policy.
    """

    policy: AllocationPolicy | None = None
    iot_hubs: tuple[str, ...] = ()
    iot_hub_host_name: str | None = None  # the older way to name one hub
    custom: CustomAllocationDefinition | None = None

    def __post_init__(self) -> None:
        if self.policy is AllocationPolicy.STATIC and len(self.named) != 1:
            raise Invalid("iotHubs", "with the allocation policy 'static', name exactly one linked hub")
        if self.policy is AllocationPolicy.CUSTOM and self.custom is None:
            raise Invalid(
                "customAllocationDefinition",
                "with the allocation policy 'custom', give webhookUrl and apiVersion",
            )

    @property
    def definition(self) -> CustomAllocationDefinition:
        """Whom to ask, where the policy is `custom`."""
        if self.custom is None:
            raise LookupError("the enrollment names nobody to ask")
        return self.custom

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

    def check_hubs(self, linked: Sequence[LinkedHub]) -> None:
        """Raises Invalid when it names a hub that is not linked."""
        known = {hub.host_name.lower() for hub in linked}
        for name in self.named:
            if name.lower() not in known:
                names = ", ".join(sorted(known)) or "none"
                raise Invalid("iotHubs", f"{name!r} is not a linked hub; linked: {names}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """`initial_twin` is as written, and valid by the hub's rules: `{"tags": …, "properties": {"desired": …}}`.

    `credential_policy_name` names the policy by which a device that asks for a certificate is given one.

    `reprovision_policy` None was never declared: the default holds, but old devices stay [dps 14.4].
    """

    provisioning_status: ProvisioningStatus = ProvisioningStatus.ENABLED
    iot_edge: bool = False
    initial_twin: Mapping[str, Any] | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    allocation: Allocation = Allocation()
    credential_policy_name: str | None = None

    @property
    def enabled(self) -> bool:
        return self.provisioning_status is ProvisioningStatus.ENABLED

    def reprovisioning(self, api_version: ApiVersion) -> ReprovisionPolicy:
        """The policy for a device of this version: old ones stay where they are unless told [dps 14.4]."""
        if self.reprovision_policy is not None:
            return self.reprovision_policy
        return ReprovisionPolicy() if api_version.reprovisioning else NEVER

    def to_json(self, api_version: ApiVersion) -> dict[str, Any]:
        """The members of an enrollment's JSON that both kinds have [dps 16.2]."""
        shown: dict[str, Any] = {
            "capabilities": {"iotEdge": self.iot_edge},
            "iotHubHostName": self.allocation.iot_hub_host_name,
            "initialTwin": self.initial_twin,
            "provisioningStatus": self.provisioning_status.value,
        }
        if api_version.reprovisioning:
            policy, custom = self.allocation.policy, self.allocation.custom
            shown |= {
                "reprovisionPolicy": (self.reprovision_policy or ReprovisionPolicy()).to_json(),
                "allocationPolicy": policy.value if policy else None,
                "iotHubs": list(self.allocation.iot_hubs) or None,
                "customAllocationDefinition": custom.to_json() if custom else None,
            }
        if api_version.issuance or self.credential_policy_name is not None:
            shown["credentialPolicyName"] = self.credential_policy_name
        return shown

    def to_document(self) -> dict[str, Any]:
        policy, allocation = self.reprovision_policy, self.allocation
        return {
            "provisioningStatus": self.provisioning_status.value,
            "iotEdge": self.iot_edge,
            "initialTwin": self.initial_twin,
            "reprovisionPolicy": policy.to_json() if policy else None,
            "allocationPolicy": allocation.policy.value if allocation.policy else None,
            "iotHubs": list(allocation.iot_hubs),
            "iotHubHostName": allocation.iot_hub_host_name,
            "customAllocationDefinition": allocation.custom.to_document() if allocation.custom else None,
            "credentialPolicyName": self.credential_policy_name,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Terms:
        policy = document["allocationPolicy"]
        return cls(
            provisioning_status=ProvisioningStatus(document["provisioningStatus"]),
            iot_edge=document["iotEdge"],
            initial_twin=document["initialTwin"],
            reprovision_policy=_read_reprovision_policy(document["reprovisionPolicy"]),
            allocation=Allocation(
                policy=AllocationPolicy(policy) if policy else None,
                iot_hubs=tuple(document["iotHubs"]),
                iot_hub_host_name=document["iotHubHostName"],
                custom=CustomAllocationDefinition.from_document(document["customAllocationDefinition"]),
            ),
            credential_policy_name=document.get("credentialPolicyName"),
        )


def read_terms(document: Document, *, stored: Terms | None, api_version: ApiVersion) -> Terms:
    """From the body of a PUT. Raises Invalid, NotSupported.

    What the caller's version has no words for stays as it is in `stored`.
    """
    for name, meaning in _NOT_YET.items():
        if document.get(name):
            raise NotSupported(meaning, f"leave out {name!r}")
    terms = Terms(
        provisioning_status=choice(document, "provisioningStatus", ProvisioningStatus)
        or ProvisioningStatus.ENABLED,
        iot_edge=boolean(
            optional_object(document, "capabilities") or {}, "iotEdge", "capabilities.", default=False
        ),
        initial_twin=_checked_initial_twin(optional_object(document, "initialTwin")),
        allocation=Allocation(iot_hub_host_name=text(document, "iotHubHostName")),
        credential_policy_name=_credential_policy_name(document, stored, api_version),
    )
    if api_version.reprovisioning:
        return replace(
            terms,
            reprovision_policy=_read_reprovision_policy(optional_object(document, "reprovisionPolicy")),
            allocation=_read_allocation(document, stored.allocation.custom if stored else None),
        )
    if stored is None:
        return terms
    return replace(
        terms,
        reprovision_policy=stored.reprovision_policy,
        allocation=replace(stored.allocation, iot_hub_host_name=terms.allocation.iot_hub_host_name),
    )


def _credential_policy_name(document: Document, stored: Terms | None, api_version: ApiVersion) -> str | None:
    """Who has no word for it and is silent keeps what there is; who writes it all the same is taken at the word."""
    if "credentialPolicyName" not in document and not api_version.issuance:
        return stored.credential_policy_name if stored else None
    named = text(document, "credentialPolicyName")
    if named is not None:
        check_policy_name("credentialPolicyName", named)
    return named


def _read_reprovision_policy(document: Document | None) -> ReprovisionPolicy | None:
    if document is None:
        return None
    where = "reprovisionPolicy."
    return ReprovisionPolicy(
        update_hub_assignment=boolean(document, "updateHubAssignment", where, default=True),
        migrate_device_data=boolean(document, "migrateDeviceData", where, default=True),
    )


def _read_allocation(document: Document, stored: CustomAllocationDefinition | None) -> Allocation:
    hubs = document.get("iotHubs")
    if hubs is not None and not (
        isinstance(hubs, list) and all(isinstance(hub, str) and hub for hub in hubs)
    ):
        raise Invalid("iotHubs", "must be a list of host names of linked hubs")
    return Allocation(
        choice(document, "allocationPolicy", AllocationPolicy),
        tuple(hubs or ()),
        text(document, "iotHubHostName"),
        read_definition(document.get("customAllocationDefinition"), stored),
    )


def _checked_initial_twin(document: Document | None) -> Document | None:
    if document is not None:
        read_initial_twin("initialTwin", document)
    return document
