"""`renew-key` of all devices of a hub that has more than a list of devices shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from moorage.cli.hub import renew_key
from moorage.cli.rest import Service

IDS = [f"d{number:04}" for number in range(1250)]


class ManyDevices(Service):
    """A hub whose queries are answered page by page."""

    def __init__(self) -> None:
        self.renewed: list[str] = []

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> tuple[Any, dict[str, str]]:
        if path == "/devices/query":
            assert body == {"query": "SELECT deviceId FROM devices WHERE authenticationType = 'sas'"}
            start = int(how["headers"].get("x-ms-continuation", "0"))
            end = start + int(how["headers"]["x-ms-max-item-count"])
            more = {"x-ms-continuation": str(end)} if end < len(IDS) else {}
            return [{"deviceId": each} for each in IDS[start:end]], more
        assert path == "/devices/keys/regenerate"
        self.renewed += [each["id"] for each in body["devices"]]
        rotated = [{"id": each["id"], "moduleId": None, "primaryKey": "new"} for each in body["devices"]]
        return {"policyKey": body["policyKey"], "errors": [], "rotatedKeys": rotated}, {}


def test_all_means_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = ManyDevices()
    monkeypatch.setattr(renew_key, "hub_service", lambda login, data: hub)
    asked = ["-d", "*", "--kt", "primary", "--output", "json"]
    answered = CliRunner().invoke(renew_key.renew_device_key, asked, catch_exceptions=False)
    assert answered.exit_code == 0
    assert hub.renewed == IDS
    assert [each["id"] for each in json.loads(answered.output)["rotatedKeys"]] == IDS
