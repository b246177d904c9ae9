"""Shared access policies: two keys under a name, and the rights they give."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.credentials.decision import Finding
from moorage.credentials.sas import CONNECT_SKEW, SasToken, check_key, covers, new_key, parse_token, verify
from moorage.errors import Invalid, Unauthorized
from moorage.interfaces import Kind

SERVICE_CONFIG = "ServiceConfig"
ENROLLMENT_READ = "EnrollmentRead"
ENROLLMENT_WRITE = "EnrollmentWrite"
REGISTRATION_STATUS_READ = "RegistrationStatusRead"
REGISTRATION_STATUS_WRITE = "RegistrationStatusWrite"
REGISTRY_READ = "RegistryRead"
REGISTRY_WRITE = "RegistryWrite"
SERVICE_CONNECT = "ServiceConnect"
DEVICE_CONNECT = "DeviceConnect"

PROVISIONING_RIGHTS = frozenset(
    {
        SERVICE_CONFIG,
        ENROLLMENT_READ,
        ENROLLMENT_WRITE,
        REGISTRATION_STATUS_READ,
        REGISTRATION_STATUS_WRITE,
        DEVICE_CONNECT,
    }
)
"""What a policy of a provisioning service can grant. [dps 5.3]"""

HUB_RIGHTS = frozenset({REGISTRY_READ, REGISTRY_WRITE, SERVICE_CONNECT, DEVICE_CONNECT})
"""What a policy of a hub can grant. [hub-service 2.3]"""

_NAME = re.compile(r"[a-zA-Z0-9_\-@.]{1,64}")  # [hub-service 2.1]

_IMPLIED_BY = {REGISTRY_READ: REGISTRY_WRITE}  # [hub-service 2.3]


def new_etag() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, kw_only=True)
class SharedAccessPolicy:
    """Both keys (base64) verify. `rights` are names such as `RegistryWrite`."""

    name: str
    primary_key: str = field(repr=False)
    secondary_key: str = field(repr=False)
    rights: frozenset[str]
    etag: str = field(default_factory=new_etag)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Invalid(
                "keyName", "a policy has a name of 1 to 64 ASCII letters, digits, '-', '_', '.' and '@'"
            )
        check_key("primaryKey", self.primary_key)
        check_key("secondaryKey", self.secondary_key)
        if unknown := self.rights - PROVISIONING_RIGHTS - HUB_RIGHTS:
            raise Invalid("rights", f"{min(unknown)!r} is not a right")

    def allows(self, right: str) -> bool:
        return right in self.rights or _IMPLIED_BY.get(right) in self.rights

    @property
    def keys(self) -> tuple[str, str]:
        return self.primary_key, self.secondary_key


def _to_document(policy: SharedAccessPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "primaryKey": policy.primary_key,
        "secondaryKey": policy.secondary_key,
        "rights": sorted(policy.rights),
        "etag": policy.etag,
    }


def _from_document(document: dict[str, Any]) -> SharedAccessPolicy:
    return SharedAccessPolicy(
        name=document["name"],
        primary_key=document["primaryKey"],
        secondary_key=document["secondaryKey"],
        rights=frozenset(document["rights"]),
        etag=document["etag"],
    )


KIND: Kind[SharedAccessPolicy] = Kind(
    name="shared_access_policy",
    key=lambda policy: policy.name,
    to_document=_to_document,
    from_document=_from_document,
    index={},
    few=True,
)
"""Kept under the scope of the hub or the provisioning service it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRules:
    """What holds for the policies of one kind of service.

    `rights` are all that can be granted, `administer` those that together make an administrator, and `owner` is the
    policy that always is one.
    """

    rights: frozenset[str]
    administer: tuple[str, ...]
    owner: str


