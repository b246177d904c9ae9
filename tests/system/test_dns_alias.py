"""A device that cannot be changed: `global.azure-devices-provisioning.net` and nothing but a DNS alias."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.certificates import openssl_certificate
from tests.system.conftest import Namespace, moorage, wait_ready

pytestmark = pytest.mark.system

EXAMPLE = Path(__file__).parents[2] / "examples" / "provision_x509.py"


@pytest.mark.parametrize("transport", [[], ["--websockets"]], ids=["mqtt", "websockets"])
def test_a_device_registers_at_the_global_host(
    namespace: Namespace, tmp_path: Path, transport: list[str]
) -> None:
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    data = tmp_path / "data"
    certificate, key = openssl_certificate(tmp_path, "Python-device-01", pass_phrase="1234")
    server = subprocess.Popen(namespace.command(*moorage("up", "--data", str(data))), env=environment)
    try:
        wait_ready(server, namespace.command(*moorage("wait", "--data", str(data))), environment)
        shown = subprocess.run(
            moorage("env", "--data", str(data), "--format", "json"),
            env=environment,
            check=True,
            capture_output=True,
        )
        environment |= json.loads(shown.stdout)
        subprocess.run(
            namespace.command(
                *moorage("dps", "enrollment", "create", "--attestation-type", "x509"),
                *("--certificate-path", str(certificate)),
            ),
            env=environment,
            check=True,
            capture_output=True,
        )
        environment |= {
            "PROVISIONING_HOST": "global.azure-devices-provisioning.net",
            "DPS_X509_REGISTRATION_ID": "Python-device-01",
            "X509_CERT_FILE": str(certificate),
            "X509_KEY_FILE": str(key),
            "PASS_PHRASE": "1234",
        }

        done = subprocess.run(
            namespace.command(sys.executable, str(EXAMPLE), *transport),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "sent message 10" in done.stdout
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
