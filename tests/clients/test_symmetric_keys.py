"""Enrollments by symmetric key, individual and in groups, by Microsoft's device and service clients."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from azure.iot.device import Message
from azure.iot.device.exceptions import ClientError
from provisioningserviceclient import (  # type: ignore[import-untyped]
    ProvisioningServiceClient,
    QuerySpecification,
)
from provisioningserviceclient.models import (  # type: ignore[import-untyped]
    AttestationMechanism,
    EnrollmentGroup,
    IndividualEnrollment,
)
from provisioningserviceclient.protocol.models import SymmetricKeyAttestation  # type: ignore[import-untyped]

from moorage.credentials.sas import derive_key, new_key
from tests.support.decisions import decisions, failed_checks
from tests.support.devices import SasDevice, device_client, register_by_key, service_error
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.clients


@pytest.fixture
def client(env: Mapping[str, str]) -> ProvisioningServiceClient:
    return ProvisioningServiceClient.create_from_connection_string(
        env["PROVISIONING_SERVICE_CONNECTION_STRING"]
    )


def attestation(primary: str | None = None, secondary: str | None = None) -> AttestationMechanism:
    keys = SymmetricKeyAttestation(primary_key=primary, secondary_key=secondary)
    return AttestationMechanism(type="symmetricKey", symmetric_key=keys)


def refused(env: Mapping[str, str], registration_id: str, key: str) -> str:
    with pytest.raises(ClientError) as caught:
        register_by_key(env, registration_id, key)
    return service_error(caught.value)


@pytest.mark.parametrize("websockets", [False, pytest.param(True, marks=pytest.mark.port443)])
def test_an_individual_enrollment_whose_keys_the_service_made(
    env: Mapping[str, str], client: ProvisioningServiceClient, hub: Hub, device_id: str, websockets: bool
) -> None:
    made = client.create_or_update(IndividualEnrollment.create(device_id, attestation()))
    keys = made.attestation.symmetric_key
    assert client.get_individual_enrollment(device_id).attestation.symmetric_key.primary_key is None
    told = client.get_individual_enrollment_attestation_mechanism(device_id).symmetric_key
    assert (told.primary_key, told.secondary_key) == (keys.primary_key, keys.secondary_key)

    for key in (keys.primary_key, keys.secondary_key):
        state = register_by_key(env, device_id, key, websockets=websockets).registration_state
        assert state is not None
        assert (state.assigned_hub, state.device_id) == (env["IOTHUB_HOSTNAME"], device_id)
    kept = hub.get(f"/devices/{device_id}")["authentication"]
    assert kept["type"] == "sas"
    assert kept["symmetricKey"] == {"primaryKey": keys.primary_key, "secondaryKey": keys.secondary_key}
    device = SasDevice(env["IOTHUB_HOSTNAME"], device_id, keys.primary_key, keys.secondary_key)
    with device_client(device) as connected:
        connected.send_message(Message("hello"))

    assert "401" in refused(env, device_id, new_key())
    assert failed_checks(decisions(hub, device_id)[-1]) == ["signature"]


def test_a_group_and_the_keys_derived_from_it(
    env: Mapping[str, str], client: ProvisioningServiceClient, dps: Dps, hub: Hub, device_id: str
) -> None:
    group_id, primary, secondary = f"group-of-{device_id}", new_key(), new_key()
    made = client.create_or_update(EnrollmentGroup.create(group_id, attestation(primary, secondary)))
    assert made.attestation.symmetric_key.primary_key == primary
    mechanism = client.get_enrollment_group_attestation_mechanism(group_id)
    assert mechanism.symmetric_key.secondary_key == secondary
    assert any(found.enrollment_group_id == group_id for found in all_groups(client))

    for number, key in enumerate((primary, secondary)):
        name = f"{device_id}-{number}"
        derived = derive_key(key, name)
        state = register_by_key(env, name, derived).registration_state
        assert state is not None
        assert (state.device_id, state.sub_status) == (name, "initialAssignment")
        with device_client(SasDevice(env["IOTHUB_HOSTNAME"], name, derived, "")) as connected:
            connected.send_message(Message("hello"))
    records = dps.call("POST", f"/registrations/{group_id}/query").body
    assert [record["registrationId"] for record in records] == [f"{device_id}-0", f"{device_id}-1"]

    # The group's own key is nobody's, and a disabled individual enrollment shuts one device out.
    assert "status code 401" in refused(env, f"{device_id}-0", primary)
    alone = IndividualEnrollment.create(f"{device_id}-0", attestation(derive_key(primary, f"{device_id}-0")))
    alone.provisioning_status = "disabled"
    client.create_or_update(alone)
    assert "invalid registration status disabled" in refused(
        env, f"{device_id}-0", derive_key(primary, f"{device_id}-0")
    )

    made.provisioning_status = "disabled"
    disabled = client.create_or_update(made)
    said = refused(env, f"{device_id}-1", derive_key(secondary, f"{device_id}-1"))
    assert "invalid registration status disabled" in said
    client.delete(disabled)
    assert "status code 401" in refused(env, f"{device_id}-1", derive_key(secondary, f"{device_id}-1"))


def all_groups(client: ProvisioningServiceClient) -> list[EnrollmentGroup]:
    query = client.create_enrollment_group_query(QuerySpecification("SELECT * FROM enrollmentGroups"))
    return list(next(query))
