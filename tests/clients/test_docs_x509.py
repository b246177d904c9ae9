"""The pages on X.509 attestation, each typed in from top to bottom in one shell beside a running server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.documents import bash_blocks
from tests.support.shell import Shell, run

pytestmark = pytest.mark.clients

EXAMPLES = Path(__file__).parents[2] / "examples"


def type_in(shell: Shell, page: str, folder: Path) -> str:
    """What the page's commands print; every one has to succeed."""
    (folder / "examples").symlink_to(EXAMPLES)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        "\n".join(bash_blocks(page)),
        env=shell.env | {"PATH": path},
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
