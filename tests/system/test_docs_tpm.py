"""`docs/attestation/tpm.md`, typed in from top to bottom in one shell."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.documents import bash_blocks
from tests.support.shell import EXAMPLE, Shell, run

pytestmark = pytest.mark.system


def test_the_page_works_as_it_stands(
    start_server: StartServer, default_address: None, tmp_path: Path
) -> None:
    """On the address that the page names, for its TPM."""
    shell = Shell(start_server("--in-memory"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = shell.env | {"PATH": path, "MOORAGE": str(EXAMPLE.parents[1])}
    blocks = bash_blocks("attestation/tpm.md")
    script = "\n".join(["trap 'test -f swtpm.pid && kill $(cat swtpm.pid)' ERR", *blocks])

    done = run("bash", "-Eeuc", script, env=env, cwd=tmp_path)

    assert len(blocks) >= 6
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sent message 3" in done.stdout
    assert "endorsementKey 000b" in done.stdout  # what `explain` tells of the key
    assert (
        shell.json("hub", "device-identity", "show", "--device-id", "press-1")["authentication"]["type"]
        == "sas"
    )
