"""A provisioning service (an instance of DPS), the hubs linked to it, and the API versions it is asked in."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moorage.credentials.connection_string import ConnectionString
from moorage.errors import Invalid
from moorage.interfaces import Kind

MAX_LINKED_HUBS = 50  # [dps 19]
MAX_WEIGHT = 1000
MAX_LATENCY = 60_000  # milliseconds
MAX_LOCATION = 128  # characters


class AllocationPolicy(StrEnum):
    """How a device gets its hub [dps 13.1], in the spelling of the enrollment JSON."""

    HASHED = "hashed"
    GEO_LATENCY = "geoLatency"
    STATIC = "static"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """What the version that a caller speaks knows of. Made by the one table of versions, never by hand."""

    text: str
    reprovisioning: bool  # reprovisionPolicy, allocationPolicy and what belongs to them
    precise_substatus: bool  # reprovisionedToInitialAssignment, told apart from initialAssignment
    issuance: bool = False  # csr, issuedCertificateChain, credentialPolicyName


def new_id_scope() -> str:
    """The form that Azure gives out: `0ne00` and six hexadecimal digits [dps 2.4]."""
    return f"0ne00{secrets.token_hex(3).upper()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvisioningService:
    """An instance of DPS. `scope` is its internal id, `id_scope` its name for devices; neither changes."""

    scope: int
    id_scope: str
    host_names: tuple[str, ...]
    allocation_policy: AllocationPolicy = AllocationPolicy.HASHED
    created: int
    etag: str

    def __post_init__(self) -> None:
        if not self.id_scope:
            raise Invalid("idScope", "must not be empty")
        if self.allocation_policy is AllocationPolicy.CUSTOM:
            raise Invalid(
                "allocationPolicy", "custom allocation is declared by an enrollment, not by the service"
            )

    def answers_to(self, id_scope: str) -> bool:
        return self.id_scope.lower() == id_scope.lower()


def _service_document(service: ProvisioningService) -> dict[str, Any]:
    return {
        "scope": service.scope,
        "idScope": service.id_scope,
        "hostNames": list(service.host_names),
        "allocationPolicy": service.allocation_policy.value,
        "created": service.created,
        "etag": service.etag,
    }


def _service_from(document: dict[str, Any]) -> ProvisioningService:
    return ProvisioningService(
        scope=document["scope"],
        id_scope=document["idScope"],
        host_names=tuple(document["hostNames"]),
        allocation_policy=AllocationPolicy(document["allocationPolicy"]),
        created=document["created"],
        etag=document["etag"],
    )


SERVICE_KIND = Kind[ProvisioningService](
    name="provisioning_service",
    key=lambda service: str(service.scope),
    to_document=_service_document,
    from_document=_service_from,
    index={"id_scope": lambda service: (service.id_scope.lower(),)},
    few=True,
)
"""Kept under scope 0, for a device asks for an instance by its id scope before any scope is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedHub:
    """A hub that devices may be assigned to. `hub` is its internal id, `host_name` what devices are told.

    `latency_ms` is how far away the hub is, in milliseconds, None while nobody has said or measured it; `location`
    is where it stands, in words. `login` is how a hub of another server is told of devices, None for our own.
    """

    hub: int
    host_name: str
    weight: int = 1
    eligible: bool = True  # False: only for enrollments that name it (Azure's applyAllocationPolicy)
    location: str | None = None
    latency_ms: float | None = None
    login: ConnectionString | None = None
    etag: str

    def __post_init__(self) -> None:
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise Invalid("allocationWeight", f"must be 1 to {MAX_WEIGHT}, not {self.weight}")
        if self.latency_ms is not None and not 0 <= self.latency_ms <= MAX_LATENCY:
            raise Invalid("latencyMs", f"must be 0 to {MAX_LATENCY} milliseconds, not {self.latency_ms}")
        if len(self.location or "") > MAX_LOCATION:
            raise Invalid("location", f"has at most {MAX_LOCATION} characters")
        if not self.host_name or not set(self.host_name).isdisjoint(":/@ "):
            # Devices take it as a TCP host with ports of their own [dps 6.4].
            raise Invalid(
                "hostName", f"must be a bare host name without scheme or port, not {self.host_name!r}"
            )


def _linked_hub_document(hub: LinkedHub) -> dict[str, Any]:
    return {
        "hub": hub.hub,
        "hostName": hub.host_name,
        "weight": hub.weight,
        "eligible": hub.eligible,
        "location": hub.location,
        "latencyMs": hub.latency_ms,
        "connectionString": hub.login.text if hub.login is not None else None,
        "etag": hub.etag,
    }


def _linked_hub_from(document: dict[str, Any]) -> LinkedHub:
    return LinkedHub(
        hub=document["hub"],
        host_name=document["hostName"],
        weight=document["weight"],
        eligible=document["eligible"],
        location=document.get("location"),  # records of 0.1 have neither this
        latency_ms=document.get("latencyMs"),  # nor this
        login=ConnectionString.parse(login) if (login := document.get("connectionString")) else None,
        etag=document["etag"],
    )


LINKED_HUB_KIND = Kind[LinkedHub](
    name="linked_hub",
    key=lambda hub: str(hub.hub),
    to_document=_linked_hub_document,
    from_document=_linked_hub_from,
    index={"host_name": lambda hub: (hub.host_name.lower(),)},
    few=True,
)
"""Kept under the scope of the provisioning service."""
