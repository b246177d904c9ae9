"""Custom allocation seen by Microsoft's `azure-iot-device`: a webhook or a Python function picks the hub."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import RegistrationResult
from azure.iot.device.exceptions import ClientError

from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles, certificate
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.devices import provisioning_client, register, service_error
from tests.support.services import Dps, Hub
from tests.support.webhook import WebhookServer

pytestmark = pytest.mark.clients

TWIN = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 30}}}
TRANSPORT_LOG = "azure.iot.device.common.mqtt_transport"


@pytest.fixture
def webhook(env: Mapping[str, str]) -> Iterator[WebhookServer]:
    made = WebhookServer()
    made.answer = {"iotHubHostName": env["IOTHUB_HOSTNAME"]}
    with made.serving():
        yield made


def enroll(dps: Dps, device_id: str, files: CertificateFiles, definition: Mapping[str, str]) -> None:
    members = {"allocationPolicy": "custom", "customAllocationDefinition": definition}
    dps.put_enrollment(device_id, files[0], **members)


def register_with(
    env: Mapping[str, str], device_id: str, files: CertificateFiles, payload: Any
) -> RegistrationResult:
    with provisioning_client(env, device_id, files) as client:
        client.provisioning_payload = payload
        return client.register()


def test_the_webhook_gets_the_device_s_payload_and_gives_it_one(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    webhook: WebhookServer,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    webhook.answer = {
        "iotHubHostName": env["IOTHUB_HOSTNAME"],
        "initialTwin": TWIN,
        "payload": {"welcome": device_id},
    }
    enroll(dps, device_id, device_certificate, webhook.definition())

    result = register_with(env, device_id, device_certificate, {"model": "toaster"})

    assert result.status == "assigned"
    assert result.registration_state is not None
    assert result.registration_state.response_payload == json.dumps({"welcome": device_id})
    assert dps.get(f"/registrations/{device_id}")["payload"] == {"welcome": device_id}
    twin = hub.get(f"/twins/{device_id}")
    assert (twin["tags"], twin["properties"]["desired"]["interval"]) == ({"site": "north"}, 30)
    assert webhook.paths == ["/api/pick?code=s3cret"]
    (asked,) = webhook.asked
    assert asked["deviceRuntimeContext"]["payload"] == {"model": "toaster"}
    assert asked["linkedHubs"] == [env["IOTHUB_HOSTNAME"]]
    shown = dps.get(f"/enrollments/{device_id}")
    assert shown["customAllocationDefinition"] == asked["individualEnrollment"]["customAllocationDefinition"]
    assert "s3cret" not in str(asked) + str(shown)

    again = register_with(env, device_id, device_certificate, "a text")

    assert again.status == "assigned"
    context = webhook.asked[1]["deviceRuntimeContext"]
    assert context["currentIotHubHostName"] == env["IOTHUB_HOSTNAME"]
    assert (context["currentDeviceId"], context["payload"]) == (device_id, "a text")


def test_an_enrollment_put_back_as_it_was_shown_keeps_its_webhook_s_key(
    env: Mapping[str, str],
    dps: Dps,
    webhook: WebhookServer,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    enroll(dps, device_id, device_certificate, webhook.definition())
    shown = dps.get(f"/enrollments/{device_id}")
    answer = dps.call("PUT", f"/enrollments/{device_id}", shown, headers={"If-Match": shown["etag"]})
    assert answer.status == 200, answer

    assert register(env, device_id, device_certificate).status == "assigned"

    assert webhook.paths == ["/api/pick?code=s3cret"]


def test_a_webhook_that_takes_three_seconds_is_polled_for(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    webhook: WebhookServer,
    device_id: str,
    device_certificate: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
) -> None:
    webhook.delay = 3.0
    enroll(dps, device_id, device_certificate, webhook.definition())
    caplog.set_level(logging.INFO, TRANSPORT_LOG)

    result = register(env, device_id, device_certificate)

    assert result.status == "assigned"
    polls = [record for record in caplog.records if "iotdps-get-operationstatus" in record.getMessage()]
    assert polls
    assert all(f"operationId={result.operation_id}" in poll.getMessage() for poll in polls)
    assert len(webhook.asked) == 1
    (decision,) = decisions(hub, device_id)
    assert decision["accepted"]
    assert decision["exchange"]["seconds"] >= 3


def test_a_webhook_that_fails_fails_the_registration_and_is_explained(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    webhook: WebhookServer,
    device_id: str,
    device_certificate: CertificateFiles,
) -> None:
    webhook.status, webhook.answer = 500, {"why": "the database is away"}
    enroll(dps, device_id, device_certificate, webhook.definition())

    with pytest.raises(ClientError) as raised:
        register(env, device_id, device_certificate)

    assert "failed" in service_error(raised.value)
    kept = dps.get(f"/registrations/{device_id}")
    assert (kept["status"], kept["errorCode"]) == ("failed", 400207)
    assert kept["errorMessage"] == "Custom allocation failed with status code: 500"
    assert hub.call("GET", f"/devices/{device_id}").status == 404
    decision = refusal(hub, device_id)
    assert failed_checks(decision) == ["custom allocation"]
    exchange = decision["exchange"]
    assert exchange["status"] == 500
    assert "the database is away" in exchange["answer"]
    assert device_id in exchange["request"]
    assert "s3cret" not in str(decision)


def test_a_webhook_over_https_is_trusted_by_its_own_ca(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    files = certificate(tmp_path, "127.0.0.1", name="webhook", addresses=["127.0.0.1"])
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(*files)
    env = enter_shell(start_server("--in-memory", "--webhook-ca", str(files[0])))
    webhook = WebhookServer(trust=trust)
    webhook.answer = {"iotHubHostName": env["IOTHUB_HOSTNAME"]}
    with webhook.serving():
        enroll(Dps(env), device_id, device_certificate, webhook.definition())
        assert register(env, device_id, device_certificate).status == "assigned"
    assert len(webhook.asked) == 1


FUNCTION = """
def allocate(request):
    device = request["deviceRuntimeContext"]
    return {
        "iotHubHostName": request["linkedHubs"][0],
        "initialTwin": {"tags": {"model": device["payload"]["model"]}},
        "payload": {"hello": device["registrationId"]},
    }
"""


def test_a_python_function_of_the_operator_s_picks_the_hub(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    file = tmp_path / "pick.py"
    file.write_text(FUNCTION)
    env = enter_shell(start_server("--in-memory", "--allocation-function", f"by_model={file}"))
    dps, hub = Dps(env), Hub(env)
    enroll(dps, device_id, device_certificate, {"webhookUrl": "python:by_model", "apiVersion": "2021-10-01"})

    result = register_with(env, device_id, device_certificate, {"model": "toaster"})

    assert result.registration_state is not None
    assert result.registration_state.response_payload == json.dumps({"hello": device_id})
    assert hub.get(f"/twins/{device_id}")["tags"] == {"model": "toaster"}

    with pytest.raises(ClientError):
        register_with(env, device_id, device_certificate, {})

    assert "KeyError: 'model'" in refusal(hub, device_id)["exchange"]["detail"]
    assert "KeyError" not in str(dps.get(f"/registrations/{device_id}"))
    other = {"webhookUrl": "python:other", "apiVersion": "2021-10-01"}
    document = dps.get(f"/enrollments/{device_id}") | {"customAllocationDefinition": other}
    answer = dps.call("PUT", f"/enrollments/{device_id}", document, headers={"If-Match": "*"})
    assert answer.status == 400
    assert "by_model" in answer.body["message"]
