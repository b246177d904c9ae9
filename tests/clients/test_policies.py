"""Shared access policies made and changed while the server runs, as Microsoft's clients and plain HTTPS meet them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError
from provisioningserviceclient import (  # type: ignore[import-untyped]
    ProvisioningServiceClient,
    ProvisioningServiceError,
    QuerySpecification,
)

from tests.support.services import Dps, Https, Hub

pytestmark = pytest.mark.clients

DPS = "/moorage/v1/service/policies"


def policy_of(service: Https, path: str, name: str, *rights: str) -> Iterator[dict[str, Any]]:
    answer = service.call("PUT", f"{path}/{name}", {"rights": list(rights)})
    assert answer.status == 201, answer
    yield answer.body
    service.call("DELETE", f"{path}/{name}")


def hub_path(hub: Hub) -> str:
    return f"/moorage/v1/hubs/{hub.host}/policies"


def login(service: Https, policy: Mapping[str, Any], key: str = "primaryKey") -> str:
    signed_by = f"SharedAccessKeyName={policy['keyName']};SharedAccessKey={policy[key]}"
    return f"HostName={service.host}:{service.port};{signed_by}"


@pytest.fixture
def reading_policy(dps: Dps) -> Iterator[dict[str, Any]]:
    """Of the provisioning service: it may read enrollments, and nothing else."""
    yield from policy_of(dps, DPS, "reading", "EnrollmentRead")


@pytest.fixture
def registry_policy(hub: Hub) -> Iterator[dict[str, Any]]:
    """Of the hub: it may read device identities, and nothing else."""
    yield from policy_of(hub, hub_path(hub), "reading", "RegistryRead")


def status_of(call: Any, *arguments: Any) -> int:
    with pytest.raises(ProvisioningServiceError) as raised:
        call(*arguments)
    status: int = raised.value.cause.response.status_code
    return status


def refusal_of(call: Callable[..., Any], *arguments: Any) -> str:
    """The hub's sentence in a 401."""
    with pytest.raises(HttpOperationError) as raised:
        call(*arguments)
    assert raised.value.response.status_code == 401
    said: str = raised.value.response.json()["Message"]
    return said


def test_a_dps_policy_without_the_right_is_refused(
    env: Mapping[str, str], dps: Dps, reading_policy: dict[str, Any], device_id: str
) -> None:
    client = ProvisioningServiceClient.create_from_connection_string(login(dps, reading_policy))
    assert status_of(client.delete_individual_enrollment_by_param, device_id) == 401
    assert status_of(client.get_individual_enrollment, device_id) == 404  # it may look, and there is none
    query = client.create_individual_enrollment_query(QuerySpecification("SELECT * FROM enrollments"))
    assert isinstance(list(query), list)
    refusal = dps.get(f"/moorage/v1/decisions/{device_id}")[-1]
    assert refusal["remedy"] == "Use a policy that has EnrollmentWrite."

    by_hand = Dps({**env, "PROVISIONING_SERVICE_CONNECTION_STRING": login(dps, reading_policy)})
    assert by_hand.call("GET", f"/enrollments/{device_id}").status == 404
    assert by_hand.call("DELETE", f"/enrollments/{device_id}").status == 401
    assert by_hand.call("GET", f"/registrations/{device_id}").status == 401
    assert by_hand.call("GET", DPS).status == 401

    changed = dps.call(
        "PUT", f"{DPS}/reading", {"rights": ["EnrollmentRead", "EnrollmentWrite"]}, headers={"If-Match": "*"}
    )
    assert changed.status == 200
    assert status_of(client.delete_individual_enrollment_by_param, device_id) == 404


def test_a_hub_policy_without_the_right_is_refused(
    hub: Hub, registry_policy: dict[str, Any], device_id: str
) -> None:
    registry = IoTHubRegistryManager.from_connection_string(login(hub, registry_policy))
    assert isinstance(registry.get_devices(), list)
    key = registry_policy["primaryKey"]
    assert "does not have the right RegistryWrite" in refusal_of(
        registry.create_device_with_sas, device_id, key, key, "enabled"
    )
    assert "does not have the right ServiceConnect" in refusal_of(registry.get_twin, device_id)

    changed = hub.call(
        "PUT", f"{hub_path(hub)}/reading", {"rights": ["RegistryWrite"]}, headers={"If-Match": "*"}
    )
    assert changed.status == 200
    assert registry.create_device_with_sas(device_id, key, key, "enabled").device_id == device_id
    registry.delete_device(device_id)


def test_a_key_made_anew_ends_the_old_one(hub: Hub, registry_policy: dict[str, Any]) -> None:
    by_primary = IoTHubRegistryManager.from_connection_string(login(hub, registry_policy))
    by_secondary = IoTHubRegistryManager.from_connection_string(login(hub, registry_policy, "secondaryKey"))
    by_primary.get_devices()
    renewed = hub.call("POST", f"{hub_path(hub)}/reading/renewKey", {"key": "primary"})
    assert renewed.status == 200
    assert "fits neither the primary nor the secondary key" in refusal_of(by_primary.get_devices)
    by_secondary.get_devices()
    IoTHubRegistryManager.from_connection_string(login(hub, renewed.body)).get_devices()

    assert hub.call("DELETE", f"{hub_path(hub)}/reading").status == 204
    assert "there is no shared access policy named 'reading'" in refusal_of(by_secondary.get_devices)
