"""The quickstart's device program, as shipped, with Microsoft's `azure-iot-device`, against a running server."""

from __future__ import annotations

import pytest

from tests.conftest import StartServer
from tests.support.certificates import CertificateFiles
from tests.support.services import Dps, Hub
from tests.support.shell import Shell

pytestmark = pytest.mark.clients


@pytest.mark.parametrize(
    "transport",
    [
        pytest.param([], id="mqtt"),
        pytest.param(["--websockets"], id="websockets", marks=pytest.mark.port443),
    ],
)
@pytest.mark.parametrize("pass_phrase_name", ["PASS_PHRASE", "X509_PASS_PHRASE"])
def test_the_shipped_example_registers_connects_and_sends(
    start_server: StartServer,
    quickstart_certificate: CertificateFiles,
    transport: list[str],
    pass_phrase_name: str,
) -> None:
    server = start_server("--in-memory")
    certificate, key = quickstart_certificate
    Dps(server.env).put_enrollment("Python-device-01", certificate)
    settings = {
        "DPS_X509_REGISTRATION_ID": "Python-device-01",
        "X509_CERT_FILE": str(certificate),
        "X509_KEY_FILE": str(key),
        pass_phrase_name: "1234",
    }

    done = Shell(server).example(*transport, **settings)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"assigned hub:    {server.env['IOTHUB_HOSTNAME']}" in done.stdout
    assert "substatus:       initialAssignment" in done.stdout
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("sent")) == sorted(
        f"sent message {number}" for number in range(1, 11)
    )
    assert Hub(server.env).get("/devices/Python-device-01")["status"] == "enabled"
