"""`docs/certificates.md`, typed in from top to bottom in one shell."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.documents import bash_blocks
from tests.support.shell import Shell, run

pytestmark = pytest.mark.clients


def test_the_page_works_as_it_stands(start_server: StartServer, tmp_path: Path) -> None:
    shell = Shell(start_server("--in-memory"))
    blocks = bash_blocks("certificates.md")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = run("bash", "-euc", "\n".join(blocks), env=shell.env | {"PATH": path}, cwd=tmp_path)

    assert len(blocks) >= 4
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "pump-9-expired.root.pem").exists()
    assert "pump-7" in shell.moorage("dps", "enrollment", "list")
