"""Registration by Microsoft's `azure-iot-device`, `ProvisioningDeviceClient`: sync and aio, X.509."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from azure.iot.device import ProvisioningDeviceClient, RegistrationResult
from azure.iot.device import aio as device_aio
from azure.iot.device.exceptions import ClientError
from prometheus_client.parser import text_string_to_metric_families

from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles, certificate
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import provisioning_client, register, service_error, shut_down, x509
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.clients

TRANSPORT_LOG = "azure.iot.device.common.mqtt_transport"
DAY = 86_400  # seconds
UNAUTHORIZED = "register request returned a service error status code 401"


def topics_published(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the client has published, by its own log."""
    said = "publishing on "
    messages = [record.getMessage() for record in caplog.records if record.name == TRANSPORT_LOG]
    return [message.removeprefix(said) for message in messages if message.startswith(said)]


def test_a_device_is_assigned_without_a_poll(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    caplog.set_level(logging.INFO, TRANSPORT_LOG)

    result = register(env, device_id, device_certificate)

    assert result.status == "assigned"
    assert result.operation_id
    state = result.registration_state
    assert state is not None
    assert (state.assigned_hub, state.device_id) == (env["IOTHUB_HOSTNAME"], device_id)
    assert state.sub_status == "initialAssignment"
    # A first poll comes two seconds after the request [dps 6.5]: without one, registration takes a moment.
    (asked,) = topics_published(caplog)
    assert asked.startswith("$dps/registrations/PUT/iotdps-register/?$rid=")
    assert hub.get(f"/devices/{device_id}")["authentication"]["type"] == "selfSigned"


def test_both_apis_tell_the_same_of_a_registration(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    told = register(env, device_id, device_certificate).registration_state

    assert told is not None
    kept = dps.get(f"/registrations/{device_id}")
    assert kept["etag"] == told.etag
    assert kept["createdDateTimeUtc"] == told.created_date_time
    assert kept["lastUpdatedDateTimeUtc"] == told.last_update_date_time
    assert (kept["assignedHub"], kept["deviceId"]) == (told.assigned_hub, told.device_id)
    assert dps.get(f"/enrollments/{device_id}")["registrationState"]["etag"] == told.etag


@pytest.mark.port443
def test_registration_over_websockets(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    assert register(env, device_id, device_certificate, websockets=True).status == "assigned"

    assert decisions(hub, device_id)[-1]["door"] == "mqtt-ws"


async def test_registration_by_the_asynchronous_client(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    client = device_aio.ProvisioningDeviceClient.create_from_x509_certificate(
        env["PROVISIONING_HOST"], device_id, env["PROVISIONING_IDSCOPE"], x509(device_certificate)
    )

    with shut_down(client):
        result = await client.register()

    assert result.status == "assigned"
    assert result.registration_state is not None
    assert result.registration_state.device_id == device_id


def test_at_the_pace_of_azure_the_device_polls(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = enter_shell(start_server("--in-memory", "--registration-pace", "azure"))
    Dps(env).put_enrollment(device_id, device_certificate[0])
    caplog.set_level(logging.INFO, TRANSPORT_LOG)

    result = register(env, device_id, device_certificate)

    assert result.status == "assigned"
    asked, polled = topics_published(caplog)
    assert asked.startswith("$dps/registrations/PUT/iotdps-register/")
    assert polled.startswith("$dps/registrations/GET/iotdps-get-operationstatus/")
    assert polled.endswith(f"operationId={result.operation_id}")


@pytest.mark.parametrize("payload", [{"model": "toaster", "rev": 3}, "a text", [1, None], "\N{SNOWMAN}"])
def test_a_payload_may_come_along(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles, payload: Any
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    with provisioning_client(env, device_id, device_certificate) as client:
        client.provisioning_payload = payload
        result = client.register()

    assert result.status == "assigned"


def test_a_device_that_registers_again_is_told_the_same_place(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    first = register(env, device_id, device_certificate)
    generation = hub.get(f"/devices/{device_id}")["generationId"]
    second = register(env, device_id, device_certificate)

    assert first.registration_state is not None
    assert second.registration_state is not None
    assert second.registration_state.assigned_hub == first.registration_state.assigned_hub
    assert second.registration_state.created_date_time == first.registration_state.created_date_time
    assert second.operation_id != first.operation_id
    # The SDK's version of the protocol has no other word for it; the service API has [dps 3].
    assert second.registration_state.sub_status == "initialAssignment"
    assert dps.get(f"/registrations/{device_id}")["substatus"] == "reprovisionedToInitialAssignment"
    assert hub.get(f"/devices/{device_id}")["generationId"] == generation


def test_the_operator_names_the_device(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], deviceId=f"Line4-{device_id}")

    state = register(env, device_id, device_certificate).registration_state

    assert state is not None
    assert state.device_id == f"Line4-{device_id}"
    assert hub.get(f"/devices/Line4-{device_id}")["status"] == "enabled"
    assert hub.call("GET", f"/devices/{device_id}").status == 404


def test_the_secondary_certificate_is_as_good(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles, tmp_path: Path
) -> None:
    secondary = certificate(tmp_path, device_id, name="secondary")
    pair = {
        name: {"certificate": files[0].read_text()}
        for name, files in (("primary", device_certificate), ("secondary", secondary))
    }
    attestation = {"type": "x509", "x509": {"clientCertificates": pair}}
    dps.put_enrollment(device_id, device_certificate[0], attestation=attestation)

    assert register(env, device_id, secondary).status == "assigned"


# --- Refusals --------------------------------------------------------------------------------------------


def refused(env: Mapping[str, str], registration_id: str, files: CertificateFiles, **options: Any) -> str:
    """What the service answered a device that is not to be let in."""
    with pytest.raises(ClientError) as raised:
        register(env, registration_id, files, **options)
    return service_error(raised.value)


def assert_nothing_registered(dps: Dps, hub: Hub, registration_id: str) -> None:
    assert dps.call("GET", f"/registrations/{registration_id}").status == 404
    assert hub.call("GET", f"/devices/{registration_id}").status == 404


def test_a_disabled_enrollment_ends_in_the_sdk_s_own_error(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], provisioningStatus="disabled")

    said = refused(env, device_id, device_certificate)

    # This text is what the Azure CLI looks for to say "disabled" [dps 7.6].
    assert "invalid registration status disabled with a status code of 200" in said
    assert failed_checks(refusal(hub, device_id)) == ["enrollment enabled"]
    assert dps.get(f"/registrations/{device_id}")["status"] == "disabled"
    assert hub.call("GET", f"/devices/{device_id}").status == 404


def test_an_enrollment_enabled_again_lets_the_device_in(
    env: Mapping[str, str], dps: Dps, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], provisioningStatus="disabled")
    refused(env, device_id, device_certificate)

    document = dps.get(f"/enrollments/{device_id}") | {"provisioningStatus": "enabled"}
    answer = dps.call("PUT", f"/enrollments/{device_id}", document, headers={"If-Match": document["etag"]})
    assert answer.status == 200, answer

    assert register(env, device_id, device_certificate).status == "assigned"


def test_an_unknown_registration_id(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    assert refused(env, device_id, device_certificate) == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["enrollment exists"]
    assert "Create an individual enrollment" in decision["remedy"]
    assert_nothing_registered(dps, hub, device_id)


def test_an_unknown_id_scope(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    assert refused(env, device_id, device_certificate, id_scope="0ne00000000") == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["id scope"]
    assert env["PROVISIONING_IDSCOPE"] in decision["remedy"]
    assert_nothing_registered(dps, hub, device_id)


def test_a_common_name_that_is_not_the_registration_id(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, tmp_path: Path
) -> None:
    other = certificate(tmp_path, f"not-{device_id}")
    dps.put_enrollment(device_id, other[0])

    assert refused(env, device_id, other) == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["certificate common name"]
    assert decision["proof"]["chain"][0]["subject"] == f"CN=not-{device_id}"
    assert_nothing_registered(dps, hub, device_id)


def test_a_certificate_that_is_not_the_enrolled_one(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    impostor = certificate(tmp_path, device_id, name="impostor")

    assert refused(env, device_id, impostor) == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["certificate enrolled"]
    assert decision["considered"] == [f"individual enrollment {device_id}"]
    assert_nothing_registered(dps, hub, device_id)


@pytest.mark.parametrize(
    ("dates", "why"),
    [
        ({"not_before": datetime.timedelta(days=-2), "not_after": datetime.timedelta(days=-1)}, "expired at"),
        ({"not_before": datetime.timedelta(days=1)}, "not valid before"),
    ],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_outside_its_dates(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    tmp_path: Path,
    dates: dict[str, Any],
    why: str,
) -> None:
    files = certificate(tmp_path, device_id, **dates)
    dps.put_enrollment(device_id, files[0])

    assert refused(env, device_id, files) == UNAUTHORIZED

    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["certificate validity"]
    assert why in decision["error"]
    assert_nothing_registered(dps, hub, device_id)


def test_a_certificate_that_expires_between_two_registrations(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    """Forty days later, by a shifted clock: the certificate was good for thirty."""
    server = start_server()
    env = enter_shell(server)
    Dps(env).put_enrollment(device_id, device_certificate[0])
    assert register(env, device_id, device_certificate).status == "assigned"
    server.stop()

    later = start_server("--clock-offset", "40d", data=server.data, address=server.address)
    env = enter_shell(later)

    assert refused(env, device_id, device_certificate) == UNAUTHORIZED
    assert failed_checks(refusal(Hub(env, lifetime=41 * DAY), device_id)) == ["certificate validity"]


def test_a_key_where_a_certificate_is_asked_for(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, device_certificate: CertificateFiles
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        env["PROVISIONING_HOST"], device_id, env["PROVISIONING_IDSCOPE"], "c2VjcmV0IG9mIGEgZGV2aWNl"
    )

    with shut_down(client), pytest.raises(ClientError) as raised:
        client.register()

    assert service_error(raised.value) == UNAUTHORIZED
    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["certificate presented"]
    assert "a SAS token" in decision["error"]
    assert_nothing_registered(dps, hub, device_id)


def test_a_refusal_leaves_an_earlier_registration_alone(
    env: Mapping[str, str],
    dps: Dps,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    good: RegistrationResult = register(env, device_id, device_certificate)
    assert good.registration_state is not None

    refused(env, device_id, certificate(tmp_path, device_id, name="impostor"))

    assert dps.get(f"/registrations/{device_id}")["etag"] == good.registration_state.etag
    assert register(env, device_id, device_certificate).status == "assigned"


def test_what_has_become_of_devices_is_counted(
    start_server: StartServer, enter_shell: EnterShell, device_id: str, tmp_path: Path
) -> None:
    server = start_server()
    env = enter_shell(server)
    mine, another = certificate(tmp_path, device_id), certificate(tmp_path, device_id, name="another")
    Dps(env).put_enrollment(device_id, mine[0])
    assert register(env, device_id, mine).status == "assigned"
    with pytest.raises(ClientError):
        register(env, device_id, another)

    assert measured(env) == {
        "dps_attestation_attempts_total": {("mqtt", "x509", "accepted"): 1, ("mqtt", "x509", "refused"): 1},
        "dps_registration_attempts_total": {("x509", "assigned"): 1, ("x509", "refused"): 1},
        "dps_device_assignments_total": {(env["IOTHUB_HOSTNAME"], "x509", "initialAssignment"): 1},
    }


def measured(env: Mapping[str, str]) -> dict[str, dict[tuple[str, ...], float]]:
    """What `/metrics` says of the provisioning service: name to values, by labels in their order."""
    with urlopen(f"{env['MOORAGE_PORTAL_URL']}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for sample in (sample for family in families for sample in family.samples):
            if sample.name.startswith("moorage_dps_"):
                labels = tuple(sample.labels[label] for label in sorted(sample.labels))
                found.setdefault(sample.name.removeprefix("moorage_"), {})[labels] = sample.value
        return found
