"""Shared access policies: who may do what, by which of two keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorage.credentials.decision import Finding
from moorage.credentials.policy import (
    DEVICE_CONNECT,
    ENROLLMENT_READ,
    HUB_RIGHTS,
    KIND,
    PROVISIONING_RIGHTS,
    REGISTRY_READ,
    REGISTRY_WRITE,
    SERVICE_CONNECT,
    SharedAccessPolicy,
    authorize,
    hub_policies,
    provisioning_policies,
)
from moorage.credentials.sas import make_token, new_key
from moorage.errors import Invalid, Unauthorized

EXPIRY = 1_893_456_000
NOW = (EXPIRY - 60) * 1_000_000
HOST = "hub.local"
POLICIES = {policy.name: policy for policy in hub_policies()}
OWNER = POLICIES["iothubowner"]


def token(policy: SharedAccessPolicy, resource: str = HOST, **options: Any) -> str:
    return make_token(resource, policy.primary_key, EXPIRY, policy.name, **options)


def refusal(token_text: str | None, **changes: Any) -> Unauthorized:
    arguments: dict[str, Any] = {
        "resource": HOST,
        "right": REGISTRY_READ,
        "policies": POLICIES.values(),
        "now": NOW,
    }
    with pytest.raises(Unauthorized) as raised:
        authorize(token_text, **(arguments | changes))
    assert raised.value.remedy
    return raised.value


def test_the_policies_a_hub_starts_with() -> None:
    assert {name: policy.rights for name, policy in POLICIES.items()} == {
        "iothubowner": HUB_RIGHTS,
        "service": {SERVICE_CONNECT},
        "device": {DEVICE_CONNECT},
        "registryRead": {REGISTRY_READ},
        "registryReadWrite": {REGISTRY_READ, REGISTRY_WRITE},
    }
    assert len({key for policy in POLICIES.values() for key in policy.keys}) == 10


def test_the_policy_a_provisioning_service_starts_with() -> None:
    (owner,) = provisioning_policies()
    assert (owner.name, owner.rights) == ("provisioningserviceowner", PROVISIONING_RIGHTS)
    granted = authorize(token(owner), resource=HOST, right=ENROLLMENT_READ, policies=[owner], now=NOW)
    assert granted == owner


@pytest.mark.parametrize("which", ["primary_key", "secondary_key"])
def test_both_keys_of_a_policy_verify(which: str) -> None:
    made = make_token(HOST, getattr(OWNER, which), EXPIRY, OWNER.name)
    granted = authorize(
        made, resource=f"{HOST}/devices/d1", right=REGISTRY_READ, policies=POLICIES.values(), now=NOW
    )
    assert granted is OWNER


def test_the_resource_may_be_under_any_name_of_the_host() -> None:
    resources = ["localhost/devices", "127.0.0.1/devices"]
    for host in ("localhost", "127.0.0.1"):
        authorize(token(OWNER, host), resource=resources, right=REGISTRY_READ, policies=[OWNER], now=NOW)
    assert refusal(token(OWNER, "elsewhere"), resource=resources).check == "audience"


def test_each_refusal_names_its_check() -> None:
    foreign = replace(OWNER, primary_key=new_key(), secondary_key=new_key())
    assert refusal(None).check == refusal("").check == "token present"
    assert refusal("Bearer x").check == "token form"
    assert refusal(make_token(HOST, OWNER.primary_key, EXPIRY)).check == "policy known"
    assert refusal(token(replace(OWNER, name="nobody"))).check == "policy known"
    assert refusal(token(foreign)).check == "signature"
    assert refusal(token(OWNER), now=(EXPIRY + 300) * 1_000_000).check == "expiry"
    assert refusal(token(OWNER, "other.local")).check == "audience"
    assert refusal(token(OWNER, f"{HOST}/devices/d2"), resource=f"{HOST}/devices/d1").check == "audience"
    assert refusal(token(POLICIES["service"])).check == "right"
    assert refusal(token(POLICIES["registryRead"]), right=REGISTRY_WRITE).check == "right"


def test_the_right_to_write_implies_the_right_to_read() -> None:
    writer = replace(OWNER, rights=frozenset({REGISTRY_WRITE}))
    authorize(token(writer), resource=HOST, right=REGISTRY_READ, policies=[writer], now=NOW)


def test_the_event_hubs_face_takes_the_text_of_a_key_and_paths_in_any_case() -> None:
    made = token(OWNER, f"sb://{HOST}/moorage/consumergroups/$default", text_key=True)
    resource = f"{HOST}/moorage/ConsumerGroups/$Default/Partitions/0"
    granted = authorize(
        made, resource=resource, right=SERVICE_CONNECT, policies=[OWNER], now=NOW, text_keys=True
    )
    assert granted is OWNER
    assert refusal(made, resource=resource).check == "signature"


def test_what_was_found_is_noted() -> None:
    finding = Finding("GET devices", "d1")
    with pytest.raises(Unauthorized) as raised:
        authorize(
            token(POLICIES["service"]),
            resource=HOST,
            right=REGISTRY_READ,
            policies=POLICIES.values(),
            now=NOW,
            finding=finding,
        )
    decision = finding.refused(NOW, raised.value)
    assert [(check.name, check.held) for check in decision.checks] == [
        ("signature", True),
        ("expiry", True),
        ("audience", True),
        ("right", False),
    ]
    assert decision.considered == ("shared access policy service",)
    assert decision.proof == {"token": {"resource": HOST, "expiry": EXPIRY, "keyName": "service"}}


def test_a_policy_is_kept_as_a_document() -> None:
    assert KIND.from_document(KIND.to_document(OWNER)) == OWNER
    assert KIND.key(OWNER) == "iothubowner"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("primary_key", "short"),
        ("secondary_key", "AAAA"),
        ("rights", frozenset({"Everything"})),
    ],
)
def test_a_policy_refuses_to_be_built_wrong(field: str, value: object) -> None:
    wrong: Any = {field: value}
    with pytest.raises(Invalid):
        replace(OWNER, **wrong)


def test_a_policy_does_not_show_its_keys() -> None:
    assert OWNER.primary_key not in repr(OWNER)
    assert OWNER.secondary_key not in repr(OWNER)
