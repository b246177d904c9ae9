"""X.509 enrollment groups by Microsoft's `azure-iot-device`, which sends the chain that its certificate file holds."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.exceptions import ClientError
from provisioningserviceclient import ProvisioningServiceClient  # type: ignore[import-untyped]
from provisioningserviceclient.models import (  # type: ignore[import-untyped]
    AttestationMechanism,
    EnrollmentGroup,
)

from tests.conftest import RunningServer
from tests.support.authorities import Issued, root
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import register, service_error, x509_device_client
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.clients

UNAUTHORIZED = "register request returned a service error status code 401"


@pytest.fixture
def dates() -> dict[str, Any]:
    """From an hour ago to a month ahead, for every certificate of a chain."""
    now = datetime.now(UTC).replace(microsecond=0)
    return {"start": now - timedelta(hours=1), "end": now + timedelta(days=30)}


@pytest.fixture
def ca(device_id: str, dates: dict[str, Any]) -> Issued:
    return root(f"ca-{device_id}", **dates)


@pytest.fixture
def plant(ca: Issued, device_id: str, dates: dict[str, Any]) -> Issued:
    return ca.authority(f"plant-{device_id}", number=1, **dates)


@pytest.fixture
def leaf(plant: Issued, device_id: str, dates: dict[str, Any]) -> Issued:
    return plant.issue(device_id, number=2, **dates)


def put_group(dps: Dps, name: str, held: Issued, **members: object) -> dict[str, Any]:
    return put_x509(dps, name, {"signingCertificates": {"primary": {"certificate": held.pem}}}, **members)


def put_x509(dps: Dps, name: str, x509: object, **members: object) -> dict[str, Any]:
    document = {"enrollmentGroupId": name, "attestation": {"type": "x509", "x509": x509}, **members}
    answer = dps.call("PUT", f"/enrollmentGroups/{name}", document, headers={"If-Match": "*"})
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


def refused(env: Mapping[str, str], registration_id: str, files: tuple[Path, Path]) -> str:
    with pytest.raises(ClientError) as raised:
        register(env, registration_id, files)
    return service_error(raised.value)


def test_a_chain_below_the_group_s_root_registers_and_connects(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
) -> None:
    put_group(dps, f"group-{device_id}", ca)
    files = leaf.write(tmp_path, plant)

    state = register(env, device_id, files).registration_state

    assert state is not None
    assert (state.assigned_hub, state.device_id) == (env["IOTHUB_HOSTNAME"], device_id)
    identity = hub.get(f"/devices/{device_id}")
    assert identity["authentication"]["x509Thumbprint"]["primaryThumbprint"] == leaf.certificate.sha256
    accepted = decisions(hub, device_id)[-1]
    assert accepted["considered"] == [
        f"enrollment group group-{device_id}, by its signing certificate CN=ca-{device_id}"
    ]
    with x509_device_client(env, device_id, files) as client:
        client.connect()
        assert client.connected
    of_the_group = dps.call("POST", f"/registrations/group-{device_id}/query")
    assert [each["registrationId"] for each in of_the_group.body] == [device_id]


@pytest.mark.parametrize("stored", ["in the group", "as a CA certificate"])
def test_a_leaf_alone_registers_where_the_service_holds_the_intermediate(
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
    stored: str,
) -> None:
    if stored == "in the group":
        put_group(dps, f"group-{device_id}", plant)
    else:
        put_group(dps, f"group-{device_id}", ca)
        upload(dps, f"plant-{device_id}", plant)

    assert register(env, device_id, leaf.write(tmp_path)).status == "assigned"


def upload(dps: Dps, name: str, held: Issued) -> str:
    """The etag of the CA certificate, which is not verified."""
    answer = dps.call("PUT", f"/moorage/v1/caCertificates/{name}", {"certificate": held.pem})
    assert answer.status == 201, answer
    etag: str = answer.body["etag"]
    return etag


def test_a_group_by_reference_waits_for_the_proof_of_possession(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    dates: dict[str, Any],
    tmp_path: Path,
) -> None:
    name = f"ca-{device_id}"[:64]
    upload(dps, name, ca)
    put_x509(dps, f"group-{device_id}", {"caReferences": {"primary": name}})
    files = leaf.write(tmp_path, plant, ca)

    assert refused(env, device_id, files) == UNAUTHORIZED
    assert failed_checks(refusal(hub, device_id)) == ["CA certificate verified"]

    path = f"/moorage/v1/caCertificates/{name}"
    code = dps.call("POST", f"{path}/generateVerificationCode").body["properties"]["verificationCode"]
    proof = ca.issue(code, number=3, **dates)
    assert dps.call("POST", f"{path}/verify", {"certificate": proof.pem}).status == 200
    assert register(env, device_id, files).status == "assigned"


def test_a_wrong_root(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    dates: dict[str, Any],
    tmp_path: Path,
) -> None:
    put_group(dps, f"group-{device_id}", ca)
    other = root(f"other-{device_id}", number=7, **dates)

    assert refused(env, device_id, other.issue(device_id, number=2, **dates).write(tmp_path, other)) == (
        UNAUTHORIZED
    )

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["enrollment exists"]
    assert f"the chain ends at 'CN=other-{device_id}'" in decision["error"]
    assert hub.call("GET", f"/devices/{device_id}").status == 404


def test_an_expired_intermediate(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    dates: dict[str, Any],
    tmp_path: Path,
) -> None:
    put_group(dps, f"group-{device_id}", ca)
    over = ca.authority(
        f"over-{device_id}", number=1, start=dates["start"], end=dates["start"] + timedelta(1 / 48)
    )
    leaf = over.issue(device_id, number=2, **dates)

    assert refused(env, device_id, leaf.write(tmp_path, over)) == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert f"CN=over-{device_id}, issued by CN=ca-{device_id}: it expired at" in decision["error"]
    assert f"Renew CN=over-{device_id}" in decision["remedy"]
    links = [check["held"] for check in decision["checks"] if check["name"] == "certificate chain"]
    assert links == [True, False, True]


def test_a_disabled_group_shuts_its_devices_out_though_the_root_s_is_not(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
) -> None:
    put_group(dps, f"root-{device_id}", ca)
    put_group(dps, f"plant-{device_id}", plant, provisioningStatus="disabled")
    files = leaf.write(tmp_path, plant)

    assert "invalid registration status disabled with a status code of 200" in refused(env, device_id, files)
    assert failed_checks(refusal(hub, device_id)) == ["enrollment enabled"]

    assert dps.call("DELETE", f"/enrollmentGroups/plant-{device_id}").status == 204
    assert register(env, device_id, files).status == "assigned"


def test_a_single_device_is_shut_out_by_a_disabled_individual_enrollment(
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    dates: dict[str, Any],
    tmp_path: Path,
) -> None:
    put_group(dps, f"group-{device_id}", ca)
    files = leaf.write(tmp_path, plant)
    dps.put_enrollment(device_id, files[0], provisioningStatus="disabled")

    assert "status disabled" in refused(env, device_id, files)

    neighbour = plant.issue(f"{device_id}-b", number=3, **dates)
    assert register(env, f"{device_id}-b", neighbour.write(tmp_path, plant)).status == "assigned"
    assert dps.call("DELETE", f"/enrollments/{device_id}").status == 204
    assert register(env, device_id, files).status == "assigned"


def test_an_individual_enrollment_by_reference(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
) -> None:
    name = f"ca-{device_id}"[:64]
    body = {"properties": {"certificate": ca.pem, "isVerified": True}}
    assert dps.call("PUT", f"/moorage/v1/caCertificates/{name}", body).status == 201
    attestation = {"type": "x509", "x509": {"caReferences": {"primary": name}}}
    document = {"registrationId": device_id, "attestation": attestation}
    answer = dps.call("PUT", f"/enrollments/{device_id}", document)
    assert answer.status == 200, answer
    assert answer.body["attestation"]["x509"]["caReferences"] == {"primary": name, "secondary": None}

    assert register(env, device_id, leaf.write(tmp_path, plant)).status == "assigned"


def test_groups_are_made_by_microsoft_s_service_client(
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
) -> None:
    client = ProvisioningServiceClient.create_from_connection_string(
        env["PROVISIONING_SERVICE_CONNECTION_STRING"]
    )
    attestation = AttestationMechanism.create_with_x509_signing_certs(plant.pem, ca.pem)
    made = client.create_or_update(EnrollmentGroup.create(f"group-{device_id}", attestation))
    pair = made.attestation.x509.signing_certificates
    assert pair.primary.info.sha256_thumbprint == plant.certificate.sha256
    assert pair.secondary.info.subject_name == f"CN=ca-{device_id}"
    assert pair.primary.certificate is None
    assert made.attestation.x509.client_certificates is None

    # Get, change, put: the certificates come back as `info` alone.
    made.provisioning_status = "disabled"
    changed = client.create_or_update(made)
    files = leaf.write(tmp_path)
    assert "status disabled" in refused(env, device_id, files)
    changed.provisioning_status = "enabled"
    client.create_or_update(changed)
    assert register(env, device_id, files).status == "assigned"

    upload(dps, f"ref-{device_id}"[:64], ca)
    by_reference = AttestationMechanism.create_with_x509_ca_refs(f"ref-{device_id}"[:64])
    made = client.create_or_update(EnrollmentGroup.create(f"refs-{device_id}", by_reference))
    assert made.attestation.x509.ca_references.primary == f"ref-{device_id}"[:64]
    assert made.attestation.x509.signing_certificates is None


def test_a_chain_is_as_good_over_https(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    ca: Issued,
    plant: Issued,
    leaf: Issued,
    tmp_path: Path,
) -> None:
    put_group(dps, f"group-{device_id}", ca)
    chain, key = leaf.write(tmp_path, plant)
    trust = ssl.create_default_context(cafile=env["SSL_CERT_FILE"])
    trust.load_cert_chain(chain, key)
    path = f"/{env['PROVISIONING_IDSCOPE']}/registrations/{device_id}"

    def ask(method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPSConnection(env["PROVISIONING_HOST"], server.https_port, context=trust)
        try:
            connection.request(method, f"{path}?api-version=2021-06-01", b"{}")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    status, accepted = ask("PUT", f"{path}/register")
    assert status == 202
    status, ended = ask("GET", f"{path}/operations/{accepted['operationId']}")
    assert (status, ended["status"]) == (200, "assigned")
    assert ended["registrationState"]["x509"] == {"enrollmentGroupId": f"group-{device_id}"}
