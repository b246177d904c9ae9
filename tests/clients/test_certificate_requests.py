"""A device asks for a certificate as it registers, and Microsoft's `azure-iot-device` connects with what it got."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import X509, IoTHubDeviceClient

from moorage.credentials.x509 import Certificate
from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer, StartServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import failed_checks, refusal
from tests.support.devices import closing
from tests.support.mqtt import plain_client
from tests.support.services import Dps, Hub
from tests.support.shell import Shell

pytestmark = pytest.mark.clients

VERSION = "2025-07-01-preview"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId="


@pytest.fixture
def policy(server: RunningServer, request: pytest.FixtureRequest) -> str:
    """A credential policy, made by the command line and named after the test."""
    name = f"{request.node.originalname}"[:64]
    shell = Shell(server)
    if shell.attempt("dps", "credential-policy", "show", "-n", name).returncode != 0:
        shell.json("dps", "credential-policy", "create", "-n", name, "--days", "2")
    return name


def registering(
    env: Mapping[str, str], registration_id: str, certificate: CertificateFiles, version: str = VERSION
) -> Any:
    user_name = f"{env['PROVISIONING_IDSCOPE']}/registrations/{registration_id}/api-version={version}"
    return plain_client(env, registration_id, user_name, certificate=certificate)


def register(
    env: Mapping[str, str], registration_id: str, certificate: CertificateFiles, **members: Any
) -> tuple[str, dict[str, Any]]:
    """The operation, and what a poll tells of it."""
    with registering(env, registration_id, certificate) as device:
        assert device.connect() == 0
        device.subscribe("$dps/registrations/res/#", 1)
        body = json.dumps({"registrationId": registration_id, **members}).encode()
        topic, payload = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=1", body)
        assert topic.startswith("$dps/registrations/res/202/"), payload
        operation = json.loads(payload)["operationId"]
        _, payload = device.ask(POLL + operation, b" ")
    outcome: dict[str, Any] = json.loads(payload)
    return operation, outcome


def chain_of(outcome: dict[str, Any]) -> list[Certificate]:
    told = outcome["registrationState"]["issuedCertificateChain"]
    return [Certificate(base64.b64decode(each, validate=True)) for each in told]


def asked(shell: Shell, folder: Path, registration_id: str, name: str) -> tuple[str, Path]:
    """A signing request as a device sends it, and its key."""
    files = shell.json("cert", "request", "--subject", registration_id, "--out", str(folder), "--name", name)[
        "files"
    ]
    return Path(files["registrationText"]).read_text(), Path(files["key"])


def connect_and_send(
    env: Mapping[str, str], device_id: str, chain: list[Certificate], key: Path, folder: Path
) -> None:
    file = folder / f"{chain[0].sha256[:8]}.pem"
    file.write_text("".join(each.to_pem() for each in chain))
    client = IoTHubDeviceClient.create_from_x509_certificate(
        X509(str(file), str(key)), env["IOTHUB_HOSTNAME"], device_id
    )
    with closing(client):
        client.connect()
        client.send_message("hello")


def test_the_sdk_connects_with_the_issued_certificate_and_with_the_renewed_one(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    policy: str,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    shell = Shell(server)
    dps.put_enrollment(device_id, device_certificate[0], credentialPolicyName=policy)
    for name in ("first", "renewed"):
        csr, key = asked(shell, tmp_path, device_id, name)
        chain = chain_of(register(env, device_id, device_certificate, csr=csr)[1])
        assert chain[0].common_name == device_id
        connect_and_send(env, device_id, chain, key, tmp_path)
    assert hub.get(f"/devices/{device_id}")["authentication"]["type"] == "certificateAuthority"


def test_the_same_operation_has_the_same_chain_after_a_crash(
    start_server: StartServer,
    enter_shell: EnterShell,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    server = start_server()
    env = enter_shell(server)
    Shell(server).json("dps", "credential-policy", "create", "-n", "short")
    Dps(env).put_enrollment(device_id, device_certificate[0], credentialPolicyName="short")
    csr, key = asked(Shell(server), tmp_path, device_id, "first")
    operation, outcome = register(env, device_id, device_certificate, csr=csr)
    server.kill()

    again = start_server(data=server.data, address=server.address)
    env = enter_shell(again)

    with registering(env, device_id, device_certificate) as device:
        assert device.connect() == 0
        device.subscribe("$dps/registrations/res/#", 1)
        _, payload = device.ask(POLL + operation, b" ")
    assert json.loads(payload) == outcome
    connect_and_send(env, device_id, chain_of(outcome), key, tmp_path)


def test_a_request_in_another_name_is_told_400_and_why(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    policy: str,
    device_id: str,
    device_certificate: CertificateFiles,
    tmp_path: Path,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0], credentialPolicyName=policy)
    csr, _ = asked(Shell(server), tmp_path, "somebody-else", "first")
    with registering(env, device_id, device_certificate) as device:
        assert device.connect() == 0
        device.subscribe("$dps/registrations/res/#", 1)
        body = json.dumps({"registrationId": device_id, "csr": csr}).encode()
        topic, payload = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=1", body)
    assert topic == "$dps/registrations/res/400/?$rid=1"
    assert "its common name is 'somebody-else'" in json.loads(payload)["message"]
    assert failed_checks(refusal(hub, device_id)) == ["csr"]


def test_credential_policies_by_the_command_line(server: RunningServer, policy: str) -> None:
    shell = Shell(server)
    changed = shell.json(
        *(
            "dps",
            "credential-policy",
            "update",
            "-n",
            policy,
            "--usage",
            "clientAuth",
            "--usage",
            "serverAuth",
        )
    )
    assert (changed["validityPeriodInDays"], changed["extendedKeyUsages"]) == (
        2,
        ["clientAuth", "serverAuth"],
    )
    assert policy in [each["name"] for each in shell.json("dps", "credential-policy", "list")]
    assert "90" in shell.refused("dps", "credential-policy", "update", "-n", policy, "--days", "91")
    shell.moorage("dps", "credential-policy", "delete", "-n", policy)
    assert "no credential policy" in shell.refused("dps", "credential-policy", "show", "-n", policy)


def test_an_enrollment_is_given_its_policy_by_the_command_line(
    server: RunningServer, policy: str, device_id: str
) -> None:
    shell = Shell(server)
    create = ("dps", "enrollment", "create", "--eid", device_id, "--at", "symmetricKey")
    made = shell.json(*create, "--credential-policy-name", policy)
    assert made["credentialPolicyName"] == policy
    cleared = shell.json("dps", "enrollment", "update", "--eid", device_id, "--credential-policy-name", "")
    assert "credentialPolicyName" not in cleared
