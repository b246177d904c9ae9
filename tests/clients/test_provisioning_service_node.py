"""Enrollments by Microsoft's `azure-iot-provisioning-service` for Node (2021-10-01): every call it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moorage.credentials.sas import derive_key, new_key
from moorage.credentials.x509 import read_certificate
from tests.support.authorities import root
from tests.support.certificates import CertificateFiles
from tests.support.devices import register, register_by_key
from tests.support.node_worker import BackEnd, NodeError, NodeWorker
from tests.support.services import with_key
from tests.support.software_tpm import SoftwareTpm

# Its REST calls know no port but 443.
pytestmark = [pytest.mark.clients, pytest.mark.node, pytest.mark.port443]

BAD_ETAG = "badetag"
EVERYTHING = {"query": "SELECT * FROM enrollments"}


@pytest.fixture
def client(worker: NodeWorker, env: Mapping[str, str]) -> BackEnd:
    return BackEnd(worker, "provisioning", env["PROVISIONING_SERVICE_CONNECTION_STRING"])


def by_certificate(registration_id: str, files: CertificateFiles, **members: Any) -> dict[str, Any]:
    certificates = {"clientCertificates": {"primary": {"certificate": files[0].read_text()}}}
    attestation = {"type": "x509", "x509": certificates}
    return {"registrationId": registration_id, "attestation": attestation, **members}


def by_key(registration_id: str, **members: Any) -> dict[str, Any]:
    return {"registrationId": registration_id, "attestation": {"type": "symmetricKey"}, **members}


def refusal_of(client: BackEnd, method: str, *args: Any) -> tuple[str | None, int | None]:
    """The client's name for a call that has to be refused, and the status it was told."""
    with pytest.raises(NodeError) as raised:
        client(method, *args)
    return raised.value.name, raised.value.status


# --- Individual enrollments ------------------------------------------------------------------------------


def test_an_enrollment_from_its_creation_to_its_end(
    env: Mapping[str, str], client: BackEnd, device_id: str, device_certificate: CertificateFiles
) -> None:
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}}
    asked = by_certificate(
        device_id,
        device_certificate,
        deviceID="ignored: their own sample spells it so",
        deviceId=f"hub-{device_id}",
        initialTwin=twin,
        provisioningStatus="enabled",
        reprovisionPolicy={"updateHubAssignment": True, "migrateDeviceData": False},
        allocationPolicy="static",
        iotHubs=[env["IOTHUB_HOSTNAME"]],
        optionalDeviceInformation={"serial": "A-17"},
        capabilities={"iotEdge": False},
    )
    made = client("createOrUpdateIndividualEnrollment", asked)
    primary = made["attestation"]["x509"]["clientCertificates"]["primary"]
    assert primary["info"]["sha256Thumbprint"] == read_certificate(device_certificate[0].read_bytes()).sha256

    register(env, device_id, device_certificate)
    seen = client("getIndividualEnrollment", device_id)
    state = seen.pop("registrationState")
    assert seen == made
    assert {name: seen[name] for name in asked if name not in ("attestation", "deviceID")}.items() >= {
        "deviceId": f"hub-{device_id}",
        "initialTwin": twin,
        "optionalDeviceInformation": {"serial": "A-17"},
    }.items()
    assert (state["status"], state["deviceId"]) == ("assigned", f"hub-{device_id}")

    changed = client("createOrUpdateIndividualEnrollment", {**seen, "provisioningStatus": "disabled"})
    assert changed["provisioningStatus"] == "disabled"
    assert changed["etag"] != made["etag"]

    assert client("deleteIndividualEnrollment", changed) is None
    assert refusal_of(client, "getIndividualEnrollment", device_id)[1] == 404


