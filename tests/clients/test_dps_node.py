"""Registration by Microsoft's `azure-iot-provisioning-device` for Node, over each of its five transports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from moorage.credentials.sas import derive_key, new_key
from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles, certificate
from tests.support.decisions import decisions, failed_checks, refusal
from tests.support.node import register
from tests.support.services import Dps, Hub

pytestmark = [pytest.mark.clients, pytest.mark.node]

# How the door is called that each comes by. Those over WebSockets and HTTPS know no other port than 443.
TRANSPORTS = [
    pytest.param("Mqtt", "mqtt", id="mqtt"),
    pytest.param("MqttWs", "mqtt-ws", id="mqtt-ws", marks=pytest.mark.port443),
    pytest.param("Amqp", "amqp", id="amqp"),
    pytest.param("AmqpWs", "amqp-ws", id="amqp-ws", marks=pytest.mark.port443),
    pytest.param("Http", "https", id="https", marks=pytest.mark.port443),
]
over_each_transport = pytest.mark.parametrize(("transport", "door"), TRANSPORTS)


@over_each_transport
def test_a_device_registers_by_its_certificate(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    transport: str,
    door: str,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    done = register(env, transport, device_id, certificate=device_certificate, payload={"model": "pump"})

    state = done.state
    assert (state["status"], state["assignedHub"]) == ("assigned", env["IOTHUB_HOSTNAME"])
    assert (state["deviceId"], state["substatus"]) == (device_id, "initialAssignment")
    assert state["etag"] == dps.get(f"/registrations/{device_id}")["etag"]
    assert hub.get(f"/devices/{device_id}")["authentication"]["type"] == "selfSigned"
    assert [decision["door"] for decision in decisions(hub, device_id)] == [door]


@over_each_transport
def test_a_device_registers_by_its_key(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, transport: str, door: str
) -> None:
    keys = dps.put_key_enrollment(device_id)

    for key in keys:
        state = register(env, transport, device_id, symmetric_key=key).state
        assert (state["status"], state["deviceId"]) == ("assigned", device_id)

    assert hub.get(f"/devices/{device_id}")["authentication"]["symmetricKey"]["primaryKey"] == keys[0]
    assert {decision["door"] for decision in decisions(hub, device_id)} == {door}


@over_each_transport
def test_a_device_registers_by_a_key_derived_from_its_group_s(
    env: Mapping[str, str], dps: Dps, device_id: str, transport: str, door: str
) -> None:
    group, name = dps.put_key_group(f"group-{device_id}"), f"Line4-{device_id}"

    state = register(env, transport, name, symmetric_key=derive_key(group[0], name)).state

    assert (state["status"], state["deviceId"]) == ("assigned", name)
    assert state["symmetricKey"] == {"enrollmentGroupId": f"group-{device_id}"}


# Over AMQP the client hands on what it was told, as it was told.
UNAUTHORIZED = {"Amqp": "amqp:unauthorized-access", "AmqpWs": "amqp:unauthorized-access"}


@over_each_transport
def test_a_certificate_that_is_not_the_enrolled_one(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    transport: str,
    door: str,
    tmp_path: Path,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])

    done = register(env, transport, device_id, certificate=certificate(tmp_path, device_id, name="impostor"))

    assert done.refusal == UNAUTHORIZED.get(transport, "UnauthorizedError")
    decision = refusal(hub, device_id)
    assert (decision["operation"], decision["door"]) == ("register", door)
    assert failed_checks(decision) == ["certificate enrolled"]
    assert hub.call("GET", f"/devices/{device_id}").status == 404


@over_each_transport
def test_a_key_that_is_not_the_enrolled_one(
    env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, transport: str, door: str
) -> None:
    dps.put_key_enrollment(device_id)

    done = register(env, transport, device_id, symmetric_key=new_key())

    assert done.refusal == UNAUTHORIZED.get(transport, "UnauthorizedError")
    decision = refusal(hub, device_id)
    assert (decision["door"], failed_checks(decision)) == (door, ["signature"])
    assert hub.call("GET", f"/devices/{device_id}").status == 404


@over_each_transport
def test_a_disabled_enrollment_ends_in_the_client_s_own_error(
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    transport: str,
    door: str,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], provisioningStatus="disabled")

    done = register(env, transport, device_id, certificate=device_certificate)

    assert done.refusal == "SyntaxError"
    assert done.error is not None
    assert done.error["message"] == "status is disabled"
    assert failed_checks(refusal(hub, device_id)) == ["enrollment enabled"]


@over_each_transport
def test_at_the_pace_of_azure_the_device_waits_as_long_as_it_is_told(
    azure_env: Mapping[str, str],
    device_id: str,
    device_certificate: CertificateFiles,
    transport: str,
    door: str,
) -> None:
    Dps(azure_env).put_enrollment(device_id, device_certificate[0])

    done = register(azure_env, transport, device_id, certificate=device_certificate)

    assert done.state["status"] == "assigned"
    asked, polled = done.steps
    assert asked == {"verb": "registrationRequest", "status": "assigning", "wait": 3000}
    assert (polled["verb"], polled["status"]) == ("queryOperationStatus", "assigned")


@pytest.fixture
def azure_env(start_server: StartServer, enter_shell: EnterShell) -> Mapping[str, str]:
    return enter_shell(start_server("--in-memory", "--registration-pace", "azure"))
