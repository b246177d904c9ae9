"""`docs/devices-for-testing.md`, typed in from top to bottom beside a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.documents import type_in
from tests.support.shell import Shell

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]


def test_devices_for_testing(start_server: StartServer, tmp_path: Path) -> None:
    shell = Shell(start_server("--in-memory"))

    said = type_in(shell, "devices-for-testing.md", tmp_path, patience=200)

    assert "Ping from moorage #3" in said
    assert '"status": 201' in said
    log = [json.loads(line) for line in (tmp_path / "pump-7.log").read_text().splitlines()]
    assert {"connected", "reported", "sent", "method", "desired"} <= {each["event"] for each in log}
    assert "connected     50 of 50 at the end" in said
    assert said.count("no failures") == 1
    summary = json.loads(said[said.rindex('{\n  "devices"') :])
    assert (summary["connected"], summary["failures"]) == (50, [])
    left = {each["deviceId"] for each in shell.json("hub", "device-identity", "list")}
    assert left == {"pump-7", "pump-8", "valve-1", "valve-2"}
