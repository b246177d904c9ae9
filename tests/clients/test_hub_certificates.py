"""Devices and modules by CA: the hub is given a CA's certificate once, and lets in whoever has one below it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from azure.iot.device import IoTHubModuleClient
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from moorage.credentials.issuing import moment
from moorage.credentials.workshop.credential import (
    Credential,
    Wish,
    make_device,
    make_intermediate,
    make_root,
)
from moorage.credentials.workshop.subject import read_subject
from tests.conftest import RunningServer
from tests.support.certificates import CertificateFiles
from tests.support.decisions import failed_checks, refusal
from tests.support.devices import x509, x509_device_client
from tests.support.events import Telemetry, payload
from tests.support.services import Hub
from tests.support.shell import Shell

pytestmark = pytest.mark.clients


def wish(name: str) -> Wish:
    return Wish(read_subject(name), moment(time.time_ns() // 1000), 30)


def written(folder: Path, name: str, credential: Credential, *, links: int) -> CertificateFiles:
    """So many certificates of the chain, leaf first, and the key."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in credential.chain[:links]))
    key.write_bytes(credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, key


def test_a_device_and_its_module_connect_by_certificates_of_a_verified_ca(
    server: RunningServer,
    hub: Hub,
    env: Mapping[str, str],
    telemetry: Telemetry,
    device_id: str,
    tmp_path: Path,
) -> None:
    shell = Shell(server)
    registry = IoTHubRegistryManager.from_connection_string(env["IOTHUB_CONNECTION_STRING"])
    registry.create_device_with_certificate_authority(device_id, "enabled")
    registry.create_module_with_certificate_authority(device_id, "camera", "")
    root = make_root(wish(f"root of {device_id}"))
    intermediate = make_intermediate(wish("line 1"), root)
    device = written(tmp_path, "device", make_device(wish(device_id), intermediate), links=2)
    module = written(tmp_path, "module", make_device(wish(f"{device_id}/camera"), intermediate), links=2)
    ca, _ = written(tmp_path, "ca", root, links=1)

    shell.json("hub", "certificate", "create", "-n", device_id, "-p", str(ca))
    with x509_device_client(env, device_id, device) as client, pytest.raises(CredentialError):
        client.connect()
    refused = refusal(hub, device_id)
    assert failed_checks(refused) == ["CA certificate verified"]
    coded = shell.json("hub", "certificate", "generate-verification-code", "-n", device_id)
    proof = make_device(wish(coded["properties"]["verificationCode"]), root)
    proof_file, _ = written(tmp_path, "proof", proof, links=1)
    shell.json("hub", "certificate", "verify", "-n", device_id, "-p", str(proof_file))

    with x509_device_client(env, device_id, device) as client:
        client.connect()
        client.send_message("of the device")
    camera = IoTHubModuleClient.create_from_x509_certificate(
        x509=x509(module), hostname=env["IOTHUB_HOSTNAME"], device_id=device_id, module_id="camera"
    )
    try:
        camera.connect()
        camera.send_message("of the module")
    finally:
        camera.shutdown()
    assert [payload(event) for event in telemetry.of(device_id, 2)] == [b"of the device", b"of the module"]

    shell.moorage("hub", "certificate", "delete", "-n", device_id)
    with x509_device_client(env, device_id, device) as client, pytest.raises(CredentialError):
        client.connect()
    assert failed_checks(refusal(hub, device_id)) == ["issuer trusted"]
