"""When a device connected, went away and was heard of, as back ends read it, over restarts and `kill -9`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import EnterShell
from tests.conftest import StartServer
from tests.support.devices import device_client, sas_device
from tests.support.services import Hub
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

NEVER = "0001-01-01T00:00:00Z"
MODEL = "dtmi:com:example:Thermostat;1"


def seen(hub: Hub) -> dict[str, Any]:
    device = hub.get("/devices/d1")
    model = hub.get("/twins/d1")["modelId"]
    members = ("connectionState", "connectionStateUpdatedTime", "lastActivityTime")
    return {**{member: device[member] for member in members}, "modelId": model}


def kept_as_connected(data: Path) -> bool:
    """Whether the records say so by now, which the server writes every few seconds."""
    with closing(sqlite3.connect(f"file:{data / 'records.sqlite3'}?mode=ro", uri=True)) as records:
        return any(
            json.loads(document)["connected"]
            for (document,) in records.execute("SELECT document FROM presence")
        )


def test_connection_times_survive_a_restart_and_a_crash(
    start_server: StartServer, enter_shell: EnterShell
) -> None:
    server = start_server()
    enter_shell(server)
    hub = Hub(server.env)
    device = sas_device(hub, "d1")
    assert seen(hub) == {
        "connectionState": "Disconnected",
        "connectionStateUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
        "modelId": "",
    }
    with device_client(device, product_info=MODEL) as client:
        client.connect()
        assert seen(hub)["connectionState"] == "Connected"
        client.send_message("alive")
    eventually(lambda: seen(hub)["connectionState"] == "Disconnected", what="it is away")
    away = seen(hub)
    assert NEVER < away["lastActivityTime"] <= away["connectionStateUpdatedTime"]
    server.stop()

    server = start_server(data=server.data, address=server.address)
    hub = Hub(server.env)
    assert seen(hub) == away
    assert away["modelId"] == MODEL
    with device_client(device) as client:
        client.connect()
        connected = seen(hub)
        assert connected["connectionState"] == "Connected"
        data = server.data
        assert data is not None
        eventually(lambda: kept_as_connected(data), what="that it is connected is on disk")
        server.kill()

    server = start_server(data=server.data, address=server.address)
    after = seen(Hub(server.env))
    assert after["connectionState"] == "Disconnected"
    assert after["connectionStateUpdatedTime"] >= connected["connectionStateUpdatedTime"]
    assert after["lastActivityTime"] >= connected["connectionStateUpdatedTime"]
