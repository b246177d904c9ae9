"""What `moorage cert` makes, in the hands of Microsoft's `azure-iot-device`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from azure.iot.device import X509, ProvisioningDeviceClient

from tests.conftest import RunningServer
from tests.support.devices import shut_down
from tests.support.services import Dps, Hub
from tests.support.shell import Shell

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
@pytest.mark.parametrize("issued", [True, False], ids=["issued by a CA", "self-signed"])
def test_a_device_registers_with_its_full_chain_and_a_closed_key(
    server: RunningServer,
    env: Mapping[str, str],
    dps: Dps,
    hub: Hub,
    device_id: str,
    tmp_path: Path,
    key_type: str,
    issued: bool,
) -> None:
    shell = Shell(server)
    options = ["--out", str(tmp_path), "--key-type", key_type]
    above: list[str] = []
    if issued:
        shell.json("cert", "root", "--subject", "plant-ca", *options)
        above = ["--issuer", str(tmp_path / "plant-ca.pem")]
    made = shell.json("cert", "device", "--subject", device_id, *above, *options, "--pass-phrase", "1234")
    dps.put_enrollment(device_id, Path(made["files"]["certificate"]))
    identity = X509(made["files"]["fullChain"], made["files"]["key"], "1234")
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        env["PROVISIONING_HOST"], device_id, env["PROVISIONING_IDSCOPE"], identity
    )

    with shut_down(client):
        assert client.register().status == "assigned"

    authentication = hub.get(f"/devices/{device_id}")["authentication"]
    assert authentication["x509Thumbprint"]["primaryThumbprint"] == made["sha256Thumbprint"]
