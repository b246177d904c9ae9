"""Enrollments by Microsoft's `azure-iothub-provisioningserviceclient` (2018-09-01-preview) and by plain HTTPS."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from provisioningserviceclient import (  # type: ignore[import-untyped]
    ProvisioningServiceClient,
    ProvisioningServiceError,
    QuerySpecification,
)
from provisioningserviceclient.models import (  # type: ignore[import-untyped]
    AttestationMechanism,
    BulkEnrollmentOperation,
    DeviceCapabilities,
    IndividualEnrollment,
    InitialTwin,
    ReprovisionPolicy,
)

from moorage.credentials.sas import new_key
from moorage.credentials.x509 import read_certificate
from tests.support.certificates import CertificateFiles, certificate
from tests.support.devices import register
from tests.support.services import Dps, Hub, with_key
from tests.support.software_tpm import SoftwareTpm

pytestmark = pytest.mark.clients

EVERYTHING = "SELECT * FROM enrollments"


@pytest.fixture
def client(env: Mapping[str, str]) -> ProvisioningServiceClient:
    return ProvisioningServiceClient.create_from_connection_string(
        env["PROVISIONING_SERVICE_CONNECTION_STRING"]
    )


def x509_enrollment(registration_id: str, files: CertificateFiles, **members: Any) -> IndividualEnrollment:
    attestation = AttestationMechanism.create_with_x509_client_certs(files[0].read_text())
    return IndividualEnrollment.create(registration_id, attestation, **members)


def refusal_of(call: Any, *arguments: Any) -> tuple[int, int, str]:
    """Status, error code and message of a call that has to be refused."""
    with pytest.raises(ProvisioningServiceError) as raised:
        call(*arguments)
    response = raised.value.cause.response
    body = response.json()
    return response.status_code, body["errorCode"], body["message"]


# --- By Microsoft's client -------------------------------------------------------------------------------


def test_an_enrollment_from_its_creation_to_its_end(
    env: Mapping[str, str],
    client: ProvisioningServiceClient,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    twin = InitialTwin.create(tags={"site": "north"}, desired_properties={"interval": 30})
    made = client.create_or_update(
        x509_enrollment(
            device_id,
            device_certificate,
            device_id=f"hub-{device_id}",
            initial_twin=twin,
            reprovision_policy=ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False),
            allocation_policy="static",
            iot_hubs=[env["IOTHUB_HOSTNAME"]],
        )
    )
    leaf = read_certificate(device_certificate[0].read_bytes())
    assert made.etag
    assert made.provisioning_status == "enabled"
    assert made.attestation.x509.client_certificates.primary.info.sha256_thumbprint == leaf.sha256
    assert made.created_date_time_utc == made.last_updated_date_time_utc

    register(env, device_id, device_certificate)
    seen = client.get_individual_enrollment(device_id)
    assert seen.etag == made.etag
    assert seen.device_id == f"hub-{device_id}"
    assert seen.initial_twin.tags == {"site": "north"}
    assert seen.initial_twin.desired_properties == {"interval": 30}
    assert (seen.allocation_policy, seen.iot_hubs) == ("static", [env["IOTHUB_HOSTNAME"]])
    assert seen.reprovision_policy.migrate_device_data is False
    assert (seen.registration_state.status, seen.registration_state.device_id) == (
        "assigned",
        f"hub-{device_id}",
    )

    seen.provisioning_status = "disabled"
    changed = client.create_or_update(seen)
    assert changed.provisioning_status == "disabled"
    assert changed.etag != made.etag
    # The certificate came back as `info` alone, and was kept [dps trap 28].
    assert changed.attestation.x509.client_certificates.primary.info.sha256_thumbprint == leaf.sha256

    client.delete(changed)
    assert refusal_of(client.get_individual_enrollment, device_id)[:2] == (404, 404201)


def test_what_is_enrolled_as_an_edge_device_is_one_in_the_hub(
    env: Mapping[str, str],
    client: ProvisioningServiceClient,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    edge = x509_enrollment(device_id, device_certificate)
    edge.capabilities = DeviceCapabilities.create(True)
    assert client.create_or_update(edge).capabilities.iot_edge

    register(env, device_id, device_certificate)

    made = hub.get(f"/devices/{device_id}")
    assert made["capabilities"] == {"iotEdge": True}
    assert made["deviceScope"].startswith(f"ms-azure-iot-edge://{device_id}-")
    modules = hub.get(f"/devices/{device_id}/modules")
    assert sorted(module["moduleId"] for module in modules) == ["$edgeAgent", "$edgeHub"]


def test_the_registration_record(
    env: Mapping[str, str],
    client: ProvisioningServiceClient,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    client.create_or_update(x509_enrollment(device_id, device_certificate))
    assert refusal_of(client.get_registration_state, device_id)[:2] == (404, 404202)
    told = register(env, device_id, device_certificate)

    record = client.get_registration_state(device_id)

    assert told.registration_state is not None
    assert record.etag == told.registration_state.etag
    assert (record.status, record.assigned_hub) == ("assigned", env["IOTHUB_HOSTNAME"])
    client.delete(record)
    assert refusal_of(client.get_registration_state, device_id)[:2] == (404, 404202)


def test_the_attestation_mechanism(
    client: ProvisioningServiceClient, device_id: str, device_certificate: CertificateFiles
) -> None:
    client.create_or_update(x509_enrollment(device_id, device_certificate))

    mechanism = client.get_individual_enrollment_attestation_mechanism(device_id)

    assert mechanism.type == "x509"
    info = mechanism.x509.client_certificates.primary.info
    assert info.subject_name == info.issuer_name == f"CN={device_id}"
    assert info.version == 3


def test_conditional_writes(
    client: ProvisioningServiceClient, device_id: str, device_certificate: CertificateFiles
) -> None:
    first = client.create_or_update(x509_enrollment(device_id, device_certificate))

    duplicate = x509_enrollment(device_id, device_certificate, device_id="other")
    assert refusal_of(client.create_or_update, duplicate)[0] == 409

    second = client.create_or_update(client.get_individual_enrollment(device_id))
    first.device_id = "stale"
    assert refusal_of(client.create_or_update, first)[0] == 412
    assert refusal_of(client.delete, first)[0] == 412

    kept = client.get_individual_enrollment(device_id)
    assert (kept.etag, kept.device_id) == (second.etag, None)
    kept.etag = "*"
    client.create_or_update(kept)
    client.delete_individual_enrollment_by_param(device_id)


def test_bulk_operations(
    env: Mapping[str, str], client: ProvisioningServiceClient, device_id: str, tmp_path: Path
) -> None:
    names = [f"{device_id}-{number}" for number in range(3)]
    files = [certificate(tmp_path, name) for name in names]

    def run(mode: str, *which: int) -> Any:
        items = [x509_enrollment(names[number], files[number]) for number in which]
        return client.run_bulk_operation(BulkEnrollmentOperation(mode=mode, enrollments=items))

    assert run("create", 0, 1).is_successful
    partly = run("create", 1, 2)
    assert not partly.is_successful
    assert [error.registration_id for error in partly.errors] == [names[1]]
    assert run("update", 0, 1, 2).is_successful
    register(env, names[2], files[2])
    assert run("delete", 0, 1, 2).is_successful
    assert refusal_of(client.get_individual_enrollment, names[2])[0] == 404


def test_a_query_in_pages(
    client: ProvisioningServiceClient, device_id: str, device_certificate: CertificateFiles
) -> None:
    names = sorted(f"{device_id}-{number}" for number in range(5))
    for name in names:
        client.create_or_update(x509_enrollment(name, device_certificate))

    query = client.create_individual_enrollment_query(QuerySpecification(query=EVERYTHING), page_size=2)
    pages = [page for page in query]  # noqa: C416  the client's query is an iterator without a length

    assert all(0 < len(page) <= 2 for page in pages)
    seen = [enrollment.registration_id for page in pages for enrollment in page]
    assert [name for name in seen if name in names] == names
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("members", "status", "named"),
    [
        ({"registration_id": "white space"}, 400, "registrationId"),
        ({"registration_id": "ends-with."}, 400, "registrationId"),
        ({"device_id": "no/slash"}, 400, "deviceId"),
        ({"iot_hubs": ["elsewhere.example.net"]}, 400, "elsewhere.example.net"),
        ({"provisioning_status": "asleep"}, 400, "provisioningStatus"),
        ({"allocation_policy": "custom"}, 400, "customAllocationDefinition"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_an_enrollment_may_not_say(
    client: ProvisioningServiceClient,
    device_id: str,
    device_certificate: CertificateFiles,
    members: dict[str, Any],
    status: int,
    named: str,
) -> None:
    members = {"registration_id": device_id, **members}
    attestation = AttestationMechanism.create_with_x509_client_certs(device_certificate[0].read_text())
    enrollment = IndividualEnrollment.create(attestation=attestation, **members)

    answered, _, message = refusal_of(client.create_or_update, enrollment)

    assert answered == status
    assert named in message


def test_an_enrollment_by_tpm(client: ProvisioningServiceClient, device_id: str) -> None:
    keys = SoftwareTpm().keys
    attestation = AttestationMechanism.create_with_tpm(keys["endorsementKey"])
    client.create_or_update(IndividualEnrollment.create(device_id, attestation))

    kept = client.get_individual_enrollment(device_id).attestation

    assert (kept.type, kept.tpm.endorsement_key) == ("tpm", keys["endorsementKey"])
    assert kept.tpm.storage_root_key is None
    unreadable = IndividualEnrollment.create(
        f"{device_id}-2", AttestationMechanism.create_with_tpm("AToAAQ==")
    )
    assert refusal_of(client.create_or_update, unreadable)[0] == 400


def test_a_wrong_key_of_the_service(env: Mapping[str, str]) -> None:
    login = with_key(env["PROVISIONING_SERVICE_CONNECTION_STRING"], new_key())
    impostor = ProvisioningServiceClient.create_from_connection_string(login)

    assert refusal_of(impostor.get_individual_enrollment, "anything")[:2] == (401, 401000)


# --- By plain HTTPS, api-version 2021-10-01 --------------------------------------------------------------


def document(registration_id: str, encoded: str, **members: object) -> dict[str, Any]:
    certificates = {"clientCertificates": {"primary": {"certificate": encoded}}}
    return {
        "registrationId": registration_id,
        "attestation": {"type": "x509", "x509": certificates},
        **members,
    }


def test_the_same_enrollment_in_both_versions(
    dps: Dps,
    client: ProvisioningServiceClient,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    pem = device_certificate[0].read_text()
    answer = dps.call(
        "PUT", f"/enrollments/{device_id}", document(device_id, pem, optionalDeviceInformation={"a": 1})
    )

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["etag"] == answer.body["etag"]
    assert "certificate" not in str(
        answer.body["attestation"]["x509"]["clientCertificates"]["primary"]["info"]
    )
    seen = client.get_individual_enrollment(device_id)
    assert seen.etag == answer.body["etag"]
    read = dps.get(f"/enrollments/{device_id.upper()}")
    assert read == answer.body
    assert read["optionalDeviceInformation"] == {"a": 1}


@pytest.mark.parametrize("form", ["pem", "crlf", "base64 of pem", "base64 of der"])
def test_every_encoding_of_a_certificate(
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    device_certificate: CertificateFiles,
    form: str,
) -> None:
    pem = device_certificate[0].read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    encoded = {
        "pem": pem.decode(),
        "crlf": pem.decode().replace("\n", "\r\n"),
        "base64 of pem": base64.b64encode(pem).decode(),
        "base64 of der": base64.b64encode(der).decode(),
    }[form]

    assert dps.call("PUT", f"/enrollments/{device_id}", document(device_id, encoded)).status == 200

    assert register(env, device_id, device_certificate).status == "assigned"


def test_the_device_outlives_its_enrollment(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    etag = dps.put_enrollment(device_id, device_certificate[0])["etag"]
    register(env, device_id, device_certificate)

    assert dps.call("DELETE", f"/enrollments/{device_id}", headers={"If-Match": etag}).status == 204

    assert hub.get(f"/devices/{device_id}")["status"] == "enabled"
    assert dps.get(f"/registrations/{device_id}")["status"] == "assigned"


def test_pages_by_continuation(dps: Dps, device_id: str, device_certificate: CertificateFiles) -> None:
    names = sorted(f"{device_id}-{number}" for number in range(3))
    for name in names:
        dps.put_enrollment(name, device_certificate[0])
    seen: list[str] = []
    headers = {"x-ms-max-item-count": "1"}

    while True:
        answer = dps.call("POST", "/enrollments/query", {"query": EVERYTHING}, headers=headers)
        assert answer.status == 200, answer
        assert answer.headers["x-ms-item-type"] == "enrollment"
        seen += [enrollment["registrationId"] for enrollment in answer.body]
        if "x-ms-continuation" not in answer.headers:
            break
        headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]

    assert [name for name in seen if name in names] == names
