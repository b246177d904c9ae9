"""As a user who may not open port 443: REST moves to 8443, and the whole quickstart goes through."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import NOBODY, Namespace, moorage

pytestmark = pytest.mark.system


def test_the_quickstart_as_an_ordinary_user(namespace: Namespace) -> None:
    home = Path("/tmp") / f"moorage-home-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            namespace.command(*moorage("quickstart"), user=NOBODY),
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        shutil.rmtree(home)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "8443" in done.stdout + done.stderr