# Azure's CLI looks for a policy with just these rights when it administers a service [dps 5.3, hub-service 2.3].
PROVISIONING_RULES = PolicyRules(
    rights=PROVISIONING_RIGHTS,
    administer=(SERVICE_CONFIG, ENROLLMENT_WRITE),
    owner="provisioningserviceowner",
)
HUB_RULES = PolicyRules(
    rights=HUB_RIGHTS, administer=(REGISTRY_WRITE, SERVICE_CONNECT, DEVICE_CONNECT), owner="iothubowner"
)


def provisioning_policies() -> list[SharedAccessPolicy]:
    """The policies a new provisioning service starts with, under new keys. [dps 5.3]"""
    return [_new_policy(PROVISIONING_RULES.owner, PROVISIONING_RIGHTS)]


def hub_policies() -> list[SharedAccessPolicy]:
    """The policies a new hub starts with, under new keys. [hub-service 2.3]"""
    return [
        _new_policy(HUB_RULES.owner, HUB_RIGHTS),
        _new_policy("service", {SERVICE_CONNECT}),
        _new_policy("device", {DEVICE_CONNECT}),
        _new_policy("registryRead", {REGISTRY_READ}),
        _new_policy("registryReadWrite", {REGISTRY_READ, REGISTRY_WRITE}),
    ]


def _new_policy(name: str, rights: Iterable[str]) -> SharedAccessPolicy:
    return SharedAccessPolicy(
        name=name, primary_key=new_key(32), secondary_key=new_key(32), rights=frozenset(rights)
    )


def authorize(
    token_text: str | None,
    *,
    resource: str | Sequence[str],
    right: str | Sequence[str],
    policies: Iterable[SharedAccessPolicy],
    now: int,
    skew_seconds: int = CONNECT_SKEW,
    text_keys: bool = False,
    finding: Finding | None = None,
) -> SharedAccessPolicy:
    """The policy whose key signed the token, when it grants `right` on `resource`. Raises Unauthorized.

    `resource` may be given under each of several host names; of several rights it has to grant all. `text_keys` is
    for the Event Hubs-compatible endpoint: keys count by their text too, and paths compare without regard to case.
    [hub-service 2.2]
    """
    finding = finding or Finding()
    rights = (right,) if isinstance(right, str) else right
    if not token_text:
        raise Unauthorized(
            "no SAS token was presented",
            check="token present",
            remedy=f"Present a SAS token of a shared access policy that has the right {' and '.join(rights)}.",
        )
    token = parse_token(token_text)
    finding.present_token(token)
    policy = _named(token, policies)
    finding.consider(f"shared access policy {policy.name}")
    verify(token, policy.keys, now, skew_seconds=skew_seconds, text_keys=text_keys)
    finding.hold("signature")
    finding.hold("expiry")
    _check_audience(token, (resource,) if isinstance(resource, str) else resource, ignore_case=text_keys)
    finding.hold("audience")
    if missing := [each for each in rights if not policy.allows(each)]:
        raise Unauthorized(
            f"shared access policy '{policy.name}' does not have the right {' and '.join(missing)}",
            check="right",
            remedy=f"Use a policy that has {' and '.join(rights)}.",
        )
    finding.hold("right")
    return policy


def _named(token: SasToken, policies: Iterable[SharedAccessPolicy]) -> SharedAccessPolicy:
    if token.key_name is None:
        raise Unauthorized(
            "the SAS token names no shared access policy",
            check="policy known",
            remedy="Add '&skn={policy name}' to the token.",
        )
    for policy in policies:
        if policy.name == token.key_name:
            return policy
    raise Unauthorized(
        f"there is no shared access policy named '{token.key_name[:128]}'",
        check="policy known",
        remedy="Name an existing policy in 'skn'.",
    )


def _check_audience(token: SasToken, resources: Sequence[str], *, ignore_case: bool) -> None:
    if not any(covers(token.resource, resource, ignore_case=ignore_case) for resource in resources):
        raise Unauthorized(
            f"the SAS token is for '{token.resource[:300]}', which does not cover '{resources[0]}'",
            check="audience",
            remedy=f"Make the token for '{resources[0]}' or a parent of it.",
        )