def test_a_bad_etag_of_an_enrollment(client: BackEnd, device_id: str) -> None:
    made = client("createOrUpdateIndividualEnrollment", by_key(device_id))

    for method, *args in (
        ("createOrUpdateIndividualEnrollment", {**made, "etag": BAD_ETAG}),
        ("deleteIndividualEnrollment", {**made, "etag": BAD_ETAG}),
        ("deleteIndividualEnrollment", device_id, BAD_ETAG),
    ):
        assert refusal_of(client, method, *args) == ("InvalidEtagError", 412)
    assert refusal_of(client, "createOrUpdateIndividualEnrollment", by_key(device_id))[1] == 409

    client("deleteIndividualEnrollment", device_id, made["etag"])
    client("createOrUpdateIndividualEnrollment", by_key(device_id, etag="*"))
    client("deleteIndividualEnrollment", device_id)
    assert refusal_of(client, "deleteIndividualEnrollment", device_id)[1] == 404


def test_the_attestation_mechanism_of_an_enrollment(
    client: BackEnd, device_id: str, device_certificate: CertificateFiles
) -> None:
    names = {kind: f"{device_id}-{kind}" for kind in ("key", "tpm", "x509")}
    keys = client("createOrUpdateIndividualEnrollment", by_key(names["key"]))["attestation"]["symmetricKey"]
    endorsement_key = SoftwareTpm().keys["endorsementKey"]
    tpm = {"type": "tpm", "tpm": {"endorsementKey": endorsement_key}}
    client("createOrUpdateIndividualEnrollment", {"registrationId": names["tpm"], "attestation": tpm})
    client("createOrUpdateIndividualEnrollment", by_certificate(names["x509"], device_certificate))

    def mechanism(kind: str) -> dict[str, Any]:
        answer: dict[str, Any] = client("getIndividualEnrollmentAttestationMechanism", names[kind])
        return answer

    assert keys.keys() == {"primaryKey", "secondaryKey"}
    assert mechanism("key")["symmetricKey"] == keys
    shown = client("getIndividualEnrollment", names["key"])["attestation"]["symmetricKey"]
    assert shown == {"primaryKey": None, "secondaryKey": None}
    assert mechanism("tpm")["tpm"]["endorsementKey"] == endorsement_key
    info = mechanism("x509")["x509"]["clientCertificates"]["primary"]["info"]
    assert info["subjectName"] == f"CN={device_id}"


def test_a_query_in_pages(client: BackEnd, device_id: str) -> None:
    names = [f"{device_id}-{number}" for number in range(5)]
    for name in names:
        client("createOrUpdateIndividualEnrollment", by_key(name))

    pages = client.pages("createIndividualEnrollmentQuery", EVERYTHING, 2)

    assert {len(page) for page in pages[:-1]} == {2}
    assert len(pages[-1]) in (1, 2)
    seen = [enrollment["registrationId"] for page in pages for enrollment in page]
    assert [name for name in seen if name in names] == names
    assert len(set(seen)) == len(seen)


def test_bulk_operations(client: BackEnd, device_id: str) -> None:
    names = [f"{device_id}-{number}" for number in range(3)]

    def run(mode: str, *enrollments: dict[str, Any]) -> Any:
        return client("runBulkEnrollmentOperation", {"mode": mode, "enrollments": enrollments})

    first, second, third = (by_key(name) for name in names)
    assert run("create", first, second)["isSuccessful"] is True
    partly = run("create", second, third)
    assert partly["isSuccessful"] is False
    assert [error["registrationId"] for error in partly["errors"]] == [names[1]]
    assert run("update", first, second, third)["isSuccessful"] is True

    etag = client("getIndividualEnrollment", names[2])["etag"]
    stale = run("updateIfMatchETag", {**second, "etag": BAD_ETAG}, {**third, "etag": etag})
    assert [error["registrationId"] for error in stale["errors"]] == [names[1]]
    assert client("getIndividualEnrollment", names[2])["etag"] != etag

    assert run("delete", first, second, third)["isSuccessful"] is True
    assert refusal_of(client, "getIndividualEnrollment", names[0])[1] == 404


# --- Enrollment groups -----------------------------------------------------------------------------------


