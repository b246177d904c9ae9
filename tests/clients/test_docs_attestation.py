"""The pages on attestation by certificate and by key, each typed in from top to bottom beside a running server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.documents import type_in
from tests.support.shell import Shell

pytestmark = pytest.mark.clients


def test_many_devices_by_their_ca(start_server: StartServer, tmp_path: Path) -> None:
    shell = Shell(start_server("--in-memory"))

    said = type_in(shell, "attestation/x509-group.md", tmp_path)

    assert said.count("sent message 10\n") == 4
    assert "considered  enrollment group line-4, by its signing certificate CN=line-4" in said
    assert "REFUSED" in said
    assert "FAILED  enrollment enabled: the individual enrollment 'valve-1' is disabled" in said
    assert "FAILED  enrollment enabled: the enrollment group 'line-4' is disabled" in said
    (held,) = shell.json("dps", "certificate", "list")["value"]
    assert (held["name"], held["properties"]["isVerified"]) == ("plant-root", True)


def test_one_device_by_its_own_certificate(start_server: StartServer, tmp_path: Path) -> None:
    shell = Shell(start_server("--in-memory"))

    said = type_in(shell, "attestation/x509-individual.md", tmp_path)

    assert said.count("sent message 10\n") == 3
    assert "FAILED  certificate enrolled" in said
    shown = shell.json("dps", "enrollment", "show", "--enrollment-id", "pump-2")
    assert shown["attestation"]["x509"]["caReferences"] == {"primary": "pump-root", "secondary": None}
    assert shown["registrationState"]["status"] == "assigned"


def test_devices_by_symmetric_key(start_server: StartServer, tmp_path: Path) -> None:
    shell = Shell(start_server("--in-memory"))

    said = type_in(shell, "attestation/symmetric-key.md", tmp_path)

    assert said.count("sent message 10\n") == 2
    assert "FAILED  enrollment enabled: the individual enrollment 'valve-3' is disabled" in said
    assert [each["deviceId"] for each in shell.json("hub", "device-identity", "list")] == [
        "valve-1",
        "valve-2",
    ]
