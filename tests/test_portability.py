"""Moorage without what only POSIX has: as far as that can be seen on a POSIX machine, it runs on Windows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_address, own_environment
from tests.support.waiting import eventually

PROGRAM = Path(__file__).parent / "support" / "without_posix.py"
START_WITHIN = 30.0  # seconds
STOP_WITHIN = 20.0


@pytest.fixture
def windows(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose folders are the test's."""
    return own_environment(tmp_path) | {"LOCALAPPDATA": str(tmp_path)}


def test_every_module_can_be_imported(windows: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "import"], env=windows, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 50


@pytest.mark.parametrize("keeps", [True, False], ids=["in a folder", "in memory"])
def test_a_server_runs_and_ends_at_ctrl_c(windows: dict[str, str], tmp_path: Path, keeps: bool) -> None:
    address, output = free_address(), tmp_path / "output"
    place = ["--data", str(tmp_path / "data")] if keeps else ["--in-memory"]
    options = ["--bind", address, "--hub-host", address, "--portal-port", "0", "--ca", str(tmp_path / "ca")]
    with output.open("wb") as written:
        server = subprocess.Popen(
            [sys.executable, PROGRAM, "up", *place, *options],
            env=windows,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        eventually(
            lambda: server.poll() is not None or "is ready" in output.read_text("utf-8"),
            what="the server is ready",
            within=START_WITHIN,
        )
        assert server.poll() is None, output.read_text("utf-8")

        os.kill(server.pid, signal.SIGINT)

        assert server.wait(STOP_WITHIN) == 0, output.read_text("utf-8")
        assert "Traceback" not in output.read_text("utf-8")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