def key_group(enrollment_group_id: str, **members: Any) -> dict[str, Any]:
    attestation = {"type": "symmetricKey"}
    return {"enrollmentGroupId": enrollment_group_id, "attestation": attestation, **members}


def test_a_group_from_its_creation_to_its_end(client: BackEnd, device_id: str) -> None:
    signing = {"signingCertificates": {"primary": {"certificate": root(device_id).pem}}}
    attestation = {"type": "x509", "x509": signing}
    twin = {"tags": {"site": "north"}, "properties": {"desired": {}}}

    made = client("createOrUpdateEnrollmentGroup", key_group(device_id, attestation=attestation))
    assert (
        made["attestation"]["x509"]["signingCertificates"]["primary"]["info"]["subjectName"]
        == f"CN={device_id}"
    )
    changed = client("createOrUpdateEnrollmentGroup", {**made, "initialTwin": twin})
    assert changed["etag"] != made["etag"]
    assert client("getEnrollmentGroup", device_id) == changed
    mechanism = client("getEnrollmentGroupAttestationMechanism", device_id)
    assert mechanism["x509"]["signingCertificates"] == made["attestation"]["x509"]["signingCertificates"]
    groups = [group for page in client.pages("createEnrollmentGroupQuery", EVERYTHING, 1) for group in page]
    assert changed in groups

    for method, *args in (
        ("createOrUpdateEnrollmentGroup", {**changed, "etag": BAD_ETAG}),
        ("deleteEnrollmentGroup", {**changed, "etag": BAD_ETAG}),
        ("deleteEnrollmentGroup", device_id, BAD_ETAG),
    ):
        assert refusal_of(client, method, *args) == ("InvalidEtagError", 412)
    client("deleteEnrollmentGroup", changed)
    assert refusal_of(client, "getEnrollmentGroup", device_id)[1] == 404


def test_the_registrations_of_a_group(env: Mapping[str, str], client: BackEnd, device_id: str) -> None:
    client("createOrUpdateEnrollmentGroup", key_group(device_id))
    mechanism = client("getEnrollmentGroupAttestationMechanism", device_id)
    names = [f"{device_id}-{number}" for number in range(3)]
    for name in names:
        register_by_key(env, name, derive_key(mechanism["symmetricKey"]["primaryKey"], name))

    pages = client.pages("createEnrollmentGroupDeviceRegistrationStateQuery", {"query": "*"}, device_id, 2)

    assert [[state["registrationId"] for state in page] for page in pages] == [names[:2], names[2:]]
    state = client("getDeviceRegistrationState", names[0])
    assert (state["status"], state["assignedHub"]) == ("assigned", env["IOTHUB_HOSTNAME"])
    assert state["etag"] == pages[0][0]["etag"]
    assert refusal_of(client, "deleteDeviceRegistrationState", names[0], BAD_ETAG) == (
        "InvalidEtagError",
        412,
    )
    client("deleteDeviceRegistrationState", state)
    client("deleteDeviceRegistrationState", names[1])
    assert refusal_of(client, "getDeviceRegistrationState", names[0])[1] == 404
    assert refusal_of(client, "deleteDeviceRegistrationState", names[0])[1] == 404


# --- Refusals --------------------------------------------------------------------------------------------


def test_who_may_not_and_what_is_not_valid(
    worker: NodeWorker, env: Mapping[str, str], client: BackEnd
) -> None:
    login = with_key(env["PROVISIONING_SERVICE_CONNECTION_STRING"], new_key())
    impostor = BackEnd(worker, "provisioning", login)

    assert refusal_of(impostor, "getIndividualEnrollment", "pump") == ("UnauthorizedError", 401)
    assert refusal_of(client, "createOrUpdateIndividualEnrollment", by_key("white space")) == (
        "ArgumentError",
        400,
    )
    assert refusal_of(client, "createOrUpdateEnrollmentGroup", key_group("no/slash")) == (
        "ArgumentError",
        400,
    )
    assert refusal_of(client, "getEnrollmentGroupAttestationMechanism", "nobody")[1] == 404
