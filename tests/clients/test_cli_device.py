"""`moorage device registration create`: a device without an SDK, by every protocol."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from typing import Any

import pytest

from moorage.cli.device.registering import PROTOCOLS, TPM_PROTOCOLS, Device, NotRegistered, register
from moorage.credentials.sas import derive_key, new_key
from moorage.errors import Invalid
from tests.conftest import RunningServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import decisions
from tests.support.services import Dps, Hub
from tests.support.shell import Shell
from tests.support.software_tpm import SoftwareTpm

pytestmark = [pytest.mark.clients, pytest.mark.port443]

CREATE = ("device", "registration", "create")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_by_certificate(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    device_certificate: CertificateFiles,
    protocol: str,
) -> None:
    dps.put_enrollment(device_id, device_certificate[0])
    files = ["--certificate-file-path", device_certificate[0], "--key-file-path", device_certificate[1]]
    told = Shell(server).json(*CREATE, *map(str, files), "--protocol", protocol)
    assert told["status"] == "assigned"
    state = told["registrationState"]
    assert (state["deviceId"], state["assignedHub"]) == (device_id, env["IOTHUB_HOSTNAME"])
    assert decisions(hub, device_id)[-1]["door"] == protocol


@pytest.mark.parametrize(("protocol", "proof"), list(zip(PROTOCOLS, [0, 1, 2, 0, 1], strict=True)))
def test_by_key(server: RunningServer, dps: Dps, hub: Hub, device_id: str, protocol: str, proof: int) -> None:
    shell, group, key = Shell(server), f"group-of-{device_id}", new_key()
    shell.moorage("dps", "enrollment-group", "create", "--enrollment-id", group, "--primary-key", key)
    named = ["--registration-id", device_id, "--protocol", protocol, "--payload", '{"model": "toaster"}']
    given = (
        ["--enrollment-group-id", group],
        ["--symmetric-key", key, "--compute-key"],
        ["--symmetric-key", derive_key(key, device_id)],
    )[proof]
    assert shell.json(*CREATE, *named, *given)["status"] == "assigned"
    assert decisions(hub, device_id)[-1]["door"] == protocol


def register_by(
    tpm: SoftwareTpm, env: Mapping[str, str], dps: Dps, device_id: str, protocol: str
) -> dict[str, Any]:
    """As the command does it with a TPM that tpm2-tools reach; that one is in tests/system."""
    attestation = {"type": "tpm", "tpm": {"endorsementKey": SoftwareTpm().keys["endorsementKey"]}}
    document = {"registrationId": device_id, "attestation": attestation}
    assert dps.call("PUT", f"/enrollments/{device_id}", document).status == 200
    device = Device(
        host=env["PROVISIONING_HOST"],
        id_scope=env["PROVISIONING_IDSCOPE"],
        registration_id=device_id,
        api_version="2021-06-01",
        trust=ssl.create_default_context(cafile=env["SSL_CERT_FILE"]),
        tpm=tpm,
    )
    return register(device, protocol, json.dumps({"registrationId": device_id, "tpm": tpm.keys}).encode())


@pytest.mark.parametrize("protocol", TPM_PROTOCOLS)
def test_by_tpm(env: Mapping[str, str], dps: Dps, hub: Hub, device_id: str, protocol: str) -> None:
    tpm = SoftwareTpm()
    told = register_by(tpm, env, dps, device_id, protocol)
    assert told["status"] == "assigned"
    tpm.activate(base64.b64decode(told["registrationState"]["tpm"]["authenticationKey"]))
    known = hub.get(f"/devices/{device_id}")["authentication"]["symmetricKey"]["primaryKey"]
    assert tpm.key == base64.b64decode(known)
    assert [decision["door"] for decision in decisions(hub, device_id)] == [protocol]


@pytest.mark.parametrize("protocol", TPM_PROTOCOLS)
def test_by_another_tpm(env: Mapping[str, str], dps: Dps, device_id: str, protocol: str) -> None:
    with pytest.raises(NotRegistered, match="the endorsement key presented"):
        register_by(SoftwareTpm(1), env, dps, device_id, protocol)


def test_by_a_tpm_whose_keys_do_not_fit_into_sasl(env: Mapping[str, str], dps: Dps, device_id: str) -> None:
    with pytest.raises(Invalid, match="use https"):
        register_by(SoftwareTpm(2, bits=4096), env, dps, device_id, "amqp")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tpm", "--protocol", "mqtt"], "mqtt has no place for a TPM's challenge"),
        (["--tpm", "--protocol", "mqtt-ws"], "use amqp, amqp-ws, https"),
        (["--tpm", "--symmetric-key", "a2V5"], "leave out --tpm or --symmetric-key"),
        (["--tpm", "--enrollment-group-id", "line-7"], "leave out --tpm or --enrollment-group-id"),
        (["--tcti", "device:/dev/tpm0"], "give --tpm too"),
    ],
)
def test_what_does_not_go_with_a_tpm(server: RunningServer, given: list[str], said: str) -> None:
    assert said in Shell(server).refused(*CREATE, "--registration-id", "press-1", *given)


@pytest.mark.parametrize("protocol", ["amqp", "amqp-ws"])
def test_a_wrong_key_over_amqp(server: RunningServer, device_id: str, protocol: str) -> None:
    shell = Shell(server)
    shell.moorage(
        "dps", "enrollment", "create", "--attestation-type", "symmetricKey", "--enrollment-id", device_id
    )
    given = ("--registration-id", device_id, "--symmetric-key", new_key(), "--protocol", protocol)
    assert "signature" in shell.refused(*CREATE, *given)


def test_the_key_of_a_group_itself_is_refused(server: RunningServer, hub: Hub, device_id: str) -> None:
    shell, key = Shell(server), new_key()
    shell.moorage(
        "dps", "enrollment-group", "create", "--enrollment-id", f"of-{device_id}", "--primary-key", key
    )
    said = shell.refused(
        *CREATE, "--registration-id", device_id, "--symmetric-key", key, "--protocol", "https"
    )
    assert "status 401" in said
    assert "derived key" in said


def test_a_device_that_is_disabled_and_one_that_is_nobody(server: RunningServer, device_id: str) -> None:
    shell, named = Shell(server), ["--registration-id", device_id]
    shell.moorage(
        *("dps", "enrollment", "create", "--attestation-type", "symmetricKey", "--enrollment-id", device_id),
        *("--provisioning-status", "disabled"),
    )
    assert shell.json(*CREATE, *named)["status"] == "disabled"
    shell.moorage("dps", "enrollment", "delete", "--enrollment-id", device_id)
    assert "404" in shell.refused(*CREATE, *named)
    assert "401" in shell.refused(*CREATE, *named, "--symmetric-key", new_key())
