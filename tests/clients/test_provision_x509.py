"""The quickstart's device program, as shipped, with Microsoft's `azure-iot-device`, against a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.certificates import openssl_certificate
from tests.support.services import Dps, Hub

pytestmark = pytest.mark.clients

EXAMPLE = Path(__file__).parents[2] / "examples" / "provision_x509.py"


@pytest.mark.parametrize("transport", [[], ["--websockets"]], ids=["mqtt", "websockets"])
@pytest.mark.parametrize("pass_phrase_name", ["PASS_PHRASE", "X509_PASS_PHRASE"])
def test_the_shipped_example_registers_connects_and_sends(
    start_server: StartServer, tmp_path: Path, transport: list[str], pass_phrase_name: str
) -> None:
    server = start_server()
    if transport and server.https_port != 443:
        pytest.fail("WebSocket clients cannot change their port: this test needs the right to bind 443")
    certificate, key = openssl_certificate(tmp_path, "Python-device-01", pass_phrase="1234")
    Dps(server.env).put_enrollment("Python-device-01", certificate)
    environment = os.environ | server.env | {
        "DPS_X509_REGISTRATION_ID": "Python-device-01",
        "X509_CERT_FILE": str(certificate),
        "X509_KEY_FILE": str(key),
        pass_phrase_name: "1234",
    }

    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *transport], env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"assigned hub:    {server.env['IOTHUB_HOSTNAME']}" in done.stdout
    assert "substatus:       initialAssignment" in done.stdout
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("sent")) == sorted(
        f"sent message {number}" for number in range(1, 11)
    )
    assert Hub(server.env).get("/devices/Python-device-01")["status"] == "enabled"
